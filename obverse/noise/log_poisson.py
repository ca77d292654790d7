"""Transmitted counts read as line integrals, as in transmission tomography.

    N ~ Poisson(λ),   λ = b exp(−m/u),            y = −u log(N/b),    b counts without the object, u a unit of y

    log p = k log λ − λ − log Γ(k + 1),           k = b exp(−y/u):    the log-probability of the count
    information(m) = λ/u²,                        −log p is convex in m

The data are line integrals, in the units of a projection A x; to use counts N, pass `law.line_integrals(N)`. A detector
that saw nothing is recorded as half a count, so that y stays finite: k below 3/4 is read as zero. The mean of y is not
m at few counts: E y = −u E log(max(N, ½)/b) and the variance of y are sums over the counts, and series in 1/λ beyond
60 counts (relative error below 1e-6).

References: Sauer, Bouman, "A local update strategy for iterative reconstruction from projections", IEEE TSP 1993.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from .base import Noise, in_blocks, like, positive, real_only, source_device

__all__ = ["LogPoisson"]

_STEEPEST = -30.0  # lowest m/u before the likelihood goes on along its tangent: e³⁰ times the blank scan is no datum
_MANY = 60.0  # counts from which the series replaces the sum
_TERMS = 160  # of the sum: the tail beyond is below 1e-24 at 60 counts


@dataclass(frozen=True, eq=False)
class LogPoisson(Noise):
    """Poisson counts behind an absorber, as line integrals y = −unit·log(N/blank).

    Args:
        blank: counts of a detector element without the object, a positive number or a tensor that broadcasts to the
            data.
        unit: of the line integrals: y is −unit·log(N/blank).

    Example:
        >>> import torch
        >>> law = LogPoisson(blank=1000.0)
        >>> law.information(torch.tensor([0.0, 2.302585])).round()
        tensor([1000.,  100.])
    """

    blank: float | Tensor
    unit: float = 1.0

    def __post_init__(self):
        object.__setattr__(self, "blank", positive(self.blank, "LogPoisson", "blank"))
        if isinstance(self.unit, Tensor):
            raise InputError("LogPoisson expects one unit for all data, got a tensor; pass a number")
        object.__setattr__(self, "unit", positive(self.unit, "LogPoisson", "unit"))

    def line_integrals(self, counts: Tensor) -> Tensor:
        """Counts as the data of this law: −unit·log(max(N, ½)/blank)."""
        if bool((real_only(counts, "LogPoisson") < 0).any()):
            raise InputError(f"LogPoisson expects counts of at least zero, got {float(counts.min()):g}")
        return -self.unit * (counts.clamp_min(0.5) / torch.as_tensor(like(self.blank, counts))).log()

    def sample(self, mean: Tensor, generator: torch.Generator | None = None) -> Tensor:
        rate = self._rate(real_only(mean.detach(), "LogPoisson")).to(source_device(mean, generator))
        counts = torch.poisson(rate, generator=generator).to(mean.device)
        return self.line_integrals(counts).to(mean.dtype)

    def log_prob(self, y: Tensor, mean: Tensor) -> Tensor:
        count, m = self._counts(y), real_only(mean, "LogPoisson").double() / self.unit
        safe = m.clamp_min(_STEEPEST)
        blank = torch.as_tensor(like(self.blank, m), dtype=m.dtype, device=m.device)
        rate = blank * (-safe).exp()
        value = torch.where(count > 0, count * (blank.log() - safe), 0.0) - rate - torch.lgamma(count + 1.0)
        value = value + (m - safe) * (rate - count).detach()
        return value.to(torch.promote_types(y.dtype, mean.dtype))

    def score(self, y: Tensor, mean: Tensor) -> Tensor:
        return ((self._rate(mean) - self._counts(y)) / self.unit).to(mean.dtype)

    def expectation(self, mean: Tensor) -> Tensor:
        blank = torch.as_tensor(self.blank, dtype=torch.float64, device=mean.device)
        return (self.unit * (blank.log() - in_blocks(_log_mean, self._rate(mean)))).to(mean.dtype)

    def variance(self, mean: Tensor) -> Tensor:
        return (self.unit**2 * in_blocks(_log_variance, self._rate(mean))).to(mean.dtype)

    def weight(self, mean: Tensor) -> Tensor:
        """1 / variance; where fewer than 1e-3 counts are expected, and all data are alike, as at 1e-3."""
        rate = self._rate(mean).clamp_min(1e-3)
        return (1.0 / (self.unit**2 * in_blocks(_log_variance, rate))).to(mean.dtype)

    def information(self, mean: Tensor) -> Tensor:
        return (self._rate(mean) / self.unit**2).to(mean.dtype)

    def scaled(self, factor: float) -> "LogPoisson":
        if not factor > 0:
            raise InputError(f"LogPoisson.scaled expects a positive factor, got {factor}; line integrals have a sign")
        return LogPoisson(self.blank, factor * self.unit)

    def _rate(self, mean: Tensor) -> Tensor:
        m = (real_only(mean, "LogPoisson").double() / self.unit).clamp_min(_STEEPEST)
        return torch.as_tensor(self.blank, dtype=m.dtype, device=m.device) * (-m).exp()

    def _counts(self, y: Tensor) -> Tensor:
        data = real_only(y, "LogPoisson").double() / self.unit
        count = torch.as_tensor(self.blank, dtype=data.dtype, device=data.device) * (-data).exp()
        return torch.where(count < 0.75, 0.0, count)


def _log_mean(rate: Tensor) -> Tensor:
    """E log max(N, ½)."""
    x = 1.0 / rate.clamp_min(1.0)
    series = -x.log() - x * (1 / 2 + x * (5 / 12 + x * (3 / 4 + x * (251 / 120))))
    few = rate < _MANY
    weights, logs = _terms(rate[few])
    return series.masked_scatter(few, (weights * logs).sum(-1))


def _log_variance(rate: Tensor) -> Tensor:
    """Var log max(N, ½)."""
    x = 1.0 / rate.clamp_min(1.0)
    series = x * (1 + x * (3 / 2 + x * (43 / 12 + x * 11.84)))
    few = rate < _MANY
    weights, logs = _terms(rate[few])
    above = logs - math.log(0.5)  # measured from the value of an empty detector, so that few counts lose no digits
    centred = above - (weights * above).sum(-1, keepdim=True)
    return series.masked_scatter(few, (weights * centred.square()).sum(-1))


def _terms(rate: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities (n, counts) and log max(N, ½) of the counts."""
    count = torch.arange(_TERMS, dtype=rate.dtype, device=rate.device)
    low = rate.clamp_min(1e-300)[:, None]
    return (count * low.log() - low - torch.lgamma(count + 1.0)).exp(), count.clamp_min(0.5).log()
