"""Speckle: multiplicative noise of an intensity averaged over L looks.

    y = m s,   s ~ Gamma(shape L, mean 1)
    log p = L log(L/m) + (L − 1) log y − L y/m − log Γ(L),        variance m²/L,        information L/m²

L = 1 is fully developed speckle (exponential intensities). −log p is convex in m only up to m = 2y. Below a millionth
of y the log-likelihood goes on along its tangent, so that an image which a solver let fall to zero or below is pushed
back and nothing overflows; sampling takes a negative mean for zero.

References: Goodman, "Speckle Phenomena in Optics", 2007, chapter 3. Aubert, Aujol, "A variational approach to removing
multiplicative noise", SIAM J. Applied Mathematics 2008.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import InputError
from .base import Noise, like, positive, real_only, source_device

__all__ = ["Gamma"]

_LOWEST = 1e-6  # of the datum: below this mean the log-likelihood is continued by its tangent
_TINY = 1e-30  # the least mean at all, and the cap of weights at dark pixels


@dataclass(frozen=True, eq=False)
class Gamma(Noise):
    """Multiplicative Gamma noise of mean 1: speckled intensities.

    Args:
        looks: L, how many independent speckle patterns were averaged; a positive number, not necessarily whole, or a
            tensor that broadcasts to the data.

    Example:
        >>> import torch
        >>> Gamma(looks=4.0).variance(torch.tensor([2.0]))
        tensor([1.])
    """

    looks: float | Tensor = 1.0
    signed: ClassVar[bool] = False
    log_concave: ClassVar[bool] = False

    def __post_init__(self):
        object.__setattr__(self, "looks", positive(self.looks, "Gamma", "number of looks"))

    def sample(self, mean: Tensor, generator: torch.Generator | None = None) -> Tensor:
        real_only(mean, "Gamma")
        where = source_device(mean, generator)
        shape = torch.as_tensor(like(self.looks, mean), dtype=mean.dtype, device=where).expand(mean.shape)
        draw = torch._standard_gamma(shape.contiguous(), generator=generator) / shape
        return mean.detach().clamp_min(0.0) * draw.to(mean.device)

    def log_prob(self, y: Tensor, mean: Tensor) -> Tensor:
        data, m = real_only(y, "Gamma").double(), real_only(mean, "Gamma").double()
        looks = torch.as_tensor(self.looks, dtype=m.dtype, device=m.device)
        inside = data.clamp_min(0.0)
        safe = self._safe(inside, m)
        value = looks * (looks.log() - safe.log() - inside / safe) + torch.xlogy(looks - 1.0, inside)
        slope = looks * (inside / safe - 1.0) / safe
        value = value - torch.lgamma(looks) + (m - safe) * slope.detach()
        return torch.where(data < 0, -math.inf, value).to(torch.promote_types(y.dtype, mean.dtype))

    def score(self, y: Tensor, mean: Tensor) -> Tensor:
        data, m = real_only(y, "Gamma").double(), real_only(mean, "Gamma").double()
        safe = self._safe(data, m)
        return (torch.as_tensor(self.looks).to(m) * (data / safe - 1.0) / safe).to(mean.dtype)

    def variance(self, mean: Tensor) -> Tensor:
        return real_only(mean, "Gamma").square() / torch.as_tensor(like(self.looks, mean)).to(mean)

    def weight(self, mean: Tensor) -> Tensor:
        """1 / variance, finite where the mean is zero."""
        looks = torch.as_tensor(like(self.looks, mean)).to(mean)
        return looks / real_only(mean, "Gamma").square().clamp_min(_TINY)

    def scaled(self, factor: float) -> "Gamma":
        if not (math.isfinite(factor) and factor > 0):
            raise InputError(f"Gamma.scaled expects a positive factor, got {factor}; intensities have a sign")
        return Gamma(self.looks)

    @staticmethod
    def _safe(y: Tensor, mean: Tensor) -> Tensor:
        return torch.maximum(mean, (_LOWEST * y).clamp_min(_TINY))
