"""Pairs (posterior, truth), checked one at a time: whatever is calibrated or tested, images are its replicates."""

from collections.abc import Callable, Iterable, Iterator

from torch import Tensor

from ...errors import InputError
from ..posterior import Posterior

__all__ = ["Functional", "checked", "floats", "weights_of"]

Functional = Tensor | Callable[[Posterior], Tensor] | None
"""Weights of ⟨w, x⟩, or `posterior → weights`; None for every pixel, or for what the function says."""


def checked(
    posteriors: Iterable[Posterior], truths: Iterable[Tensor], least: int = 2
) -> Iterator[tuple[Posterior, Tensor]]:
    """One pair after the other; none is kept.

    Raises:
        InputError: a truth of another shape than its posterior, one that is not finite, or fewer pairs than `least`.
    """
    count = 0
    for posterior, truth in zip(posteriors, truths, strict=True):
        if truth.shape != posterior.mean.shape:
            raise InputError(f"a truth expects shape {tuple(posterior.mean.shape)}, got {tuple(truth.shape)}")
        bad = int((~truth.isfinite()).sum())
        if bad:
            raise InputError(f"a truth expects finite values, got {bad} NaN or infinite pixels; crop or leave it out")
        count += 1
        yield posterior, truth
    if count < least:
        raise InputError(f"a calibration test expects at least two posteriors, got {count}; simulate a hundred")


def weights_of(functional: Functional, posterior: Posterior) -> Tensor | None:
    """The weights of one posterior's functional."""
    return functional(posterior) if callable(functional) else functional


def floats(values: Iterable[float]) -> tuple[float, ...]:
    """A tuple of Python's own floats, whatever library the numbers come from."""
    return tuple(float(value) for value in values)
