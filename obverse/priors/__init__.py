"""Explicit priors: energies −log p(x) with their gradients, proximal operators and Hessians."""

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
