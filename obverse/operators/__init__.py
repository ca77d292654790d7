"""Forward models and their algebra: `A(x)`, `A.adjoint(y)`, `A @ B`, `A + B`, `2.0 * A`, `A.H`, `A.solve(b, damping)`.

Write your own by subclassing `LinearOperator` (or `Operator`) and defining `_apply` and `_adjoint`; then run `check`.
"""

from .base import Adjoint, LinearOperator, Operator
from .burst_sampling import BurstSampling
from .check import check
from .coded_aperture import CodedAperture
from .coils import Coils
from .compose import compose, stack
from .cone_beam import ConeBeam
from .convolution import Convolution
from .cosine import Cosine
from .density_compensation import density_compensation
from .differences import Gradient
from .direct_fourier import DirectFourier
from .downsample import Downsample
from .elementary import Dense, Identity
from .fan_beam import FanBeam
from .field_rotation import FieldRotation
from .fourier import Fourier
from .hadamard import Hadamard
from .motion import Motion
from .nonuniform_fourier import NonuniformFourier
from .phase_retrieval import PhaseRetrieval
from .ptychography import Ptychography
from .radon import Radon
from .random_projection import StructuredRandom, gaussian_projection
from .rotate import Rotate
from .sampling import Mask, Mosaic
from .single_pixel import SinglePixel
from .space_variant import SpaceVariantBlur, interpolate_psfs
from .spectral_unmixing import SpectralUnmixing
from .trajectories import golden_angles, radial, spiral, uniform_angles
from .warp import Warp
from .wavelet import Wavelet

__all__ = [
    "Adjoint",
    "BurstSampling",
    "CodedAperture",
    "Coils",
    "ConeBeam",
    "Convolution",
    "Cosine",
    "Dense",
    "DirectFourier",
    "Downsample",
    "FanBeam",
    "FieldRotation",
    "Fourier",
    "Gradient",
    "Hadamard",
    "Identity",
    "LinearOperator",
    "Mask",
    "Mosaic",
    "Motion",
    "NonuniformFourier",
    "Operator",
    "PhaseRetrieval",
    "Ptychography",
    "Radon",
    "Rotate",
    "SinglePixel",
    "SpaceVariantBlur",
    "SpectralUnmixing",
    "StructuredRandom",
    "Warp",
    "Wavelet",
    "check",
    "compose",
    "density_compensation",
    "gaussian_projection",
    "golden_angles",
    "interpolate_psfs",
    "radial",
    "spiral",
    "stack",
    "uniform_angles",
]
