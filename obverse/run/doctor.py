"""What this installation has, and whether it computes rightly: a few closed-form checks that take a second."""

import os
import shutil
import time
from importlib.util import find_spec
from typing import Any

from .plan import available_memory
from .store import versions

__all__ = ["examine"]


def examine() -> dict[str, Any]:
    """Versions, resources and self-tests; `healthy` is True when every self-test passed."""
    started = time.perf_counter()
    import torch

    tests = {name: _outcome(test) for name, test in _TESTS.items()}
    return {
        "healthy": all(result == "passed" for result in tests.values()),
        "versions": versions(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "free memory": f"{available_memory() / 10**9:.1f} GB",
        "cuda": torch.cuda.is_available(),
        "compiled kernels": "numba"
        if find_spec("numba")
        else "absent: slower total variation, tomography and warps, `pip install obverse[fast]`",
        "non-uniform Fourier": "finufft" if find_spec("finufft") else "absent: slower, `pip install obverse[nufft]`",
        "priors": _priors(),
        "browser": shutil.which("chromium")
        or shutil.which("google-chrome")
        or "absent: the browser test will be skipped",
        "tests": tests,
        "seconds": time.perf_counter() - started,
    }


def _outcome(test: Any) -> str:
    try:
        test()
    except Exception as error:  # a diagnosis reports whatever went wrong, it never fails itself
        return f"failed: {type(error).__name__}: {error}"
    return "passed"


def _priors() -> str:
    """The names of the shipped priors."""
    from ..priors.shipped import names

    return ", ".join(names()) or "none with this installation"


def _weights() -> None:
    """Every shipped prior can be read, and its bytes are those that were written."""
    from ..priors.shipped import available

    available()


def _adjoint() -> None:
    import torch

    from ..operators import Convolution, check

    check(Convolution(torch.rand(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), (1, 9, 8)))


def _posterior() -> None:
    """A white field seen in white noise: mean y/2 and variance 1/2, exactly."""
    import torch

    from ..methods import Gaussian
    from ..noise import Gaussian as GaussianNoise
    from ..operators import Identity
    from ..priors import GaussianField
    from ..problem import Problem

    shape = (1, 8, 8)
    y = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    field = GaussianField(torch.ones(8, 8, dtype=torch.float64), shape)
    posterior = Gaussian(field)(y, Problem(Identity(shape, dtype=torch.float64), GaussianNoise(1.0)))
    torch.testing.assert_close(posterior.mean, y / 2)
    torch.testing.assert_close(posterior.std, torch.full(shape, 0.5**0.5, dtype=torch.float64))


def _total_variation() -> None:
    """Two pixels a, b with a > b: the proximal point moves each by the weight towards the other."""
    import torch

    from ..priors import TotalVariation

    x = torch.tensor([[[0.0, 1.0]]], dtype=torch.float64)
    expected = torch.tensor([[[0.1, 0.9]]], dtype=torch.float64)
    torch.testing.assert_close(TotalVariation().prox(x, 0.1), expected, atol=1e-3, rtol=0)


_TESTS = {
    "adjoint": _adjoint,
    "closed-form posterior": _posterior,
    "total-variation prox": _total_variation,
    "shipped priors": _weights,
}
