"""What is known of a sequence before it is searched: frames, geometry and PSF, each figure with where it is from."""

__all__ = ["characterise", "cleaned", "cube_of", "point_spread", "summary"]

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..io import fits
from ..volume import Volume
from . import exoplanet_frames, exoplanet_geometry, exoplanet_psf, exoplanet_spectra

if TYPE_CHECKING:
    from .exoplanet_settings import Settings

_SMALLEST = 16  # pixels a side of a frame
_OFF_CENTRE = 0.4  # pixels between the star's assumed place and the centre of symmetry, from which one hears of it
_ARC = 1.0  # FWHM that a source at the edge must move at least


def characterise(volume: Volume, settings: "Settings") -> dict[str, Any]:
    """What is known of a sequence before it is searched: geometry, PSF, frames, as JSON-like facts.

    Raises:
        InputError: angles or PSF are missing or do not fit the frames.
    """
    cube, header = cube_of(volume), volume.metadata.get("header", {})
    channels, count, height, width = cube.shape
    if min(height, width) < _SMALLEST:
        raise InputError(f"a sequence expects frames of at least {_SMALLEST}×{_SMALLEST} pixels, got {height}×{width}")
    offset, north = exoplanet_geometry.north_of(settings, header)
    angles = exoplanet_geometry.angles_of(settings, count, offset)
    psf = point_spread(settings, channels, (height, width))
    wavelengths = exoplanet_spectra.wavelengths_of(settings, channels)
    clean = cleaned(cube, psf, settings)
    notes = [*psf.notes, *clean.notes, *exoplanet_spectra.widths_note(psf.values, wavelengths)]
    mean = clean.frames.mean((0, 1))
    shifts = _shifts(clean, settings, notes)
    centre, origin, measured = _centre(mean, settings, notes)
    inner = psf.fwhm if settings.inner_radius is None else float(settings.inner_radius)
    scale, scale_source = exoplanet_geometry.pixel_scale(settings, header)
    aligned = clean.frames if shifts is None else exoplanet_frames.moved(clean.frames, shifts)
    kernel = psf.values if psf.values.ndim == 2 else psf.values.mean(0)
    used = angles[list(clean.kept)]
    check = exoplanet_geometry.sign_check(aligned.mean(0), used, offset, centre, kernel, 2 * psf.fwhm)
    if check["inferred"] != 1:
        notes.append(check["verdict"])
    rotation = exoplanet_geometry.total_rotation(used)
    arc = math.radians(rotation) * min(height, width) / 2
    if arc < _ARC * psf.fwhm:
        notes.append(
            f"The field turns by {rotation:.3g}°, which moves a source at the edge by {arc:.2g} pixels, less than the "
            f"FWHM of {psf.fwhm:.3g}: sources are taken for speckles. Angles are expected in degrees, not in radians."
        )
    star = {"psf": psf.flux[0] if channels == 1 else float(np.mean(psf.flux))}.get(
        str(settings.star_flux), settings.star_flux
    )
    brightest = float(np.nanmax(mean))
    if settings.star_flux == "psf" and isinstance(star, float) and star < brightest:
        notes.append(
            f"The PSF's flux of {star:.3g} is less than the brightest pixel of the frames, {brightest:.3g}: the PSF is "
            "not in the frames' units, and contrasts are wrong; give star_flux as a number."
        )
    return {
        "data_shape": list(volume.shape),
        "channels": channels,
        "frames": count,
        "kept": list(clean.kept),
        "repaired": clean.repaired,
        "seen": float(clean.valid.mean()),
        "shifts": None if shifts is None else shifts.tolist(),
        "centre": [centre[1], centre[0]],
        "centre_source": origin,
        "centre_of_symmetry": [measured[1], measured[0]],
        "angles": angles.tolist(),
        "rotation": rotation,
        "sign": check,
        "north": north,
        "north_offset": offset,
        "pixel_scale_arcsec": scale,
        "pixel_scale_source": scale_source,
        "target": exoplanet_geometry.target(header),
        "object": str(header.get("OBJECT", "")),
        "fwhm": psf.fwhm,
        "psf_shape": list(psf.values.shape),
        "psf_flux": list(psf.flux),
        "psf_moved": psf.moved,
        "psf_normalisation": "sum 1 in a circle of diameter FWHM",
        "star_flux": star,
        "star_fluxes": list(psf.flux) if settings.star_flux == "psf" and channels > 1 else None,
        "wavelengths": wavelengths,
        "inner_radius": inner,
        "threshold": settings.threshold,
        "unit": volume.intensity_unit,
        "provenance": list(volume.provenance),
        "warnings": notes,
    }


def summary(facts: Mapping[str, Any]) -> dict[str, str]:
    """The figures that a user should check before a run."""
    x, y = facts["centre"]
    *channels, frames, height, width = facts["data_shape"]
    scale = facts["pixel_scale_arcsec"]
    lengths = facts["wavelengths"]
    several = f", {channels[0]} wavelengths" if channels else ""
    several += f" from {lengths[0]:g} to {lengths[-1]:g} µm" if lengths else ""
    left_out = frames - len(facts["kept"])
    return {
        "frames": f"{frames} of {width} × {height} pixels{several}; {left_out} left out, {facts['repaired']} values "
        "repaired",
        "star": f"x {x:.2f}, y {y:.2f} ({facts['centre_source']})",
        "angles": f"{facts['angles'][0]:.2f}° to {facts['angles'][-1]:.2f}°, {facts['rotation']:.1f}° in all",
        "sign": facts["sign"]["verdict"],
        "North": f"up, {facts['north_offset']:g}° added ({facts['north']})" if facts["north"] else "not known",
        "pixel scale": f"{1000 * scale:.4g} mas ({facts['pixel_scale_source']})" if scale else "unknown",
        "PSF": f"FWHM {facts['fwhm']:.2f} pixels, {facts['psf_normalisation']}, moved by {facts['psf_moved']:.2f}",
        "star flux": f"{facts['star_flux']:.6g} {facts['unit']}" if facts["star_flux"] else "unknown: no contrast",
    }


def cube_of(volume: Volume) -> np.ndarray:
    """(L, T, H, W)."""
    return volume.array if volume.axes == "CTYX" else volume.array[None]


def point_spread(settings: "Settings", channels: int, frame: tuple[int, int]) -> exoplanet_psf.PointSpread:
    if settings.psf is None:
        raise InputError("a sequence expects the star's PSF, got none; pass --psf FILE (FITS, (y, x) or (λ, y, x))")
    array = fits.read(settings.psf, {2: "YX", 3: "CYX"}, "the PSF").array
    if array.ndim == 3 and len(array) != channels:
        raise InputError(
            f"the PSF expects one picture for each of the {channels} wavelengths of the sequence, got {len(array)} in "
            f"{settings.psf.name}; average a series of pictures first"
        )
    if channels > 1 and array.ndim == 2:
        raise InputError(f"a sequence of {channels} wavelengths expects a PSF for each, (λ, y, x), got one picture")
    return exoplanet_psf.prepare(array[0] if channels == 1 and array.ndim == 3 else array, frame)


def cleaned(cube: np.ndarray, psf: exoplanet_psf.PointSpread, settings: "Settings") -> exoplanet_frames.Clean:
    plane = psf.values if psf.values.ndim == 2 else psf.values[0]
    row, column = (n // 2 for n in plane.shape)
    around = np.median(plane[row - 1 : row + 2, column - 1 : column + 2])
    sharpness = float(1 - around / plane[row, column])
    return exoplanet_frames.clean(cube, sharpness, repair=settings.repair_pixels, reject=settings.reject_frames)


def _shifts(clean: exoplanet_frames.Clean, settings: "Settings", notes: list[str]) -> np.ndarray | None:
    """(T, 2) against the median frame, where frames are to be registered."""
    if not settings.register_frames:
        return None
    reference = np.median(clean.frames.mean(0), axis=0)
    shifts = np.array([exoplanet_frames.offset(frame, reference) for frame in clean.frames.mean(0)])
    notes.append(f"Frames were moved by up to {np.abs(shifts).max():.2f} pixels onto their median.")
    return shifts


def _centre(
    mean: np.ndarray, settings: "Settings", notes: list[str]
) -> tuple[tuple[float, float], str, tuple[float, float]]:
    """The star's (row, column), where that comes from, and the centre of symmetry."""
    height, width = mean.shape
    measured = exoplanet_frames.symmetry_centre(mean)
    if settings.centre == "measured":
        return measured, "centre of symmetry of the mean frame", measured
    if settings.centre is not None:
        x, y = settings.centre
        if not (0 <= x <= width - 1 and 0 <= y <= height - 1):
            raise InputError(f"expected the star within the frames of {width} × {height} pixels, got centre ({x}, {y})")
        return (y, x), "given", measured
    centre = ((height - 1) / 2, (width - 1) / 2)
    away = math.dist(centre, measured)
    if away > _OFF_CENTRE:
        even = " (some packages put it at n/2 of frames of even sides)" if height % 2 == 0 or width % 2 == 0 else ""
        notes.append(
            f"The star was taken to be at x {centre[1]:g}, y {centre[0]:g}, the middle of the frame, but the mean "
            f"frame is most symmetric about x {measured[1]:.2f}, y {measured[0]:.2f}{even}: pass --set centre=[x,y] or "
            "centre=measured, if that is the star."
        )
    return centre, "middle of the frame, (n - 1)/2", measured
