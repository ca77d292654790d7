"""Magnitudes of complex Gaussian data, as in magnitude images of magnetic resonance.

    y = |m + n₁ + i n₂|,   n₁, n₂ ~ N(0, σ²)

    log p = log(y/σ²) − (y − m)²/(2σ²) + log[e^{−t} I₀(t)],         t = y m/σ²
    score = (y I₁(t)/I₀(t) − m)/σ²
    E y   = σ √(π/2) [(1 + q) e^{−q/2} I₀(q/2) + q e^{−q/2} I₁(q/2)],   q = m²/(2σ²);      E y² = m² + 2σ²

Only Bessel functions scaled by e^{−t} appear, so nothing overflows. The law is even in m: a negative m counts as |m|.
σ is the standard deviation of each of the two parts: a `ComplexGaussian(s)` has σ = s/√2. At m = 0 the score vanishes,
and with it the Fisher information, which has no closed form and is integrated over y by Gauss–Legendre quadrature.
−log p is not convex in m below a signal-to-noise ratio of about √2.

References: Gudbjartsson, Patz, "The Rician distribution of noisy MRI data", Magnetic Resonance in Medicine 1995.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from .base import Noise, in_blocks, like, positive, real_only, source_device

__all__ = ["Rician"]

_HIGH = 100.0  # signal-to-noise ratio from which moments follow their series: errors below 1e-8
_NODES = 96  # of the quadrature over y: 1e-10 in the information


@dataclass(frozen=True, eq=False)
class Rician(Noise):
    """The magnitude of a complex number seen through circular Gaussian noise.

    Args:
        sigma: standard deviation of the real and of the imaginary part, a positive number or a tensor that broadcasts
            to the data.

    Example:
        >>> import torch
        >>> Rician(1.0).expectation(torch.tensor([0.0, 100.0]))
        tensor([  1.2533, 100.0050])
    """

    sigma: float | Tensor
    signed: ClassVar[bool] = False
    log_concave: ClassVar[bool] = False

    def __post_init__(self):
        object.__setattr__(self, "sigma", positive(self.sigma, "Rician", "sigma"))

    def sample(self, mean: Tensor, generator: torch.Generator | None = None) -> Tensor:
        real_only(mean, "Rician")
        shape = (2, *mean.shape)
        draw = torch.randn(shape, generator=generator, dtype=mean.dtype, device=source_device(mean, generator))
        first, second = like(self.sigma, mean) * draw.to(mean.device)
        return torch.hypot(mean + first, second)

    def log_prob(self, y: Tensor, mean: Tensor) -> Tensor:
        sigma = self._sigma(real_only(mean, "Rician"))
        data, m = real_only(y, "Rician").double(), mean.double().abs()
        inside = data.clamp_min(0.0)
        bessel = torch.special.i0e(inside * m / sigma.square()).log()
        value = inside.log() - 2 * sigma.log() - 0.5 * ((inside - m) / sigma).square() + bessel
        return torch.where(data < 0, -math.inf, value).to(torch.promote_types(y.dtype, mean.dtype))

    def score(self, y: Tensor, mean: Tensor) -> Tensor:
        sigma, m = self._sigma(mean), real_only(mean, "Rician").double()
        return ((y * _ratio(y * m / sigma.square()) - m) / sigma.square()).to(mean.dtype)

    def expectation(self, mean: Tensor) -> Tensor:
        sigma = self._sigma(mean)
        return (sigma * _relative_mean(real_only(mean, "Rician").double() / sigma)).to(mean.dtype)

    def variance(self, mean: Tensor) -> Tensor:
        sigma = self._sigma(mean)
        ratio = (real_only(mean, "Rician").double() / sigma).abs()
        low = ratio.clamp_max(_HIGH)
        exact = low.square() + 2.0 - _relative_mean(low).square()
        series = 1.0 - 0.5 / ratio.clamp_min(_HIGH).square()
        return (sigma.square() * torch.where(ratio < _HIGH, exact, series)).to(mean.dtype)

    def information(self, mean: Tensor) -> Tensor:
        sigma = self._sigma(mean)
        ratio = (real_only(mean, "Rician").double() / sigma).abs()
        return (in_blocks(_relative_information, ratio) / sigma.square()).to(mean.dtype)

    def scaled(self, factor: float) -> "Rician":
        if not (math.isfinite(factor) and factor > 0):
            raise InputError(f"Rician.scaled expects a positive factor, got {factor}; magnitudes have a sign")
        return Rician(factor * self.sigma)

    def _sigma(self, mean: Tensor) -> Tensor:
        return torch.as_tensor(self.sigma, dtype=torch.float64, device=mean.device)


def _ratio(t: Tensor) -> Tensor:
    """I₁(t)/I₀(t)."""
    return torch.special.i1e(t) / torch.special.i0e(t)


def _relative_mean(ratio: Tensor) -> Tensor:
    """E y/σ at the signal-to-noise ratio m/σ."""
    low = ratio.abs().clamp_max(_HIGH)
    q = 0.5 * low.square()
    exact = math.sqrt(math.pi / 2) * ((1 + q) * torch.special.i0e(q / 2) + q * torch.special.i1e(q / 2))
    high = ratio.abs().clamp_min(_HIGH)
    return torch.where(ratio.abs() < _HIGH, exact, high + 0.5 / high + 0.125 / high**3)


def _relative_information(ratio: Tensor) -> Tensor:
    """σ² E score²: 0 at no signal, 1 at a high signal-to-noise ratio."""
    nodes, weights = (torch.from_numpy(v).to(ratio) for v in np.polynomial.legendre.leggauss(_NODES))
    m = ratio.clamp_max(_HIGH)[..., None]
    low, high = (m - 9.0).clamp_min(0.0), m + 9.0
    y = low + 0.5 * (high - low) * (nodes + 1.0)
    density = y * torch.special.i0e(y * m) * (-0.5 * (y - m).square()).exp()
    square = (y * _ratio(y * m) - m).square()
    value = 0.5 * (high - low)[..., 0] * (weights * density * square).sum(-1)
    return torch.where(ratio < _HIGH, value, 1.0 - 0.5 / ratio.clamp_min(_HIGH).square())
