"""Noise laws: what the detector adds to ideal data, and how to read the law's constants off one image."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .base import Noise
    from .estimation import NoiseEstimate, estimate, gaussian_sigma
    from .gaussian import ComplexGaussian, Gaussian
    from .poisson import Poisson, PoissonGaussian

__all__ = [
    "ComplexGaussian",
    "Gaussian",
    "Noise",
    "NoiseEstimate",
    "Poisson",
    "PoissonGaussian",
    "estimate",
    "gaussian_sigma",
]

_HOME = {
    "ComplexGaussian": "gaussian",
    "Gaussian": "gaussian",
    "Noise": "base",
    "NoiseEstimate": "estimation",
    "Poisson": "poisson",
    "PoissonGaussian": "poisson",
    "estimate": "estimation",
    "gaussian_sigma": "estimation",
}


def __getattr__(name: str):
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module 'obverse.noise' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__():
    return sorted(__all__)
