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
) -> Tensor:
    """The volumes `(*batch, D, H, W)` of data `(*batch, views, rows, columns)`.

    Args:
        angles: θ of each view, `(views,)`, float64.
        spacing: voxel size along (D, H, W).
        source_distance: R, from the source to the axis.
        cell: spacing of the detector's rows and columns, scaled to the axis.
        offset: of the detector's centre, likewise.
        filter: see `filtered_backprojection`.
    """
    views, rows, columns = y.shape[-3:]
    b, a = (cell_positions(n, step, shift) for n, step, shift in zip((rows, columns), cell, offset))
    cosine = source_distance / (source_distance**2 + a.square() + b[:, None].square()).sqrt()
    weight = view_weights(angles, 2 * math.pi)
    weight = weight * (math.pi / max(float(weight.sum()), math.pi))  # a full circle sees every ray twice
    lines = filtered(y.reshape(-1, rows, columns) * cosine.to(y), ramp(columns, cell[1], filter))
    lines = lines.reshape(-1, views, rows, columns) * weight.to(y)[:, None, None]
    z, up, right = (
        (torch.arange(n, dtype=torch.float64) - (n - 1) / 2) * step for n, step in zip(grid, spacing, strict=True)
    )
    up = -up[:, None]
    total = lines.new_zeros((len(lines), *grid))
    step = max(1, _LARGEST_PIECE // (grid[1] * grid[2] * len(lines)))
    for view, (along, ahead) in enumerate(zip(*(axes.tolist() for axes in view_axes(angles)), strict=True)):
        depth = 1 + (ahead[0] * right + ahead[1] * up) / source_distance
        column = _place((along[0] * right + along[1] * up) / depth, columns, cell[1], offset[1]).to(y)
        gain = depth.pow(-2).to(y)
        for part, heights in zip(total.split(step, 1), z.split(step), strict=True):
            row = _place(heights[:, None, None] / depth, rows, cell[0], offset[0]).to(y)
            points = torch.stack((column.expand_as(row), row), -1).reshape(1, -1, grid[2], 2)
            value = F.grid_sample(lines[None, :, view], points, align_corners=False)  # bilinear, zero off the detector
            part.addcmul_(value.reshape(part.shape), gain)
    return total.reshape(*y.shape[:-3], *grid)


def _place(position: Tensor, count: int, cell: float, offset: float) -> Tensor:
    """Where `grid_sample` finds a position on the detector: −1 … 1 from edge to edge."""
    return ((position - offset) / cell) * (2 / count)
