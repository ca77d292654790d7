"""Counting noise, with and without a Gaussian read-out.

    Poisson:           y = g k,       k ~ Poisson(m/g)                       variance g m
    PoissonGaussian:   y = g k + n,   n ~ N(0, σ²)                           variance g m + σ²

    p(y | m) = Σ_k  e^{−λ} λᵏ/k! · N(y − g k; 0, σ²),      λ = m/g

The terms of that sum are log-concave in k. Their mode solves log λ − log(k+½) + a (y/g − k) = 0 with a = g²/σ², that is
a(k̂+½) = ω(log(λa) + a(y/g+½)) with Wright's ω; their width is s = (1/(k̂+1) + a)^{−½}. We sum from k̂ − 7.5 s − 2 to
k̂ + 7.5 s + 10, over every count while s < 4 and over every h-th count, h = ⌊s/2⌋, beyond: by Poisson's summation
formula thinning costs a relative error of about exp(−32) at most, and the tails left out are below 1e-11 of the sum
(Bernstein's inequality for the counting part). No Gaussian or saddle-point substitute is used anywhere. Compared with
the full sum over gains 0.01 to 5, read noise 1e-3 to 300 and 1e-5 to 5000 counts: 6e-12 in log p, 8e-10 in its
derivative.

Below a millionth of a count the log-likelihood goes on along its tangent, so that it stays concave and finite where a
blur computed by FFT leaves rates of −1e-9. Sampling clamps such rates at zero.

References: Snyder, Hammoud, White, "Image recovery from data acquired with a charge-coupled-device camera", JOSA A
1993.
Corless, Jeffrey, "The Wright ω function", 2002.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import InputError
from .base import Noise, like, positive, real_only, source_device

__all__ = ["Poisson", "PoissonGaussian"]

_LOWEST_RATE = 1e-6  # counts: below this the log-likelihood is continued by its tangent
_LOWEST_VARIANCE = (
    1e-3  # counts: caps the weight of a pixel without light, which the Poisson law lets grow without bound
)
_BLOCK = 1 << 16  # pixels summed at once: bounds the memory of the window at about 40 MB


@dataclass(frozen=True, eq=False)
class Poisson(Noise):
    """Counting noise of gain g: y = g·Poisson(m/g).

    `log_prob` is the log-probability of the count y/g, continued to non-integer counts by Γ.

    Args:
        gain: units of the data per count, a positive number.

    Example:
        >>> import torch
        >>> Poisson(gain=2.0).variance(torch.tensor([3.0]))
        tensor([6.])
    """

    gain: float = 1.0
    signed: ClassVar[bool] = False

    def __post_init__(self):
        object.__setattr__(self, "gain", _number(self.gain, "Poisson", "gain"))

    def sample(self, mean: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.gain * _counts(real_only(mean, "Poisson"), self.gain, generator)

    def log_prob(self, y: Tensor, mean: Tensor) -> Tensor:
        count = real_only(y, "Poisson").double() / self.gain
        rate = real_only(mean, "Poisson").double() / self.gain
        safe = rate.clamp_min(_LOWEST_RATE)
        value = torch.xlogy(count, safe) - safe - torch.lgamma(count.clamp_min(0.0) + 1.0)
        value = value + (rate - safe) * (count / safe - 1.0).detach()
        return torch.where(count < 0, -math.inf, value).to(torch.promote_types(y.dtype, mean.dtype))

    def score(self, y: Tensor, mean: Tensor) -> Tensor:
        return (y / mean.clamp_min(_LOWEST_RATE * self.gain) - 1.0) / self.gain

    def variance(self, mean: Tensor) -> Tensor:
        return self.gain * real_only(mean, "Poisson").clamp_min(0.0)

    def weight(self, mean: Tensor) -> Tensor:
        """1 / variance, where a mean below a thousandth of a count counts as a thousandth."""
        return 1.0 / self.variance(mean).clamp_min(_LOWEST_VARIANCE * self.gain**2)

    def scaled(self, factor: float) -> "Poisson":
        return Poisson(factor * self.gain)


@dataclass(frozen=True, eq=False)
class PoissonGaussian(Noise):
    """Counting noise followed by Gaussian read noise: y = g·Poisson(m/g) + N(0, σ²).

    Args:
        gain: units of the data per count, a positive number.
        sigma: standard deviation of the read noise in units of the data: a positive number, or a tensor that broadcasts
            to the data.

    Example:
        >>> import torch
        >>> law = PoissonGaussian(gain=2.0, sigma=1.0)
        >>> law.variance(torch.tensor([0.0, 3.0]))
        tensor([1., 7.])
    """

    gain: float
    sigma: float | Tensor

    def __post_init__(self):
        object.__setattr__(self, "gain", _number(self.gain, "PoissonGaussian", "gain"))
        object.__setattr__(self, "sigma", positive(self.sigma, "PoissonGaussian", "sigma"))

    def sample(self, mean: Tensor, generator: torch.Generator | None = None) -> Tensor:
        counts = _counts(real_only(mean, "PoissonGaussian"), self.gain, generator)
        draw = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=source_device(mean, generator))
        return self.gain * counts + like(self.sigma, mean) * draw.to(mean.device)

    def log_prob(self, y: Tensor, mean: Tensor) -> Tensor:
        return self._by_blocks(y, mean, _log_density)

    def score(self, y: Tensor, mean: Tensor) -> Tensor:
        """(E[k | y, m]/λ − 1)/g, from the same sum as `log_prob`."""
        with torch.no_grad():
            return self._by_blocks(y, mean, lambda t, rate, a: _relative_score(t, rate, a) / self.gain, density=False)

    def variance(self, mean: Tensor) -> Tensor:
        sigma = torch.as_tensor(like(self.sigma, mean), dtype=mean.dtype, device=mean.device)
        return self.gain * real_only(mean, "PoissonGaussian").clamp_min(0.0) + sigma.square()

    def scaled(self, factor: float) -> "PoissonGaussian":
        if not factor > 0:
            raise InputError(f"PoissonGaussian.scaled expects a positive factor, got {factor}; counts have a sign")
        return PoissonGaussian(factor * self.gain, factor * self.sigma)

    def _by_blocks(self, y: Tensor, mean: Tensor, function, density: bool = True) -> Tensor:
        real_only(y, "PoissonGaussian")
        real_only(mean, "PoissonGaussian")
        sigma = torch.as_tensor(self.sigma, dtype=torch.float64, device=mean.device)
        t, rate, sigma = torch.broadcast_tensors(y.double() / self.gain, mean.double() / self.gain, sigma)
        shape, a = t.shape, (self.gain / sigma).square()
        blocks = zip(*(v.reshape(-1).split(_BLOCK) for v in (t, rate, a)), strict=True)
        values = torch.cat([function(*block) for block in blocks]).reshape(shape)
        if density:
            values = values - sigma.log()
        return values.to(torch.promote_types(y.dtype, mean.dtype))


def _log_density(t: Tensor, rate: Tensor, a: Tensor) -> Tensor:
    """log Σ_k Poisson(k; rate) exp(−a(t−k)²/2)/√(2π), for data t in counts."""
    safe = rate.clamp_min(_LOWEST_RATE)
    terms, _, step = _window(t, safe, a)
    value = torch.logsumexp(terms, dim=0) + step.log() - 0.5 * math.log(2 * math.pi)
    if bool((rate < _LOWEST_RATE).any()):
        with torch.no_grad():
            slope = _relative_score(t, rate, a)
        value = value + (rate - safe) * slope
    return value


def _relative_score(t: Tensor, rate: Tensor, a: Tensor) -> Tensor:
    """E[k | t]/rate − 1."""
    safe = rate.clamp_min(_LOWEST_RATE)
    terms, counts, _ = _window(t, safe, a)
    return (torch.softmax(terms, dim=0) * counts).sum(0) / safe - 1.0


def _window(t: Tensor, rate: Tensor, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log-terms of the sum (nodes, pixels), the counts they belong to, and the spacing of those counts."""
    with torch.no_grad():
        mode = (_wright_omega((rate * a).log() + a * (t + 0.5)) / a - 0.5).clamp_min(0.0)
        width = (1.0 / (mode + 1.0) + a).rsqrt()
        step = (width / 2).floor().clamp_min(1.0)
        left = int(((7.5 * width + 2.0) / step).max().ceil())
        right = int(((7.5 * width + 10.0) / step).max().ceil())
        node = torch.arange(-left, right + 1, dtype=t.dtype, device=t.device)[:, None]
        counts = mode.round() + step * node
        factorial = torch.lgamma(counts.clamp_min(0.0) + 1.0)
    terms = counts * rate.log() - rate - factorial - 0.5 * a * (t - counts).square()
    return torch.where(counts < 0, -math.inf, terms), counts, step


def _wright_omega(z: Tensor) -> Tensor:
    """ω with ω + log ω = z, by Halley-like steps from both asymptotes; relative error below 1e-12."""
    large = z > 1.0
    above = torch.where(large, z, 1.0)
    w = torch.where(large, above - above.log(), torch.where(z < -1.0, z.exp(), 1.0 / (1.0 + (-z.clamp(-1, 1)).exp())))
    w = w.clamp_min(1e-300)
    for _ in range(5):
        residual = z - w - w.log()
        w = (w * (1.0 + residual / (1.0 + w))).clamp_min(1e-300)
    return w


def _counts(mean: Tensor, gain: float, generator: torch.Generator | None) -> Tensor:
    rate = (mean.detach() / gain).clamp_min(0.0).to(source_device(mean, generator))
    return torch.poisson(rate, generator=generator).to(mean.device)


def _number(value: float, owner: str, name: str) -> float:
    if isinstance(value, Tensor):
        raise InputError(f"{owner} expects one {name} for all data, got a tensor; pass a number")
    return positive(value, owner, name)  # type: ignore[return-value]
