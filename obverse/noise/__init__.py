"""Noise laws: what the detector adds to ideal data, and how to read the law's constants off one image."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .base import Noise
    from .coloured import ColouredGaussian
    from .estimation import NoiseEstimate, estimate, gaussian_sigma
    from .gamma import Gamma
    from .gaussian import ComplexGaussian, Gaussian
    from .log_poisson import LogPoisson
    from .poisson import Poisson, PoissonGaussian
    from .quantised import Quantised
    from .rician import Rician
    from .saturated import Saturated

__all__ = [
    "ColouredGaussian",
    "ComplexGaussian",
    "Gamma",
    "Gaussian",
    "LogPoisson",
    "Noise",
    "NoiseEstimate",
    "Poisson",
    "PoissonGaussian",
    "Quantised",
    "Rician",
    "Saturated",
    "estimate",
    "gaussian_sigma",
]

_HOME = {
    "ColouredGaussian": "coloured",
    "ComplexGaussian": "gaussian",
    "Gamma": "gamma",
    "Gaussian": "gaussian",
    "LogPoisson": "log_poisson",
    "Noise": "base",
    "NoiseEstimate": "estimation",
    "Poisson": "poisson",
    "PoissonGaussian": "poisson",
    "Quantised": "quantised",
    "Rician": "rician",
    "Saturated": "saturated",
    "estimate": "estimation",
    "gaussian_sigma": "estimation",
}


def __getattr__(name: str):
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module 'obverse.noise' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__():
    return sorted(__all__)
