"""Fluorescence microscopy: a blurred, noisy micrograph and its point-spread function, in two or three dimensions.

    counts = background + gain·Poisson(h ∗ object / gain) + N(0, read noise²)

What the settings leave open is read from the file (voxel size, aperture, wavelength) or estimated from the picture
(background, gain, read noise, and how rough the object is), and every such figure is recorded in `facts`. Data are
scaled to about one, mirrored at the borders, and handed to a method; the result returns to counts on the data's grid.
"""

__all__ = [
    "Settings",
    "characterise",
    "describe",
    "explained",
    "files",
    "footprint",
    "measure",
    "method",
    "read",
    "restore",
    "summary",
    "unused",
    "write",
]

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from scipy import ndimage
from torch import Tensor

from .. import methods, priors
from ..errors import InputError
from ..io import tiff
from ..io.record import plain
from ..noise import Gaussian, Noise, PoissonGaussian
from ..operators import Convolution
from ..priors.shipped import find
from ..priors.tiles import HALO
from ..problem import Problem
from ..volume import Volume
from . import characterisation
from .base import Footprint, Measurement
from .padding import good_size, pad
from .words import explained, summary

_SMOOTH = 5  # pixels over which data are averaged to know their variance
# Relative residuals of the image and of products with Σ: far below the noise, and within reach of single precision.
_ACCURACY = {"tolerance": 1e-4, "covariance_tolerance": 1e-2}
# Peak memory, from what unfinished runs of `laplace` had reached on 502×502 and 40×201×101 voxels (1.1 and 2.7 GB): the
# estimates are 1.25 and 1.09 times these. `gaussian` at 384² took 0.62 GB, half of its estimate.
_BYTES_PER_VALUE = 4
_ARRAYS = {2: 120, 3: 180}  # single-precision images on the padded grid; those of Newton's method are double
_PRODUCTS = 12  # products with Σ per component, each a vector of the basis; at least 60
_COPIES = 3  # of that basis, while it is made orthonormal
_FIXED_BYTES = 400_000_000  # Python with torch and scipy loaded
_BATCH_BYTES = 500_000_000  # a batch of conjugate gradients

# The methods that use a setting; every other setting is used by all of them.
_USERS = {
    "weight": ("laplace", "langevin", "map", "plug-and-play"),
    "prior": ("plug-and-play",),
    "smoothing": ("laplace", "langevin"),
    "iterations": ("laplace", "gaussian", "map", "plug-and-play", "richardson-lucy"),
    "rank": ("laplace", "gaussian", "langevin"),
    "samples": ("langevin",),
    "probes": ("laplace", "gaussian"),
}
_PRIOR = "microscopy"
_LEARNED_WEIGHT = 0.6  # of a denoiser: chi² then comes out within 7 % of 1 on the microtubules and on simulated cells
_NETWORK_BYTES = 400_000_000  # of a network's activations on one tile
_OPTICS = ("numerical_aperture", "wavelength_nm", "modality", "refractive_index", "sample_index", "depth_nm")


class Settings(BaseModel):
    """What a user may say about a micrograph and its reconstruction; "auto" and null are found out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    psf: Path | None = Field(None, description="TIFF of the measured point-spread function; else it is computed")
    numerical_aperture: float | None = Field(None, gt=0, lt=2, description="NA of the objective; from the file if null")
    wavelength_nm: float | None = Field(None, ge=100, le=5000, description="emission wavelength; from the file if null")
    excitation_nm: float | None = Field(None, ge=100, le=5000, description="excitation wavelength, for confocal")
    modality: Literal["widefield", "confocal"] = Field(
        "widefield", description="widefield, or confocal (closed pinhole)"
    )
    refractive_index: float | None = Field(None, ge=1, lt=3, description="of the immersion medium; 1.515 if unknown")
    sample_index: float | None = Field(None, ge=1, lt=3, description="of the sample; that of the immersion if null")
    depth_nm: float = Field(0.0, ge=0, description="of the focal plane below the coverslip")
    pixel_size_nm: float | None = Field(None, gt=0, description="pixel size in the plane; overrules the file")
    z_step_nm: float | None = Field(None, gt=0, description="step between slices; overrules the file")
    axes: str | None = Field(None, description="what the pages of a plain TIFF are, such as ZYX or CYX")
    time: int | None = Field(None, ge=0, description="which time point of a series")
    channel: int | None = Field(None, ge=0, description="which channel; all of them if null")
    image: int | None = Field(None, ge=0, description="which image of an OME-TIFF with several")
    background: float | Literal["auto"] = Field("auto", description="counts where there is no light from the object")
    gain: Annotated[float, Field(ge=0)] | Literal["auto"] = Field(
        "auto", description="counts per detected photon; 0 for Gaussian noise"
    )
    read_noise: Annotated[float, Field(ge=0)] | Literal["auto"] = Field(
        "auto", description="standard deviation without light, in counts"
    )
    method: Literal["laplace", "gaussian", "langevin", "map", "plug-and-play", "richardson-lucy"] = Field(
        "laplace",
        description="laplace, gaussian and langevin give uncertainty; map, plug-and-play and richardson-lucy do not",
    )
    prior: str = Field(_PRIOR, description="denoiser of plug-and-play: a shipped one, or a file of your own weights")
    weight: float | Literal["auto"] = Field("auto", description="of the prior, per working unit of intensity")
    smoothing: float | Literal["auto"] = Field(
        "auto", description="gradient that the smoothed total variation rounds off"
    )
    iterations: int | None = Field(None, ge=1, le=1_000_000, description="most iterations; the method's own if null")
    rank: Annotated[int, Field(ge=1, le=500)] | Literal["auto"] = Field(
        "auto", description="components of the uncertainty that are stored; 8, or 5 of large images"
    )
    samples: int = Field(1000, ge=20, le=1_000_000, description="draws of a sampler")
    probes: Annotated[int, Field(ge=8, le=100_000)] | Literal["auto"] = Field(
        "auto", description="products spent on marginal variances; 128, or 32 of large images"
    )
    padding: int | Literal["auto"] = Field(
        "auto", description="mirrored pixels at each border; the PSF's reach if auto"
    )


def files(settings: Settings) -> dict[str, Path]:
    """Input files that the settings name, by role."""
    named = {} if settings.psf is None else {"psf": settings.psf}
    if settings.method == "plug-and-play":
        named["prior"] = find(settings.prior)
    return named


def unused(settings: Settings) -> list[str]:
    """Settings that differ from their defaults and yet change nothing, beside the others that were made.

    Example:
        >>> unused(Settings(method="richardson-lucy", probes=64, iterations=20))
        ['probes']
    """
    given = settings.model_dump(exclude_defaults=True)
    names = [name for name, users in _USERS.items() if settings.method not in users]
    if settings.psf is not None:
        names += [*_OPTICS, "excitation_nm"]
    elif settings.modality != "confocal":
        names.append("excitation_nm")
    return [name for name in given if name in names]


def read(path: str | Path, settings: Settings) -> Volume:
    """The micrograph at `path`; pixel sizes that the settings give overrule those of the file."""
    options = {"axes": settings.axes, "time": settings.time, "channel": settings.channel, "image": settings.image}
    volume = tiff.read(path, **options)  # type: ignore[arg-type]
    given = {"X": settings.pixel_size_nm, "Y": settings.pixel_size_nm, "Z": settings.z_step_nm}
    if any(given.values()):
        steps = zip(volume.axes, volume.spacing or (), volume.units or ())
        pairs = [((given[a] or 0.0) / 1000, "um") if given.get(a) else (s, u) for a, s, u in steps]
        volume = dataclasses.replace(volume, spacing=tuple(s for s, _ in pairs), units=tuple(u for _, u in pairs))
    return volume


def characterise(volume: Volume, settings: Settings) -> dict[str, Any]:
    """What all parts of one volume share: voxel size, PSF, background, noise, scale and prior, as JSON-like facts.

    Raises:
        InputError: the values cannot be used, or neither a PSF nor the optics are known.
    """
    facts = characterisation.characterise(volume, settings)
    ignored = unused(settings)
    if ignored:
        file = " and a PSF from a file" if settings.psf is not None else ""
        facts["warnings"].append(
            f"These settings have no effect with method {settings.method}{file}: {', '.join(ignored)}."
        )
    return facts


def footprint(volume: Volume, settings: Settings, facts: Mapping[str, Any]) -> Footprint:
    """What a piece of the volume takes: the halo it must read, and memory."""
    reach = facts["reach"]
    shape = volume.image().shape[1:]
    halo = tuple(min(n, 2 * r) for n, r in zip(shape, facts["halo"]))
    # A tile reads at least 16 + 4 r pixels, so that padding grows it to at most three halves per axis.
    growth = [good_size(n + 2 * r) / n for n, r in zip(shape, reach)]
    growth = [g if n <= 16 + 4 * r else max(g, 1.25) for g, n, r in zip(growth, shape, reach)]
    padded = float(np.prod(growth)) * _ARRAYS[len(shape)] * _BYTES_PER_VALUE
    if settings.method == "plug-and-play":
        sides = (0,) * (len(halo) - 2) + (HALO,) * 2
        halo = tuple(min(n, h + s) for n, h, s in zip(shape, halo, sides))
        return Footprint(halo, padded, _FIXED_BYTES + _NETWORK_BYTES)
    if settings.method not in ("laplace", "gaussian"):
        return Footprint(halo, padded, _FIXED_BYTES)
    basis = _COPIES * max(60, _PRODUCTS * facts["rank"]) * _BYTES_PER_VALUE
    return Footprint(halo, padded + basis, _FIXED_BYTES + _BATCH_BYTES)


def measure(volume: Volume, settings: Settings, shared: Mapping[str, Any] | None = None) -> Measurement:
    """Data, problem and the way back, for a volume or, with the facts of the whole as `shared`, for a part of it."""
    facts = dict(characterise(volume, settings) if shared is None else shared)
    counts = np.asarray(volume.image(), dtype=np.float64)
    kernel = characterisation.kernel(settings, facts)
    offset, scale = float(facts["background"]), float(facts["scale"])
    padded, crop = pad((counts - offset) / scale, facts["reach"])
    y = torch.from_numpy(np.ascontiguousarray(padded, dtype=np.float32))
    operator = Convolution(torch.from_numpy(kernel).to(torch.float32), tuple(y.shape), boundary="circular")
    problem = Problem(operator, _noise(y, settings, facts))
    # Richardson–Lucy knows counts only; what is recorded of the noise is the law that the data follow.
    counted = facts["gain"] > 0 or settings.method != "richardson-lucy"
    noise = None if counted else Gaussian(float(facts["read_noise"]) / scale)
    return Measurement(volume, y, problem, offset, scale, crop, tuple(facts["warnings"]), facts, noise)


def method(measurement: Measurement, settings: Settings, seed: int = 0) -> Any:
    """The method that the settings ask for, with its prior fitted to the data: `method(measurement)(y, problem)`."""
    facts, shape = measurement.facts, tuple(measurement.y.shape)
    weight = facts["prior"]["weight"] if settings.weight == "auto" else float(settings.weight)
    limit: dict[str, Any] = {} if settings.iterations is None else {"max_iterations": settings.iterations}
    variation = priors.TotalVariation(
        smoothing=facts["prior"]["smoothing"] if settings.smoothing == "auto" else float(settings.smoothing),
        dimensions=len(shape) - 1,
        spacing=tuple(facts["relative_spacing"]),
    )
    if settings.method == "gaussian":
        spectrum = characterisation.field(facts, shape)
        mean = facts["mean_light"] / facts["scale"]
        field = priors.GaussianField(torch.from_numpy(spectrum), shape, mean)
        return methods.Gaussian(field, rank=facts["rank"], probes=facts["probes"], seed=seed, **_ACCURACY, **limit)
    if settings.method == "laplace":
        options = {"probes": facts["probes"], "seed": seed, **_ACCURACY, **limit}
        return methods.Laplace(variation, weight, facts["rank"], **options)
    if settings.method == "langevin":
        rank, samples = facts["rank"], settings.samples
        return methods.Langevin(prior=variation, weight=weight, samples=samples, rank=rank, seed=seed)
    if settings.method == "map":
        exact = dataclasses.replace(variation, smoothing=0.0)
        return methods.MAP(prior=exact, weight=weight, positivity=True, seed=seed, **limit)
    if settings.method == "plug-and-play":
        low, high = facts["prior"]["range"]
        denoiser = _denoiser(settings.prior).scaled(low, high).tiled(_NETWORK_BYTES)
        factor = _LEARNED_WEIGHT if settings.weight == "auto" else weight
        return methods.PlugAndPlay(denoiser, weight=factor, iterations=settings.iterations)
    return methods.RichardsonLucy(iterations=settings.iterations or 50)


def describe(method: Any) -> dict[str, Any]:
    """The fields of a method, as JSON-like values for the record."""
    return {field.name: plain(_named(getattr(method, field.name))) for field in dataclasses.fields(method)}


def restore(array: Tensor | np.ndarray, measurement: Measurement, is_std: bool = False) -> Volume:
    """An image on the padded grid, or its standard deviation, back in counts on the data's own grid."""
    values = np.asarray(array)[measurement.crop] * measurement.scale
    if not is_std:
        values = values + measurement.offset
    step = "posterior standard deviation" if is_std else "reconstructed"
    return measurement.volume.like(values.astype(np.float32), f"{step} by Obverse")


def write(volume: Volume, path: str | Path) -> Path:
    """Write an image as OME-TIFF, float32, with its voxel size."""
    return tiff.write(volume, path)


def _noise(y: Tensor, settings: Settings, facts: Mapping[str, Any]) -> Noise:
    """The noise law. Methods that give uncertainty take the Gaussian whose variance is read off the smoothed data once:
    the exact counting law costs a hundred times more, and has no most probable image where it would be negative."""
    gain, read_noise = float(facts["gain"]) / facts["scale"], float(facts["read_noise"]) / facts["scale"]
    if gain <= 0 and settings.method == "richardson-lucy":
        # The gain that gives the same variance at the mean level of the whole.
        level = max(float(facts["mean_light"]) / facts["scale"], 1e-6)
        return PoissonGaussian(read_noise**2 / level, 1e-3 * read_noise)
    if gain <= 0:
        return Gaussian(read_noise)
    if settings.method in ("map", "plug-and-play", "richardson-lucy"):
        return PoissonGaussian(gain, max(read_noise, 1e-3 * gain))
    smooth = ndimage.uniform_filter(y.numpy(), (1,) * (y.ndim - 2) + (_SMOOTH, _SMOOTH), mode="wrap")  # type: ignore[arg-type]
    # Where no photon fell into the window, there may have been one.
    variance = gain * np.maximum(smooth, gain / _SMOOTH**2) + read_noise**2
    return Gaussian(torch.from_numpy(np.sqrt(variance)))


def _denoiser(name: str) -> priors.Denoiser:
    denoiser = priors.load(name)
    if not isinstance(denoiser, priors.Denoiser) or denoiser.channels != 1:
        raise InputError(
            f"expected a denoiser of one channel, since those of a micrograph are pictures of their own, got {name}, a "
            f"{type(denoiser).__name__} of {denoiser.channels}; choose another prior"
        )
    return denoiser


def _named(value: Any) -> Any:
    """A prior in a few words; anything else as it is."""
    if isinstance(value, priors.Denoiser):
        known = ": ".join(filter(None, (value.card.get("name", "a denoiser"), value.card.get("description"))))
        return f"{known}, for intensities from {value.low:.4g} to {value.high:.4g}"
    if isinstance(value, priors.GaussianField):
        variance = float(value.spectrum.mean())
        mean = float(torch.as_tensor(value.mean).mean())
        return f"GaussianField(fitted spectrum, variance {variance:.4g}, mean {mean:.4g})"
    if isinstance(value, priors.TotalVariation):
        return f"TotalVariation(smoothing={value.smoothing:.4g}, spacing={value.spacing})"
    return value
