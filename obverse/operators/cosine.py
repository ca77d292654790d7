"""The orthonormal discrete cosine transform over an image's spatial axes, all of it or some coefficients.

    X_k = s_k Σ_n x_n cos(π k (2n + 1) / 2N),   s_0 = √(1/N),  s_k = √(2/N)                (type II)

By one real Fourier transform of the even-numbered samples followed by the odd-numbered ones backwards, v: with
V = FFT v, X_k = s_k Re(e^{−iπk/2N} V_k) and X_{N−k} = −s_k Im(e^{−iπk/2N} V_k).

Reference: Makhoul, "A fast cosine transform in one and two dimensions", IEEE TASSP 1980.
"""

from collections.abc import Sequence
from math import sqrt

import torch
from torch import Tensor

from .base import constant_like
from .filters import by_parts
from .orthonormal import OrthonormalTransform, kept_indices

__all__ = ["Cosine"]


class Cosine(OrthonormalTransform):
    """Orthonormal cosine coefficients of each channel: their grid, of the image's shape, or `(C, 1, m)` of them.

    Args:
        image_shape: `(C, H, W)` or `(C, D, H, W)`.
        kept: a boolean mask of the spatial grid, a list of positions in the flattened grid, or None for all.
        dtype: precision of the images; a complex type for complex images.

    Raises:
        InputError: a position lies outside the grid or comes twice.

    >>> Cosine((1, 1, 4))(torch.ones(1, 1, 4)).abs().round(decimals=4)
    tensor([[[2., 0., 0., 0.]]])
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        kept: Sequence[int] | Tensor | None = None,
        dtype: torch.dtype = torch.float32,
    ):
        indices = None if kept is None else kept_indices(kept, image_shape[1:], "Cosine")
        super().__init__(image_shape, indices, dtype)

    def _transform(self, x: Tensor) -> Tensor:
        if x.is_complex():
            return by_parts(self._transform, x)
        for axis in range(1 - len(self.image_shape), 0):
            x = _forward(x.movedim(axis, -1)).movedim(-1, axis)
        return x

    def _inverse(self, c: Tensor) -> Tensor:
        if c.is_complex():
            return by_parts(self._inverse, c)
        for axis in range(1 - len(self.image_shape), 0):
            c = _backward(c.movedim(axis, -1)).movedim(-1, axis)
        return c


def _twiddle(n: int, like: Tensor) -> Tensor:
    """s_k e^{−iπk/2N} for k up to N/2; the middle frequency of an even N gives both its coefficients, which are one."""
    k = torch.arange(n // 2 + 1, dtype=torch.float64)
    scale = torch.full_like(k, sqrt(2 / n))
    scale[0] = sqrt(1 / n)
    return constant_like(torch.polar(scale, -torch.pi * k / (2 * n)), like)


def _forward(x: Tensor) -> Tensor:
    n = x.shape[-1]
    reordered = torch.cat([x[..., ::2], x[..., 1::2].flip(-1)], -1)
    values = _twiddle(n, x) * torch.fft.rfft(reordered)
    return torch.cat([values.real, -values.imag[..., 1 : (n + 1) // 2].flip(-1)], -1)


def _backward(c: Tensor) -> Tensor:
    n = c.shape[-1]
    half = n // 2 + 1
    mirrored = torch.cat([torch.zeros_like(c[..., :1]), c[..., 1:].flip(-1)], -1)[..., :half]
    values = torch.complex(c[..., :half], -mirrored) / _twiddle(n, c)
    reordered = torch.fft.irfft(values, n=n)
    evens = (n + 1) // 2
    paired = torch.stack([reordered[..., : n // 2], reordered[..., evens:].flip(-1)], -1).flatten(-2)
    return paired if n % 2 == 0 else torch.cat([paired, reordered[..., evens - 1 : evens]], -1)
