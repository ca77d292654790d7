"""What is known of a micrograph before it is reconstructed: voxel size, PSF, background, noise and prior, with sources.

Each figure comes from the settings, else from the file, else from the picture; sentences tell of what was assumed.
"""

__all__ = ["characterise", "field", "kernel", "saturated"]

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import FormatError, InputError, NumericsError
from ..io import tiff
from ..volume import Volume
from . import photometry
from .psf import confocal, gibson_lanni, prepare

if TYPE_CHECKING:
    from .micrograph_settings import Settings

_SMALLEST = 8  # pixels along each side of a picture that can be deconvolved
_PLANE_REACH = 4.0  # λ/NA: 97 % of the light of an Airy pattern lies within
_AXIAL_REACH = 8.0  # λ/(n − √(n² − NA²)), the depth of field
_BRIGHT = 0.999  # quantile of the picture that is scaled to one
_LIGHT = 0.95  # of a PSF's light along an axis, within its reach: the mirrored borders need not hold its faint tails
_LARGE = 2**18  # pixels: beyond, every product with the covariance takes a second or more
_FEW_PROBES = 16  # of a network, whose products are dear
_MANY_PHOTONS = 20.0  # mean photons of a pixel from which the counting law is as good as Gaussian
_SKEWNESS = 0.2  # of a pixel's noise, up to which the same is said; 25 photons without read noise have it
_PLATEAU = 5  # pixels of one channel at its largest value from which it may be where the camera saturated
_SPIKE = 3  # times as many pixels at the largest value as at any of the five below: counts alone thin out upwards
_NEGATIVE = 6.0  # standard deviations of read noise: data further below the given background contradict it
WEIGHT = (
    2.0  # of the maximum-likelihood weight of total variation; gives the coverage in studies/microscopy_calibration
)
SMOOTHING = 0.5  # of the mean gradient; less makes flat places look certain, see the same study


def characterise(volume: Volume, settings: "Settings") -> dict[str, Any]:
    """The facts that `microscopy.measure` works with; see `microscopy.characterise`."""
    volume.check_values("the micrograph")
    counts = np.asarray(volume.image())
    letters = "ZYX"[-(counts.ndim - 1) :]
    if min(counts.shape[-2:]) < _SMALLEST:
        raise InputError(
            f"a micrograph expects at least {_SMALLEST}×{_SMALLEST} pixels, got {counts.shape}; give a larger field"
        )
    warnings: list[str] = []
    voxel = [volume.spacing_in(letter, "nm") for letter in letters]
    facts: dict[str, Any] = {"voxel_nm": voxel, "axes": letters, "data_shape": list(counts.shape[1:])}
    given = {"Z": settings.z_step_nm, "Y": settings.pixel_size_nm, "X": settings.pixel_size_nm}
    facts["voxel_source"] = ["given" if given[a] else "file" if v else "unknown" for a, v in zip(letters, voxel)]
    facts["channels"] = len(counts)
    facts["psf"] = _optics(volume, settings, voxel, warnings)
    h = kernel(settings, facts, warnings)
    facts["psf"]["shape"] = list(h.shape)
    known = [v for v in voxel if v]
    unit = known[-1] if known else 1.0
    facts["relative_spacing"] = [(v or unit) / unit for v in voxel]
    own = _reach(h)
    facts["halo"] = [n // 2 for n in h.shape]
    facts["reach"] = own if settings.padding == "auto" else [int(settings.padding)] * len(own)
    if settings.padding != "auto" and any(p < r for p, r in zip(facts["reach"], own)):
        warnings.append(
            f"The padding of {settings.padding} is less than the PSF's reach {tuple(own)}: borders may be wrong."
        )
    _photometry(counts, h, settings, facts, warnings)
    warnings += _few_photons(facts, settings.method)
    if settings.method in ("local-gaussian", "plug-and-play") and len(letters) == 3:
        warnings.append(
            "The denoiser knows planes, not volumes: each plane of the stack was denoised by itself, and only the PSF "
            "ties them together."
        )
    facts["saturated"] = saturated(counts)
    if facts["saturated"]:
        share = 100 * facts["saturated"] / counts.size
        warnings.append(
            f"{facts['saturated']} pixels ({share:.2g} %) hold the largest value there is, {counts.max():g}: probably "
            "the camera was saturated, so that there was more light than the image and its standard deviation say."
        )
    large = counts.size > _LARGE
    facts["rank"] = (5 if large else 8) if settings.rank == "auto" else int(settings.rank)
    probes = _FEW_PROBES if settings.method == "local-gaussian" else 32 if large else 128
    facts["probes"] = probes if settings.probes == "auto" else int(settings.probes)
    facts["warnings"] = warnings
    return facts


def kernel(settings: "Settings", facts: Mapping[str, Any], warnings: list[str] | None = None) -> np.ndarray:
    """The PSF on the data's voxels: from the file that the settings name, or computed from the optics in `facts`."""
    size, voxel = facts["data_shape"], facts["voxel_nm"]
    if settings.psf is not None:
        path = Path(settings.psf)
        try:
            stack = tiff.info(path, axes=None)
            volume = tiff.read(path) if stack else None
        except InputError as error:
            if "axes=ZYX" not in str(error):
                raise InputError(f"the PSF: {error}") from error
            volume = tiff.read(path, axes="ZYX")
        except FormatError as error:
            raise FormatError(f"the PSF: {error}") from error
        h, notes = prepare(volume, voxel, size)  # type: ignore[arg-type]
        if warnings is not None:
            warnings += notes
        return h
    optics = facts["psf"]
    keywords = {key: optics[key] for key in ("numerical_aperture", "refractive_index", "sample_index", "depth")}
    aperture, index, wavelength = optics["numerical_aperture"], optics["refractive_index"], optics["wavelength"]
    plane = _PLANE_REACH * wavelength / aperture
    reach = [min(n - 1, int(np.ceil(plane / v))) for n, v in zip(size[-2:], voxel[-2:])]
    if not aperture < index:
        raise InputError(
            f"expected a numerical aperture below the immersion's refractive index {index:g}, got {aperture:g}; give "
            "refractive_index=1.515 for oil"
        )
    if len(size) == 3:
        depth_of_field = wavelength / (index - np.sqrt(index**2 - aperture**2))
        reach = [min(size[0] - 1, int(np.ceil(_AXIAL_REACH * depth_of_field / voxel[0]))), *reach]
    shape = [2 * r + 1 for r in reach]
    h = gibson_lanni(shape, voxel, wavelength=wavelength, **keywords)
    if optics["modality"] == "confocal":
        h = confocal(h, gibson_lanni(shape, voxel, wavelength=optics["excitation"], **keywords))
    return h


def saturated(counts: np.ndarray) -> int:
    """How many pixels are at the end of the camera's range.

    That end is the largest number of an integer type, or the largest value of a channel where far more pixels hold it
    than hold the values just below.

    Args:
        counts: `(C, H, W)` or `(C, D, H, W)`, as read.

    Example:
        >>> saturated(np.array([[[3, 9, 255, 255]]], dtype=np.uint8)), saturated(np.arange(12.0).reshape(1, 3, 4))
        (2, 0)
    """
    total = 0
    for channel in counts:
        number = int((channel == channel.max()).sum())
        if counts.dtype.kind in "ui" and int(channel.max()) == np.iinfo(counts.dtype).max:
            total += number
        elif number >= _PLATEAU:
            below = np.unique(channel, return_counts=True)[1][-6:-1]
            total += number if number > _SPIKE * below.max(initial=0) and below.size else 0
    return total


def field(facts: Mapping[str, Any], shape: tuple[int, ...]) -> np.ndarray:
    """The object's fitted spectrum on an image grid `shape`, channel axis in front, in working units."""
    spectrum = photometry.field_spectrum(facts["prior"]["spectrum"], shape[1:], facts["relative_spacing"])
    return np.maximum(spectrum / facts["scale"] ** 2, 1e-12)


def _optics(volume: Volume, settings: "Settings", voxel: list[float | None], warnings: list[str]) -> dict[str, Any]:
    """Where the PSF comes from, and the optics it is computed from."""
    if settings.psf is not None:
        return {"source": Path(settings.psf).name}
    objective = volume.metadata.get("objective") or {}
    channels = volume.metadata.get("channels") or [{}]
    emissions = [c.get("emission_nm") for c in channels]
    known = {e for e in emissions if e}
    aperture = settings.numerical_aperture or objective.get("numerical_aperture")
    wavelength = settings.wavelength_nm or (next(iter(known)) if len(known) == 1 else None)
    excitation = settings.excitation_nm or channels[0].get("excitation_nm")
    needed = {"numerical_aperture": aperture, "wavelength_nm": wavelength, "pixel_size_nm": voxel[-1]}
    needed |= {"z_step_nm": voxel[0]} if len(voxel) == 3 else {}
    needed |= {"excitation_nm": excitation} if settings.modality == "confocal" else {}
    missing = [name for name, value in needed.items() if not value]
    if missing or not aperture or not wavelength:
        several = f" (its channels emit at {', '.join(f'{e:g}' for e in sorted(known))} nm: choose one with channel=…)"
        raise InputError(
            f"expected a PSF file or the optics to compute a PSF from, {', '.join(missing)} not known"
            f"{several if len(known) > 1 and not wavelength else ''}; pass --psf FILE or "
            f"{' '.join(f'--set {name}=…' for name in missing)}"
        )
    count = volume.size("C")
    if count > 1 and not (len(emissions) == count and set(emissions) == {wavelength}):
        warnings.append(
            f"The {count} channels share one PSF, computed for {wavelength:g} nm, and one background; if they emit at "
            "other wavelengths, reconstruct them one by one with channel and wavelength_nm."
        )
    index = settings.refractive_index or objective.get("refractive_index")
    if not index:
        index = 1.515 if aperture > 1.0 else 1.0
        warnings.append(f"The immersion's refractive index is not recorded; {index} was assumed.")
    return {
        "source": "Gibson–Lanni, scalar",
        "modality": settings.modality,
        "numerical_aperture": float(aperture),
        "wavelength": float(wavelength),
        "excitation": excitation,
        "refractive_index": float(index),
        "sample_index": settings.sample_index,
        "depth": settings.depth_nm,
    }


def _photometry(
    counts: np.ndarray, h: np.ndarray, settings: "Settings", facts: dict[str, Any], warnings: list[str]
) -> None:
    dark = photometry.background(counts) if settings.background == "auto" else float(settings.background)
    found = photometry.noise(counts, dark, settings.gain, settings.read_noise)
    warnings += found.warnings
    lowest = float(counts.min())
    if settings.background != "auto" and lowest < dark - _NEGATIVE * max(found.read_noise, 1e-12):
        raise InputError(
            f"expected counts around or above the background {dark:g}, got values down to {lowest:g}, which would be "
            "negative light; give the camera's true offset as background, or background=auto"
        )
    bright = float(np.quantile(counts, _BRIGHT))
    scale = bright - dark
    if not scale > 0:
        raise InputError(
            f"expected a picture brighter than its background {dark:g}, got at most {bright:g}; correct background"
        )
    facts |= {"background": dark, "gain": found.gain, "read_noise": found.read_noise, "noise_source": found.source}
    facts["gain_source"] = found.source if settings.gain == "auto" else "given"
    facts["read_noise_source"] = found.source if settings.read_noise == "auto" else "given"
    facts |= {"background_source": "darkest places" if settings.background == "auto" else "given", "scale": scale}
    light = counts.astype(np.float64) - dark
    mean = float(light.mean())
    facts["mean_light"] = mean
    variance = found.gain * max(mean, 0.0) + found.read_noise**2
    shape = counts.shape[1:]
    transfer = _transfer(h, shape)
    spacing = facts["relative_spacing"]
    try:
        spectrum = photometry.object_spectrum(light, transfer, variance, spacing)
        fitted = photometry.field_spectrum(spectrum, shape, spacing)
    except NumericsError as error:
        warnings.append(
            f"The object's power spectrum could not be read from the picture ({error}); a power law was assumed."
        )
        power = max(float(light.var()) - variance, 0.01 * variance)
        frequency = np.geomspace(1e-3, 2.0, 64)
        fitted = photometry.field_spectrum({"frequency": frequency, "power": frequency**-2.0}, shape, spacing)
        spectrum = {"frequency": frequency.tolist(), "power": (power / fitted.mean() * frequency**-2.0).tolist()}
        fitted = fitted * power / fitted.mean()
    bayes, gradient = photometry.variation_weight(light, transfer, fitted, variance, spacing)
    lowest_light, highest_light = photometry.object_range(light, transfer, fitted, variance)
    facts["prior"] = {
        "range": [lowest_light / scale, max(highest_light / scale, 1.0)],
        "spectrum": spectrum,
        "mean_gradient": gradient / scale,
        "weight": WEIGHT * bayes * scale,
        "smoothing": SMOOTHING * gradient / scale,
    }


def _few_photons(facts: Mapping[str, Any], method: str) -> tuple[str, ...]:
    """A sentence where the counting law is far from the Gaussian that stands in for it."""
    gain, read_noise = facts["gain"], facts["read_noise"]
    if gain <= 0 or method in ("map", "plug-and-play", "richardson-lucy"):
        return ()
    photons = max(facts["mean_light"], 0.0) / gain
    # Skewness g²m/(gm + σ²)^(3/2) is largest at gm = 2σ²: read noise makes the law Gaussian where photons are few.
    skewness = 2 * gain / (3**1.5 * read_noise) if read_noise > 0 else math.inf
    if photons >= _MANY_PHOTONS or skewness <= _SKEWNESS:
        return ()
    return (
        f"On average {photons:.2g} photons fell on a pixel: their counting law was taken as Gaussian of the same "
        "variance, so that intervals of the darkest places are approximate and may reach below zero.",
    )


def _reach(h: np.ndarray) -> list[int]:
    """Pixels from the centre, per axis, within which most of the PSF's light lies."""
    reach = []
    for axis, n in enumerate(h.shape):
        line = h.sum(axis=tuple(a for a in range(h.ndim) if a != axis))
        within = [line[n // 2 - r : n // 2 + r + 1].sum() for r in range(n // 2 + 1)]
        reach.append(int(np.searchsorted(within, min(_LIGHT, within[-1]))))
    return reach


def _transfer(h: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """|H|² of the kernel on the data's grid, FFT order; what the grid cannot hold wraps around."""
    wrapped = np.zeros(shape)
    index = np.meshgrid(*(np.mod(np.arange(k) - k // 2, n) for k, n in zip(h.shape, shape)), indexing="ij")
    np.add.at(wrapped, tuple(index), h)
    return np.abs(np.fft.fftn(wrapped)) ** 2
