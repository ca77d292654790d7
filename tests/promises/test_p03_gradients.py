"""P3: gradients are right, to second order, of operators, of their adjoints and of `solve`."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.autograd.gradcheck import GradcheckError

from tests.operators.cases import CASES, random
from tests.operators.test_check import CutsGraph, Square


def inputs(A, shape):
    return torch.randn(shape, dtype=A.dtype, generator=torch.Generator().manual_seed(0)).requires_grad_()


@pytest.mark.parametrize("name", CASES)
def test_gradients_of_operators(name):
    A = CASES[name].make(torch.float64)
    x, y = inputs(A, A.image_shape), inputs(A, A.data_shape)
    assert gradcheck(A, x, fast_mode=True) and gradgradcheck(A, x, fast_mode=True)
    assert gradcheck(A.adjoint, y, fast_mode=True) and gradgradcheck(A.adjoint, y, fast_mode=True)


def test_every_entry_of_one_jacobian():
    A = CASES["downsample reflect"].make(torch.float64)
    assert gradcheck(A, inputs(A, A.image_shape))


def test_gradients_of_a_non_linear_operator():
    x = random(1, 3, 4).requires_grad_()
    assert gradcheck(Square(), x) and gradgradcheck(Square(), x)


@pytest.mark.parametrize("name", ["dense", "convolution circular fft", "convolution reflect direct", "downsample"])
def test_gradients_of_solve(name):
    A = CASES[name].make(torch.float64)
    damping = torch.tensor(0.9, dtype=torch.float64, requires_grad=True)
    weight = random(*A.data_shape).requires_grad_()
    assert gradcheck(A.solve, (inputs(A, A.image_shape), damping, weight), fast_mode=True, rtol=1e-4)


def test_a_wrong_gradient_is_noticed():
    with pytest.raises(GradcheckError):
        gradcheck(CutsGraph(), inputs(CutsGraph().to(torch.float64), (1, 3, 4)))
