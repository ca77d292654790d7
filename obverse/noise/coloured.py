"""Stationary Gaussian noise with a power spectrum, periodic over the grid of the data.

    y = m + F⁻¹ √S F w,   w white of variance 1,   F the orthonormal FFT, S_k = E|F(y − m)_k|²

    residual   r = F⁻¹ S^{−½} F (y − m)                        white, of variance 1
    log p        = Σ_i [−½ r_i² − ½ log 2π − ½ mean_k log S_k]      (the data's shares in the joint density)
    score        = F⁻¹ S⁻¹ F (y − m),     variance = mean_k S_k,     information = mean_k 1/S_k

The variance is that of one datum, and the information that of one coordinate, alone. Weights per datum know nothing of
the correlations and are refused. For methods that use them, whiten instead: data `law.whiten(y)`, an operator followed
by `law.whiten`, and `Gaussian(1.0)`, which is the same likelihood.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import InputError
from .base import Noise, positive, real_only, source_device

__all__ = ["ColouredGaussian"]


@dataclass(frozen=True, eq=False)
class ColouredGaussian(Noise):
    """Real Gaussian noise whose correlation is the same everywhere.

    Args:
        spectrum: variance of each mode of the orthonormal FFT, zero frequency first, as for `priors.GaussianField`:
            positive, equal at opposite frequencies; its shape is that of the data's last axes, (N,), (H, W) or
            (D, H, W). White noise of variance v has the spectrum v everywhere.

    Example:
        >>> import torch
        >>> law = ColouredGaussian(torch.full((8, 8), 4.0))
        >>> law.variance(torch.zeros(1, 8, 8)).unique()
        tensor([4.])
    """

    spectrum: Tensor
    independent: ClassVar[bool] = False

    def __post_init__(self):
        if not isinstance(self.spectrum, Tensor) or self.spectrum.ndim < 1:
            raise InputError(
                "ColouredGaussian expects a spectrum as a tensor with the data's last axes, got "
                f"{self.spectrum!r}; use Gaussian for white noise"
            )
        spectrum = torch.as_tensor(positive(self.spectrum, "ColouredGaussian", "spectrum"))
        axes = tuple(range(spectrum.ndim))
        mirrored = spectrum.flip(axes).roll((1,) * spectrum.ndim, axes)
        if not torch.allclose(spectrum, mirrored, rtol=1e-4):
            raise InputError(
                "ColouredGaussian expects a spectrum that is equal at opposite frequencies, got one that is not; "
                "pass it in FFT order, zero frequency first (ifftshift a centred one)"
            )
        object.__setattr__(self, "spectrum", spectrum)

    def sample(self, mean: Tensor, generator: torch.Generator | None = None) -> Tensor:
        self._check(mean)
        draw = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=source_device(mean, generator))
        return mean + self._filtered(draw.to(mean.device), 0.5)

    def log_prob(self, y: Tensor, mean: Tensor) -> Tensor:
        constant = 0.5 * math.log(2 * math.pi) + 0.5 * float(self.spectrum.double().log().mean())
        return -0.5 * self.residual(y, mean).square() - constant

    def residual(self, y: Tensor, mean: Tensor) -> Tensor:
        return self.whiten(y - mean)

    def whiten(self, v: Tensor) -> Tensor:
        """F⁻¹ S^{−½} F v, a self-adjoint map: what makes this noise white, of variance 1."""
        self._check(v)
        return self._filtered(v, -0.5)

    def score(self, y: Tensor, mean: Tensor) -> Tensor:
        self._check(mean)
        return self._filtered(y - mean, -1.0)

    def variance(self, mean: Tensor) -> Tensor:
        return self.spectrum.mean().to(real_only(mean, "ColouredGaussian")).expand(mean.shape)

    def weight(self, mean: Tensor) -> Tensor:
        raise InputError(
            "a weight per datum expects independent noise, got ColouredGaussian; pass law.whiten(y), an operator "
            "followed by law.whiten, and Gaussian(1.0)"
        )

    def information(self, mean: Tensor) -> Tensor:
        return (1.0 / self.spectrum).mean().to(real_only(mean, "ColouredGaussian")).expand(mean.shape)

    def scaled(self, factor: float) -> "ColouredGaussian":
        if not (math.isfinite(factor) and factor != 0):
            raise InputError(f"scaled expects a finite factor that is not zero, got {factor}; pass the unit conversion")
        return ColouredGaussian(factor**2 * self.spectrum)

    def _check(self, v: Tensor) -> None:
        shape = tuple(self.spectrum.shape)
        if tuple(real_only(v, "ColouredGaussian").shape[-len(shape) :]) != shape:
            raise InputError(f"ColouredGaussian expects data whose last axes are {shape}, got {tuple(v.shape)}")

    def _filtered(self, v: Tensor, power: float) -> Tensor:
        axes = tuple(range(-self.spectrum.ndim, 0))
        half = self.spectrum[..., : self.spectrum.shape[-1] // 2 + 1].to(v).pow(power)
        return torch.fft.irfftn(torch.fft.rfftn(v, dim=axes) * half, s=tuple(self.spectrum.shape), dim=axes)
