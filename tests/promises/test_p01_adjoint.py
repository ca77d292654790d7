"""P1: every linear operator's adjoint is exact."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from obverse.operators import Convolution, LinearOperator
from tests.operators.cases import CASES, random

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


def gap(A: LinearOperator, precision: torch.dtype, seed: int = 0) -> float:
    """|⟨Ax, y⟩ − ⟨x, Aᴴy⟩| / max(‖Ax‖ ‖y‖, ‖x‖ ‖Aᴴy‖), computed here and not by the package."""
    generator = torch.Generator().manual_seed(seed)
    complex_ = A.dtype.is_complex
    dtype = {torch.float32: torch.complex64, torch.float64: torch.complex128}[precision] if complex_ else precision
    x = torch.randn(A.image_shape, generator=generator, dtype=dtype)
    y = torch.randn(A.data_shape, generator=generator, dtype=A.data_dtype)
    Ax, Ay = A(x), A.adjoint(y)
    left, right = torch.vdot(Ax.flatten(), y.flatten()), torch.vdot(x.flatten(), Ay.flatten())
    if A.real_linear:
        left, right = left.real, right.real
    return float((left - right).abs() / max(Ax.norm() * y.norm(), x.norm() * Ay.norm()))


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("name", CASES)
def test_adjoint_is_exact(name, precision):
    A = CASES[name].make(precision)
    assert max(gap(A, precision, seed) for seed in range(3)) <= TOLERANCE[precision]
    x = torch.randn(A.image_shape, dtype=A.dtype, requires_grad=True)
    y = torch.randn(A.data_shape, dtype=A.data_dtype)
    (gradient,) = torch.autograd.grad(A(x), x, y)
    torch.testing.assert_close(gradient, A.adjoint(y))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.tuples(st.integers(8, 80), st.integers(8, 80)), st.tuples(st.integers(1, 8), st.integers(1, 8)))
def test_adjoint_of_a_blur_of_any_size(grid, size):
    for boundary in ("circular", "reflect", "zero", "valid"):
        for precision, tolerance in TOLERANCE.items():
            assert gap(Convolution(random(*size).to(precision), (1, *grid), boundary), precision) <= tolerance


class NearlyReflected(Convolution):
    """The widespread mistake: the adjoint of a reflected blur taken to be the reflected blur by the flipped kernel."""

    def _adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return Convolution(self.kernel.flip((-2, -1)), self.image_shape, "reflect")(y)


def test_a_plausible_but_wrong_adjoint_is_noticed():
    wrong = NearlyReflected(random(3, 3), (1, 64, 64), "reflect")
    assert gap(wrong, torch.float64) > 1e3 * TOLERANCE[torch.float64]
