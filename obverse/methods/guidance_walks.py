"""Guidance with a walk of its own: DiffPIR, DDRM and DPS.

DiffPIR  m = argmin ‖W^½ (y − A x)‖² + λ/s² ‖x − x̂‖²,    x' = m + s' (√(1−ζ) (x_s − m)/s + √ζ ε)

DPS    x' ~ N(x̂ + (s'²/s²)(x_s − x̂), s'² (s² − s'²)/s²), then down ‖W (y − A x̂)‖ by a step of fixed length
           ζ · (range of the images) √(pixels)/steps · Jᵀ Aᵀ W (y − A x̂)/‖W (y − A x̂)‖

DDRM   in the SVD of A, with ȳ the data in its coordinates and σ̄ = σ_y/(singular value) their noise:
           not seen       x̂ + √(1−η²) s' (x_s − x̂)/s + η s' ε
           s' < σ̄         x̂ + √(1−η²) s' (ȳ − x̂)/σ̄ + η s' ε
           s' ≥ σ̄         (1−η_b) x̂ + η_b ȳ + √(s'² − η_b² σ̄²) ε

Neither has the posterior as its limit of fine steps: the step of DPS is tuned, so that the data count more or less than
they should ("tempered"); DDRM takes Cov[x | x_s] for nothing, and draws spread too little.

References: Chung et al., "Diffusion posterior sampling for general noisy inverse problems", ICLR 2023. Kawar, Elad,
Ermon, Song, "Denoising diffusion restoration models", NeurIPS 2022.
"""

__all__ = ["DDRM", "DPS", "DiffPIR", "Walk"]

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import InputError
from ..solvers.algebra import norm
from .guidance import Guidance, Look, Measured

_UNSEEN = 1e-6  # of the largest singular value: below, the data say nothing


class Walk(Guidance):
    """Guidance that says itself where a draw goes next."""

    def walk(self, data: Measured, steps: int) -> "Walker":
        """The walk of a batch of draws along so many levels."""
        raise NotImplementedError(f"{type(self).__name__} must define walk")


class Walker:
    """From one level to the next."""

    def __call__(self, look: Look, to: float, noise: Tensor) -> Tensor:
        """Images at level `to`, 0 at last, with white noise of their shape."""
        raise NotImplementedError(f"{type(self).__name__} must define __call__")


@dataclass(frozen=True)
class DPS(Walk):
    """Diffusion posterior sampling: a step of tuned length down the norm of the residual.

    Args:
        step: ζ; about 1 is what was published for a thousand steps of photographs of 256² pixels.
    """

    covariance: ClassVar[str] = "none: a step of tuned length"
    target: ClassVar[str] = "tempered"
    step: float = 1.0

    def __post_init__(self):
        if not 0 < self.step < math.inf:
            raise InputError(f"DPS expects a positive step, got {self.step}; 0.3 to 3 are usual")

    def walk(self, data: Measured, steps: int) -> "Walker":
        return _Descent(data.span * self.step / steps)


@dataclass(frozen=True)
class DiffPIR(Walk):
    """Plug-and-play restoration with diffusion: a proximal step for the data, no Jacobian.

    Args:
        weight: λ.
        churn: ζ, the share of fresh noise.
    """

    differentiates: ClassVar[bool] = False
    covariance: ClassVar[str] = "s²/λ for every pixel, in a proximal step"
    weight: float = 7.0
    churn: float = 0.3

    def __post_init__(self):
        if not (0 < self.weight < math.inf and 0 <= self.churn <= 1):
            raise InputError(
                f"DiffPIR expects a positive weight and churn from 0 to 1, got {self.weight} and {self.churn}"
            )

    def walk(self, data: Measured, steps: int) -> "Walker":
        return _Proximal(self, data)


@dataclass(frozen=True)
class DDRM(Walk):
    """Denoising diffusion restoration, for operators that are diagonal in pixels or Fourier modes.

    Args:
        churn: η, the share of fresh noise where the data say less than x_s, or nothing.
        trust: η_b, the share of the data where they say more.
    """

    differentiates: ClassVar[bool] = False
    covariance: ClassVar[str] = "none: data and denoised image are blended in the SVD of A"
    churn: float = 0.85
    trust: float = 1.0

    def __post_init__(self):
        if not (0 <= self.churn <= 1 and 0 <= self.trust <= 1):
            raise InputError(f"DDRM expects churn and trust from 0 to 1, got {self.churn} and {self.trust}")

    def walk(self, data: Measured, steps: int) -> "Walker":
        return _Blend(self, data)


class _Proximal(Walker):
    def __init__(self, method: DiffPIR, data: Measured):
        self.method, self.data = method, data

    def __call__(self, look: Look, to: float, noise: Tensor) -> Tensor:
        slope, damping = self.data.operator.adjoint(look.slope), self.method.weight / look.sigma**2
        mean = look.mean + self.data.solve(slope, damping, look.weight)
        kept, fresh = math.sqrt(1 - self.method.churn) / look.sigma, math.sqrt(self.method.churn)
        return mean + to * (kept * (look.x - mean) + fresh * noise)


class _Descent(Walker):
    def __init__(self, length: float):
        self.length = length

    def __call__(self, look: Look, to: float, noise: Tensor) -> Tensor:
        slope = look.slope / norm(look.slope, 1).clamp_min(torch.finfo(noise.dtype).tiny)
        push = self.length * math.sqrt(noise[0].numel()) * look.pull(look.data.operator.adjoint(slope))
        kept = (to / look.sigma) ** 2
        return look.mean + kept * (look.x - look.mean) + to * math.sqrt(1 - kept) * noise + push


class _Blend(Walker):
    def __init__(self, method: DDRM, data: Measured):
        self.method, self.data = method, data
        weight = data.weight(data.operator(torch.zeros_like(data.operator.adjoint(data.y))))
        if not data.fixed:
            raise InputError("DDRM expects Gaussian noise, whose level does not depend on the image; use MMPS")
        spectrum = data.operator.spectrum()
        self.axes = tuple(range(1 - len(data.operator.image_shape), 0))
        if spectrum is not None and weight.numel() == 1:
            self.fourier, gain = True, spectrum
        else:
            self.fourier, gain = False, self._pixel_gain()
        size = gain.abs()
        seen = size > _UNSEEN * size.max()
        gain = torch.where(seen, gain, 1.0)
        self.data_at = torch.where(seen, self._coordinates(data.y) / gain, 0.0)
        level = torch.where(weight > 0, weight, math.inf).rsqrt() if not self.fourier else weight.reshape(()).rsqrt()
        level = torch.where(weight > 0, level, math.inf) if not self.fourier else level
        self.level = torch.where(seen, level / size.clamp_min(1e-300), math.inf)

    def _pixel_gain(self) -> Tensor:
        """The diagonal of an operator that multiplies pixel by pixel."""
        operator = self.data.operator
        like = operator.adjoint(self.data.y)
        trial = torch.randn(like.shape, generator=torch.Generator().manual_seed(0), dtype=like.dtype).to(like)
        if operator.data_shape == operator.image_shape:
            gain = operator(torch.ones_like(like))
            if torch.allclose(operator(trial), gain * trial, rtol=1e-4, atol=1e-6 * float(gain.abs().max())):
                return gain
        raise InputError(
            "DDRM expects an operator that is diagonal in pixels (a mask) or, with noise of one level, in Fourier "
            f"modes (a circular convolution), got {type(operator).__name__}; use MMPS"
        )

    def _coordinates(self, image: Tensor) -> Tensor:
        return torch.fft.rfftn(image, dim=self.axes) if self.fourier else image

    def __call__(self, look: Look, to: float, noise: Tensor) -> Tensor:
        if to == 0:
            return look.mean
        mean, x, white = (self._coordinates(image) for image in (look.mean, look.x, noise))
        kept = math.sqrt(1 - self.method.churn**2) * to
        trust, level = self.method.trust, self.level
        unseen = mean + kept / look.sigma * (x - mean) + self.method.churn * to * white
        weak = mean + (kept / level) * (self.data_at - mean) + self.method.churn * to * white
        rest = (to**2 - (trust * level).clamp_max(to).square()).clamp_min(0).sqrt()
        strong = (1 - trust) * mean + trust * self.data_at + rest * white
        out = torch.where(level.isinf(), unseen, torch.where(level > to, weak, strong))
        size = look.mean.shape[self.axes[0] :]
        return torch.fft.irfftn(out, s=size, dim=self.axes) if self.fourier else out
