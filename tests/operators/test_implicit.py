"""Implicit differentiation: `solve` with respect to an operator's own constants."""

import pytest
import torch

from obverse.operators import Convolution, Dense, Downsample, Mask, SpectralUnmixing
from obverse.operators.inverse import _parameter_gradients
from obverse.operators.parameters import differentiable_tensors, with_tensors
from tests.operators.cases import random

IMAGE = (1, 4, 4)
MAKE = {
    "circular blur": (lambda k: Convolution(k, IMAGE), (3, 3)),
    "blur of rank one": (lambda k: Convolution(k, IMAGE), (3, 1)),
    "direct blur": (lambda k: Convolution(k, IMAGE, "zero", "direct"), (3, 2)),
    "downsample": (lambda k: Downsample(IMAGE, 2, k), (2, 2)),
    "mask": (lambda m: Mask(m, IMAGE), (4, 4)),
    "dense": (lambda m: Dense(m, IMAGE), (3, 16)),
    "unmixing": (lambda m: SpectralUnmixing(m, (2, 3, 4)), (3, 2)),
    "conjugate gradients": (lambda k: Mask(random(4, 4), IMAGE) @ Convolution(k, IMAGE, "reflect"), (1, 3)),
}


@pytest.mark.parametrize("name", MAKE)
def test_solve_is_differentiable_in_the_operator(name):
    make, shape = MAKE[name]
    constant, damping = random(*shape).requires_grad_(), torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    b = random(*make(constant).image_shape, seed=3).requires_grad_()
    weight = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)

    def solve(constant, b, damping, weight):
        return make(constant).solve(b, damping, weight)

    inputs = (constant, b, damping, weight)
    assert torch.autograd.gradcheck(solve, inputs, fast_mode=True, rtol=1e-4)
    assert torch.autograd.gradgradcheck(solve, inputs, fast_mode=True, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", MAKE)
def test_the_operator_itself_is_differentiable_in_its_constants(name):
    make, shape = MAKE[name]
    constant = random(*shape).requires_grad_()
    x = random(*make(constant).image_shape, seed=3).requires_grad_()
    assert torch.autograd.gradcheck(lambda constant, x: make(constant)(x), (constant, x), fast_mode=True)


def test_a_constant_computed_from_another_is_not_counted_twice():
    kernel = random(3, 3).requires_grad_()
    A = Convolution(kernel, IMAGE)
    constants = differentiable_tensors(A)
    assert len(constants) > 1  # the kernel, and transfer functions computed from it
    x, g = random(*IMAGE), random(*IMAGE, seed=1)
    (total,) = torch.autograd.grad(-(g * A.gram(x)).sum(), kernel, retain_graph=True)
    apart = _parameter_gradients(A, constants, g, x, None)
    pairs = [(c, p) for c, p in zip(constants, apart, strict=True) if p is not None and c is not kernel]
    (back,) = torch.autograd.grad([c for c, _ in pairs], kernel, [p for _, p in pairs], retain_graph=True)
    torch.testing.assert_close(back, total)
    assert total.abs().max() > 0 and len(pairs) >= 1


def test_constants_are_replaced_in_a_copy():
    kernel = random(3, 3).requires_grad_()
    A = Mask(random(4, 4), IMAGE) @ Convolution(kernel, IMAGE, "zero", "direct")
    old = differentiable_tensors(A)
    twin = with_tensors(A, old, [2 * tensor for tensor in old])
    x = random(*IMAGE)
    torch.testing.assert_close(twin(x), 2 * A(x))
    assert differentiable_tensors(A) == old and twin.outer.mask is A.outer.mask
    with pytest.raises(AttributeError, match="immutable"):
        twin.dtype = torch.float32


def test_a_later_change_of_the_kernel_does_not_reach_the_operator():
    kernel = random(3, 3).requires_grad_()
    A, x = Convolution(kernel, IMAGE, "zero", "direct"), random(*IMAGE)
    before = A(x).detach().clone()
    with torch.no_grad():
        kernel.mul_(2)
    torch.testing.assert_close(A(x).detach(), before)
    assert not torch.allclose(Convolution(kernel, IMAGE, "zero", "direct")(x), before)


def test_a_blur_is_found_by_descent_through_solve():
    true = torch.tensor([[0.1, 0.6, 0.3]], dtype=torch.float64)
    b = random(1, 4, 8)
    wanted = Convolution(true, b.shape).solve(b, 0.1)
    kernel = torch.tensor([[0.15, 0.5, 0.25]], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([kernel], max_iter=30, line_search_fn="strong_wolfe", tolerance_change=1e-14)

    def loss():
        optimiser.zero_grad()
        value = (Convolution(kernel, b.shape).solve(b, 0.1) - wanted).square().sum()
        value.backward()
        return value

    assert loss() > 1e-3
    optimiser.step(loss)
    torch.testing.assert_close(kernel.detach(), true, atol=1e-4, rtol=0)
