"""Priors: energies −log p(x) with their gradients, proximal operators and Hessians; and denoisers, which are scores."""

from .base import Functional, Hessian, Prior, Term
from .denoiser import Denoiser, Denoises
from .field import GaussianField
from .gradient_step import GradientStep
from .jacobian import Jacobian
from .mixture import GaussianMixture
from .moments import directional_moments
from .nonlocal_means import NonLocalMeans
from .positivity import Box, Positivity
from .ridge import Ridge
from .score import Score
from .shipped import available, load
from .sparsity import L1, WaveletL1
from .tgv import TotalGeneralizedVariation
from .tikhonov import Tikhonov
from .total_variation import TotalVariation

__all__ = [
    "Box",
    "Jacobian",
    "Denoiser",
    "Denoises",
    "Functional",
    "GaussianField",
    "GaussianMixture",
    "GradientStep",
    "Hessian",
    "L1",
    "NonLocalMeans",
    "Positivity",
    "Prior",
    "Ridge",
    "Score",
    "Term",
    "Tikhonov",
    "TotalGeneralizedVariation",
    "TotalVariation",
    "WaveletL1",
    "available",
    "directional_moments",
    "load",
]
