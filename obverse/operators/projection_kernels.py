"""Compiled CPU kernels of projection along rays, and its adjoint; imported only where numba is installed.

Both follow the same table of rays (`ray_table`) with the same arithmetic, so that they are adjoint to rounding. The
projection is split over runs of rays, the adjoint over blocks of image rows: each thread writes what is its own, no
sum is shared, and the result does not depend on the number of threads. Python threads carry the pieces, which the
kernels leave free to run by releasing the interpreter's lock. Images are padded by empty pixels, one before and two
behind, so that no ray needs a test at the edge; a transposed copy serves the rays that cross columns.

Several images share the geometry: eight of them lie innermost in memory, and every crossing is worked out once for all.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from ..compiled import compiled
from .ray_table import Rays

__all__ = ["backproject", "project"]

_TOGETHER = 8
"""Images that go through the block kernels at a time."""
_BLOCK_FROM = 3
"""Fewer images than this go one by one, because a block costs as much as two or three."""
_ROWS = 16
"""Image rows for which the adjoint reads a view while it is in the cache."""


def project(x: Tensor, rays: Rays) -> Tensor:
    """Line integrals of images `(n, H, W)`: `(n, views, detectors)`."""
    start, slope, weight, runs = (part.numpy() for part in rays)
    y = np.empty((len(x), *start.shape), start.dtype)
    with _Threads() as threads:
        for group in _groups(len(x)):
            images = _laid_out(x.numpy()[group])
            inner = images.shape[2:]
            data = np.zeros((*start.shape, *inner), start.dtype)
            padded = _padded(images), _padded(images.swapaxes(0, 1))
            threads(_PROJECT[bool(inner)], len(runs), 1, runs, start, slope, weight, *padded, data)
            y[group] = _unlaid(data, y[group])
    return torch.from_numpy(y)


def backproject(y: Tensor, rays: Rays, grid: tuple[int, int]) -> Tensor:
    """The adjoint of `project`: data `(n, views, detectors)` to images `(n, *grid)`."""
    start, slope, weight, runs = (part.numpy() for part in rays)
    x = np.empty((len(y), *grid), start.dtype)
    crossing = [np.ascontiguousarray(runs[runs[:, 3] == axis]) for axis in (0, 1)]
    with _Threads() as threads:
        for group in _groups(len(y)):
            data = _laid_out(y.numpy()[group])
            inner = data.shape[2:]
            data = data * weight.reshape(*weight.shape, *(1 for _ in inner))
            sums = []
            for own, (lines, across) in zip(crossing, (grid, grid[::-1]), strict=True):
                padded = np.zeros((lines, across + 3, *inner), start.dtype)
                threads(_BACKPROJECT[bool(inner)], lines, _ROWS, own, start, slope, data, padded)
                sums.append(padded[:, 1:-2])
            x[group] = _unlaid(sums[0] + sums[1].swapaxes(0, 1), x[group])
    return torch.from_numpy(x)


def _groups(count: int) -> Iterator[slice]:
    """Blocks of images, and what is left over one by one."""
    first = 0
    while first < count:
        step = min(_TOGETHER, count - first)
        step = 1 if step < _BLOCK_FROM else step
        yield slice(first, first + step)
        first += step


def _laid_out(planes: np.ndarray) -> np.ndarray:
    """One plane as it is; several innermost, filled up to a block."""
    if len(planes) == 1:
        return planes[0]
    block = np.zeros((*planes.shape[1:], _TOGETHER), planes.dtype)
    block[..., : len(planes)] = planes.transpose(1, 2, 0)
    return block


def _unlaid(block: np.ndarray, like: np.ndarray) -> np.ndarray:
    return block[None] if block.ndim == 2 else block[..., : len(like)].transpose(2, 0, 1)


def _padded(image: np.ndarray) -> np.ndarray:
    padded = np.zeros((image.shape[0], image.shape[1] + 3, *image.shape[2:]), image.dtype)
    padded[:, 1:-2] = image
    return padded


class _Threads:
    """Calls a kernel on pieces of its range, on as many threads as torch uses."""

    def __enter__(self) -> "_Threads":
        self.count = torch.get_num_threads()
        self.pool = ThreadPoolExecutor(self.count) if self.count > 1 else None
        return self

    def __exit__(self, *_: object) -> None:
        if self.pool is not None:
            self.pool.shutdown()

    def __call__(self, kernel: Callable[..., None], size: int, multiple: int, *arguments: object) -> None:
        if self.pool is None:
            kernel(0, size, *arguments)
            return
        step = -(-size // (4 * self.count * multiple)) * multiple  # a few pieces each, so that no thread waits long
        pieces = [(first, min(first + step, size)) for first in range(0, size, step)]
        for future in [self.pool.submit(kernel, *piece, *arguments) for piece in pieces]:
            future.result()


@compiled()
def _met(start, slope, r, half, order, first, last, low, high):
    """The rays from `low` to `high` that cross a line of the image, walked to from those of the line before."""
    while low > first and order * (start[low - 1] + slope[low - 1] * r) > -half:
        low -= 1
    while low < last and order * (start[low] + slope[low] * r) <= -half:
        low += 1
    high = max(high, low)
    while high < last and order * (start[high] + slope[high] * r) < half:
        high += 1
    while high > low and order * (start[high - 1] + slope[high - 1] * r) >= half:
        high -= 1
    # behind its source a fan runs the other way; there the walk may end outside the image, and nothing is measured
    if low < high and not (
        abs(start[low] + slope[low] * r) < half and abs(start[high - 1] + slope[high - 1] * r) < half
    ):
        high = low
    return low, high


@compiled()
def _project(p, q, runs, start, slope, weight, rows, columns, y):
    real = start.dtype.type
    for run in range(p, q):
        view, first, last, axis, order = runs[run]
        image = rows if axis == 0 else columns
        lines = image.shape[0]
        half = real((image.shape[1] - 2) / 2)
        s, m, total, w = start[view], slope[view], y[view], weight[view]
        low = high = first
        for i in range(lines):
            line, r = image[i], real(i - (lines - 1) / 2)
            low, high = _met(s, m, r, half, real(order), first, last, low, high)
            for k in range(low, high):
                c = s[k] + m[k] * r + half
                j = np.uint32(np.int32(c))
                total[k] += line[j] + (c - real(j)) * (line[j + np.uint32(1)] - line[j])
        for k in range(first, last):
            total[k] *= w[k]


@compiled()
def _project_block(p, q, runs, start, slope, weight, rows, columns, y):
    real = start.dtype.type
    for run in range(p, q):
        view, first, last, axis, order = runs[run]
        image = rows if axis == 0 else columns
        lines = image.shape[0]
        half = real((image.shape[1] - 2) / 2)
        s, m, total, w = start[view], slope[view], y[view], weight[view]
        low = high = first
        for i in range(lines):
            line, r = image[i], real(i - (lines - 1) / 2)
            low, high = _met(s, m, r, half, real(order), first, last, low, high)
            for k in range(low, high):
                c = s[k] + m[k] * r + half
                j = np.uint32(np.int32(c))
                f = c - real(j)
                for b in range(_TOGETHER):
                    total[k, b] += line[j, b] + f * (line[j + np.uint32(1), b] - line[j, b])
        for k in range(first, last):
            for b in range(_TOGETHER):
                total[k, b] *= w[k]


@compiled()
def _backproject(p, q, runs, start, slope, weighted, image):
    real = start.dtype.type
    lines = image.shape[0]
    half = real((image.shape[1] - 2) / 2)
    for top in range(p, q, _ROWS):
        for run in range(len(runs)):
            view, first, last, _, order = runs[run]
            s, m, y = start[view], slope[view], weighted[view]
            low = high = first
            for i in range(top, min(top + _ROWS, q)):
                line, r = image[i], real(i - (lines - 1) / 2)
                low, high = _met(s, m, r, half, real(order), first, last, low, high)
                for k in range(low, high):
                    c = s[k] + m[k] * r + half
                    j = np.uint32(np.int32(c))
                    part = (c - real(j)) * y[k]
                    line[j] += y[k] - part
                    line[j + np.uint32(1)] += part


@compiled()
def _backproject_block(p, q, runs, start, slope, weighted, image):
    real = start.dtype.type
    lines = image.shape[0]
    half = real((image.shape[1] - 2) / 2)
    for top in range(p, q, _ROWS):
        for run in range(len(runs)):
            view, first, last, _, order = runs[run]
            s, m, y = start[view], slope[view], weighted[view]
            low = high = first
            for i in range(top, min(top + _ROWS, q)):
                line, r = image[i], real(i - (lines - 1) / 2)
                low, high = _met(s, m, r, half, real(order), first, last, low, high)
                for k in range(low, high):
                    c = s[k] + m[k] * r + half
                    j = np.uint32(np.int32(c))
                    f = c - real(j)
                    for b in range(_TOGETHER):
                        part = f * y[k, b]
                        line[j, b] += y[k, b] - part
                        line[j + np.uint32(1), b] += part


_PROJECT = (_project, _project_block)
_BACKPROJECT = (_backproject, _backproject_block)
