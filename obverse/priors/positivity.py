"""Positivity: the indicator of images that are nowhere below a bound.

value(x) = 0 if x ≥ lower everywhere, else ∞;      prox(x) = max(x, lower)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from .base import Prior, Term, Whole, check_step, identity

__all__ = ["Positivity"]


@dataclass(frozen=True)
class Positivity(Prior):
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

    def value(self, x: Tensor) -> Tensor:
        inside = (x >= self.lower).flatten(-self.dimensions - 1).all(-1)
        return torch.where(inside, 0.0, math.inf).to(x.dtype)

    def prox(self, x: Tensor, step: float) -> Tensor:
        check_step(step, "Positivity")
        if x.is_complex():
            raise InputError("Positivity expects real images, got complex ones; constrain their magnitude otherwise")
        return x.clamp_min(self.lower)

    def terms(self, image_shape: Sequence[int] | None = None, dtype: torch.dtype = torch.float32) -> list[Term]:
        shape = self._shape(image_shape)
        return [Term(identity(shape, dtype), Whole(self.bind(shape), len(shape)))]
