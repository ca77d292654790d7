"""How the package's kernels are compiled for CPUs; imported only where numba is installed.

Kernels leave Python's other threads free to run. Sums are vectorised where `fast`, and NaN keeps its meaning.
"""

import inspect
from collections.abc import Callable

from numba import njit

__all__ = ["compiled"]

_FAST = {"reassoc", "contract", "arcp", "nsz"}


def compiled(fast: bool = True, inline: str = "never") -> Callable[[Callable], Callable]:
    """A decorator: the function is compiled on first use, and kept on disk where a folder for it can be written.

    Args:
        fast: whether sums may be reordered; without it their order does not depend on how the compiler vectorises.
        inline: "always" for small functions that other kernels call.
    """
    options = {"nogil": True, "error_model": "numpy", "fastmath": _FAST if fast else False, "inline": inline}

    def decorate(function: Callable) -> Callable:
        function = inspect.unwrap(function)  # the type checks of the test run wrap every function
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError:
            return njit(**options)(function)

    return decorate
