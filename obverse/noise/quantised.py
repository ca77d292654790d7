"""Gaussian data rounded to the steps of a converter, clipped before or not.

    y = δ round(z/δ),   z ~ N(m, σ²), or clipped to a range (`Saturated`)

    log p = log P(y − δ/2 < z < y + δ/2)                            a probability; −log p is convex in m

Expectation, variance and information are sums over the steps within nine standard deviations. For steps below σ/2
they follow Sheppard: variance σ² + δ²/12, information 1/(σ² + δ²/12), to 4e-8; for clipped data, below σ/20, to about
1e-3 where data are clipped. Data that are no multiples of δ are read as the nearest one.

References: Widrow, Kollár, "Quantization Noise", 2008.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from .base import Noise, positive, real_only
from .gaussian import Gaussian
from .normal_interval import log_interval
from .saturated import Saturated

__all__ = ["Quantised"]

_REACH = 9.0  # standard deviations of the sums
_FINE, _FINE_CLIPPED = 0.5, 0.05  # of σ: below this step Sheppard's corrections serve


@dataclass(frozen=True, eq=False)
class Quantised(Noise):
    """Gaussian noise, possibly clipped, then rounding.

    Args:
        law: `Gaussian`, or `Saturated` with ends at multiples of the step, as a converter has them.
        step: δ in units of the data, a positive number.

    Example:
        >>> import torch
        >>> law = Quantised(Gaussian(0.01), step=1.0)
        >>> law.log_prob(torch.tensor([3.0, 3.0]), torch.tensor([3.4, 3.5])).exp()
        tensor([1.0000, 0.5000])
    """

    law: Gaussian | Saturated
    step: float

    def __post_init__(self):
        if not isinstance(self.law, Gaussian | Saturated):
            raise InputError(
                f"Quantised expects a Gaussian or Saturated law, got {type(self.law).__name__}; rounding of counts is "
                "part of Poisson"
            )
        if isinstance(self.step, Tensor):
            raise InputError("Quantised expects one step for all data, got a tensor; pass a number")
        object.__setattr__(self, "step", positive(self.step, "Quantised", "step"))

    def sample(self, mean: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return (self.law.sample(mean, generator) / self.step).round() * self.step

    def log_prob(self, y: Tensor, mean: Tensor) -> Tensor:
        level = (real_only(y, "Quantised").double() / self.step).round()
        low, high, empty = self._cell(level, real_only(mean, "Quantised").double())
        value = torch.where(empty, -math.inf, log_interval(low, high))
        return value.to(torch.promote_types(y.dtype, mean.dtype))

    def expectation(self, mean: Tensor) -> Tensor:
        first, _, _ = self._sums(mean)
        return torch.where(self._fine(mean), self.law.expectation(mean.double()), first).to(mean.dtype)

    def variance(self, mean: Tensor) -> Tensor:
        _, variance, _ = self._sums(mean)
        sheppard = self.law.variance(mean.double()) + self.step**2 / 12
        return torch.where(self._fine(mean), sheppard, variance).to(mean.dtype)

    def weight(self, mean: Tensor) -> Tensor:
        """1 / variance, where a variance below (σ² + δ²/12)/10⁶ counts as that."""
        least = 1e-6 * (self._sigma(mean).square() + self.step**2 / 12)
        return (1.0 / torch.maximum(self.variance(mean).double(), least)).to(mean.dtype)

    def information(self, mean: Tensor) -> Tensor:
        _, _, information = self._sums(mean)
        sheppard = self.law.information(mean.double()) / (1 + (self.step / self._sigma(mean)).square() / 12)
        return torch.where(self._fine(mean), sheppard, information).to(mean.dtype)

    def scaled(self, factor: float) -> "Quantised":
        if not (math.isfinite(factor) and factor > 0):
            raise InputError(f"Quantised.scaled expects a positive factor, got {factor}; scale the data's sign apart")
        return Quantised(self.law.scaled(factor), factor * self.step)

    def _sigma(self, mean: Tensor) -> Tensor:
        law = self.law.law if isinstance(self.law, Saturated) else self.law
        return torch.as_tensor(law.sigma, dtype=torch.float64, device=mean.device)

    def _fine(self, mean: Tensor) -> Tensor:
        limit = _FINE_CLIPPED if isinstance(self.law, Saturated) else _FINE
        return (self.step < limit * self._sigma(mean)).expand(mean.shape)

    def _cell(self, level: Tensor, mean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Standardised bounds of z for a level, and whether no data can have it."""
        low, high = (level - 0.5) * self.step, (level + 0.5) * self.step
        if isinstance(self.law, Saturated):
            return self.law.cell(low, high, mean)
        sigma = self._sigma(mean)
        return (low - mean) / sigma, (high - mean) / sigma, torch.zeros_like(mean, dtype=torch.bool)

    def _sums(self, mean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Expectation, variance and information by summing over levels, in float64; coarse steps only."""
        with torch.no_grad():
            m, sigma = real_only(mean, "Quantised").double(), self._sigma(mean)
            ends = (self.law.low, self.law.high) if isinstance(self.law, Saturated) else (None, None)
            centre = ((m if ends == (None, None) else m.clamp(*ends)) / self.step).round()
            widest = float(torch.where(self._fine(mean), 0.0, sigma).max()) if mean.numel() else 0.0
            reach = int(math.ceil(_REACH * widest / self.step)) + 1
            first, second, information = torch.zeros_like(m), torch.zeros_like(m), torch.zeros_like(m)
            for offset in range(-reach, reach + 1):
                low, high, empty = self._cell(centre + offset, m)
                log_probability = log_interval(low, high)
                probability = torch.where(empty, 0.0, log_probability.exp())
                first += offset * probability
                second += offset**2 * probability
                slope = ((-0.5 * low.square()).exp() - (-0.5 * high.square()).exp()).abs() / math.sqrt(2 * math.pi)
                information += torch.where(empty, 0.0, (2 * slope.log() - log_probability).exp())
            variance = (second - first.square()).clamp_min(0.0)
            return (centre + first) * self.step, variance * self.step**2, information / sigma.square()
