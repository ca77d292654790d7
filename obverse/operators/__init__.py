"""Forward models and their algebra: `A(x)`, `A.adjoint(y)`, `A @ B`, `A + B`, `2.0 * A`, `A.H`, `A.solve(b, damping)`.

Write your own by subclassing `LinearOperator` (or `Operator`) and defining `_apply` and `_adjoint`; then run `check`.
"""

from .base import Adjoint, LinearOperator, Operator
from .check import check
from .compose import compose, stack
from .convolution import Convolution
from .differences import Gradient
from .downsample import Downsample
from .elementary import Dense, Identity
from .fourier import Fourier
from .sampling import Mask, Mosaic
from .wavelet import Wavelet

__all__ = [
    "Adjoint",
    "Convolution",
    "Dense",
    "Downsample",
    "Fourier",
    "Gradient",
    "Identity",
    "LinearOperator",
    "Mask",
    "Mosaic",
    "Operator",
    "Wavelet",
    "check",
    "compose",
    "stack",
]
