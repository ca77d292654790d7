"""Fourier transform at arbitrary frequencies, summed directly: exact, for small images.

    y_m = s Σ_n x[n] Π_a E_a[m, n_a],    E_a[m, j] = exp(−2πi k_{m,a} (j − N_a // 2))

The exponential is a product of one small matrix for each axis, M×H and M×W, so that the sum over columns is one matrix
product, and the sum over rows one product and a reduction; M·H·W multiplications, and M·(H + W) numbers to keep, where
the matrix of `Dense` has M·H·W. Conventions are those of `NonuniformFourier`; there is no error but rounding.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .base import LinearOperator, constant_like
from .nonuniform_fourier import require_points, require_scaling

__all__ = ["DirectFourier"]


class DirectFourier(LinearOperator):
    """Complex images `(C, H, W)` or `(C, D, H, W)` to their Fourier transform at M points, `(C, M)`, exactly.

    For sizes of very long baseline interferometry: images to 64² and up to a few hundred points are faster than by
    `NonuniformFourier`, and up to a thousand cost about the same.

    Args:
        points: `(M, 2)` as (row, column) or `(M, 3)` as (depth, row, column) frequencies, in cycles per pixel.
        image_shape: `(C, H, W)` or `(C, D, H, W)`.
        scaling: "orthonormal" (s = 1/√pixels, as `Fourier`) or "none" (s = 1, as a sum of fluxes).
        dtype: torch.complex64 or torch.complex128.

    Raises:
        InputError: points are not finite or have another number of axes than the image, or an option is unknown.

    Example:
        >>> A = DirectFourier(torch.tensor([[0.0, 0.0], [0.5, 0.25]]), (1, 4, 4), scaling="none")
        >>> A(torch.ones(1, 4, 4, dtype=torch.complex64)).abs().round(decimals=3)
        tensor([[16.,  0.]])
    """

    def __init__(
        self,
        points: Tensor,
        image_shape: Sequence[int],
        *,
        scaling: str = "orthonormal",
        dtype: torch.dtype = torch.complex64,
    ):
        require_points(points, image_shape, dtype, "DirectFourier")
        super().__init__(image_shape, (image_shape[0], len(points)), dtype)
        self.scaling = require_scaling(scaling, "DirectFourier")
        grid = self.image_shape[1:]
        scale = 1 / math.sqrt(math.prod(grid)) if scaling == "orthonormal" else 1.0
        factors = [_factor(k, n) for k, n in zip(points.detach().double().unbind(1), grid)]
        factors[0] = scale * factors[0]
        #: E_a transposed, `(n_a, M)`: the samples are contiguous
        self._factors = tuple(factor.to(dtype) for factor in factors)

    def _apply(self, x: Tensor) -> Tensor:
        *others, last = (constant_like(factor, x) for factor in self._factors)
        x = x @ last
        for factor in reversed(others):
            x = (x * factor).sum(-2)
        return x

    def _adjoint(self, y: Tensor) -> Tensor:
        *others, last = (constant_like(factor, y).conj() for factor in self._factors)
        for factor in others:
            y = y[..., None, :] * factor
        return y @ last.mT


def _factor(frequency: Tensor, n: int) -> Tensor:
    """exp(−2πi k r) for r = −(n // 2) …, `(n, M)`; turns are reduced before they become angles."""
    turns = torch.outer(torch.arange(n, dtype=torch.float64, device=frequency.device) - n // 2, frequency)
    angle = -2 * math.pi * (turns - turns.round())
    return torch.polar(torch.ones_like(angle), angle)
