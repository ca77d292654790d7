"""Sparsity: the ℓ1 norm of the image, or of its wavelet coefficients.

    L1:         Σ_i w_i |x_i|               prox: soft threshold  x max(1 − s w/|x|, 0)
    WaveletL1:  Σ_i w_i |(W x)_i|           prox: Wᴴ soft(W x), since W is orthonormal

One-dimensional signals (spike trains) are images `(C, 1, N)`.

References: Donoho, Johnstone, "Ideal spatial adaptation by wavelet shrinkage", Biometrika 1994.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from .base import Functional, Prior, Term, batch_sum, check_step, identity

__all__ = ["L1", "WaveletL1"]


@dataclass(frozen=True, eq=False)
class L1(Prior):
    """Σ_i w_i |x_i|.

    Args:
        weight: w, a number or a map that broadcasts to the image, at least zero; 1/w is the scale of a Laplace law.
        dimensions: number of spatial axes.

    Example:
        >>> import torch
        >>> L1(0.5).prox(torch.tensor([[[-2.0, 0.25, 1.0]]]), 1.0)
        tensor([[[-1.5000,  0.0000,  0.5000]]])
    """

    weight: float | Tensor = 1.0
    dimensions: int = 2

    def __post_init__(self):
        object.__setattr__(self, "weight", _checked_weight(self.weight, "L1"))

    def value(self, x: Tensor) -> Tensor:
        return batch_sum(_like(self.weight, x) * x.abs(), self.dimensions + 1, "L1")

    def prox(self, x: Tensor, step: float) -> Tensor:
        return soft_threshold(x, check_step(step, "L1") * _like(self.weight, x))

    def terms(self, image_shape: Sequence[int] | None = None, dtype: torch.dtype = torch.float32) -> list[Term]:
        shape = self._shape(image_shape)
        return [Term(identity(shape, dtype), _WeightedL1(self.weight, len(shape)))]


@dataclass(frozen=True, eq=False)
class WaveletL1(Prior):
    """Σ_i w |(W x)_i| over the detail coefficients of an orthonormal periodic wavelet transform.

    The coarsest averages carry the brightness of the image and are not penalised.

    Args:
        weight: w, a number of at least zero.
        wavelet: name of the wavelet, such as "haar", "db4" or "sym4".
        levels: number of levels; by default as many as the image's size allows, 4 at most.
        dimensions: number of spatial axes.

    Example:
        >>> import torch
        >>> WaveletL1(1.0, "haar", levels=1).prox(torch.full((1, 4, 4), 3.0), 1.0)[0, 0]
        tensor([3.0000, 3.0000, 3.0000, 3.0000])
    """

    weight: float = 1.0
    wavelet: str = "db4"
    levels: int | None = None
    dimensions: int = 2

    def __post_init__(self):
        if isinstance(self.weight, Tensor):
            raise InputError("WaveletL1 expects one weight for all coefficients, got a tensor; pass a number")
        object.__setattr__(self, "weight", _checked_weight(self.weight, "WaveletL1"))

    def value(self, x: Tensor) -> Tensor:
        term = self._term(tuple(x.shape[-self.dimensions - 1 :]), x.dtype)
        return term.functional.value(term.operator(x))

    def prox(self, x: Tensor, step: float) -> Tensor:
        term = self._term(tuple(x.shape[-self.dimensions - 1 :]), x.dtype)
        return term.operator.adjoint(term.functional.prox(term.operator(x), check_step(step, "WaveletL1")))

    def terms(self, image_shape: Sequence[int] | None = None, dtype: torch.dtype = torch.float32) -> list[Term]:
        return [self._term(self._shape(image_shape), dtype)]

    def _term(self, shape: tuple[int, ...], dtype: torch.dtype) -> Term:
        from ..operators.wavelet import Wavelet

        transform = Wavelet(shape, self.wavelet, levels=self.levels, dtype=dtype)
        weight = torch.full(shape, float(self.weight), dtype=torch.float64)
        # Mallat's layout: the averages fill the corner that is left when each axis has been halved `levels` times
        corner = tuple(slice(0, n >> transform.levels if n > 1 else 1) for n in shape[1:])
        weight[(slice(None), *corner)] = 0.0
        return Term(transform, _WeightedL1(weight, len(shape)))


def soft_threshold(x: Tensor, threshold: float | Tensor) -> Tensor:
    """x max(1 − threshold/|x|, 0), real or complex."""
    if not x.is_complex():
        return x - x.clamp(-threshold, threshold) if not isinstance(threshold, Tensor) else _shrink(x, threshold)
    size = x.abs()
    return x * (1.0 - threshold / size.clamp_min(torch.finfo(size.dtype).tiny)).clamp_min(0.0)


class _WeightedL1(Functional):
    def __init__(self, weight: float | Tensor, axes: int):
        super().__init__(axes)
        self.weight = weight

    def value(self, z: Tensor) -> Tensor:
        return self.total(_like(self.weight, z) * z.abs())

    def prox(self, z: Tensor, step: float) -> Tensor:
        return soft_threshold(z, step * _like(self.weight, z))


def _shrink(x: Tensor, threshold: Tensor) -> Tensor:
    return x - torch.minimum(torch.maximum(x, -threshold), threshold)


def _like(weight: float | Tensor, x: Tensor) -> float | Tensor:
    if not isinstance(weight, Tensor):
        return weight
    return weight.to(dtype=x.real.dtype if x.is_complex() else x.dtype, device=x.device)


def _checked_weight(weight: float | Tensor, owner: str) -> float | Tensor:
    values = torch.as_tensor(weight)
    if values.is_complex() or not bool(((values >= 0) & values.isfinite()).all()):
        raise InputError(f"{owner} expects a finite real weight of at least zero, got {weight}")
    return weight.detach().clone() if isinstance(weight, Tensor) else float(weight)
