"""Gaussian data clipped at the ends of a detector's range.

    y = min(max(z, low), high),   z ~ N(m, σ²)

    log p = log N(y; m, σ²)  inside,     log Φ((low − m)/σ)  at the lower end,     log Φ((m − high)/σ)  at the upper

The law mixes a density with two probabilities, and its −log p is convex in m. With α = (low − m)/σ, β = (high − m)/σ,
P = Φ(β) − Φ(α), and t = (y − m)/σ:
    E t  = α Φ(α) + β Φ(−β) + φ(α) − φ(β)
    E t² = α² Φ(α) + β² Φ(−β) + P + α φ(α) − β φ(β)
    σ² information = P + α φ(α) − β φ(β) + φ(α)²/Φ(α) + φ(β)²/Φ(−β)
A datum that is certain to be clipped carries no information and has no variance: its weight is capped at 10⁶/σ², and
it adds nothing to chi2.

References: Tobin, "Estimation of relationships for limited dependent variables", Econometrica 1958.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from .base import Noise, real_only
from .gaussian import Gaussian
from .normal_interval import log_interval

__all__ = ["Saturated"]

_LEAST = 1e-6  # of σ²: the least variance that a weight is made of
_FAR = 1e6  # standard deviations, beyond which an end of the range does not matter; infinity times zero is no number
_HUGE = 1e150  # stands for an end at infinity; its square is still a number


@dataclass(frozen=True, eq=False)
class Saturated(Noise):
    """Gaussian noise, then clipping to a range.

    Args:
        law: the Gaussian law before clipping.
        low, high: ends of the range in units of the data; None for no end. Data at an end count as clipped.

    Example:
        >>> import torch
        >>> law = Saturated(Gaussian(1.0), high=10.0)
        >>> law.log_prob(torch.tensor([10.0]), torch.tensor([10.0])).exp()
        tensor([0.5000])
    """

    law: Gaussian
    low: float | None = None
    high: float | None = None

    def __post_init__(self):
        if not isinstance(self.law, Gaussian):
            raise InputError(f"Saturated expects a Gaussian law, got {type(self.law).__name__}; pass Gaussian(sigma)")
        ends = [end for end in (self.low, self.high) if end is not None]
        numbers = all(isinstance(end, int | float) and not isinstance(end, bool) and math.isfinite(end) for end in ends)
        if not ends or not numbers or sorted(set(ends)) != ends:
            raise InputError(
                f"Saturated expects a finite low below a finite high, or one of them, got {self.low!r} and "
                f"{self.high!r}; use the law itself for data that are never clipped"
            )

    def sample(self, mean: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.law.sample(mean, generator).clamp(self.low, self.high)

    def log_prob(self, y: Tensor, mean: Tensor) -> Tensor:
        data, m, sigma = self._double(y, mean)
        below, above, outside = self._where(y)
        inside = self.law.log_prob(torch.where(below | above, m.detach(), data), m)
        lower = torch.special.log_ndtr((self._ends(y)[0] - m).clamp(-_HUGE, _HUGE) / sigma)
        upper = torch.special.log_ndtr((m - self._ends(y)[1]).clamp(-_HUGE, _HUGE) / sigma)
        value = torch.where(below, lower, torch.where(above, upper, inside))
        return torch.where(outside, -math.inf, value).to(torch.promote_types(y.dtype, mean.dtype))

    def cell(self, low: Tensor, high: Tensor, mean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Standardised bounds of z for low < y < high, and where no y of the range lies there; in float64."""
        bottom, top = self._ends(mean.double())
        sigma = self._sigma(mean)
        a = torch.where(low <= bottom, -math.inf, (low - mean) / sigma)
        b = torch.where(high > top, math.inf, (high - mean) / sigma)
        empty = (low > top) | (high <= bottom)
        return torch.where(empty, 0.0, a), torch.where(empty, 1.0, b), empty

    def expectation(self, mean: Tensor) -> Tensor:
        first, _, sigma = self._moments(mean)
        return (mean.double() + sigma * first).clamp(self.low, self.high).to(mean.dtype)

    def variance(self, mean: Tensor) -> Tensor:
        first, second, sigma = self._moments(mean)
        return (sigma.square() * (second - first.square()).clamp_min(0.0)).to(mean.dtype)

    def weight(self, mean: Tensor) -> Tensor:
        """1 / variance, where a variance below σ²/10⁶ counts as that."""
        first, second, sigma = self._moments(mean)
        return (1.0 / (sigma.square() * (second - first.square()).clamp_min(_LEAST))).to(mean.dtype)

    def information(self, mean: Tensor) -> Tensor:
        a, b, sigma = self._standardised(mean)
        value = log_interval(a, b).exp() + a * _density(a) - b * _density(b)
        value = value + _squared_over_tail(a) + _squared_over_tail(-b)
        return (value.clamp_min(0.0) / sigma.square()).to(mean.dtype)

    def scaled(self, factor: float) -> "Saturated":
        if not (math.isfinite(factor) and factor > 0):
            raise InputError(f"Saturated.scaled expects a positive factor, got {factor}; the range has a direction")
        ends = (None if end is None else factor * end for end in (self.low, self.high))
        return Saturated(self.law.scaled(factor), *ends)

    def _sigma(self, mean: Tensor) -> Tensor:
        return torch.as_tensor(self.law.sigma, dtype=torch.float64, device=mean.device)

    def _double(self, y: Tensor, mean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return real_only(y, "Saturated").double(), real_only(mean, "Saturated").double(), self._sigma(mean)

    def _ends(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Ends of the range as data of that precision hold them, in float64."""
        ends = (-math.inf if self.low is None else self.low, math.inf if self.high is None else self.high)
        low, high = (torch.tensor(end, dtype=like.dtype, device=like.device).double() for end in ends)
        return low, high

    def _where(self, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Where data are clipped below, above, and where they lie outside the range, which has no probability."""
        low, high = self._ends(y)
        data = y.double()
        return data <= low, data >= high, (data < low) | (data > high)

    def _standardised(self, mean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        m, sigma = real_only(mean, "Saturated").double(), self._sigma(mean)
        low, high = self._ends(m)
        return ((low - m) / sigma).clamp(-_FAR, _FAR), ((high - m) / sigma).clamp(-_FAR, _FAR), sigma

    def _moments(self, mean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """E t and E t² of t = (y − m)/σ, and σ."""
        a, b, sigma = self._standardised(mean)
        below, above = torch.special.ndtr(a), torch.special.ndtr(-b)
        first = a * below + b * above + _density(a) - _density(b)
        inside = log_interval(a, b).exp()
        second = a.square() * below + b.square() * above + inside + a * _density(a) - b * _density(b)
        return first, second, sigma


def _density(z: Tensor) -> Tensor:
    return (-0.5 * z.square()).exp() / math.sqrt(2 * math.pi)


def _squared_over_tail(z: Tensor) -> Tensor:
    """φ(z)²/Φ(z)."""
    return (-z.square() - math.log(2 * math.pi) - torch.special.log_ndtr(z)).exp()
