"""Projection along rays and its adjoint in plain torch: the twin of `projection_kernels`, for any device.

One run of rays at a time, all rows of the image at once; the memory beside image and data is that of one view.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from .ray_table import Rays

__all__ = ["backproject", "project"]


def project(x: Tensor, rays: Rays) -> Tensor:
    """Line integrals of images `(n, H, W)`: `(n, views, detectors)`."""
    weight = rays[2]
    y = x.new_zeros(len(x), *weight.shape)
    padded = [_padded(x).flatten(1), _padded(x.mT).flatten(1)]
    for view, part, axis, pixel, fraction in _crossings(rays, x.shape[1:]):
        near, far = padded[axis][:, pixel], padded[axis][:, pixel + 1]
        y[:, view, part] = weight[view, part] * torch.lerp(near, far, fraction).sum(1)
    return y


def backproject(y: Tensor, rays: Rays, grid: tuple[int, int]) -> Tensor:
    """The adjoint of `project`: data `(n, views, detectors)` to images `(n, *grid)`."""
    weighted = y * rays[2]
    height, width = grid
    sums = [y.new_zeros(len(y), height * (width + 3)), y.new_zeros(len(y), width * (height + 3))]
    for view, part, axis, pixel, fraction in _crossings(rays, grid):
        data = weighted[:, None, view, part]
        sums[axis].index_add_(1, pixel.flatten(), ((1 - fraction) * data).flatten(1))
        sums[axis].index_add_(1, pixel.flatten() + 1, (fraction * data).flatten(1))
    rows = sums[0].unflatten(1, (height, width + 3))[..., 1:-2]
    return rows + sums[1].unflatten(1, (width, height + 3))[..., 1:-2].mT


def _crossings(rays: Rays, grid: tuple[int, ...]) -> Iterator[tuple[int, slice, int, Tensor, Tensor]]:
    """For each run: view, detectors, axis, and `(lines, detectors)`: the pixel before each crossing, and how far on."""
    start, slope, _, runs = rays
    for view, first, last, axis, _ in runs.tolist():
        lines, across = grid[axis], grid[1 - axis]
        r = torch.arange(lines, device=start.device, dtype=start.dtype)[:, None] - (lines - 1) / 2
        crossing = start[view, first:last] + slope[view, first:last] * r + (across + 1) / 2
        crossing = crossing.clamp(0, across + 1)  # beyond the image, in its empty margin
        pixel = crossing.long()
        offset = torch.arange(lines, device=start.device)[:, None] * (across + 3)
        yield view, slice(first, last), axis, pixel + offset, crossing - pixel


def _padded(x: Tensor) -> Tensor:
    return torch.nn.functional.pad(x, (1, 2))
