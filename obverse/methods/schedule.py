"""Falling noise levels for samplers that walk from noise to an image.

    σ_k = (high^(1/p) + k/(N−1) (low^(1/p) − high^(1/p)))^p,    k = 0 … N−1         p = 7, geometric for p = ∞
    from data of level ρ:    σ_k = ρ / cosh(k w),   w = arcosh(ρ/low)/(N−1)

The second kind suits a walk that starts at noisy data z = x + ρ ε, see `reverse_diffusion`: it leaves ρ slowly, where
the noise that makes draws differ comes in, and is geometric from there on.

References: Karras, Aittala, Aila, Laine, "Elucidating the design space of diffusion-based generative models", NeurIPS
2022.
"""

__all__ = ["Schedule"]

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from ..priors.denoiser import known_levels, value_span

# In units of the range of the images: the first hides what data leave open, the last is the step of 8 bits.
_HIGH, _LOW = 0.25, 1 / 255
_UNIT = 10.0  # the first level for priors that name no range, taken to be of a variance of about one


@dataclass(frozen=True)
class Schedule:
    """Noise levels from `high` to `low`, in units of the image.

    Args:
        high: the first level, far above the spread of what is to be drawn.
        low: the last level, below which a draw need not differ from its mean.
        steps: number of levels, each one evaluation of a denoiser.
        exponent: p; the larger, the more levels are low ones; `math.inf` for a geometric sequence.

    Example:
        >>> [round(level, 3) for level in Schedule(10.0, 0.1, steps=4).levels()]
        [10.0, 2.934, 0.663, 0.1]
        >>> [round(level, 3) for level in Schedule(10.0, 0.1, steps=4).below(1.0)]
        [1.0, 0.649, 0.267, 0.1]
    """

    high: float
    low: float
    steps: int = 50
    exponent: float = 7.0

    def __post_init__(self):
        if not 0 < self.low <= self.high < math.inf:
            raise InputError(
                f"Schedule expects levels with 0 < low <= high, got high {self.high} and low {self.low}; they are "
                "standard deviations in units of the image"
            )
        if self.steps < 1:
            raise InputError(f"Schedule expects at least one level, got steps={self.steps}; 20 to 200 are usual")
        if not self.exponent > 0:
            raise InputError(f"Schedule expects a positive exponent, got {self.exponent}; 7 is usual")

    @classmethod
    def of(cls, denoiser: Any, steps: int = 20) -> "Schedule":
        """Geometric levels from a quarter of the range of a denoiser's images, or the highest it knows, to its 1/255.

        A denoiser that names no range is taken for one of images of unit variance: from 10 to 1/255.
        """
        span = value_span(denoiser)
        first = _HIGH if hasattr(denoiser, "high") else _UNIT
        return cls(first * span, _LOW * span, steps, math.inf).known_to(denoiser)

    def levels(self) -> tuple[float, ...]:
        """All levels, the highest first; a single one is the lowest."""
        if self.steps == 1 or self.high == self.low:
            return (self.low,)
        shares = [k / (self.steps - 1) for k in range(1, self.steps - 1)]
        if math.isinf(self.exponent):
            between = [self.high * (self.low / self.high) ** share for share in shares]
        else:
            first, last = self.high ** (1 / self.exponent), self.low ** (1 / self.exponent)
            between = [(first + share * (last - first)) ** self.exponent for share in shares]
        return (self.high, *between, self.low)

    def within(self, low: float, high: float) -> "Schedule":
        """As many levels, none of them outside [low, high]."""
        if not 0 <= low <= high:
            raise InputError(f"within expects 0 <= low <= high, got {low} and {high}; give the ends in this order")
        first, last = (min(max(end, low), high) for end in (self.high, self.low))
        return dataclasses.replace(self, high=first, low=last)

    def known_to(self, denoiser: Any) -> "Schedule":
        """As many levels, none above those that a denoiser with a `sigma_range` knows.

        Below its range a denoiser is asked nonetheless: there D(x, σ) − x is of the order of σ at most, and to stop
        before would leave out a spread of that order.
        """
        return self.within(0.0, known_levels(denoiser)[1])

    def below(self, sigma: float) -> tuple[float, ...]:
        """As many levels from `sigma` on, for a walk that starts at data with noise of this level.

        A sigma that is not above `low` is the only level.
        """
        if not 0 < sigma < math.inf:
            raise InputError(f"below expects a positive level, got {sigma}; it is in units of the image")
        if sigma <= self.low or self.steps == 1:
            return (sigma,)
        step = math.acosh(sigma / self.low) / (self.steps - 1)
        return (sigma, *(sigma / math.cosh(k * step) for k in range(1, self.steps - 1)), self.low)
