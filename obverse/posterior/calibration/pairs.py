"""Pairs (posterior, truth), checked one at a time: whatever is calibrated or tested, images are its replicates."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from torch import Tensor

from ...errors import InputError
from ..posterior import Posterior

__all__ = ["Functional", "checked", "checked_levels", "floats", "observed", "projected", "weights_of"]

Found = TypeVar("Found")
Functional = Tensor | Callable[[Posterior], Tensor] | None
"""Weights `(*batch, *image_shape)` of ⟨w, x⟩, or a boolean mask for the mean over a region, or `posterior → weights`;
None for every pixel, or for what the function says."""


def checked(
    posteriors: Iterable[Posterior], truths: Iterable[Tensor], least: int = 2
) -> Iterator[tuple[Posterior, Tensor]]:
    """One pair after the other; none is kept.

    Raises:
        InputError: a truth of another shape than its posterior, one that is not finite, fewer pairs than `least`, or
            more of the ones than of the others.
    """
    count = 0
    for posterior, truth in itertools.zip_longest(posteriors, truths):
        if posterior is None or truth is None:
            more, fewer = ("truths", "posteriors") if posterior is None else ("posteriors", "truths")
            raise InputError(f"expected as many truths as posteriors, got more {more} than the {count} {fewer}")
        if truth.shape != posterior.mean.shape:
            raise InputError(f"a truth expects shape {tuple(posterior.mean.shape)}, got {tuple(truth.shape)}")
        bad = int((~truth.isfinite()).sum())
        if bad:
            raise InputError(f"a truth expects finite values, got {bad} NaN or infinite pixels; crop or leave it out")
        count += 1
        yield posterior, truth
    if count < least:
        raise InputError(f"a calibration test expects at least two posteriors, got {count}; simulate a hundred")


def checked_levels(levels: Sequence[float]) -> tuple[float, ...]:
    """Probabilities of intervals.

    Raises:
        InputError: no sequence of numbers between 0 and 1.
    """
    if not isinstance(levels, Iterable) or isinstance(levels, str) or not (found := tuple(levels)):
        raise InputError(f"expected levels such as (0.5, 0.9), got {levels!r}; give a sequence")
    if not all(isinstance(level, int | float) and 0 < level < 1 for level in found):
        raise InputError(f"expected levels between 0 and 1, got {found}; 0.9 is usual")
    return found


def observed(
    posteriors: Iterable[Posterior], truths: Iterable[Tensor], find: Callable[[Posterior, Tensor], Found]
) -> tuple[list[Found], list[str]]:
    """What is found of every pair, which is all that is kept of it, and the posteriors' targets."""
    found, targets = [], []
    for posterior, truth in checked(posteriors, truths, least=0):
        found.append(find(posterior, truth))
        targets.append(posterior.target)
    return found, targets


def weights_of(functional: Functional, posterior: Posterior) -> Tensor | None:
    """The weights of one posterior's functional, in its precision; those of a mask take the mean over the region.

    Raises:
        InputError: weights of another image, or a region without a pixel, which any interval would seem to hold.
    """
    weights = functional(posterior) if callable(functional) else functional
    return None if weights is None else posterior._weights(weights)


def projected(images: Tensor, weights: Tensor | None, posterior: Posterior) -> Tensor:
    """⟨w, x⟩ of images `(*images, *image_shape)`, `(*images, *batch)`; the images themselves without weights."""
    if weights is None:
        return images
    axes = posterior.mean.ndim
    flat = images.to(weights).flatten(images.ndim - axes) @ weights.reshape(-1, posterior.mean.numel()).mT
    return flat.reshape((*images.shape[: images.ndim - axes], *weights.shape[: weights.ndim - axes]))


def floats(values: Iterable[float]) -> tuple[float, ...]:
    """A tuple of Python's own floats, whatever library the numbers come from."""
    return tuple(float(value) for value in values)
