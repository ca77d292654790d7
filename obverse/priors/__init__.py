"""Explicit priors: energies −log p(x) with their gradients, proximal operators and Hessians."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .base import Functional, Hessian, Prior, Term
    from .field import GaussianField
    from .positivity import Positivity
    from .sparsity import L1, WaveletL1
    from .tgv import TotalGeneralizedVariation
    from .tikhonov import Tikhonov
    from .total_variation import TotalVariation

__all__ = [
    "Functional",
    "GaussianField",
    "Hessian",
    "L1",
    "Positivity",
    "Prior",
    "Term",
    "Tikhonov",
    "TotalGeneralizedVariation",
    "TotalVariation",
    "WaveletL1",
]

_HOME = {
    "Functional": "base",
    "GaussianField": "field",
    "Hessian": "base",
    "L1": "sparsity",
    "Positivity": "positivity",
    "Prior": "base",
    "Term": "base",
    "Tikhonov": "tikhonov",
    "TotalGeneralizedVariation": "tgv",
    "TotalVariation": "total_variation",
    "WaveletL1": "sparsity",
}


def __getattr__(name: str):
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module 'obverse.priors' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__():
    return sorted(__all__)
