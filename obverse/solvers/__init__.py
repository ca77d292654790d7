"""Iterative solvers on plain callables; each returns a result whose status tells the truth."""

from .eigen import Eigen, block_krylov
from .linear import cg
from .lsqr import lsqr
from .minres import minres
from .result import Result, Status

__all__ = ["Eigen", "Result", "Status", "block_krylov", "cg", "lsqr", "minres"]
