"""Gaussian noise, real and complex.

Gaussian:          y = m + n,  n ~ N(0, σ²)           log p = −(y−m)²/(2σ²) − ½ log(2πσ²)
ComplexGaussian:   n circular, E|n|² = σ²             log p = −|y−m|²/σ² − log(πσ²)
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import InputError
from .base import Noise, like, positive, real_only, source_device

__all__ = ["ComplexGaussian", "Gaussian"]


@dataclass(frozen=True, eq=False)
class Gaussian(Noise):
    """Real Gaussian noise.

    Args:
        sigma: standard deviation in units of the data, a positive number or a tensor that broadcasts to the data.

    Example:
        >>> import torch
        >>> Gaussian(2.0).variance(torch.zeros(2))
        tensor([4., 4.])
    """

    sigma: float | Tensor
    gaussian: ClassVar[bool] = True

    def __post_init__(self):
        object.__setattr__(self, "sigma", positive(self.sigma, "Gaussian", "sigma"))

    def sample(self, mean: Tensor, generator: torch.Generator | None = None) -> Tensor:
        real_only(mean, "Gaussian")
        draw = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=source_device(mean, generator))
        return mean + like(self.sigma, mean) * draw.to(mean.device)

    def log_prob(self, y: Tensor, mean: Tensor) -> Tensor:
        sigma = _tensor(self.sigma, real_only(mean, "Gaussian"))
        return -0.5 * ((real_only(y, "Gaussian") - mean) / sigma).square() - sigma.log() - 0.5 * math.log(2 * math.pi)

    def score(self, y: Tensor, mean: Tensor) -> Tensor:
        return (y - mean) / _tensor(self.sigma, mean).square()

    def variance(self, mean: Tensor) -> Tensor:
        return _tensor(self.sigma, mean).square().expand(mean.shape)

    def scaled(self, factor: float) -> "Gaussian":
        return Gaussian(abs(_nonzero(factor)) * self.sigma)


@dataclass(frozen=True, eq=False)
class ComplexGaussian(Noise):
    """Circular complex Gaussian noise.

    Args:
        sigma: √(E|n|²) in units of the data: each of the two parts has standard deviation sigma/√2. A positive number,
            or a real tensor that broadcasts to the data.
    """

    sigma: float | Tensor
    gaussian: ClassVar[bool] = True
    complex: ClassVar[bool] = True

    def __post_init__(self):
        object.__setattr__(self, "sigma", positive(self.sigma, "ComplexGaussian", "sigma"))

    def sample(self, mean: Tensor, generator: torch.Generator | None = None) -> Tensor:
        if not mean.is_complex():
            raise InputError(f"ComplexGaussian expects a complex mean, got {mean.dtype}; use Gaussian for real data")
        draw = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=source_device(mean, generator))
        return mean + like(self.sigma, mean) * draw.to(mean.device)

    def log_prob(self, y: Tensor, mean: Tensor) -> Tensor:
        sigma = _tensor(self.sigma, mean)
        difference = y - mean
        energy = difference.real.square() + difference.imag.square() if difference.is_complex() else difference.square()
        return -energy / sigma.square() - 2 * sigma.log() - math.log(math.pi)

    def score(self, y: Tensor, mean: Tensor) -> Tensor:
        return 2.0 * (y - mean) / _tensor(self.sigma, mean).square()

    def variance(self, mean: Tensor) -> Tensor:
        return _tensor(self.sigma, mean).square().expand(mean.shape)

    def scaled(self, factor: float) -> "ComplexGaussian":
        return ComplexGaussian(abs(_nonzero(factor)) * self.sigma)


def _tensor(sigma: float | Tensor, mean: Tensor) -> Tensor:
    real = mean.real.dtype if mean.is_complex() else mean.dtype
    return torch.as_tensor(sigma, dtype=real, device=mean.device)


def _nonzero(factor: float) -> float:
    if not (math.isfinite(factor) and factor != 0):
        raise InputError(f"scaled expects a finite factor that is not zero, got {factor}; pass the unit conversion")
    return factor
