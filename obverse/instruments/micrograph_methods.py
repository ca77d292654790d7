"""The methods of a micrograph, each with its prior fitted to the data, and how they are described in the record."""

__all__ = ["NETWORK_BYTES", "describe", "method"]

import dataclasses
from typing import Any

import torch

from .. import methods, priors
from ..errors import InputError
from ..io.record import plain
from . import characterisation
from .base import Measurement
from .micrograph_settings import PRIORS, Settings, chosen_prior

# Relative residuals of the image and of products with Σ: far below the noise, and within reach of single precision.
_ACCURACY = {"tolerance": 1e-4, "covariance_tolerance": 1e-2}
_LEARNED_ACCURACY = 3e-2  # the same, of products with Σ from a denoiser: each step is one pass through the network
_LEARNED_WEIGHT = 0.6  # of a denoiser: chi² then comes out within 7 % of 1 on the microtubules and on simulated cells
NETWORK_BYTES = 400_000_000  # of a network's activations on one tile


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
    if settings.method in PRIORS:
        low, high = facts["prior"]["range"]
        denoiser = _denoiser(chosen_prior(settings)).scaled(low, high)
        if settings.method == "local-gaussian":
            # Derivatives need the image in one piece.
            rank, probes = facts["rank"], facts["probes"]
            return methods.LocalGaussian(denoiser, rank=rank, probes=probes, tolerance=_LEARNED_ACCURACY, seed=seed)
        factor = _LEARNED_WEIGHT if settings.weight == "auto" else weight
        return methods.PlugAndPlay(denoiser.tiled(NETWORK_BYTES), weight=factor, iterations=settings.iterations)
    return methods.RichardsonLucy(iterations=settings.iterations or 50)


def describe(method: Any) -> dict[str, Any]:
    """The fields of a method, as JSON-like values for the record."""
    return {field.name: plain(_named(getattr(method, field.name))) for field in dataclasses.fields(method)}


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
