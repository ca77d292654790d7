"""Kernels of filters: checks, and one-dimensional factors where there are any."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..errors import InputError
from .base import require_finite

__all__ = ["as_kernel", "by_parts", "separate"]


def as_kernel(kernel: Tensor, image_shape: Sequence[int], name: str) -> Tensor:
    """`kernel` as `(1 or C, *size)` for images of `image_shape`, checked and copied; gradients reach the original."""
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
    return full.clone()


def separate(kernel: Tensor) -> tuple[Tensor, ...] | None:
    """One-dimensional factors whose outer product is `kernel` (*size) to its own rounding, or None.

    A kernel of rank one is the outer product of its lines through any pixel; its largest one is the most accurate.
    Derivatives with respect to a kernel go to kernels of any rank, so that one that needs them has no factors.
    """
    if kernel.requires_grad:
        return None
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
