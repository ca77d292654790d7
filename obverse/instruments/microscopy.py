"""Fluorescence microscopy: a blurred, noisy micrograph and its point-spread function, in two or three dimensions.

    counts = background + gain·Poisson(h ∗ object / gain) + N(0, read noise²)

What the settings leave open is read from the file (voxel size, aperture, wavelength) or estimated from the picture
(background, gain, read noise, and how rough the object is), and every such figure is recorded in `facts`. Data are
scaled to about one, mirrored at the borders, and handed to a method; the result returns to counts on the data's grid.
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
    "restore",
    "summary",
    "unused",
    "write",
]

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from ..io import tiff
from ..noise import Gaussian, Noise, PoissonGaussian
from ..operators import Convolution
from ..posterior.estimate import Estimate
from ..priors.tiles import HALO
from ..problem import Problem
from ..volume import Volume
from . import characterisation
from .base import Footprint, Measurement
from .micrograph_methods import NETWORK_BYTES, describe, method
from .micrograph_settings import PRIORS, Settings, files, unused
from .padding import good_size, pad
from .words import explained, summary

SUFFIXES = (".tif", ".tiff")

_SMOOTH = 5  # pixels over which data are averaged to know their variance
# Peak memory, from what unfinished runs of `laplace` had reached on 502×502 and 40×201×101 voxels (1.1 and 2.7 GB): the
# estimates are 1.25 and 1.09 times these. `gaussian` at 384² took 0.62 GB, half of its estimate.
_BYTES_PER_VALUE = 4
_ARRAYS = {2: 120, 3: 180}  # single-precision images on the padded grid; those of Newton's method are double
_PRODUCTS = 12  # products with Σ per component, each a vector of the basis; at least 60
_COPIES = 3  # of that basis, while it is made orthonormal
_GRAPH_BYTES = 60_000  # for each padded pixel, of a network with the graph of its Jacobian
_FIXED_BYTES = 400_000_000  # Python with torch and scipy loaded
_BATCH_BYTES = 500_000_000  # a batch of conjugate gradients


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


def picture(volume: Volume) -> np.ndarray:
    """The data as one picture on the grid of the answer, `(C, H, W)` or `(C, D, H, W)`."""
    return volume.image()


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
    if settings.method in PRIORS:
        sides = (0,) * (len(halo) - 2) + (HALO,) * 2
        halo = tuple(min(n, h + s) for n, h, s in zip(shape, halo, sides))
        if settings.method == "local-gaussian":
            return Footprint(halo, padded + float(np.prod(growth)) * _GRAPH_BYTES, _FIXED_BYTES)
        return Footprint(halo, padded, _FIXED_BYTES + NETWORK_BYTES)
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


def answer(result: Estimate, measurement: Measurement) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What is stored of a result: image, prediction of the data and standard deviation of their noise, in counts."""
    ideal = measurement.problem.operator(result.image)
    law = measurement.noise or measurement.problem.noise
    spread = law.variance(ideal).sqrt().expand_as(ideal)
    arrays = {
        "image": restore(result.image, measurement).image(),
        "prediction": restore(ideal, measurement).image(),
        "noise_std": restore(spread, measurement, is_std=True).image(),
    }
    return arrays, {}


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


def export(
    folder: Path,
    volume: Volume,
    arrays: Mapping[str, np.ndarray],
    std: np.ndarray | None,
    figures: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> None:
    """Write the image and, where there is one, its standard deviation into a folder."""
    write(volume.like(arrays["image"], "reconstructed by Obverse: mean"), folder / "image.ome.tif")
    if std is not None:
        write(volume.like(std, "posterior standard deviation by Obverse"), folder / "std.ome.tif")


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
