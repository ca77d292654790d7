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

_BLOCK, _LEAST = 1 << 16, 64
"""Products of a line of pixels and a point that are kept at a time, for the cache's sake; and the fewest points."""


class DirectFourier(LinearOperator):
    """Complex images `(C, H, W)` or `(C, D, H, W)` to their Fourier transform at M points, `(C, M)`, exactly.

    For interferometers of few stations: 100 points of images up to 128² take a half to a seventh of the time of
    `NonuniformFourier`, which is faster from about 500 points on (2000 for 32²) and 5 to 15 times so at 10⁴.

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
        blocks = self._blocks(x.numel() // x.shape[-1])
        return torch.cat([self._sampled(x, some) for some in blocks], -1)

    def _adjoint(self, y: Tensor) -> Tensor:
        first, *others = self._blocks(y.shape[:-1].numel() * math.prod(self.image_shape[1:-1]))
        total = self._backprojected(y, first)
        for some in others:
            total = total + self._backprojected(y, some)
        return total

    def _blocks(self, lines: int) -> list[slice]:
        """Points to be summed at a time, for so many lines of pixels."""
        step = max(_LEAST, _BLOCK // max(1, lines))
        return [slice(start, start + step) for start in range(0, self.data_shape[-1], step)]

    def _sampled(self, x: Tensor, some: slice) -> Tensor:
        *others, last = (constant_like(factor[:, some], x) for factor in self._factors)
        x = x @ last
        for factor in reversed(others):
            x = (x * factor).sum(-2)
        return x

    def _backprojected(self, y: Tensor, some: slice) -> Tensor:
        *others, last = (constant_like(factor[:, some], y).conj() for factor in self._factors)
        y = y[..., some]
        for factor in others:
            y = y[..., None, :] * factor
        return y @ last.mT


def _factor(frequency: Tensor, n: int) -> Tensor:
    """exp(−2πi k r) for r = −(n // 2) …, `(n, M)`; turns are reduced before they become angles."""
    turns = torch.outer(torch.arange(n, dtype=torch.float64, device=frequency.device) - n // 2, frequency)
    angle = -2 * math.pi * (turns - turns.round())
    return torch.polar(torch.ones_like(angle), angle)
