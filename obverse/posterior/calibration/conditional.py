"""Coverage where it may differ: coverage that is right on average can be wrong on edges, in the dark, in bad images.

Every image gives one covered share per stratum, and standard errors count images. Strata that depend on the data
alone (uncertainty, intensity of the mean, edges of the mean, what the operator sees, expected error) must each have
the stated coverage if the posterior is exact. Strata that look at the truth (the error that was made, a class of the
true object) need not: among the images with the largest errors even an exact posterior covers less.

References: Angelopoulos, Kohli, Bates, Jordan, Malik, Alshaabi, Upadhyayula, Romano, "Image-to-image regression with
distribution-free uncertainty quantification and applications in imaging", ICML 2022.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from ...errors import InputError
from ..posterior import Posterior
from .checks import Coverage, coverage_of_shares
from .pairs import Functional, checked, checked_levels, projected, weights_of
from .strata import Strata

__all__ = ["conditional_coverage", "coverage_by_error"]


def conditional_coverage(
    posteriors: Iterable[Posterior],
    truths: Iterable[Tensor],
    strata: Strata | Callable[[Posterior, Tensor], Tensor],
    levels: Sequence[float] = (0.5, 0.8, 0.9, 0.95),
    functional: Functional = None,
) -> dict[str, Coverage]:
    """Coverage of intervals in groups of pixels, or of functionals.

    Args:
        posteriors: one per truth.
        truths: images `image_shape`.
        strata: groups of pixels; or `(posterior, truth) → labels` 0, 1, …, which may follow a segmentation of each
            image. Labels have the shape of the intervals: `image_shape`, or a functional's `(*batch,)`.
        levels: of the intervals.
        functional: weights `(*batch, *image_shape)`, or `posterior → weights`; None for every pixel.

    Returns:
        Coverage by name of the stratum; strata that fewer than two images have are left out.

    Raises:
        InputError: labels of another shape.
    """
    levels = checked_levels(levels)
    shares: dict[int, list[list[float]]] = {}
    for posterior, truth in checked(posteriors, truths):
        held = _held(posterior, truth, levels, functional)
        labels = strata.labels(posterior) if isinstance(strata, Strata) else strata(posterior, truth)
        if labels.shape != held.shape[1:]:
            raise InputError(
                f"strata expect labels of the intervals' shape {tuple(held.shape[1:])}, got {tuple(labels.shape)}; "
                "label every pixel, or every functional"
            )
        for label in labels.unique().tolist():
            shares.setdefault(label, []).append(held[:, labels == label].mean(1).tolist())
    names = strata.names if isinstance(strata, Strata) else [f"label {i}" for i in range(max(shares) + 1)]
    return _named(levels, [(name, shares.get(label, [])) for label, name in enumerate(names)])


def coverage_by_error(
    posteriors: Iterable[Posterior],
    truths: Iterable[Tensor],
    levels: Sequence[float] = (0.5, 0.8, 0.9, 0.95),
    *,
    expected: bool = True,
    parts: int = 4,
) -> dict[str, Coverage]:
    """Coverage of pixels in images with small and with large errors.

    Args:
        posteriors: one per truth.
        truths: images `image_shape`.
        levels: of the intervals.
        expected: sort images by the root mean square of the standard deviation, which an exact posterior stands; else
            by that of the error that was made, which shows where coverage is lost but which no posterior stands.
        parts: number of equal groups of images.

    Raises:
        InputError: fewer than two images a part.
    """
    levels = checked_levels(levels)
    sizes, shares = [], []
    for posterior, truth in checked(posteriors, truths):
        spread = posterior.std if expected else truth - posterior.mean
        sizes.append(float(spread.double().square().mean().sqrt()))
        shares.append(_held(posterior, truth, levels, None).flatten(1).mean(1).tolist())
    if not 1 <= parts <= len(sizes) // 2:
        raise InputError(
            f"coverage_by_error expects between one part and two images a part, got {parts} for {len(sizes)}"
        )
    groups = []
    for i, part in enumerate(np.array_split(np.argsort(sizes, kind="stable"), parts)):
        ends = f"{sizes[part[0]]:.3g} to {sizes[part[-1]]:.3g}"
        name = f"{'expected' if expected else 'actual'} error {ends} (part {i + 1} of {parts})"
        groups.append((name, [shares[j] for j in part]))
    return _named(levels, groups)


def _held(posterior: Posterior, truth: Tensor, levels: Sequence[float], functional: Functional) -> Tensor:
    """Which intervals hold the truth, `(levels, *image_shape)` or `(levels, *batch)`."""
    weights = weights_of(functional, posterior)
    value = projected(truth, weights, posterior)
    ends = [posterior.interval(weights, level) for level in levels]
    return torch.stack([(value >= low) & (value <= high) for low, high in ends]).double()


def _named(levels: Sequence[float], groups: Iterable[tuple[str, list[list[float]]]]) -> dict[str, Coverage]:
    return {name: coverage_of_shares(np.asarray(rows), levels) for name, rows in groups if len(rows) > 1}
