"""Bounds on pixel values: the indicator of images that are nowhere below, or above, a bound.

value(x) = 0 if lower ≤ x ≤ upper everywhere, else ∞;      prox(x) = min(max(x, lower), upper)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from .base import Prior, Term, Whole, check_step, identity

__all__ = ["Box", "Positivity"]


class _Bounded(Prior):
    """Images with `lower` ≤ x ≤ `upper`."""

    lower: float
    upper: float

    def value(self, x: Tensor) -> Tensor:
        inside = ((x >= self.lower) & (x <= self.upper)).flatten(-self.dimensions - 1).all(-1)
        return torch.where(inside, 0.0, math.inf).to(x.dtype)

    def prox(self, x: Tensor, step: float) -> Tensor:
        name = type(self).__name__
        check_step(step, name)
        if x.is_complex():
            raise InputError(f"{name} expects real images, got complex ones; constrain their magnitude otherwise")
        return x.clamp(self.lower, self.upper)

    def terms(self, image_shape: Sequence[int] | None = None, dtype: torch.dtype = torch.float32) -> list[Term]:
        shape = self._shape(image_shape)
        return [Term(identity(shape, dtype), Whole(self.bind(shape), len(shape)))]


@dataclass(frozen=True)
class Positivity(_Bounded):
    """Images that are nowhere below `lower`.

    Args:
        lower: the bound, in units of the image.
        dimensions: number of spatial axes.

    Example:
        >>> import torch
        >>> Positivity().prox(torch.tensor([[[-1.0, 2.0]]]), 1.0)
        tensor([[[0., 2.]]])
    """

    lower: float = 0.0
    dimensions: int = 2

    def __post_init__(self):
        if not math.isfinite(self.lower):
            raise InputError(f"Positivity expects a finite lower bound, got {self.lower}; leave the prior out instead")

    @property
    def upper(self) -> float:  # type: ignore[override]
        return math.inf


@dataclass(frozen=True)
class Box(_Bounded):
    """Images whose values all lie in one interval.

    Its Moreau envelope is the tail that keeps Langevin chains with a network's `Score` where the network was trained.

    Args:
        lower: least value, in units of the image.
        upper: largest value.
        dimensions: number of spatial axes.

    Example:
        >>> import torch
        >>> Box(0.0, 1.0).prox(torch.tensor([[[-1.0, 0.5, 2.0]]]), 1.0)
        tensor([[[0.0000, 0.5000, 1.0000]]])
    """

    lower: float
    upper: float
    dimensions: int = 2

    def __post_init__(self):
        if not -math.inf < self.lower < self.upper < math.inf:
            raise InputError(f"Box expects finite bounds lower < upper, got {self.lower} and {self.upper}")
