"""Obverse: posteriors for imaging inverse problems, from an instrument's file to a report.

>>> import obverse as ob
>>> ob.errors.InputError.__name__
'InputError'

Sub-packages are imported on first use, so that ``import obverse`` stays light.
"""

import importlib

__version__ = "0.1.0"

_PACKAGES = (
    "errors",
    "instruments",
    "io",
    "learning",
    "methods",
    "networks",
    "noise",
    "operators",
    "posterior",
    "priors",
    "problem",
    "report",
    "run",
    "solvers",
    "transforms",
    "volume",
)
_NAMES = {"Problem": "problem", "Posterior": "posterior", "Estimate": "posterior", "Volume": "volume"}

__all__ = ["__version__", *_PACKAGES, *_NAMES]


def __getattr__(name: str):
    if name in _PACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'obverse' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__():
    return sorted(__all__)
