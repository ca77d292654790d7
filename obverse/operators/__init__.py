"""Forward models and their algebra: `A(x)`, `A.adjoint(y)`, `A @ B`, `A + B`, `2.0 * A`, `A.H`, `A.solve(b, damping)`.

Write your own by subclassing `LinearOperator` (or `Operator`) and defining `_apply` and `_adjoint`; then run `check`.
"""

from .base import Adjoint, LinearOperator, Operator
from .check import check
from .compose import compose, stack
from .cone_beam import ConeBeam
from .convolution import Convolution
from .density_compensation import density_compensation
from .differences import Gradient
from .direct_fourier import DirectFourier
from .downsample import Downsample
from .elementary import Dense, Identity
from .fan_beam import FanBeam
from .fourier import Fourier
from .nonuniform_fourier import NonuniformFourier
from .radon import Radon
from .sampling import Mask, Mosaic
from .trajectories import golden_angles, radial, spiral, uniform_angles
from .wavelet import Wavelet

__all__ = [
    "Adjoint",
    "ConeBeam",
    "Convolution",
    "Dense",
    "DirectFourier",
    "Downsample",
    "FanBeam",
    "Fourier",
    "Gradient",
    "Identity",
    "LinearOperator",
    "Mask",
    "Mosaic",
    "NonuniformFourier",
    "Operator",
    "Radon",
    "Wavelet",
    "check",
    "compose",
    "density_compensation",
    "golden_angles",
    "radial",
    "spiral",
    "stack",
    "uniform_angles",
]
