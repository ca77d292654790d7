"""Methods: one measurement and a problem in, an estimate or a posterior out."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .base import Callback
    from .gaussian import Gaussian
    from .langevin import Langevin
    from .laplace import Laplace
    from .map import MAP
    from .richardson_lucy import RichardsonLucy

__all__ = ["MAP", "Callback", "Gaussian", "Langevin", "Laplace", "RichardsonLucy"]

_HOME = {
    "Callback": "base",
    "Gaussian": "gaussian",
    "Langevin": "langevin",
    "Laplace": "laplace",
    "MAP": "map",
    "RichardsonLucy": "richardson_lucy",
}


def __getattr__(name: str):
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module 'obverse.methods' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__():
    return sorted(__all__)
