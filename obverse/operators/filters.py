"""One-dimensional filters along one axis of an image, with a stride, and checks and factors of a kernel.

    (correlate x)[f, m] = Σ_j taps[f, j] x[stride·m + j]

The filters' outputs are concatenated along the axis. Channels, batch and the other axes are folded into the batch of a
one-channel `conv2d`: on CPUs this is several times faster than a depthwise convolution.
"""

from collections.abc import Callable, Sequence
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from .base import require_finite

__all__ = ["as_kernel", "by_parts", "correlate_axis", "correlate_axis_adjoint", "separate"]


def as_kernel(kernel: Tensor, image_shape: Sequence[int], name: str) -> Tensor:
    """`kernel` as `(1 or C, *size)` for images of `image_shape`, detached and checked."""
    require_finite(kernel, f"{name} expects a kernel")
    axes = len(image_shape) - 1
    if axes not in (2, 3):
        raise InputError(f"{name} expects an image_shape (C, H, W) or (C, D, H, W), got {tuple(image_shape)}")
    if kernel.is_complex():
        raise InputError(
            f"{name} expects a real kernel, got {kernel.dtype}; apply its real and imaginary parts separately"
        )
    full = kernel[None] if kernel.ndim == axes else kernel
    if full.ndim != axes + 1 or full.shape[0] not in (1, image_shape[0]) or full.numel() == 0:
        raise InputError(
            f"{name} expects a kernel with {axes} axes, or {axes + 1} of which the first is {image_shape[0]} (a kernel "
            f"for each channel), for images {tuple(image_shape)}, got shape {tuple(kernel.shape)}; reshape it"
        )
    return full.detach().clone()


def separate(kernel: Tensor) -> tuple[Tensor, ...] | None:
    """One-dimensional factors whose outer product is `kernel` (*size) to its own rounding, or None.

    A kernel of rank one is the outer product of its lines through any pixel; its largest one is the most accurate.
    """
    wide = kernel.double()
    index = torch.unravel_index(wide.abs().argmax(), wide.shape)
    peak = wide[index]
    if peak == 0:
        return None
    lines = [wide.movedim(i, -1)[index[:i] + index[i + 1 :]] for i in range(wide.ndim)]
    factors = [lines[0], *(line / peak for line in lines[1:])]
    product = factors[0]
    for factor in factors[1:]:
        product = product[..., None] * factor
    if (product - wide).norm() > 4 * torch.finfo(kernel.dtype).eps * wide.norm():
        return None
    return tuple(factor.to(kernel.dtype) for factor in factors)


def by_parts(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A real linear function applied to the real and the imaginary part."""
    return torch.complex(function(x.real), function(x.imag))


def correlate_axis(x: Tensor, taps: Tensor, dim: int, stride: int = 1) -> Tensor:
    """Correlate axis `dim` (negative) of `x` with each row of `taps` (filters, length)."""
    folded, shape, last = _fold_axes(x, dim)
    weight = taps[:, None, None, :] if last else taps[:, None, :, None]
    result = F.conv2d(folded, weight, stride=(1, stride) if last else (stride, 1))
    if last and len(taps) > 1:
        result = result.movedim(1, 2)
    return result.reshape(*shape[:dim], -1, *shape[len(shape) + dim + 1 :])


def correlate_axis_adjoint(y: Tensor, taps: Tensor, dim: int, size: int, stride: int = 1) -> Tensor:
    """The adjoint of `correlate_axis` on inputs whose axis `dim` has `size` pixels."""
    shape, filters = tuple(y.shape), len(taps)
    last = dim == -1
    count = shape[dim] // filters
    extra = size - (count - 1) * stride - taps.shape[1]
    if last:
        folded = y.reshape(-1, y.shape[-2], filters, count).movedim(2, 1)
        weight, strides, padding = taps[:, None, None, :], (1, stride), (0, min(extra, stride - 1))
    else:
        folded = y.reshape(-1, filters, count, prod(shape[dim + 1 :]))
        weight, strides, padding = taps[:, None, :, None], (stride, 1), (min(extra, stride - 1), 0)
    result = F.conv_transpose2d(folded, weight, stride=strides, output_padding=padding)
    missing = extra - max(padding)
    if missing:
        result = F.pad(result, (0, missing) if last else (0, 0, 0, missing))
    return result.reshape(*shape[:dim], size, *shape[len(shape) + dim + 1 :])


def _fold_axes(x: Tensor, dim: int) -> tuple[Tensor, tuple[int, ...], bool]:
    """`x` as (batch, 1, rows, columns) in which the axis is the columns if it is the last one, else the rows."""
    shape = tuple(x.shape)
    if dim == -1:
        return x.reshape(-1, 1, *shape[-2:]), shape, True
    return x.reshape(-1, 1, shape[dim], prod(shape[dim + 1 :])), shape, False
