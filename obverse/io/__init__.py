"""Files in and out: one module per format, and `safe` for limits, atomic writes and hashes.

>>> from obverse.io import tiff
>>> tiff.__name__
'obverse.io.tiff'
"""

import importlib

__all__ = ["columns", "fits", "record", "safe", "tiff"]


def __getattr__(name: str):
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module 'obverse.io' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__():
    return sorted(__all__)
