"""A factor for each stratum, in proportions that make intervals short, and risk control of their common size.

    on the first half of the images:   min_s Σₖ wₖ sₖ   such that   Σₖ R̂ₖ(sₖ) ≤ α
    on the second half:                factors ω·s,  ω = inf {ω: upper bound of the risk at ω·s ≤ α}

wₖ is the mean width that stratum k adds to an image, R̂ₖ(s) the mean share of an image's pixels that lie in it and are
missed at factor s. In place of R̂ₖ stands its lower convex envelope: the problem is then solved by taking the envelopes'
segments in the order of risk removed per width added, until α is reached. The second half is untouched by the choice,
so that its guarantee is that of risk control, whatever the proportions.

Shortness is bought: strata where coverage is dear are covered less. For equal coverage of the strata, use
`conformal_risk_control(…, strata=strata)`.

References: Teneggi, Tivnan, Stayman, Sulam, "How to trust your diffusion model: a convex optimization approach to
conformal risk control", ICML 2023 (K-RCPS).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ...errors import InputError
from ..posterior import Posterior
from .calibration import Calibration, common_target
from .losses import Losses, needed_factors, thinned
from .pairs import observed
from .risk_control import check_count, controlled, risk_p_value
from .strata import Strata

__all__ = ["shortest_intervals"]

# Least factor of a stratum, of the largest: at zero no common size would ever cover it.
_LEAST = 0.1
# Points of an envelope.
_POINTS = 2000


def shortest_intervals(
    posteriors: Iterable[Posterior],
    truths: Iterable[Tensor],
    strata: Strata,
    level: float = 0.9,
    *,
    delta: float = 0.1,
) -> Calibration:
    """Factors for strata with which intervals are short on average, and cover as `risk_controlling` ones do.

    Args:
        posteriors: one per truth; a generator will do. The first half chooses the proportions, the second the size.
        truths: images `image_shape`.
        strata: groups of pixels.
        level: of the intervals, and of their coverage over all strata together.
        delta: probability that the calibration images mislead.

    Raises:
        InputError: too few images, or intervals of zero width that no factor mends.
    """
    if not 0 < level < 1:
        raise InputError(f"level expects a probability between 0 and 1, got {level}; 0.9 is usual")
    alpha = 1 - level
    images, targets = observed(posteriors, truths, lambda posterior, truth: _parts(posterior, truth, level, strata))
    first, second = images[: len(images) // 2], images[len(images) // 2 :]
    check_count(len(second), alpha, delta, "calibration images in the second half")
    proportions = _proportions(first, alpha)
    scaled = [[part.factors / p for part, p in zip(parts, proportions)] for parts in second]
    shares = [[part.shares for part in parts] for parts in second]
    losses = Losses.of([np.concatenate(own) for own in scaled], [np.concatenate(own) for own in shares])
    size = losses.least(lambda risk: risk_p_value(risk, len(second), alpha) <= delta)
    factors = tuple(size * p for p in proportions)
    guarantee = controlled(level, delta, len(second))
    return Calibration("k-rcps", level, factors, len(images), guarantee, common_target(targets), strata)


@dataclass(frozen=True, eq=False)
class _Part:
    """One stratum of one image: thinned factors, share of the pixels, and width that it adds to the image's mean."""

    factors: np.ndarray
    share: float
    width: float

    @property
    def shares(self) -> np.ndarray:
        """The share of the image's pixels that each of the factors stands for."""
        return np.full(len(self.factors), self.share / max(len(self.factors), 1))


def _parts(posterior: Posterior, truth: Tensor, level: float, strata: Strata) -> list[_Part]:
    low, high = posterior.interval(None, level)
    factors = strata.split(needed_factors(posterior, truth, level), posterior)
    widths = strata.split((high - low).double().cpu(), posterior)
    size = truth.numel()
    return [_Part(thinned(f), f.numel() / size, float(w.sum()) / size) for f, w in zip(factors, widths)]


def _proportions(images: Sequence[Sequence[_Part]], alpha: float) -> list[float]:
    """The factors that minimise the mean width at a mean risk ≤ α, each at least a tenth of the largest."""
    segments, risk = [], 0.0
    for k in range(len(images[0])):
        parts = [parts[k] for parts in images if len(parts[k].factors)]
        if not parts:
            continue
        joined = np.concatenate([part.factors for part in parts])
        order = np.argsort(joined)
        missed = np.cumsum(np.concatenate([part.shares for part in parts])[order][::-1])[::-1] / len(images)
        total, values = float(missed[0]), joined[order]
        after = np.append(missed[1:], 0.0)
        finite = np.flatnonzero(np.isfinite(values))
        if len(finite) == 0:
            raise InputError("intervals expect a width above zero, got a stratum of zero widths; floor the deviation")
        chosen = finite[np.unique(np.linspace(0, len(finite) - 1, _POINTS).round().astype(int))]
        width = sum(part.width for part in parts) / len(images)
        envelope = _lower_envelope(np.append(0.0, values[chosen]), np.append(total, after[chosen]))
        for (a, above), (b, below) in zip(envelope, envelope[1:]):
            segments.append(((above - below) / max(width * (b - a), 1e-300), k, b - a, above - below))
        risk += total
    factors = [0.0] * len(images[0])
    for _, k, length, gain in sorted(segments, reverse=True):
        if risk <= alpha:
            break
        taken = min(1.0, (risk - alpha) / gain) if gain > 0 else 0.0
        factors[k] += taken * length
        risk -= taken * gain
    largest = max(factors)
    if not largest > 0 or not math.isfinite(largest):
        return [1.0] * len(factors)
    return [max(factor, _LEAST * largest) for factor in factors]


def _lower_envelope(x: np.ndarray, y: np.ndarray) -> list[tuple[float, float]]:
    """Corners of the largest convex function below points with ascending x."""
    corners: list[tuple[float, float]] = []
    for point in zip(x.tolist(), y.tolist()):
        if corners and point[0] <= corners[-1][0]:
            point = (corners[-1][0], min(point[1], corners.pop()[1]))
        while len(corners) > 1 and _turn(corners[-2], corners[-1], point) <= 0:
            corners.pop()
        corners.append(point)
    return corners


def _turn(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
