"""Coverage where it may differ: coverage that is right on average can be wrong on edges, in the dark, in bad images.

Every image gives one covered share per stratum, and standard errors count images. Strata that depend on the data
alone (uncertainty, intensity of the mean, edges of the mean, what the operator sees, expected error) must each have
the stated coverage if the posterior is exact. Strata that look at the truth (the error that was made, a class of the
true object) need not: among the images with the largest errors even an exact posterior covers less.

References: Angelopoulos, Kohli, Bates, Jordan, Malik, Alshaabi, Upadhyayula, Romano, "Image-to-image regression with
distribution-free uncertainty quantification and applications in imaging", ICML 2022.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ...errors import InputError
from ..posterior import Posterior
from .checks import fraction_test
from .pairs import Functional, checked, projected, weights_of
from .strata import Strata

__all__ = ["StratifiedCoverage", "conditional_coverage", "coverage_by_error"]


@dataclass(frozen=True)
class StratifiedCoverage:
    """Coverage in each stratum.

    Args:
        level: nominal.
        names: of the strata.
        observed: covered share of the stratum's intervals, mean over the images that have some.
        standard_errors: of `observed`, counting images.
        p_values: two-sided, of observed = level.
        counts: number of images.
    """

    level: float
    names: tuple[str, ...]
    observed: tuple[float, ...]
    standard_errors: tuple[float, ...]
    p_values: tuple[float, ...]
    counts: tuple[int, ...]

    @property
    def p_value(self) -> float:
        """Of the worst stratum, times their number (Bonferroni)."""
        return min(1.0, len(self.names) * float(np.nanmin(self.p_values)))


def conditional_coverage(
    posteriors: Iterable[Posterior],
    truths: Iterable[Tensor],
    strata: Strata | Callable[[Posterior, Tensor], Tensor],
    level: float = 0.9,
    functional: Functional = None,
) -> StratifiedCoverage:
    """Coverage of intervals in groups of pixels, or of functionals.

    Args:
        posteriors: one per truth.
        truths: images `image_shape`.
        strata: groups of pixels; or `(posterior, truth) → labels` 0, 1, …, which may follow a segmentation of each
            image. Labels have the shape of the intervals: `image_shape`, or a functional's `(*batch,)`.
        level: of the intervals.
        functional: weights `(*batch, *image_shape)`, or `posterior → weights`; None for every pixel.

    Raises:
        InputError: labels of another shape; a stratum that fewer than two images have is reported as NaN.
    """
    shares: dict[int, list[float]] = {}
    for posterior, truth in checked(posteriors, truths):
        weights = weights_of(functional, posterior)
        value = projected(truth, weights, posterior)
        low, high = posterior.interval(weights, level)
        held = ((value >= low) & (value <= high)).double()
        labels = strata.labels(posterior) if isinstance(strata, Strata) else strata(posterior, truth)
        if labels.shape != held.shape:
            raise InputError(
                f"strata expect labels of the intervals' shape {tuple(held.shape)}, got {tuple(labels.shape)}; "
                "label every pixel, or every functional"
            )
        for label in labels.unique().tolist():
            shares.setdefault(label, []).append(float(held[labels == label].mean()))
    if isinstance(strata, Strata):
        names = dict(enumerate(strata.names))
    else:
        names = {label: f"label {label}" for label in sorted(shares)}
    return _stratified(level, [(name, shares.get(label, [])) for label, name in names.items()])


def coverage_by_error(
    posteriors: Iterable[Posterior],
    truths: Iterable[Tensor],
    level: float = 0.9,
    *,
    expected: bool = True,
    parts: int = 4,
) -> StratifiedCoverage:
    """Coverage of pixels in images with small and with large errors.

    Args:
        posteriors: one per truth.
        truths: images `image_shape`.
        level: of the intervals.
        expected: sort images by the root mean square of the standard deviation, which an exact posterior stands; else
            by that of the error that was made, which shows where coverage is lost but which no posterior stands.
        parts: number of equal groups of images.
    """
    if parts < 1:
        raise InputError(f"coverage_by_error expects at least one part, got {parts}; four are usual")
    sizes, shares = [], []
    for posterior, truth in checked(posteriors, truths, least=2 * parts):
        spread = posterior.std if expected else truth - posterior.mean
        low, high = posterior.interval(None, level)
        sizes.append(float(spread.double().square().mean().sqrt()))
        shares.append(float(((truth >= low) & (truth <= high)).double().mean()))
    order = np.argsort(sizes, kind="stable")
    what = "expected" if expected else "actual"
    groups = []
    for i, part in enumerate(np.array_split(order, parts)):
        ends = f"{sizes[part[0]]:.3g} to {sizes[part[-1]]:.3g}"
        groups.append((f"{what} error {ends} (part {i + 1} of {parts})", [shares[j] for j in part]))
    return _stratified(level, groups)


def _stratified(level: float, groups: list[tuple[str, list[float]]]) -> StratifiedCoverage:
    names, columns = zip(*groups)
    rows = [
        fraction_test(np.asarray(own), level) if len(own) > 1 else (math.nan, math.nan, math.nan) for own in columns
    ]
    observed, errors, p_values = zip(*rows)
    return StratifiedCoverage(level, names, observed, errors, p_values, tuple(len(own) for own in columns))
