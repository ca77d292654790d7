"""How the package's kernels are compiled for CPUs; imported only where numba is installed.

Kernels leave Python's other threads free to run. Sums are vectorised where `fast`, and NaN keeps its meaning.
"""

import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from numba import njit

__all__ = ["compiled", "over_ranges"]

_PIECES = 4  # for each thread, as they differ in cost
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


def over_ranges(kernel: Callable[..., object], count: int, threads: int, *arguments: object) -> None:
    """Call `kernel(begin, end, *arguments)` on ranges that together are 0 … count, on at most so many threads."""
    if threads <= 1:
        kernel(0, count, *arguments)
        return
    pieces = min(count, _PIECES * threads)
    edges = [count * i // pieces for i in range(pieces + 1)]
    with ThreadPoolExecutor(threads) as pool:
        for future in [pool.submit(kernel, a, b, *arguments) for a, b in zip(edges[:-1], edges[1:], strict=True)]:
            future.result()
