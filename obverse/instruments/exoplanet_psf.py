"""The PSF of a search: its background off, centred to a fraction of a pixel, and normalised in a circle of one FWHM.

The star's place in its picture is the centre of the Gaussian that fits best within one FWHM of the highest pixel. The
PSF is then moved by Fourier so that the star lies on its middle pixel, and divided by

    a = Σ w_n h_n,    w_n the part of pixel n that lies in a circle of diameter FWHM

so that fluxes are what such an aperture would count, and a itself is the star's flux in the picture.
"""

__all__ = ["PointSpread", "aperture", "prepare"]

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy import optimize

from ..errors import InputError
from ..operators.field_rotation import FieldRotation
from ..operators.full_width import full_width_at_half_maximum

_FINER = 20  # samples a side, by which the part of a pixel in a circle is counted
_NARROWEST = 1.5  # pixels of FWHM below which a Fourier shift rings
_WIDEST = 0.25  # of a frame's smaller side
_PEDESTAL = 0.01  # of the peak, from which a background is worth a sentence
_ROOM = 4.0  # FWHM a side from which a PSF's border is its background


@dataclass(frozen=True, eq=False)
class PointSpread:
    """A PSF ready for a search.

    Args:
        values: `(h, w)` or `(L, h, w)`, odd sides, the star on the middle pixel, 1 in a circle of one FWHM.
        fwhm: in pixels, the mean over the channels.
        flux: of the star in that circle, one for each channel, before it was normalised.
        moved: largest distance that a channel was moved, in pixels.
        notes: sentences on what was done.
    """

    values: np.ndarray
    fwhm: float
    flux: tuple[float, ...]
    moved: float
    notes: tuple[str, ...]


def prepare(psf: np.ndarray, frame: tuple[int, int]) -> PointSpread:
    """Centre and normalise a PSF for frames of a given size.

    Args:
        psf: `(h, w)` or `(L, h, w)`, as read.
        frame: (H, W).

    Raises:
        InputError: it holds values that are not finite, no peak, or a peak that is too narrow, too wide or cut off.
    """
    planes = np.asarray(psf, np.float64).reshape(-1, *psf.shape[-2:])
    if not np.isfinite(planes).all():
        raise InputError("the PSF expects finite values, got NaN or infinity; fill them, or crop the picture")
    made = [_one(plane, frame) for plane in planes]
    side = [min(values.shape[axis] for values, *_ in made) for axis in (0, 1)]
    values = np.stack([_cropped(values, side) for values, *_ in made])
    notes = tuple(dict.fromkeys(note for *_, found in made for note in found))
    fluxes = tuple(flux for _, _, flux, _, _ in made)
    fwhm, moved = float(np.mean([m[1] for m in made])), max(m[3] for m in made)
    return PointSpread(values if psf.ndim == 3 else values[0], fwhm, fluxes, moved, notes)


def aperture(shape: tuple[int, int], centre: tuple[float, float], radius: float) -> np.ndarray:
    """The part of each pixel that lies in a circle, counted on a finer grid.

    Example:
        >>> bool(abs(aperture((9, 9), (4.0, 4.0), 3.0).sum() - np.pi * 9) < 0.05)
        True
    """
    fine = (np.arange(_FINER) + 0.5) / _FINER - 0.5
    rows = (np.arange(shape[0])[:, None] + fine - centre[0]).reshape(-1)
    columns = (np.arange(shape[1])[:, None] + fine - centre[1]).reshape(-1)
    inside = rows[:, None] ** 2 + columns**2 <= radius**2
    return inside.reshape(shape[0], _FINER, shape[1], _FINER).mean((1, 3))


def _one(plane: np.ndarray, frame: tuple[int, int]) -> tuple[np.ndarray, float, float, float, list[str]]:
    """One channel: values, FWHM, flux, how far it was moved, and notes."""
    notes: list[str] = []
    if not plane.max() > 0 or plane.max() < -plane.min():
        raise InputError("the PSF expects a positive peak, got none; check its sign and background")
    fwhm = full_width_at_half_maximum(torch.from_numpy(plane))
    if min(plane.shape) >= _ROOM * fwhm:
        border = np.median(np.concatenate([plane[0], plane[-1], plane[1:-1, 0], plane[1:-1, -1]]))
        if abs(border) > _PEDESTAL * plane.max():
            notes.append(f"A background of {border:.3g} was taken off the PSF, whose peak is {plane.max():.3g}.")
        plane = plane - border
        fwhm = full_width_at_half_maximum(torch.from_numpy(plane))
    if not _NARROWEST <= fwhm <= _WIDEST * min(frame):
        raise InputError(
            f"the PSF expects a FWHM of {_NARROWEST} pixels to a quarter of the frame's {min(frame)}, got {fwhm:.2f}; "
            "give the star's picture at the scale of the frames"
        )
    if max(plane.shape) > 2 * max(frame):
        raise InputError(f"the PSF expects a picture no larger than the frames {frame}, got {plane.shape}; crop it")
    place = _fitted(plane, fwhm)
    if not all(fwhm / 2 <= p <= n - 1 - fwhm / 2 for p, n in zip(place, plane.shape)):
        raise InputError(
            f"the PSF expects a star within its picture, got one at x={place[1]:.1f}, y={place[0]:.1f} of a picture "
            f"{plane.shape}; give one around the star"
        )
    # The largest odd square about the star that the picture fills, up to the size of the frames.
    reach = min(int(min(p, n - 1 - p, (f - 1) / 2)) for p, n, f in zip(place, plane.shape, frame))
    size = (2 * reach + 1, 2 * reach + 1)
    target = [s // 2 + n // 2 - p for s, n, p in zip(size, plane.shape, place)]
    one_frame = FieldRotation((1, *size), [0.0], torch.from_numpy(plane), dtype=torch.float64)
    values = one_frame.source(target)[0].numpy()
    flux = float((aperture(size, (size[0] // 2, size[1] // 2), fwhm / 2) * values).sum())
    moved = math.hypot(*(p - round(p) for p in place))
    return values / flux, fwhm, flux, moved, notes


def _fitted(plane: np.ndarray, fwhm: float) -> tuple[float, float]:
    """(row, column) of the star."""
    top = divmod(int(np.argmax(plane)), plane.shape[1])
    grid = np.indices(plane.shape)
    rows, columns = grid[0], grid[1]
    near = np.hypot(rows - top[0], columns - top[1]) <= max(fwhm, 2.0)
    y, x, data = rows[near], columns[near], plane[near]

    def misfit(p: np.ndarray) -> np.ndarray:
        height, row, column, width, level = p
        return height * np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * width**2)) + level - data

    start = np.array([plane.max(), top[0], top[1], fwhm / 2.355, 0.0])
    found = optimize.least_squares(misfit, start, x_scale=np.maximum(np.abs(start), 1e-3 * plane.max() + 1e-12)).x
    near_top = np.hypot(found[1] - top[0], found[2] - top[1]) <= fwhm
    return (float(found[1]), float(found[2])) if near_top else (float(top[0]), float(top[1]))


def _cropped(values: np.ndarray, side: list[int]) -> np.ndarray:
    start = [(n - s) // 2 for n, s in zip(values.shape, side)]
    return values[start[0] : start[0] + side[0], start[1] : start[1] + side[1]]
