"""Feldkamp, Davis and Kress's reconstruction from cone-beam views on a full circle: close to the volume, in one pass.

    x(r) = ½ Σ_θ Δθ U⁻² (h ∗ y_θ cos κ)(a, b),    U = 1 + r·c_θ/R,  a = r·u_θ/U,  b = z/U

with the detector scaled to the axis of rotation, κ a ray's angle from the central one (cos κ = R/√(R² + a² + b²)), h
the ramp filter along the detector's rows and U·R the depth of a voxel as seen from the source. It is exact in the plane
of the source, and for volumes that do not change along the axis; elsewhere a circle does not see enough, and values
fall off with the cone's angle. Views that are missing from the circle leave their artefacts.

Reference: Feldkamp, Davis, Kress, "Practical cone-beam algorithm", JOSA A 1984.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .filtered_backprojection import filtered, ramp, view_weights
from .ray_table import cell_positions, view_axes
from .twin import by_kernel

__all__ = ["feldkamp"]

_LARGEST_PIECE = 1 << 21
"""Voxels whose value is looked up in a view at a time."""


def feldkamp(
    y: Tensor,
    angles: Tensor,
    grid: Sequence[int],
    spacing: Sequence[float],
    *,
    source_distance: float,
    cell: Sequence[float],
    offset: Sequence[float],
    filter: str,
    engine: str = "auto",
) -> Tensor:
    """The volumes `(*batch, D, H, W)` of data `(*batch, views, rows, columns)`.

    Args:
        angles: θ of each view, `(views,)`, float64.
        spacing: voxel size along (D, H, W).
        source_distance: R, from the source to the axis.
        cell: spacing of the detector's rows and columns, scaled to the axis.
        offset: of the detector's centre, likewise.
        filter: see `filtered_backprojection`.
        engine: "auto", "numba" or "torch".
    """
    views, rows, columns = y.shape[-3:]
    b, a = (cell_positions(n, step, shift) for n, step, shift in zip((rows, columns), cell, offset))
    cosine = source_distance / (source_distance**2 + a.square() + b[:, None].square()).sqrt()
    weight = view_weights(angles, 2 * math.pi)
    weight = weight * (math.pi / max(float(weight.sum()), math.pi))  # a full circle sees every ray twice
    lines = filtered(y.reshape(-1, rows, columns) * cosine.to(y), ramp(columns, cell[1], filter))
    lines = lines.reshape(-1, views, rows, columns) * weight.to(y)[:, None, None]
    steps = spacing[0], -spacing[1], spacing[2]
    z, up, right = ((torch.arange(n, dtype=torch.float64) - (n - 1) / 2) * s for n, s in zip(grid, steps, strict=True))
    axes = view_axes(angles)

    def compiled(lines: Tensor) -> Tensor:
        from .smear_kernels import smear_planes

        flat = lines.reshape(-1, views, rows, columns).numpy()
        where = [axis.numpy() for axis in axes], (z.numpy(), up.numpy(), right.numpy())
        volumes = smear_planes(flat, *where, tuple(cell), tuple(offset), source_distance, torch.get_num_threads())
        return torch.from_numpy(volumes).reshape(*lines.shape[:-3], *grid)

    def plain(lines: Tensor) -> Tensor:
        return _smeared(lines, axes, (z, up[:, None], right), source_distance, cell, offset)

    return by_kernel(lines.reshape(*y.shape[:-3], views, rows, columns), compiled, plain, engine)


def _smeared(
    lines: Tensor,
    axes: tuple[Tensor, Tensor],
    positions: tuple[Tensor, Tensor, Tensor],
    source_distance: float,
    cell: Sequence[float],
    offset: Sequence[float],
) -> Tensor:
    """Σ over views of U⁻² times their values at the projection of every voxel, zero off the detector."""
    z, up, right = positions
    rows, columns = lines.shape[-2:]
    flat = F.pad(lines.reshape(-1, *lines.shape[-3:]), (1, 2, 1, 2)).flatten(2)
    step = max(1, _LARGEST_PIECE // (len(up) * len(right) * len(flat)))
    slabs = []
    for heights in z.split(step):
        total = flat.new_zeros(len(flat), len(heights), len(up), len(right))
        for view, (along, ahead) in enumerate(zip(*(axis.tolist() for axis in axes), strict=True)):
            depth = 1 + (ahead[0] * right + ahead[1] * up) / source_distance
            column = _place((along[0] * right + along[1] * up) / depth, columns, cell[1], offset[1])
            row = _place(heights[:, None, None] / depth, rows, cell[0], offset[0])
            at = (row.long() * (columns + 3) + column.long()).to(lines.device)
            across, down = column.frac().to(lines), row.frac().to(lines)
            data = flat[:, view]
            near = torch.lerp(data[:, at], data[:, at + 1], across)
            far = torch.lerp(data[:, at + columns + 3], data[:, at + columns + 4], across)
            total = total + torch.lerp(near, far, down) * depth.pow(-2).to(lines)
        slabs.append(total)
    return torch.cat(slabs, 1).reshape(*lines.shape[:-3], len(z), len(up), len(right))


def _place(position: Tensor, count: int, cell: float, offset: float) -> Tensor:
    """Where a position lies among cells with a margin of zeros, one before and two behind."""
    return ((position - offset) / cell + (count + 1) / 2).clamp(0, count + 1)
