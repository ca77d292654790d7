"""Where a sequence looks: angles and their sign, the star's place, the pixel scale, and North.

Angles are those of FieldRotation: turning frame t by +pa_t, anticlockwise with y upward, puts the sky in place. If that
shall have North up and East left, pa_t is the parallactic angle plus the instrument's own offsets,

    pa = parallactic angle + pupil offset + true north,        angle on the sky = theta − 90°

theta counted anticlockwise from +x. Which sign a file means cannot be read off its numbers. With the wrong one a planet
is smeared along an arc, so where a source stands out with one sign and with the other does not, that sign is it.

References: Maire et al., "SPHERE IRDIS and IFS astrometric strategy and calibration", SPIE 9908, 2016. Soummer, Pueyo,
Larkin, "Detection and characterization of exoplanets and disks using projections on Karhunen–Loève eigenimages", ApJL
2012.
"""

__all__ = ["angles_of", "north_of", "pixel_scale", "sign_check", "target", "total_rotation"]

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import signal

from ..errors import InputError
from ..io import columns
from ..operators import Rotate

if TYPE_CHECKING:
    from .exoplanet_settings import Settings

# Pupil offset and true north in degrees, by instrument and arm: Maire et al. 2016.
_OFFSETS = {("SPHERE", "IRDIS"): 135.99 - 1.75, ("SPHERE", "IFS"): 135.99 - 100.48 - 1.75}
_SCALES = ("ESO INS PIXSCALE", "PIXSCALE", "PIXSCAL", "PXSCALE", "PLTSCALE")
_MILLI = 0.5  # a figure beyond it, for a camera behind adaptive optics, is in milliarcseconds
_SEEN, _TIMES = 5.0, 1.4  # robust S/N from which a source stands out, and times the other sign's
_MODES = 8  # taken off for the check
_MAD = 1.4826


def angles_of(settings: "Settings", frames: int, offset: float) -> np.ndarray:
    """The degrees that turn each frame back: sign · (as read) + offset.

    Raises:
        InputError: there are none, or not one for each frame, or they do not turn.
    """
    if settings.angles is None:
        raise InputError(
            "a sequence expects the angle of each frame, got none; pass --angles FILE (FITS, text or CSV, degrees)"
        )
    found = columns.numbers(settings.angles, 1, "the angles")
    if len(found) != frames:
        raise InputError(
            f"a sequence expects one angle for each of its {frames} frames, got {len(found)} in "
            f"{settings.angles.name}; give the angles of this cube, binned as its frames are"
        )
    if float(np.ptp(found)) == 0:
        raise InputError(
            f"a sequence expects angles that change, got {found[0]:g}° in each line of {settings.angles.name}; "
            "without rotation of the field, planets cannot be told from speckles"
        )
    return settings.angle_sign * found + offset


def total_rotation(angles: np.ndarray) -> float:
    """Degrees from the first to the last side of the way that the field turned, across 360° too.

    Example:
        >>> total_rotation(np.array([350.0, 358.0, 6.0]))
        16.0
    """
    return float(np.ptp(np.degrees(np.unwrap(np.radians(angles)))).round(9))


def north_of(settings: "Settings", header: Mapping[str, Any]) -> tuple[float, str | None]:
    """Degrees to add to the angles, and where they come from; None where North is not known.

    Raises:
        InputError: the header's instrument is not known.
    """
    if settings.north_offset is None:
        return 0.0, None
    if settings.north_offset != "header":
        return float(settings.north_offset), "given"
    name = str(header.get("INSTRUME", "")).strip().upper()
    arm = str(header.get("ESO SEQ ARM", header.get("ESO DET NAME", ""))).strip().upper()
    if (name, arm) not in _OFFSETS:
        known = ", ".join(" ".join(pair) for pair in _OFFSETS)
        raise InputError(
            f"north_offset=header expects one of {known} in the header, got {f'{name} {arm}'.strip() or 'no name'}; "
            "give the degrees themselves"
        )
    return _OFFSETS[name, arm], f"{name} {arm}: pupil offset and true north"


def pixel_scale(settings: "Settings", header: Mapping[str, Any]) -> tuple[float | None, str]:
    """Arcseconds per pixel, and where that comes from."""
    if settings.pixel_scale_mas:
        return settings.pixel_scale_mas / 1000, "given"
    for key in _SCALES:
        value = header.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1000:
            return (float(value) if value < _MILLI else float(value) / 1000), f"header, {key}"
    for key in ("CDELT2", "CD2_2"):
        value = header.get(key)
        if isinstance(value, int | float) and str(header.get("CTYPE2", "")).startswith("DEC") and value:
            return abs(float(value)) * 3600, f"header, {key}"
    return None, "unknown"


def target(header: Mapping[str, Any]) -> tuple[float, float] | None:
    """Right ascension and declination in degrees, where the header has both as numbers."""
    found = [header.get(key) for key in ("RA", "DEC")]
    if not all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in found):
        return None
    right_ascension, declination = (float(v) for v in found)  # type: ignore[arg-type]
    return (right_ascension, declination) if abs(declination) <= 90 and 0 <= right_ascension < 360 else None


def sign_check(
    frames: np.ndarray, angles: np.ndarray, offset: float, centre: tuple[float, float], psf: np.ndarray, inner: float
) -> dict[str, Any]:
    """How strong the strongest source is with these angles, and with their signs turned round.

    Args:
        frames: `(T, H, W)`.
        angles: degrees, offset included.
        offset: degrees in `angles` that do not change sign.
        centre: (row, column).
        psf: `(h, w)`.
        inner: pixels about the star that are left out.

    Returns:
        `as_given` and `reversed`: the strongest peak of each in robust standard deviations of its ring, and its (x, y);
            `inferred`: 1, -1 (reversed) or 0 (not told); `verdict`: a sentence.
    """
    count, height, width = frames.shape
    data = torch.from_numpy(frames.reshape(count, -1)).double()
    data = data - data.mean(0)
    _, vectors = torch.linalg.eigh(data @ data.T)
    modes = vectors[:, -min(_MODES, max(1, count // 4)) :]
    residual = (data - modes @ (modes.T @ data)).reshape(count, height, width)
    spread = residual.std(0).clamp_min(1e-12 * float(residual.abs().max()) + 1e-30)
    residual = residual / spread
    found = {}
    for name, degrees in (("as_given", angles), ("reversed", 2 * offset - angles)):
        turn = Rotate(residual.shape, degrees.tolist(), centre=centre, dtype=torch.float64)
        found[name] = _strongest(turn(residual).mean(0).numpy(), centre, psf, inner)
    given, turned = found["as_given"]["snr"], found["reversed"]["snr"]
    inferred = 0
    if max(given, turned) >= _SEEN and max(given, turned) >= _TIMES * min(given, turned):
        inferred = 1 if given > turned else -1
    words = "turning frames by +angle anticlockwise (y upward)"
    strongest = f"{given:.1f} with the angles as given, {turned:.1f} with their signs turned round"
    verdict = {
        1: f"Sign of the angles confirmed: {words}, a source stands out (peaks: {strongest}).",
        -1: f"The angles seem to have the opposite sign: a source stands out when they are turned round ({strongest}); "
        "pass --set angle_sign=-1 to have them so, or see whether it is a false alarm.",
        0: f"The sign of the angles cannot be told from the data, where no source stands out with one sign only "
        f"({strongest}); it was taken as documented: {words}.",
    }[inferred]
    return {**found, "inferred": inferred, "verdict": verdict}


def _strongest(image: np.ndarray, centre: tuple[float, float], psf: np.ndarray, inner: float) -> dict[str, Any]:
    """The highest peak of the image matched with the PSF, over the robust scatter of its ring of one pixel."""
    core = psf / np.sqrt((psf**2).sum())
    matched = signal.fftconvolve(image, core[::-1, ::-1], mode="same")
    rows, columns_ = np.indices(image.shape)
    radius = np.hypot(rows - centre[0], columns_ - centre[1])
    outer = min(centre[0], image.shape[0] - 1 - centre[0], centre[1], image.shape[1] - 1 - centre[1])
    ratio = np.full(image.shape, -np.inf)
    for r in range(math.ceil(max(inner, 1.0)), math.floor(outer) + 1):
        ring = np.abs(radius - r) <= 0.5
        wide = np.abs(radius - r) <= 1.5
        level = np.median(matched[wide])
        scatter = _MAD * np.median(np.abs(matched[wide] - level))
        ratio[ring] = (matched[ring] - level) / max(scatter, 1e-30)
    peak = np.unravel_index(int(np.argmax(ratio)), ratio.shape)
    return {"snr": float(ratio[peak]), "x": int(peak[1]), "y": int(peak[0])}
