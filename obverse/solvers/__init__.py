"""Iterative solvers on plain callables; each returns a result whose status tells the truth."""

from .linear import cg
from .result import Result, Status

__all__ = ["Result", "Status", "cg"]
