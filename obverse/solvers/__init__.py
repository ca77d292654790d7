"""Iterative solvers on plain callables; each returns a result whose status tells the truth.

The names are bound at once and not lazily as in other packages: `admm`, `lsqr` and `minres` share their module's name,
and a lazy look-up would hand out the function or the module depending on what was imported before.
"""

from .admm import System, admm
from .anderson import anderson
from .certificate import Certificate, certify
from .coupling import Coupling
from .eigen import Eigen, block_krylov
from .linear import cg
from .lsqr import lsqr
from .minres import minres
from .primal_dual import pdhg
from .proximal import fista
from .result import Result, Status

__all__ = [
    "Certificate",
    "Coupling",
    "Eigen",
    "Result",
    "Status",
    "System",
    "admm",
    "anderson",
    "block_krylov",
    "certify",
    "cg",
    "fista",
    "lsqr",
    "minres",
    "pdhg",
]
