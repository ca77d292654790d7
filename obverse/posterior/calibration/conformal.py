"""Split conformal calibration: one factor, such that intervals hold the truth in as many new images as they say.

    score of image j:  sⱼ = least factor at which a share of its intervals hold the truth
    factor = the ⌈(n + 1) c⌉-th smallest of n scores     ⇒     P(s_{n+1} ≤ factor) ≥ c

for whatever posterior, right or wrong, if the new image is exchangeable with the n: of the same kind, measured alike.
Probability runs over the calibration images and the new one; for a given set of calibration images the coverage is
Beta-distributed with mean near c and standard deviation √(c(1 − c)/(n + 2)). Nothing is said of each single image.

References: Vovk, Gammerman, Shafer, "Algorithmic learning in a random world", 2005. Angelopoulos, Bates, "Conformal
prediction: a gentle introduction", Foundations and Trends in Machine Learning 2023.
"""

import math
from collections.abc import Iterable, Sequence

from torch import Tensor

from ...errors import InputError
from ..posterior import Posterior
from .calibration import Calibration, common_target
from .losses import needed_factors
from .pairs import Functional, observed

__all__ = ["conformal_quantile", "split_conformal"]


def split_conformal(
    posteriors: Iterable[Posterior],
    truths: Iterable[Tensor],
    level: float = 0.9,
    *,
    functional: Functional = None,
    share: float | None = None,
    confidence: float | None = None,
) -> Calibration:
    """The factor at which, in a new image, a share of the intervals hold the truth with a probability.

    For one functional an image, such as a region's mean: P(⟨w, x⟩ in its interval) ≥ level. For several at once, such
    as components: all of them together, P ≥ level. For pixels: in a fraction ≥ level of images, a share ≥ level of the
    pixels; that is more than coverage on average, for which `conformal_risk_control` is the tighter tool.

    Args:
        posteriors: one per truth; a generator will do, since only a score of each is kept.
        truths: images `image_shape`.
        level: of the intervals that are stretched.
        functional: weights `(*batch, *image_shape)`, a mask, or `posterior → weights`; None for every pixel.
        share: of an image's intervals that shall hold; by default the level for pixels, and all functionals.
        confidence: c, the fraction of images in which they shall; the level by default.

    Raises:
        InputError: too few images for the confidence; it says how many are needed.

    Example:
        >>> import torch
        >>> from obverse.posterior import LowRankDiagonal
        >>> from obverse.solvers.result import Status
        >>> unit = LowRankDiagonal(torch.zeros(4, 0), torch.zeros(0), torch.ones(4), (1, 2, 2))
        >>> narrow = Posterior(torch.zeros(1, 2, 2), Status(True, "closed-form", ""), covariance=unit)
        >>> truths = 2 * torch.randn(999, 1, 2, 2, generator=torch.Generator().manual_seed(0))
        >>> calibration = split_conformal([narrow] * 999, truths, functional=torch.ones(1, 2, 2))
        >>> round(calibration.factors[0], 1)
        2.0
    """
    confidence = level if confidence is None else confidence
    held = (level if functional is None else 1.0) if share is None else share
    if not 0 < held <= 1:
        raise InputError(f"split_conformal expects a share of the intervals above 0 and at most 1, got {held}")

    def score(posterior: Posterior, truth: Tensor) -> tuple[float, int]:
        factors = needed_factors(posterior, truth, level, functional).flatten().sort().values
        return float(factors[_rank(held, len(factors)) - 1]), len(factors)

    found, targets = observed(posteriors, truths, score)
    scores = [own for own, _ in found]
    factor = conformal_quantile(scores, confidence)
    several = found[-1][1] > 1
    what = f"{held:.0%} of the {level:.0%} intervals hold" if several else f"the {level:.0%} interval holds"
    guarantee = (
        f"In at least {confidence:.0%} of new images like the {len(scores)} of the calibration, {what} the truth."
    )
    return Calibration("split-conformal", level, (factor,), len(scores), guarantee, common_target(targets))


def conformal_quantile(scores: Sequence[float], confidence: float) -> float:
    """The ⌈(n + 1) c⌉-th smallest of n scores: a new one is at most that with probability ≥ c.

    >>> conformal_quantile([4.0, 1.0, 3.0, 2.0], 0.8)
    4.0
    """
    if not 0 < confidence < 1:
        raise InputError(f"a confidence between 0 and 1 is expected, got {confidence}; 0.9 is usual")
    rank = _rank(confidence, len(scores) + 1)
    if rank > len(scores):
        needed = math.ceil(confidence / (1 - confidence) - 1e-9)
        raise InputError(
            f"a confidence of {confidence:g} expects at least {needed} calibration images, got {len(scores)}; "
            "give more, or lower the level"
        )
    return sorted(scores)[rank - 1]


def _rank(fraction: float, count: int) -> int:
    """⌈fraction · count⌉, where rounding of the product does not add one."""
    return max(1, math.ceil(fraction * count - 1e-9))
