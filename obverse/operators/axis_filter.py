"""One-dimensional filters along one axis of an image, with a stride, as products of small matrices.

    y[f, m] = Σ_j taps[f, j] x[stride·m + j − start],    m = 0 … count − 1

The axis is cut into blocks of B outputs and P = stride·B inputs. A block of outputs needs its own block of inputs and a
few pixels of its neighbours, by three matrices that are the same for every block:

    y_b = own x_b + after x_{b+1}[first pixels] + before x_{b−1}[last pixels]

What the image's continuation adds, "circular" or by "reflect"ion, reaches only the first and the last outputs: one more
small matrix for each end. So the image is read once where it lies, nothing is copied to extend it, and nothing is
computed that the stride throws away; a general convolution of one channel is five times slower on CPUs. The filters'
outputs are concatenated along the axis.
"""

from collections.abc import Iterator, Sequence
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import LinearOperator, constant_like

__all__ = ["AxisFilter"]

_FEWEST_INPUTS = 32
"""Pixels in a block: fewer make the products too small to be efficient, more multiply more zeros."""


class AxisFilter(LinearOperator):
    """Correlation along one axis.

    Args:
        image_shape: shape of one image.
        taps: `(filters, length)`.
        dim: the axis, counted from the end: −1 is the last one.
        stride: step from one output to the next, in pixels.
        start: how many taps of the first output lie before the first pixel; negative skips pixels.
        count: outputs of each filter.
        boundary: "circular", "reflect" or "zero": what the taps beyond the image's ends see.

    >>> A = AxisFilter((1, 1, 4), torch.tensor([[1.0, 1.0]]), dim=-1, stride=1, start=0, count=4, boundary="circular")
    >>> A(torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]))
    tensor([[[3., 5., 7., 5.]]])
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        taps: Tensor,
        dim: int,
        *,
        stride: int = 1,
        start: int,
        count: int,
        boundary: str = "zero",
    ):
        shape = tuple(image_shape)
        filters, length = taps.shape
        super().__init__(shape, (*shape[:dim], filters * count, *shape[len(shape) + dim + 1 :]), taps.dtype)
        size = shape[dim]
        least = -(-max(length + abs(start), _FEWEST_INPUTS) // stride)
        self._dim, self._size, self._filters, self._count = dim, size, filters, count
        if max(count * stride, size) <= 2 * least * stride:
            self._blocks, self._outputs, self._inputs = 1, count, size
        else:
            fits = (b for b in range(least, 2 * least) if count % b == 0 and count * stride == size)
            self._outputs = next(fits, least)
            self._inputs = stride * self._outputs
            self._blocks = -(-max(count * stride, size) // self._inputs)
        before, after = (max(start, 0), max(length - stride - start, 0)) if self._blocks > 1 else (0, 0)
        self._own, self._before, self._after = (
            _band(taps, range(self._outputs), range(*pixels), stride, start)
            for pixels in ((0, self._inputs), (-before, 0), (self._inputs, self._inputs + after))
        )
        near = _continuation(taps, range(count), size, stride, start, boundary, beyond=False)
        far = _continuation(taps, range(count), size, stride, start, boundary, beyond=True)
        self._ends = tuple(end[0] for end in (near, far))
        self._ends_at = tuple(end[1:] for end in (near, far))

    def _apply(self, x: Tensor) -> Tensor:
        image, axis = _flat(x, self._dim)
        blocks = _padded(image, axis, self._blocks * self._inputs).unflatten(axis, (self._blocks, self._inputs))
        y = _product(constant_like(self._own, x), blocks, axis)
        for matrix, source, target, first in self._neighbours():
            pixels = blocks.narrow(axis - 1, source, self._blocks - 1).narrow(axis, first, matrix.shape[1])
            y.narrow(axis - 1, target, self._blocks - 1).add_(_product(constant_like(matrix, x), pixels, axis))
        y = y.unflatten(axis, (self._filters, self._outputs)).transpose(axis - 2, axis - 1)
        y = y.flatten(axis - 1, axis).narrow(axis, 0, self._count)
        for matrix, (row, column) in zip(self._ends, self._ends_at):
            if matrix.numel():
                added = _product(constant_like(matrix, x), image.narrow(axis, column, matrix.shape[1]), axis)
                added = added.unflatten(axis, (self._filters, -1))
                y.narrow(axis, row, added.shape[axis]).add_(added)
        return y.reshape(*x.shape[: x.ndim - len(self.image_shape)], *self.data_shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        data, axis = _flat(y, self._dim)
        data = data.unflatten(axis, (self._filters, self._count))
        blocks = _padded(data, axis, self._blocks * self._outputs).unflatten(axis, (self._blocks, self._outputs))
        blocks = blocks.transpose(axis - 2, axis - 1).flatten(axis - 1, axis)
        x = _product(constant_like(self._own, y).mT, blocks, axis)
        for matrix, source, target, first in self._neighbours():
            pixels = x.narrow(axis - 1, source, self._blocks - 1).narrow(axis, first, matrix.shape[1])
            given = blocks.narrow(axis - 1, target, self._blocks - 1)
            pixels.add_(_product(constant_like(matrix, y).mT, given, axis))
        x = x.flatten(axis - 1, axis).narrow(axis, 0, self._size)
        for matrix, (row, column) in zip(self._ends, self._ends_at):
            if matrix.numel():
                given = data.narrow(axis, row, len(matrix) // self._filters).flatten(axis - 1, axis)
                x.narrow(axis, column, matrix.shape[1]).add_(_product(constant_like(matrix, y).mT, given, axis))
        return x.reshape(*y.shape[: y.ndim - len(self.data_shape)], *self.image_shape)

    def _neighbours(self) -> Iterator[tuple[Tensor, int, int, int]]:
        """(matrix, first block that it reads, first block that it adds to, first pixel that it reads in a block)."""
        if self._before.numel():
            yield self._before, 0, 1, self._inputs - self._before.shape[1]
        if self._after.numel():
            yield self._after, 1, 0, 0


def _flat(x: Tensor, dim: int) -> tuple[Tensor, int]:
    """`x` as (others, axis), or (before, axis, behind) where there are axes behind; and the axis, from the end."""
    leading, size = prod(x.shape[:dim]), x.shape[dim]
    if dim == -1:
        return x.reshape(leading, size), -1
    return x.reshape(leading, size, prod(x.shape[dim + 1 :])), -2


def _padded(x: Tensor, axis: int, size: int) -> Tensor:
    return x if x.shape[axis] == size else F.pad(x, (0, 0) * (-axis - 1) + (0, size - x.shape[axis]))


def _product(matrix: Tensor, blocks: Tensor, axis: int) -> Tensor:
    """`matrix` times `axis` of the blocks, as one matrix product or one batched product."""
    if axis == -1:
        return blocks @ matrix.mT
    flat = blocks.flatten(0, -3)
    return torch.bmm(matrix.expand(len(flat), *matrix.shape), flat).reshape(*blocks.shape[:-2], -1, blocks.shape[-1])


def _band(taps: Tensor, outputs: range, pixels: range, stride: int, start: int) -> Tensor:
    """What `outputs` take from `pixels`, (filters · outputs, pixels)."""
    output = torch.arange(outputs.start, outputs.stop, device=taps.device)[:, None]
    tap = torch.arange(pixels.start, pixels.stop, device=taps.device) + start - stride * output
    length = taps.shape[1]
    band = torch.where((tap >= 0) & (tap < length), taps[:, tap.clamp(0, length - 1)], 0.0)
    return band.flatten(0, 1).contiguous()


def _continuation(
    taps: Tensor, outputs: range, size: int, stride: int, start: int, boundary: str, *, beyond: bool
) -> tuple[Tensor, int, int]:
    """What outputs take from before the first pixel or beyond the last: a matrix, its first output and first pixel."""
    output = torch.arange(outputs.stop, device=taps.device)[:, None]
    pixel = stride * output + torch.arange(taps.shape[1], device=taps.device) - start
    outside = pixel >= size if beyond else pixel < 0
    if boundary == "zero" or not bool(outside.any()):
        return taps.new_zeros(0, 0), 0, 0
    if boundary == "circular":
        pixel = pixel % size
    else:
        pixel = 2 * (size - 1) - pixel if beyond else -pixel
    m, j = outside.nonzero(as_tuple=True)
    source = pixel[m, j]
    row, column = int(m.min()), int(source.min())
    matrix = taps.new_zeros(len(taps), int(m.max()) + 1 - row, int(source.max()) + 1 - column)
    for filtered, weights in zip(matrix, taps):
        filtered.index_put_((m - row, source - column), weights[j], accumulate=True)
    return matrix.flatten(0, 1), row, column
