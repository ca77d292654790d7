"""What is kept of an image when intervals are calibrated: the least factors at which they hold the truth.

    interval at factor s:  m + s (l − m) ≤ x ≤ m + s (h − m),        sᵢ = the least s at which interval i holds xᵢ
    missed share of an image at s:  L(s) = #{i: sᵢ > s} / n

Stretched about the mean, intervals are nested and L falls with s. It is kept as at most 1000 order statistics of the
sᵢ, so thinned that the L they give is never below the true one, and above it by less than 1/1000: whatever holds for
it holds for the image, and a thousand images of any size take 8 MB.
"""

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..posterior import Posterior
from .pairs import Functional, projected, weights_of

__all__ = ["Losses", "needed_factors", "thinned"]

_KEPT = 1000


def needed_factors(posterior: Posterior, truth: Tensor, level: float, functional: Functional = None) -> Tensor:
    """The least factor about the mean at which each interval holds the truth; infinite where none does.

    Args:
        posterior: of one image.
        truth: `image_shape`.
        level: of the intervals that are stretched.
        functional: weights, a mask, or `posterior → weights`; None for every pixel.

    Returns:
        One factor per interval, `image_shape` or the functional's `(*batch,)`, float64, on the CPU.
    """
    weights = weights_of(functional, posterior)
    low, high = posterior.interval(weights, level)
    centre = projected(posterior.mean, weights, posterior).double()
    error = projected(truth, weights, posterior).double() - centre
    reach = torch.where(error > 0, high.double() - centre, centre - low.double())
    # An interval of draws can lie beside their mean: stretching moves it away from the truth instead of over it.
    beside = (low > centre) | (high < centre)
    factors = torch.where(reach > 0, error.abs() / reach.clamp_min(torch.finfo(torch.float64).tiny), math.inf)
    return torch.where(error == 0, 0.0, torch.where(beside, math.inf, factors)).cpu()


def thinned(factors: Tensor | np.ndarray) -> np.ndarray:
    """At most 1000 order statistics, ascending: the ⌈j n / q⌉-th for j = 1 … q, all of them where n ≤ 1000.

    >>> thinned(np.arange(4000.0))[[0, -1]].tolist(), thinned(np.array([3.0, 1.0])).tolist()
    ([3.0, 3999.0], [1.0, 3.0])
    """
    ordered = np.sort(np.asarray(factors, dtype=float).reshape(-1))
    kept = min(len(ordered), _KEPT)
    ranks = -(-np.arange(1, kept + 1) * len(ordered) // kept)
    return ordered[ranks - 1]


@dataclass(frozen=True, eq=False)
class Losses:
    """The mean missed share of images as a function of the factor.

    Args:
        factors: those kept of all images, ascending.
        missed: mean missed share at each of them.
        count: number of images.
    """

    factors: np.ndarray
    missed: np.ndarray
    count: int

    @classmethod
    def of(cls, images: Sequence[np.ndarray], weights: Sequence[np.ndarray] | None = None) -> "Losses":
        """From the kept factors of every image.

        Args:
            images: factors, one array per image.
            weights: shares of the image that they stand for, summing to one per image; equal by default.
        """
        factors = np.concatenate(images)
        shares = np.concatenate([np.full(len(own), 1 / len(own)) for own in images] if weights is None else weights)
        order = np.argsort(factors)
        factors, held = factors[order], np.cumsum(shares[order]) / len(images)
        # Of equal factors only the last has all of them below or at it.
        last = np.append(factors[1:] > factors[:-1], True)
        # Rounding of the sum must not leave a trace of missed pixels where there are none.
        missed = np.where(held >= 1 - 1e-9, 0.0, 1 - held)
        return cls(factors[last], missed[last], len(images))

    def risk(self, factor: float) -> float:
        """Mean missed share at a factor."""
        position = bisect.bisect_right(self.factors, factor) - 1
        return 1.0 if position < 0 else float(self.missed[position])

    def least(self, accepts: Callable[[float], bool]) -> float:
        """The least kept factor whose risk is accepted; infinite if there is none. A lower risk is never refused."""
        position = bisect.bisect_left(range(len(self.factors)), True, key=lambda i: accepts(float(self.missed[i])))
        return math.inf if position == len(self.factors) else float(self.factors[position])
