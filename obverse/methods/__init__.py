"""Methods: one measurement and a problem in, an estimate or a posterior out."""

from .base import Callback
from .component_network import ComponentNetwork
from .conditional_vae import ConditionalVAE
from .contrast_curve import ContrastCurve, contrast_curve
from .covariance_error import CovarianceError
from .data_consistency import data_consistent
from .decoupled_annealing import DecoupledAnnealing
from .deep_paco import DeepPACO
from .detection import Candidate, Detection, candidates_of
from .detection_curve import DetectionCurve, detection_curve, matched_peaks
from .differential_imaging import MedianADI, PrincipalComponentADI
from .diffusion import Diffusion
from .ensemble import Ensemble
from .equilibrium import Equilibrium
from .equivariant_bootstrap import EquivariantBootstrap
from .forward_modelled_filter import ForwardModelledFilter
from .gaussian import Gaussian
from .langevin import Langevin
from .laplace import Laplace
from .latent_sampling import LatentSampling
from .linearised_laplace import LinearisedLaplace
from .local_gaussian import LocalGaussian
from .low_rank_sparse import LowRankSparseADI
from .map import MAP
from .negative_source import NegativeSource, SourceFit
from .network import Network
from .paco import PACO
from .plug_and_play import PlugAndPlay
from .regulariser_sampling import RegulariserSampling
from .richardson_lucy import RichardsonLucy
from .schedule import Schedule
from .small_sample import gaussian_equivalent, small_sample_snr
from .spectral_paco import SpectralPACO
from .split_gibbs import SplitGibbs
from .tweedie import Tweedie
from .unrolled import Unrolled
from .variational_latent import VariationalLatent
from .weight_sampling import WeightSampling

__all__ = [
    "Tweedie",
    "LocalGaussian",
    "MAP",
    "LowRankSparseADI",
    "MedianADI",
    "Callback",
    "Candidate",
    "ConditionalVAE",
    "ComponentNetwork",
    "ContrastCurve",
    "CovarianceError",
    "Detection",
    "DetectionCurve",
    "Ensemble",
    "Diffusion",
    "DecoupledAnnealing",
    "DeepPACO",
    "Equilibrium",
    "EquivariantBootstrap",
    "ForwardModelledFilter",
    "Gaussian",
    "Langevin",
    "Laplace",
    "LatentSampling",
    "LinearisedLaplace",
    "NegativeSource",
    "Network",
    "PACO",
    "PlugAndPlay",
    "PrincipalComponentADI",
    "RegulariserSampling",
    "RichardsonLucy",
    "Schedule",
    "SourceFit",
    "SpectralPACO",
    "SplitGibbs",
    "Unrolled",
    "VariationalLatent",
    "WeightSampling",
    "candidates_of",
    "contrast_curve",
    "data_consistent",
    "detection_curve",
    "gaussian_equivalent",
    "matched_peaks",
    "small_sample_snr",
]
