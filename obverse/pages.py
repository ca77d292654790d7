"""Large results in large pages of memory.

Memory that is new to a process is handed out page by page when first written, 4096 bytes at a time: for an image of 12
million pixels that takes longer than computing it. Linux hands out 2 MiB at a time where it is asked to, and finds a
place in them sooner. Elsewhere, and for small tensors, nothing happens.
"""

import ctypes
import sys
from functools import cache
from typing import Any

from torch import Tensor

__all__ = ["in_large_pages"]

_PAGE = 2**21
_FROM = 4 * _PAGE  # bytes: below, what is asked for costs as much as it saves
_MADV_HUGEPAGE = 14


def in_large_pages(fresh: Tensor) -> Tensor:
    """The same tensor, just allocated and not yet written to."""
    if fresh.device.type == "cpu" and fresh.nbytes >= _FROM and (advise := _advise()) is not None:
        begin = -(-fresh.data_ptr() // _PAGE) * _PAGE
        end = (fresh.data_ptr() + fresh.nbytes) // _PAGE * _PAGE
        advise(begin, end - begin, _MADV_HUGEPAGE)  # advice: where it is not taken, the memory works as before
    return fresh


@cache
def _advise() -> Any:
    """The system call, or None where there is none."""
    if sys.platform != "linux":
        return None
    try:
        advise = ctypes.CDLL(None).madvise
    except (OSError, AttributeError):
        return None
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return advise
