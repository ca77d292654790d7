"""The equilibrium's image is a fixed point, its gradient that of the limit, and what does not converge says so."""

import dataclasses

import pytest
import torch

import obverse as ob
from obverse.errors import InputError, NumericsError
from obverse.problem import Problem

SHAPE = (1, 6, 6)


def problem():
    kernel = torch.rand(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Problem(ob.operators.Convolution(kernel / kernel.sum(), SHAPE), ob.noise.Gaussian(0.5))


def method(scale=0.3, **settings):
    """A stage of few weights; small ones contract."""
    torch.manual_seed(0)
    unet = {"kind": "UNet", "inputs": 3, "outputs": 1, "widths": [2], "blocks": 1, "activation": "silu"}
    inner = {"kind": "Preconditioned", "network": unet, "deviation": 0.05}
    description = {"kind": "Stages", "stages": 1, "top": 0.3, "network": inner}
    network = ob.networks.build(description).double()
    with torch.no_grad():
        for name, parameter in network.networks.named_parameters():
            parameter.mul_(scale if "tail" in name else 1.0)
    return ob.methods.Equilibrium(
        network, **{"tolerance": 1e-12, "gradient_tolerance": 1e-12, "max_iterations": 200} | settings
    )


def data(batch=()):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(*batch, *SHAPE, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("scheme", ["pgd", "hqs", "modl", "gradient"])
def test_gradient_is_that_of_unrolling_to_convergence(scheme):
    implicit = method(scheme=scheme)
    y, weights = data((2,)), torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    parameters = dict(implicit.network.named_parameters())

    def gradients(found):
        return torch.autograd.grad((weights * found).sum(), list(parameters.values()), allow_unused=True)

    found = gradients(implicit.reconstruct(y, problem()))
    stages = _Repeated(implicit.network, 60)
    expected = gradients(ob.methods.Unrolled(stages, scheme).reconstruct(y, problem()))
    few = gradients(ob.methods.Unrolled(_Repeated(implicit.network, 2), scheme).reconstruct(y, problem()))
    for name, one, other, early in zip(parameters, found, expected, few, strict=True):
        assert torch.allclose(one, other, rtol=1e-6, atol=1e-9), name
        if (scheme, name) != ("gradient", "log_step"):  # the limit of a gradient flow does not depend on its step
            assert not torch.allclose(one, early, rtol=1e-4, atol=1e-9), name  # two stages are not the limit


class _Repeated(torch.nn.Module):
    """One stage many times."""

    def __init__(self, network, stages):
        super().__init__()
        self.network, self.stages = network, stages

    def schedule(self, stage, sigma):
        return self.network.schedule(0, sigma)

    def forward(self, stage, x, level):
        return self.network(0, x, level)


def test_gradient_agrees_with_finite_differences():
    implicit = method(scheme="hqs")
    y = data().requires_grad_(True)
    assert torch.autograd.gradcheck(
        lambda v: implicit.reconstruct(v, problem()), (y,), eps=1e-5, atol=1e-6, fast_mode=True
    )

    def broken(v):  # one application of the stage in place of the limit's gradient
        point = implicit.reconstruct(v.detach(), problem()).detach()
        stages = _Repeated(implicit.network, 1)
        return point + (f := ob.methods.Unrolled(stages, "hqs").reconstruct(v, problem())) - f.detach()

    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        torch.autograd.gradcheck(broken, (y,), eps=1e-5, atol=1e-6, fast_mode=True)


def test_the_image_is_a_fixed_point_and_the_status_says_so():
    implicit, y = method(), data((3,))
    estimate = implicit(y, problem())
    assert estimate.status.converged and estimate.diagnostics["residual"] <= 1e-12
    again = [implicit(item, problem()).image for item in y]
    assert torch.allclose(estimate.image, torch.stack(again), rtol=0, atol=1e-10)
    whitened = implicit._whitened(y, problem())
    step = implicit._stage(whitened)(estimate.image)
    assert torch.allclose(step, estimate.image, rtol=0, atol=1e-11)
    elsewhere = implicit._stage(whitened)(y)
    assert not torch.allclose(elsewhere, y, rtol=0, atol=1e-3)


def test_what_does_not_converge_is_told():
    estimate = method(max_iterations=3)(data(), problem())
    assert not estimate.status.converged and estimate.status.reason == "max-iterations"
    assert estimate.diagnostics["residual"] > 1e-12
    short = method(max_iterations=3)
    with pytest.raises(NumericsError, match="adjoint"):
        short.reconstruct(data(), problem()).sum().backward()


def test_jacobian_penalty_is_the_squared_norm_on_average():
    implicit = method()
    y = data()
    image = implicit(y, problem()).image
    stage = implicit._stage(implicit._whitened(y, problem()))
    jacobian = torch.autograd.functional.jacobian(stage, image[None]).reshape(36, 36)
    generator = torch.Generator().manual_seed(3)
    draws = torch.stack([implicit.jacobian_penalty(image, y, problem(), generator).detach() for _ in range(100)])
    expected = jacobian.square().sum() / 36
    error = draws.std() / 100**0.5
    assert abs(draws.mean() - expected) < 4 * error
    assert 4 * error < 0.5 * expected  # tight enough to tell ‖J‖² from, say, its double
    implicit.jacobian_penalty(image, y, problem(), generator).backward()
    assert implicit.network.networks[0].network.tail.weight.grad.abs().max() > 0
    assert torch.equal(image, implicit(y, problem()).image)


def test_units_do_not_matter():
    implicit, y = method(), data()
    expected = 2.0 + 10.0 * implicit(y, problem()).image
    law = dataclasses.replace(problem(), noise=ob.noise.Gaussian(5.0))
    assert torch.allclose(implicit.scaled(2.0, 12.0)(2.0 + 10.0 * y, law).image, expected, rtol=0, atol=1e-8)


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="one stage"):
        ob.methods.Equilibrium(_Repeated(method().network, 2))
    with pytest.raises(InputError, match="tolerances"):
        method(tolerance=0.0)
