"""The prior's side of plug and play: a denoiser that counts its calls, on real images and on complex ones.

Real and imaginary part of a complex image are denoised as two images. The range of the images is the denoiser's own
(`high − low`), and 1 for a denoiser that names none.
"""

__all__ = ["CountedDenoiser", "CountedEnergy"]

from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..priors.denoiser import known_levels, value_span


class CountedDenoiser:
    """D(x, σ), with the number of its evaluations."""

    def __init__(self, denoiser: Any):
        self.denoiser, self.evaluations = denoiser, 0

    @property
    def span(self) -> float:
        """Range of the images."""
        return value_span(self.denoiser)

    def within(self, sigma: float) -> float:
        """The nearest noise level that the denoiser knows."""
        low, high = known_levels(self.denoiser)
        return min(max(sigma, low), high)

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        self.evaluations += 1
        return _on_parts(lambda parts: self.denoiser.denoise(parts, sigma), x)


class CountedEnergy(CountedDenoiser):
    """g_σ and its gradient, with D = 1 − ∇g_σ."""

    def __init__(self, denoiser: Any):
        missing = [name for name in ("value", "gradient") if not callable(getattr(denoiser, name, None))]
        if missing:
            raise InputError(
                f"the gradient-step scheme expects a denoiser with value(x, sigma) and gradient(x, sigma), got "
                f'{type(denoiser).__name__} without {" and ".join(missing)}; use scheme "red", which needs no energy'
            )
        super().__init__(denoiser)

    def value(self, x: Tensor, sigma: float) -> float:
        """g_σ(x)."""
        self.evaluations += 1
        parts = torch.stack([x.real, x.imag]) if x.is_complex() else x
        return float(self.denoiser.value(parts, sigma).double().sum())

    def gradient(self, x: Tensor, sigma: float) -> Tensor:
        """∇g_σ(x)."""
        self.evaluations += 1
        return _on_parts(lambda parts: self.denoiser.gradient(parts, sigma), x)


def _on_parts(function: Any, x: Tensor) -> Tensor:
    if not x.is_complex():
        return function(x)
    real, imaginary = function(torch.stack([x.real, x.imag]))
    return torch.complex(real, imaginary)
