"""Filtering with a transfer function, in the order of axes and the memory layout that suits an FFT.

    y = F⁻¹(ĥ · F x)                     on a grid that may be larger than the image, which is continued by zeros

In three dimensions the slices are transformed first and the depth last, which leaves the spectrum in memory with the
depth innermost. A transfer function laid out in the same way multiplies it at the speed of memory, and the way back
then needs no transposition of its own; through `rfftn` and `irfftn` the same takes a fifth longer.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["fourier_filter", "laid_out", "transfer_function"]


def transfer_function(kernel: Tensor, grid: Sequence[int], origin: Sequence[int]) -> Tensor:
    """`rfftn` of the kernel (C, *size) wrapped onto `grid` with its pixel `origin` at zero, computed in float64."""
    axes = tuple(range(-len(grid), 0))
    placed = kernel.double()
    for dim, (n, centre) in zip(axes, zip(grid, origin)):
        length = placed.shape[dim]
        index = (torch.arange(length, device=kernel.device) - centre) % n
        shape = (*placed.shape[:dim], n, *placed.shape[placed.ndim + dim + 1 :])
        placed = torch.zeros(shape, dtype=placed.dtype, device=kernel.device).index_add(dim, index, placed)
    target = torch.complex64 if kernel.dtype == torch.float32 else torch.complex128
    return torch.fft.rfftn(placed, dim=axes).to(target)


def laid_out(otf: Tensor, axes: int) -> Tensor:
    """The same values in the layout that `fourier_filter` multiplies fastest, for images with `axes` spatial axes."""
    return otf.movedim(-3, -1).contiguous().movedim(-1, -3) if axes == 3 else otf


def fourier_filter(x: Tensor, otf: Tensor, grid: Sequence[int], size: Sequence[int]) -> Tensor:
    """Multiply by `otf` (rfftn layout) on the zero-padded `grid`, and keep the first `size` pixels.

    The spectrum is multiplied in place: no derivative needs its old value.
    """
    if len(grid) == 3:
        wide = torch.fft.fft(torch.fft.rfft2(x, s=tuple(grid[1:])), n=grid[0], dim=-3).mul_(otf)
        result = torch.fft.irfft(torch.fft.ifftn(wide, dim=(-3, -2)), n=grid[2])
    else:
        axes = tuple(range(-len(grid), 0))
        wide = torch.fft.rfftn(x, s=tuple(grid), dim=axes).mul_(otf)
        result = torch.fft.irfftn(wide, s=tuple(grid), dim=axes)
    if tuple(grid) == tuple(size):
        return result
    return result[(..., *(slice(n) for n in size))]
