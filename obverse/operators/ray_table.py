"""Straight rays through a grid of square pixels, in the form that the projection kernels follow.

A ray that is closer to the columns' direction crosses every row once, at the column

    c(i) = start + slope · (i − (H − 1)/2) + (W − 1)/2,   |slope| ≤ 1

and Joseph's model of its line integral is Σ_i weight · x(i, c(i)), with x interpolated linearly between the two pixels
beside c(i) and taken as zero outside the image, and weight = spacing · √(1 + slope²) the length of the ray in one row.
The other rays cross every column once, and rows and columns change places.

Neighbouring rays of a view that share the axis and the sense form a run, in which the crossings of any row are in
order: so the rays that meet a row of the image are found by walking, without a test for each.

Reference: Joseph, "An improved algorithm for reprojecting rays through pixel images", IEEE Trans. Med. Imaging 1982.
"""

from collections.abc import Sequence
from numbers import Real

import torch
from torch import Tensor

from ..errors import InputError
from .arguments import as_numbers

__all__ = ["Rays", "as_angles", "cell_positions", "ray_table", "require_positive", "view_axes"]

Rays = tuple[Tensor, Tensor, Tensor, Tensor]
"""start, slope and weight, each `(views, detectors)`, and the runs, `(n, 5)` integers: view, first detector, one behind
the last, axis (0: crosses rows, 1: crosses columns), order (1: crossings rise with the detector, −1: they fall)."""


def ray_table(point: Tensor, direction: Tensor, spacing: float) -> Rays:
    """The table of rays through `point` along `direction`.

    Args:
        point: `(views, detectors, 2)` as (x, y) from the image's centre, x along its rows and y upwards, in float64.
        direction: the same shape, of any length; the rays of a view diverge along it, if they do.
        spacing: size of a pixel.
    """
    column, row = point[..., 0] / spacing, -point[..., 1] / spacing
    to_column, to_row = direction[..., 0], -direction[..., 1]
    crosses_rows = to_row.abs() >= to_column.abs()
    across, along = torch.where(crosses_rows, column, row), torch.where(crosses_rows, row, column)
    to_across, to_along = torch.where(crosses_rows, to_column, to_row), torch.where(crosses_rows, to_row, to_column)
    slope = to_across / to_along
    start = across - along * slope
    weight = spacing * (1 + slope.square()).sqrt()
    # far along the rays, where those that diverge have their final order
    far = start + slope * to_along.sign() * 1e4 * (1 + point.abs().max() / spacing)
    kind = 2 * crosses_rows.int() + (to_along > 0).int()
    runs = []
    for view in range(len(kind)):
        edges = [0, *((kind[view].diff() != 0).nonzero().flatten() + 1).tolist(), kind.shape[1]]
        for first, last in zip(edges[:-1], edges[1:], strict=True):
            order = 1 if far[view, last - 1] >= far[view, first] else -1
            runs.append((view, first, last, 0 if crosses_rows[view, first] else 1, order))
    return start, slope, weight, torch.tensor(runs, dtype=torch.int64)


def view_axes(angles: Tensor) -> tuple[Tensor, Tensor]:
    """For each view the unit vectors along the detector, (cos θ, sin θ), and along the central ray, (−sin θ, cos θ)."""
    cosine, sine = angles.cos(), angles.sin()
    return torch.stack((cosine, sine), -1), torch.stack((-sine, cosine), -1)


def cell_positions(detectors: int, spacing: float, offset: float) -> Tensor:
    """Where the centres of the detector's cells lie, from its own centre (n − 1)/2 moved by `offset`."""
    return (torch.arange(detectors, dtype=torch.float64) - (detectors - 1) / 2) * spacing + offset


def as_angles(angles: Tensor | Sequence[float], name: str) -> Tensor:
    """Angles in radians as a float64 vector."""
    result = as_numbers(angles, f"{name} expects angles in radians", torch.float64).detach().cpu()
    if result.ndim != 1 or len(result) == 0 or not bool(result.isfinite().all()):
        raise InputError(
            f"{name} expects angles as a vector of finite radians, got shape {tuple(result.shape)}; "
            "pass for example torch.arange(180) * torch.pi / 180"
        )
    return result


def require_positive(name: str, **lengths: float) -> None:
    """Every length is a finite number above zero."""
    for what, value in lengths.items():
        if not isinstance(value, Real) or not 0 < value < float("inf"):
            raise InputError(f"{name} expects {what} above zero, got {value}; give it in the unit of spacing")
