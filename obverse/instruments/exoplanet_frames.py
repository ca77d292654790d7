"""Frames made fit for a search: pixels without values, spikes and frames unlike the others found and dealt with.

A spike is sharper than the PSF. With d = y − median₃ₓ₃(y) and b the median over 9×9 pixels, a source has a sharpness
d / (y − b) as the PSF itself has it, and a single bad pixel has 1; half-way between is the limit. Only pixels whose d
lies far outside its own scatter are looked at, over time for what strikes one frame, over the place for what stays.

A frame is unlike the others where its correlation ρ with the median frame falls short: 1 − ρ beyond 8 robust standard
deviations and three times its median. Shifts are the maxima of the cross-correlation with the median frame, refined by
a matrix Fourier transform; the centre of symmetry is half the shift between the mean frame and itself turned by 180°.

References: Stetson, "DAOPHOT: a computer program for crowded-field stellar photometry", PASP 1987. Guizar-Sicairos,
Thurman, Fienup, "Efficient subpixel image registration algorithms", Optics Letters 2008.
"""

__all__ = ["Clean", "clean", "moved", "offset", "symmetry_centre"]

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..errors import InputError

_SPIKE = 15.0  # robust standard deviations
_MOST_SPIKES = 0.01  # of all values, beyond which they are no exceptions
_UNLIKE, _FACTOR = 8.0, 3.0
_HOLE = 4  # pixels: a larger region without values is not filled in but left out
_MAD = 1.4826
_FINE, _REACH = 100, 75  # steps per pixel of a shift, and steps to either side of the coarse one
_FEWEST = 4  # frames


@dataclass(frozen=True, eq=False)
class Clean:
    """Frames fit for a search.

    Args:
        frames: `(L, T, H, W)` float64, finite; frames that were left out are not in it.
        valid: `(H, W)`: where the detector saw the sky; elsewhere the nearest such pixel stands in.
        kept: indices of the frames that are in it.
        repaired: values that were replaced.
        notes: sentences.
    """

    frames: np.ndarray
    valid: np.ndarray
    kept: tuple[int, ...]
    repaired: int
    notes: tuple[str, ...]


def clean(cube: np.ndarray, sharpness: float, *, repair: bool, reject: bool) -> Clean:
    """Deal with what no search can use.

    Args:
        cube: `(L, T, H, W)`, as read.
        sharpness: d / (y − b) of the PSF.
        repair: replace spikes.
        reject: leave out frames that are unlike the others.

    Raises:
        InputError: too few frames or pixels are left.
    """
    frames = np.array(cube, np.float64)
    notes: list[str] = []
    known = np.isfinite(frames)
    blank = known.reshape(*known.shape[:2], -1).sum(-1) < 0.1 * known[0, 0].size
    empty = blank.any(0) | (np.nanstd(np.where(known, frames, 0.0), axis=(-2, -1)) == 0).any(0)
    kept = [int(t) for t in np.flatnonzero(~empty)]
    if len(kept) < _FEWEST:
        raise InputError(f"a sequence expects at least {_FEWEST} frames with values, got {len(kept)}; check the cube")
    frames, known = frames[:, kept], known[:, kept]
    valid = _seen(frames, known)
    if valid.sum() < 0.1 * valid.size:
        raise InputError("a sequence expects values in a tenth of its pixels or more, got fewer; check the cube")
    if not valid.all():
        share = 100 * (1 - valid.mean())
        notes.append(f"{share:.3g} % of the pixels hold no values (NaN, or never changing): not searched.")
    frames, repaired = _filled(frames, known, valid)
    if repair:
        spikes = _spikes(frames, valid, sharpness)
        if spikes.mean() > _MOST_SPIKES:
            notes.append(
                f"{100 * spikes.mean():.2g} % of the values look like spikes, too many to be: none was replaced."
            )
        else:
            around = ndimage.median_filter(frames, (1, 1, 3, 3)) if spikes.any() else frames
            frames = np.where(spikes, around, frames)
            repaired += int(spikes.sum())
    unlike = _unlike(frames, valid) if reject else np.zeros(len(kept), bool)
    if unlike.any() and (~unlike).sum() >= _FEWEST:
        frames = frames[:, ~unlike]
    else:
        unlike[:] = False
    left_out = sorted({int(t) for t in np.flatnonzero(empty)} | {t for t, bad in zip(kept, unlike) if bad})
    kept = [t for t, bad in zip(kept, unlike) if not bad]
    if left_out:
        shown = ", ".join(map(str, left_out[:10])) + (", …" if len(left_out) > 10 else "")
        notes.append(f"{len(left_out)} of {cube.shape[1]} frames were left out, empty or unlike the others: {shown}.")
    return Clean(frames, valid, tuple(kept), repaired, tuple(notes))


def offset(frame: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """How far (rows, columns) a frame is shifted against a reference, to about a hundredth of a pixel."""
    cross = np.fft.fft2(frame - frame.mean()) * np.conj(np.fft.fft2(reference - reference.mean()))
    height, width = frame.shape
    peak = np.unravel_index(int(np.argmax(np.fft.ifft2(cross).real)), frame.shape)
    coarse = [int(p) - n if p > n // 2 else int(p) for p, n in zip(peak, frame.shape)]
    fine = np.arange(-_REACH, _REACH + 1) / _FINE
    rows = np.exp(2j * np.pi * np.outer(coarse[0] + fine, np.fft.fftfreq(height)))
    columns = np.exp(2j * np.pi * np.outer(np.fft.fftfreq(width), coarse[1] + fine))
    best = np.unravel_index(int(np.argmax((rows @ cross @ columns).real)), (len(fine), len(fine)))
    return coarse[0] + float(fine[best[0]]), coarse[1] + float(fine[best[1]])


def symmetry_centre(frame: np.ndarray) -> tuple[float, float]:
    """(row, column) about which a frame is most symmetric under a half turn.

    Example:
        >>> y, x = np.mgrid[:21, :24]
        >>> row, column = symmetry_centre(np.exp(-((y - 9.5) ** 2 + (x - 12.0) ** 2) / 20))
        >>> round(row, 1), round(column, 1)
        (9.5, 12.0)
    """
    rows, columns = offset(frame, frame[::-1, ::-1])
    height, width = frame.shape
    return (height - 1 + rows) / 2, (width - 1 + columns) / 2


def moved(frames: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Frames `(L, T, H, W)` moved by −shifts `(T, 2)`, by Fourier; the borders that come round are not to be used."""
    rows, columns = np.fft.fftfreq(frames.shape[-2]), np.fft.rfftfreq(frames.shape[-1])
    phase = shifts[:, 0, None, None] * rows[:, None] + shifts[:, 1, None, None] * columns
    return np.fft.irfft2(np.fft.rfft2(frames) * np.exp(2j * np.pi * phase), frames.shape[-2:])


def _seen(frames: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Pixels with values that change, in half the frames or more; single dead pixels count as seen."""
    some = known.mean(1) >= 0.5
    low, high = np.where(known, frames, np.inf).min(1), np.where(known, frames, -np.inf).max(1)
    seen = (some & (high > low)).all(0)
    labels, count = ndimage.label(~seen)  # type: ignore[misc]
    small = [k for k in range(1, count + 1) if (labels == k).sum() <= _HOLE]
    inner = np.zeros_like(seen)
    inner[1:-1, 1:-1] = True
    return seen | (np.isin(labels, small) & inner)


def _filled(frames: np.ndarray, known: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, int]:
    """Every unknown value replaced by that of the nearest known pixel of its frame."""
    usable = known & valid
    # A dead pixel never changes: it has a value, but none that is known.
    dead = (frames.max(1, where=known, initial=-np.inf) <= frames.min(1, where=known, initial=np.inf))[:, None]
    usable &= ~dead
    if usable.all():
        return frames, 0
    result = frames.copy()
    for plane, good in zip(result.reshape(-1, *frames.shape[-2:]), usable.reshape(-1, *frames.shape[-2:])):
        if not good.all():
            nearest = ndimage.distance_transform_edt(~good, return_distances=False, return_indices=True)
            plane[:] = plane[tuple(nearest)]  # type: ignore[arg-type]
    return result, int((~usable & valid).sum())


def _spikes(frames: np.ndarray, valid: np.ndarray, sharpness: float) -> np.ndarray:
    """Values that are sharper than any source: in all frames, or in one."""
    limit = (1 + sharpness) / 2
    tiny = 1e-12 * np.abs(frames).max()
    excess = frames - ndimage.median_filter(frames, (1, 1, 3, 3))
    level = np.median(excess, axis=1, keepdims=True)
    scatter = _MAD * np.median(np.abs(excess - level), axis=1, keepdims=True)
    scatter = np.maximum(scatter, ndimage.median_filter(scatter, (1, 1, 5, 5)))
    place = _MAD * ndimage.median_filter(np.abs(level), (1, 1, 9, 9)) + scatter / np.sqrt(frames.shape[1])
    middle = np.median(frames, axis=1, keepdims=True)
    height = middle - ndimage.median_filter(middle, (1, 1, 9, 9))
    stays = (np.abs(level) > _SPIKE * (place + tiny)) & (np.abs(level) > limit * np.abs(height)) & valid
    stays &= _extreme(middle)
    strikes = (np.abs(excess - level) > _SPIKE * (scatter + tiny)) & valid & ~stays
    strikes &= _extreme(frames)
    if strikes.mean() <= _MOST_SPIKES:
        for l, t, y, x in zip(*np.nonzero(strikes)):
            around = frames[l, t, max(0, y - 4) : y + 5, max(0, x - 4) : x + 5]
            strikes[l, t, y, x] = abs(excess[l, t, y, x]) > limit * abs(frames[l, t, y, x] - np.median(around))
    return strikes | stays


def _extreme(frames: np.ndarray) -> np.ndarray:
    """Pixels higher, or lower, than all of their eight neighbours."""
    size = (1, 1, 3, 3)
    return (frames == ndimage.maximum_filter(frames, size)) | (frames == ndimage.minimum_filter(frames, size))


def _unlike(frames: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Frames whose correlation with the median frame falls far short of the others', in any channel."""
    found = np.zeros(frames.shape[1], bool)
    for channel in frames:
        values = channel[:, valid]
        middle = np.median(values, axis=0)
        short = np.array([1 - np.corrcoef(value, middle)[0, 1] for value in values])
        centre = np.median(short)
        found |= short > max(centre + _UNLIKE * _MAD * np.median(np.abs(short - centre)), _FACTOR * centre)
    return found
