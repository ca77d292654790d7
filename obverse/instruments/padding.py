"""Mirrored padding, so that a circular convolution is right wherever there are data.

A field of n pixels is continued by `reach` mirrored pixels on either side and then to a size that FFTs like. Between
the two mirrored margins the periodic grid has a seam; there one margin is faded into the other, so that no edge is left
that a deconvolution would ring at.
"""

__all__ = ["good_size", "pad"]

from collections.abc import Sequence

import numpy as np
from scipy import fft

from ..errors import InputError


def good_size(n: int) -> int:
    """The smallest size of at least `n` whose FFT is fast."""
    return int(fft.next_fast_len(n, real=True) or n)


def pad(array: np.ndarray, reach: Sequence[int]) -> tuple[np.ndarray, tuple[slice, ...]]:
    """Continue `array`, channel first, on a periodic grid.

    Args:
        array: `(C, H, W)` or `(C, D, H, W)`.
        reach: pixels of mirror on either side, per spatial axis.

    Returns:
        The padded array, and the slices, channel axis included, where the data lie in it.

    Example:
        >>> padded, crop = pad(np.arange(6.0).reshape(1, 1, 6), (0, 2))
        >>> padded.shape, bool((padded[crop] == np.arange(6.0)).all())
        ((1, 1, 10), True)
    """
    if array.ndim != len(reach) + 1 or min(reach) < 0:
        raise InputError(
            f"padding expects one width of at least 0 per spatial axis, got {tuple(reach)} for {array.shape}"
        )
    crop = [slice(0, array.shape[0])]
    for axis, r in enumerate(reach, start=1):
        n = array.shape[axis]
        total = good_size(n + 2 * r) - n
        crop.append(slice(0, n))
        if total:
            array = _continued(array, axis, total)
    # The data stay at the origin while axes are continued; half of each margin then moves in front of them.
    shifts = [0] + [(array.shape[axis] - crop[axis].stop) // 2 for axis in range(1, array.ndim)]
    array = np.roll(array, shifts, tuple(range(array.ndim)))
    return array, tuple(slice(c.start + s, c.stop + s) for c, s in zip(crop, shifts))


def _continued(array: np.ndarray, axis: int, total: int) -> np.ndarray:
    """`total` more samples after the end: the end's mirror image fading into that of the beginning."""
    n = array.shape[axis]
    after = np.arange(n, n + total)
    mirror = _take(array, axis, after, n)
    before = _take(array, axis, after - n - total, n)
    # Pure mirror in the outer quarters of the margin, a smooth step from one to the other in between.
    t = np.clip(((np.arange(total) + 0.5) / total - 0.25) * 2, 0, 1)
    weight = (t * t * (3 - 2 * t)).astype(array.dtype)
    weight = weight.reshape([-1 if a == axis else 1 for a in range(array.ndim)])
    return np.concatenate([array, (1 - weight) * mirror + weight * before], axis=axis)


def _take(array: np.ndarray, axis: int, index: np.ndarray, n: int) -> np.ndarray:
    folded = np.mod(index, 2 * n)
    return np.take(array, np.where(folded < n, folded, 2 * n - 1 - folded), axis=axis)
