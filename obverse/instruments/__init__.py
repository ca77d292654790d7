"""Instruments: from a field's own files to a problem, and back to its files.

Each is a module with `SUFFIXES`, `Settings`, `read`, `files`, `picture`, `characterise`, `summary`, `footprint`,
`measure`, `method`, `describe`, `explained`, `answer` and `export`; the run and the command line know no more of an
instrument than these.
"""

import importlib

__all__ = ["base", "beads", "exoplanet", "microscopy", "psf", "resolution", "sensitivities"]


def __getattr__(name: str):
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module 'obverse.instruments' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__():
    return sorted(__all__)
