"""Exoplanets by angular differential imaging: a sequence of frames of a star while the field turns, and its PSF.

    y_t = speckles + h ∗ R(−pa_t) x + noise,       x: point sources on the sky, R: a turn about the star

What is answered is not an image with a posterior but a search: at each place of the sky the flux of a point source
there, its standard deviation, their ratio, and the candidates above a threshold, each with the covariance of its flux
and place. Flux is in the cube's counts in a circle of one FWHM, since the PSF is normalised so. Every figure that the
settings leave open is read from the headers or measured, and recorded in `facts`.
"""

__all__ = [
    "SUFFIXES",
    "Settings",
    "answer",
    "characterise",
    "describe",
    "explained",
    "export",
    "files",
    "footprint",
    "measure",
    "method",
    "picture",
    "read",
    "summary",
]

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import methods
from ..errors import InputError
from ..io import columns, fits
from ..io.record import plain
from ..methods.detection import Detection
from ..noise import Gaussian
from ..operators import FieldRotation
from ..problem import Problem
from ..solvers.result import Status
from ..volume import Volume
from . import exoplanet_frames, exoplanet_geometry
from .base import Footprint, Measurement
from .exoplanet_characterisation import Characterisation, additions, throughput_of
from .exoplanet_facts import characterise, cleaned, cube_of, point_spread, summary
from .exoplanet_products import candidate_rows, contrast_curve, export
from .exoplanet_settings import Settings, files
from .exoplanet_spectra import library_of
from .exoplanet_subtraction import Subtraction
from .exoplanet_training import SelfTrainedDeepPACO

SUFFIXES = fits.SUFFIXES

_STATISTICAL = ("paco", "deep-paco")
_MAD = 1.4826
_FIXED_BYTES = 600_000_000  # Python with torch and scipy loaded
_COPIES = 12  # of the cube in double precision
_PATCH_BYTES = 3 * 8 * 81**2 / 64  # of a covariance of patches for each pixel of a band, of which there are 64


def read(path: str | Path, settings: Settings) -> Volume:
    """The sequence at `path`: axes TYX, or CTYX with the channels (wavelengths) first."""
    volume = fits.read(path, {3: "TYX", 4: "CTYX"}, "the sequence")
    scale, _ = exoplanet_geometry.pixel_scale(settings, volume.metadata["header"])
    if scale is None:
        return volume
    step, unit = {"Y": scale, "X": scale}, {"Y": "arcsec", "X": "arcsec"}
    return dataclasses.replace(
        volume, spacing=tuple(step.get(a) for a in volume.axes), units=tuple(unit.get(a) for a in volume.axes)
    )


def picture(volume: Volume) -> np.ndarray:
    """The mean frame, `(1, H, W)`: the data as one picture on the grid of the answer."""
    cube = cube_of(volume)
    known = np.isfinite(cube)
    count = known.sum((0, 1))
    return (np.where(known, cube, 0).sum((0, 1)) / np.where(count, count, np.nan))[None]


def footprint(volume: Volume, settings: Settings, facts: Mapping[str, Any]) -> Footprint:
    """What a search takes; it cannot be cut into tiles, since sources turn through the whole frame."""
    values = math.prod(facts["data_shape"][:-2])
    return Footprint(tuple(facts["data_shape"][-2:]), 8 * _COPIES * values + _PATCH_BYTES, _FIXED_BYTES)


def measure(volume: Volume, settings: Settings, shared: Mapping[str, Any] | None = None) -> Measurement:
    """Frames fit for a search, and the problem that they pose.

    The noise law stands in for none: methods of differential imaging learn the statistics of speckles from the frames.
    """
    facts = dict(characterise(volume, settings) if shared is None else shared)
    cube = cube_of(volume)
    channels, _, height, width = cube.shape
    psf = point_spread(settings, channels, (height, width))
    clean = cleaned(cube, psf, settings)
    frames = clean.frames
    if facts["shifts"] is not None:
        frames = exoplanet_frames.moved(frames, np.asarray(facts["shifts"]))
    angles = np.asarray(facts["angles"])[list(clean.kept)]
    x, y = facts["centre"]
    operator = FieldRotation(
        (channels, height, width),
        angles.tolist(),
        torch.from_numpy(psf.values).float(),
        centre=(y, x),
        transmission=None
        if settings.transmission is None
        else torch.from_numpy(columns.numbers(settings.transmission, 2, "the transmission").T).float(),
        exposure_degrees=_exposures(settings, np.asarray(facts["angles"]), clean.kept),
        wavelengths=facts["wavelengths"],
    )
    if settings.method in _STATISTICAL:  # which leave out what was not seen; the others need some value there
        frames = np.where(clean.valid, frames, np.nan)
    data = torch.from_numpy(frames if psf.values.ndim == 3 else frames[0]).float()
    spread = _MAD * float(np.median(np.abs(clean.frames - np.median(clean.frames, axis=1, keepdims=True))))
    problem = Problem(operator, Gaussian(max(spread, 1e-12)))
    crop = (slice(0, 1), slice(0, height), slice(0, width))
    return Measurement(volume, data, problem, 0.0, 1.0, crop, tuple(facts["warnings"]), facts)


def method(measurement: Measurement, settings: Settings, seed: int = 0) -> Any:
    """The search that the settings ask for: `method(measurement)(y, problem)` is a `Detection`."""
    search = _search(measurement, settings, seed)
    if settings.posterior_draws or settings.corrected_limits:
        return Characterisation(search, settings.posterior_draws, settings.corrected_limits, seed)
    return search


def _search(measurement: Measurement, settings: Settings, seed: int) -> Any:
    if settings.method == "paco":
        spectra = library_of(settings, measurement.facts)
        if spectra is not None and settings.joint_channels:
            return methods.SpectralPACO(threshold=settings.threshold, spectra=spectra)
        return methods.PACO(threshold=settings.threshold, spectra=spectra)
    if settings.method == "fmmf":
        return methods.ForwardModelledFilter(settings.components, threshold=settings.threshold)
    if settings.method == "deep-paco":
        return SelfTrainedDeepPACO(settings.training_steps, settings.threshold, seed)
    inner = measurement.facts["inner_radius"]
    if settings.method == "pca":
        most = len(measurement.facts["kept"]) - 1
        if settings.components > most:
            raise InputError(f"pca expects at most {most} components of {most + 1} frames, got {settings.components}")
        return Subtraction(methods.PrincipalComponentADI(settings.components), settings.threshold, inner)
    if settings.method == "llsg":
        combine = methods.LowRankSparseADI(settings.components, inner_radius=inner)
        return Subtraction(combine, settings.threshold, inner)
    return Subtraction(methods.MedianADI(), settings.threshold, inner)


def describe(method: Any) -> dict[str, Any]:
    """The fields of a method, as JSON-like values for the record."""
    if isinstance(method, Characterisation):
        return describe(method.search) | {"draws": method.draws, "limits": method.limits}
    return {field.name: plain(getattr(method, field.name)) for field in dataclasses.fields(method)}


def explained(status: Status) -> Status:
    """The status as it is: searches are closed forms, or iterate by themselves."""
    return status


def answer(result: Detection, measurement: Measurement) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What is stored of a search: maps and curves by name, and its figures with the candidates.

    Places within the inner radius, or whose source crosses pixels without values in most frames, are NaN.
    """
    facts = measurement.facts
    searched = _searched(measurement)
    maps = {name: _numpy(values) for name, values in (("image", result.image), ("snr", result.snr))}
    maps["sigma"] = _numpy(result.sigma)
    maps = {name: np.where(searched, values, np.nan) for name, values in maps.items()}
    maps["contrast"] = facts["threshold"] * maps["sigma"] / (facts.get("star_flux") or 1.0)
    found = [c for c in result.candidates if searched[int(round(c.y)), int(round(c.x))]]
    sigma = maps["sigma"][0]
    curve = contrast_curve(sigma, facts, facts["threshold"], throughput_of(result))
    drawn, quantities = additions(result, found, facts)
    off = maps["snr"][0].copy()
    rows, cols = np.indices(off.shape)
    for c in found:
        off[np.hypot(rows - c.y, cols - c.x) < 2 * facts["fwhm"]] = np.nan
    figures = {
        "candidates": [row | more for row, more in zip(candidate_rows(found, facts, facts["threshold"]), quantities)],
        "threshold": facts["threshold"],
        "false_alarm": float(0.5 * math.erfc(facts["threshold"] / math.sqrt(2))),
        "snr_std_off_sources": float(np.nanstd(off)),
        "searched_pixels": int(np.isfinite(sigma).sum()),
        "fwhm": facts["fwhm"],
    }
    arrays = {name: values.astype(np.float32) for name, values in maps.items()}
    arrays |= {f"curve_{name}": values.astype(np.float32) for name, values in curve.items()} | drawn
    return arrays, figures


def _numpy(values: Tensor) -> np.ndarray:
    return values.detach().cpu().double().numpy()


def _exposures(settings: Settings, angles: np.ndarray, kept: tuple[int, ...]) -> list[float] | None:
    if settings.exposure_degrees is None:
        return None
    if settings.exposure_degrees != "angles":
        return [float(settings.exposure_degrees)] * len(kept)
    turns = np.abs(np.gradient(np.degrees(np.unwrap(np.radians(angles)))))
    return turns[list(kept)].tolist()


def _searched(measurement: Measurement) -> np.ndarray:
    """(H, W): places outside the inner radius whose source falls on pixels with values in half the frames or more."""
    facts, operator = measurement.facts, measurement.problem.operator
    cube = cube_of(measurement.volume)
    height, width = cube.shape[-2:]
    rows, cols = np.indices((height, width))
    (x0, y0) = facts["centre"]
    away = np.hypot(rows - y0, cols - x0)
    known = np.isfinite(cube)
    low, high = np.where(known, cube, np.inf).min((0, 1)), np.where(known, cube, -np.inf).max((0, 1))
    valid = (known.mean((0, 1)) >= 0.5) & (high > low)
    count = np.zeros((height, width))
    theta = np.arctan2(rows - y0, cols - x0)
    for angle in np.radians(operator.degrees):  # type: ignore[attr-defined]
        y = np.rint(y0 + away * np.sin(theta - angle)).astype(int)
        x = np.rint(x0 + away * np.cos(theta - angle)).astype(int)
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        count += inside & valid[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)]
    return (count >= 0.5 * len(operator.degrees)) & (away >= facts["inner_radius"])  # type: ignore[attr-defined]
