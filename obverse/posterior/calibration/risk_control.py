"""Risk control: the least factor at which the share of missed pixels is small, on average over images.

    L(s) = share of an image's pixels outside their interval at factor s, in [0, 1], falling with s;   α = 1 − level
    conformal risk control:  s = inf {s: (n R̂(s) + 1)/(n + 1) ≤ α}                          ⇒   E L(s) ≤ α
    risk-controlling sets:   s = inf {s: upper bound of E L from R̂(s), n and δ is ≤ α}      ⇒   P(E L(s) ≤ α) ≥ 1 − δ

The first holds on average over calibration sets, the second for all but a fraction δ of them, and is wider for that.
The bound is Hoeffding's and Bentkus': R ≥ α has p-value min(exp(−n h(R̂, α)), e P(Bin(n, α) ≤ ⌈n R̂⌉)), where h is
the relative entropy of two coins. Both need images that are exchangeable with the new ones, and hold whatever the
posterior.

References: Bates, Angelopoulos, Lei, Malik, Jordan, "Distribution-free, risk-controlling prediction sets", Journal of
the ACM 2021. Angelopoulos, Bates, Fisch, Lei, Schuster, "Conformal risk control", ICLR 2024.
"""

import math
from collections.abc import Iterable

import numpy as np
import scipy
from scipy.special import rel_entr
from torch import Tensor

from ...errors import InputError
from ..posterior import Posterior
from .calibration import Calibration, common_target
from .losses import Losses, needed_factors, thinned
from .pairs import Functional, observed
from .strata import Strata

__all__ = ["conformal_risk_control", "hoeffding_bentkus", "risk_controlling", "risk_p_value"]


def conformal_risk_control(
    posteriors: Iterable[Posterior],
    truths: Iterable[Tensor],
    level: float = 0.9,
    *,
    functional: Functional = None,
    strata: Strata | None = None,
) -> Calibration:
    """The factor, or one for each stratum, at which coverage is at least `level` on average over new images.

    Args:
        posteriors: one per truth; a generator will do, since at most 1000 numbers of each are kept.
        truths: images `image_shape`.
        level: of the intervals, and of their coverage.
        functional: weights `(*batch, *image_shape)`, a mask, or `posterior → weights`; None for every pixel.
        strata: groups of pixels, each of which shall have this coverage; None for one factor.

    Raises:
        InputError: too few images for the level (or too few that have a pixel of some stratum).

    Example:
        >>> import torch
        >>> from obverse.posterior import LowRankDiagonal
        >>> from obverse.solvers.result import Status
        >>> unit = LowRankDiagonal(torch.zeros(4, 0), torch.zeros(0), torch.ones(4), (1, 2, 2))
        >>> narrow = Posterior(torch.zeros(1, 2, 2), Status(True, "closed-form", ""), covariance=unit)
        >>> truths = 2 * torch.randn(500, 1, 2, 2, generator=torch.Generator().manual_seed(0))
        >>> round(conformal_risk_control([narrow] * 500, truths).factors[0], 1)
        2.0
    """
    alpha = _alpha(level)
    if strata is not None and functional is not None:
        raise InputError("strata are groups of pixels, got a functional as well; calibrate it on its own")
    kept, targets = _kept(posteriors, truths, level, functional, strata)
    names = [""] if strata is None else [f" with pixels of {name!r}" for name in strata.names]
    factors = []
    for name, images in zip(names, kept):
        needed = math.ceil(1 / alpha - 1 - 1e-9)
        if len(images) < needed:
            raise InputError(
                f"a level of {level:g} expects at least {needed} calibration images{name}, got {len(images)}; give more"
            )
        count = len(images)
        factors.append(Losses.of(images).least(lambda risk, n=count: conformal_risk(risk, n) <= alpha + 1e-9))
    where = "" if strata is None else ", in each stratum"
    guarantee = (
        f"Averaged over new images like the {len(targets)} of the calibration, and over such calibrations, at least "
        f"{level:.0%} of the intervals hold the truth{where}."
    )
    return Calibration(
        "conformal-risk-control", level, tuple(factors), len(targets), guarantee, common_target(targets), strata
    )


def risk_controlling(
    posteriors: Iterable[Posterior],
    truths: Iterable[Tensor],
    level: float = 0.9,
    *,
    delta: float = 0.1,
    functional: Functional = None,
) -> Calibration:
    """The factor at which, but for a fraction `delta` of calibration sets, coverage is at least `level` on average.

    Args:
        posteriors: one per truth; a generator will do, since at most 1000 numbers of each are kept.
        truths: images `image_shape`.
        level: of the intervals, and of their coverage.
        delta: probability that the calibration images mislead.
        functional: as for `conformal_risk_control`.

    Raises:
        InputError: too few images for level and delta.
    """
    alpha = _alpha(level)
    (images,), targets = _kept(posteriors, truths, level, functional, None)
    check_count(len(images), alpha, delta)
    factor = Losses.of(images).least(lambda risk: risk_p_value(risk, len(images), alpha) <= delta)
    guarantee = controlled(level, delta, len(images))
    return Calibration("risk-controlling", level, (factor,), len(images), guarantee, common_target(targets))


def conformal_risk(risk: float, count: int) -> float:
    """(n R̂ + 1)/(n + 1): the mean loss of n images, as if a further one lost all it can."""
    return (count * risk + 1) / (count + 1)


def risk_p_value(risk: float, count: int, alpha: float) -> float:
    """Hoeffding's and Bentkus' p-value of a mean loss above `alpha`, where `count` losses in [0, 1] have mean `risk`.

    >>> round(risk_p_value(0.0, 44, 0.1), 4), risk_p_value(0.2, 100, 0.1)
    (0.0097, 1.0)
    """
    low = min(risk, alpha)
    entropy = float(rel_entr(low, alpha) + rel_entr(1 - low, 1 - alpha))
    # Rounding must not lift n R̂ above an integer.
    bentkus = math.e * float(scipy.stats.binom.cdf(math.ceil(count * risk - 1e-9), count, alpha))
    return min(1.0, math.exp(-count * entropy), bentkus)


def hoeffding_bentkus(risk: float, count: int, delta: float) -> float:
    """Upper confidence bound of an expected loss: exceeded with probability at most `delta`.

    Args:
        risk: mean of the losses, each between 0 and 1.
        count: number of independent losses.
        delta: between 0 and 1.

    Example:
        >>> round(hoeffding_bentkus(0.05, 200, 0.1), 4)
        0.0864
    """
    low, high = risk, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if risk_p_value(risk, count, middle) <= delta else (middle, high)
    return high


def check_count(count: int, alpha: float, delta: float, what: str = "calibration images") -> None:
    """Refuse so few images that not even a risk of zero would prove a risk below alpha.

    Raises:
        InputError: it says how many are needed.
    """
    check_delta(delta)
    needed = math.ceil(math.log(delta) / math.log1p(-alpha) - 1e-9)
    if count < needed:
        raise InputError(
            f"a risk of {alpha:g} with delta {delta:g} expects at least {needed} {what}, got {count}; give more"
        )


def check_delta(delta: float) -> None:
    """Refuse what is no probability."""
    if not 0 < delta < 1:
        raise InputError(f"delta expects a probability between 0 and 1, got {delta}; 0.1 is usual")


def controlled(level: float, delta: float, count: int) -> str:
    """What risk control guarantees, as a sentence."""
    return (
        f"Averaged over new images like the {count} of the calibration, at least {level:.0%} of the intervals hold the "
        f"truth; with probability {1 - delta:.0%} over such calibrations."
    )


def _alpha(level: float) -> float:
    if not 0 < level < 1:
        raise InputError(f"level expects a probability between 0 and 1, got {level}; 0.9 is usual")
    return 1 - level


def _kept(
    posteriors: Iterable[Posterior],
    truths: Iterable[Tensor],
    level: float,
    functional: Functional,
    strata: Strata | None,
) -> tuple[list[list[np.ndarray]], list[str]]:
    """The thinned factors of every image, for every stratum that it has, and the posteriors' targets."""

    def parts(posterior: Posterior, truth: Tensor) -> list[np.ndarray]:
        factors = needed_factors(posterior, truth, level, functional)
        return [thinned(part) for part in ([factors] if strata is None else strata.split(factors, posterior))]

    found, targets = observed(posteriors, truths, parts)
    groups = range(1 if strata is None else len(strata.names))
    return [[own[k] for own in found if len(own[k])] for k in groups], targets
