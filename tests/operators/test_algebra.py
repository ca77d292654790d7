"""`@ + - * .H stack`, immutability and differentiability of the base class."""

import pytest
import torch

from obverse.errors import InputError, NumericsError
from obverse.operators import Adjoint, Convolution, Dense, Gradient, Identity, LinearOperator, Mask, compose, stack
from tests.operators.cases import random

A = Dense(random(6, 12) - 0.5, (1, 3, 4))
B = Convolution(random(3, 3), (1, 3, 4))
x = random(1, 3, 4, seed=9)


def test_algebra_on_values():
    torch.testing.assert_close((A @ B)(x), A(B(x)))
    torch.testing.assert_close(compose(A, B)(x), A(B(x)))
    torch.testing.assert_close((B + B)(x), 2 * B(x))
    torch.testing.assert_close((B - 0.5 * B)(x), 0.5 * B(x))
    torch.testing.assert_close((-B)(x), -B(x))
    torch.testing.assert_close(stack([A, A])(x), torch.cat([A(x), A(x)], -3))
    assert isinstance(A.H, Adjoint) and A.H.H is A
    assert A.linearise(x) is A


def test_spectrum_survives_the_algebra():
    combined = 2.0 * (B @ B) + B.H - Identity((1, 3, 4))
    expected = torch.fft.irfftn(combined.spectrum() * torch.fft.rfftn(x, dim=(-2, -1)), s=(3, 4), dim=(-2, -1))
    torch.testing.assert_close(combined(x), expected)
    assert (A @ B).spectrum() is None and (B + Mask(random(1, 3, 4))).spectrum() is None


def test_mismatches_are_refused():
    for make, match in [
        (lambda: A @ A, "A @ B needs"),
        (lambda: A + B, "equal data_shape"),
        (lambda: stack([]), "at least one"),
        (lambda: stack([A, B]), "first"),
        (lambda: (1 + 1j) * A, "real number"),
    ]:
        with pytest.raises(InputError, match=match):
            make()


def test_operators_are_frozen():
    for operator in (A, B, A @ B, 2 * A, stack([A, A]), A.H, B.to(torch.float32)):
        with pytest.raises(AttributeError, match="immutable"):
            operator.dtype = torch.float32


def test_solve_says_when_it_did_not_converge():
    operator = Mask(random(1, 16, 16)) @ Convolution(random(5, 5), (1, 16, 16))
    with pytest.raises(NumericsError, match="solve"):
        operator.solve(random(1, 16, 16), 1e-8, max_iterations=3)


def test_an_operator_in_float32_keeps_float64_images():
    for operator in (B.to(torch.float32), A.to(torch.float32), Gradient((1, 3, 4))):
        assert operator(x).dtype == torch.float64
        assert operator.adjoint(operator(x)).dtype == torch.float64
        assert operator.solve(x, 1.0).dtype == torch.float64


def test_base_class_asks_for_its_methods():
    class Empty(LinearOperator):
        def __init__(self):
            super().__init__((1, 2, 2), (1, 2, 2))

    with pytest.raises(NotImplementedError, match="Empty must define _apply"):
        Empty()(torch.zeros(1, 2, 2))
