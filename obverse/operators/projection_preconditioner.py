"""The normal operator of tomography is nearly a convolution; its inverse makes conjugate gradients quick.

With views all around, AᴴA blurs every pixel alike, by about 1/|r|: as a convolution on a grid of twice the image's size
it has the eigenvalues λ ≈ 1/|f|, which its response to the central pixel gives, and

    M⁻¹ = Pᴴ (w̄ λ + d)⁻¹ P,   P pads by zeros, w̄ the mean weight

is symmetric and positive-definite because λ is kept above zero. It need not be exact: conjugate gradients converge to
the same solution, in two to three times fewer iterations with full views, and about as many with few.

References: Chan, Ng, "Conjugate gradient methods for Toeplitz systems", SIAM Review 1996. Delaney, Bresler, "A fast and
accurate Fourier algorithm for iterative parallel-beam tomography", IEEE TIP 1996.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .filters import by_parts

__all__ = ["circulant_inverse"]

_FLOOR = 0.4
"""Smallest eigenvalue kept, relative to the largest over the image's size. The largest grows with the size; those of
the finest details that lie below are due to the sampling of rays, differ from place to place, and are no guide."""


def circulant_inverse(
    gram: Callable[[Tensor], Tensor],
    grid: tuple[int, int],
    damping: Tensor,
    weight: Tensor | None,
) -> Callable[[Tensor], Tensor]:
    """v ↦ M⁻¹ v for images `(*, H, W)`.

    Args:
        gram: AᴴA on one plane of twice the size, `(2 H, 2 W)`.
        grid: `(H, W)`.
        damping: scalar, of the precision and on the device of the images.
        weight: W, whose mean is taken; None for the identity.
    """
    height, width = grid
    wide = (2 * height, 2 * width)
    point = torch.zeros(wide, dtype=damping.dtype, device=damping.device)
    point[height, width] = 1
    eigenvalues = torch.fft.rfft2(gram(point).roll((-height, -width), (0, 1))).real
    eigenvalues = eigenvalues.clamp(min=_FLOOR / max(grid) * float(eigenvalues.max()))
    total = (1.0 if weight is None else weight.detach().mean()) * eigenvalues + damping.detach()

    def inverse(v: Tensor) -> Tensor:
        if v.is_complex():
            return by_parts(inverse, v)
        padded = torch.fft.rfft2(v, s=wide) / total
        return torch.fft.irfft2(padded, s=wide)[..., :height, :width]

    return inverse
