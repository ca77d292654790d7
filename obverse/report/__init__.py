"""The report: one self-contained HTML file, built from the files that a run has stored and from nothing else.

>>> import obverse as ob
>>> ob.report.MAX_BYTES
10000000
"""

from .builder import MAX_BYTES, write
from .figures import Figures, derive
from .python import make

__all__ = ["MAX_BYTES", "Figures", "derive", "make", "write"]
