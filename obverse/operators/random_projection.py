"""Random measurements for compressed sensing: a Gaussian matrix, and a structured stand-in for it.

    Gaussian      y = G x,                              entries of variance 1/m, so that E ‖y‖² = ‖x‖²
    structured    y = √(n/m) S T D_L … T D_1 x,         D random signs (phases for complex images), T orthonormal and
                                                        fast, S m coefficients drawn without replacement

The structured kind needs no stored matrix, takes O(n log n), and its rows are orthogonal: D and T are unitary, so that
the Gram operator is diagonal behind them and `solve` has a closed form for any weights.

References: Candès, Tao, "Near-optimal signal recovery from random projections", IEEE TIT 2006. Do et al., "Fast and
efficient compressive sensing using structurally random matrices", IEEE TSP 2012.
"""

from collections.abc import Sequence
from math import prod, sqrt

import torch
from torch import Tensor

from ..errors import InputError
from .arguments import require_whole
from .base import LinearOperator, constant_like
from .cosine import Cosine
from .elementary import Dense
from .hadamard import Hadamard
from .orthonormal import OrthonormalTransform

__all__ = ["StructuredRandom", "gaussian_projection"]


def gaussian_projection(
    image_shape: Sequence[int], count: int, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Dense:
    """`count` measurements with independent Gaussian weights: `(C, H, W)` → `(1, 1, count)`.

    Args:
        image_shape: shape of one image; the matrix takes `count` times its size.
        count: number of measurements m; the weights have variance 1/m, for complex images E|g|² = 1/m.
        seed: of the weights.
        dtype: precision of the matrix.

    >>> gaussian_projection((1, 4, 4), 5).data_shape
    (1, 1, 5)
    """
    if require_whole(count, "gaussian_projection expects the count of measurements") < 1:
        raise InputError(f"gaussian_projection expects a positive count of measurements, got {count}")
    generator = torch.Generator().manual_seed(seed)
    wide = torch.complex128 if dtype.is_complex else torch.float64
    matrix = torch.randn(count, prod(image_shape), generator=generator, dtype=wide) / sqrt(count)
    return Dense(matrix.to(dtype), image_shape)


class StructuredRandom(LinearOperator):
    """Random signs, a fast transform and a random choice of coefficients: `(C, H, W)` → `(C, 1, m)`.

    Args:
        image_shape: `(C, H, W)` or `(C, D, H, W)`; channels are measured alike.
        count: measurements m of each channel, at most its number of pixels.
        layers: how many times signs and transform are applied; more come closer to independent entries.
        transform: "hadamard" (sizes that are powers of two) or "cosine" (any size).
        seed: of the signs and of the choice.
        dtype: precision of the images; a complex type takes random phases in place of signs.

    Raises:
        InputError: there are more measurements than pixels, or the transform does not take the size.

    >>> A = StructuredRandom((1, 8, 8), 16)
    >>> A.data_shape, round(A.norm(), 6)
    ((1, 1, 16), 2.0)
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        count: int,
        layers: int = 1,
        transform: str = "hadamard",
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
    ):
        grid = tuple(image_shape[1:])
        pixels = prod(grid)
        seed = require_whole(seed, "StructuredRandom expects a seed")
        if not 1 <= require_whole(count, "StructuredRandom expects the number of measurements") <= pixels:
            raise InputError(f"StructuredRandom expects between 1 and {pixels} measurements, got {count}")
        if require_whole(layers, "StructuredRandom expects the number of layers") < 1:
            raise InputError(f"StructuredRandom expects at least one layer, got {layers}")
        if transform not in ("hadamard", "cosine"):
            raise InputError(f"StructuredRandom expects transform 'hadamard' or 'cosine', got {transform!r}")
        generator = torch.Generator().manual_seed(seed)
        kept = torch.randperm(pixels, generator=generator)[:count]
        subsampled: OrthonormalTransform
        subsampled = (Hadamard if transform == "hadamard" else Cosine)(image_shape, kept, dtype=dtype)
        super().__init__(image_shape, subsampled.data_shape, dtype)
        self.signs = _signs((layers, *grid), generator, dtype)
        self.subsampled = subsampled
        self._scale = sqrt(pixels / count)

    def _apply(self, x: Tensor) -> Tensor:
        return self._scale * self.subsampled._apply(self._scrambled(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._unscrambled(self.subsampled._adjoint(self._scale * y))

    def norm(self, iterations: int = 200, tolerance: float = 1e-6, seed: int = 0) -> float:
        return self._scale

    def _solve(self, b: Tensor, damping: Tensor, weight: Tensor | None) -> Tensor | None:
        power = self._scale**2
        scaled = torch.full_like(damping, power) if weight is None else power * weight
        inner = self.subsampled._solve(self._scrambled(b), damping, scaled)
        return None if inner is None else self._unscrambled(inner)

    def _scrambled(self, x: Tensor) -> Tensor:
        """D_L T … T D_1 x, all but the last transform."""
        signs = constant_like(self.signs, x)
        for layer in range(len(signs)):
            x = signs[layer] * (self.subsampled._transform(x) if layer else x)
        return x

    def _unscrambled(self, x: Tensor) -> Tensor:
        signs = constant_like(self.signs, x).conj()
        for layer in reversed(range(len(signs))):
            x = signs[layer] * x
            x = self.subsampled._inverse(x) if layer else x
        return x


def _signs(shape: Sequence[int], generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    uniform = torch.rand(tuple(shape), generator=generator, dtype=torch.float64)
    if dtype.is_complex:
        return torch.polar(torch.ones_like(uniform), 2 * torch.pi * uniform).to(dtype)
    return torch.where(uniform < 0.5, -1.0, 1.0).to(dtype)
