"""The report: one self-contained HTML file, built from the files that a run has stored and from nothing else.

>>> import obverse as ob
>>> ob.report.MAX_BYTES
10000000
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .builder import MAX_BYTES, write
    from .figures import Figures, derive

_NAMES = {"write": "builder", "MAX_BYTES": "builder", "derive": "figures", "Figures": "figures"}

__all__ = ["MAX_BYTES", "Figures", "derive", "write"]


def __getattr__(name: str):
    if name in _NAMES:
        return getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'obverse.report' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__():
    return sorted(__all__)
