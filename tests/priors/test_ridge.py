"""The ridge prior: units, derivatives, and the methods that take it."""

import math
import pickle

import pytest
import torch

from obverse import networks
from obverse.errors import InputError, NumericsError
from obverse.methods import MAP, Langevin, Laplace
from obverse.noise import Gaussian
from obverse.operators import Identity
from obverse.priors import Denoises, Ridge
from obverse.problem import Problem

SHAPE = (2, 5, 6)


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def ridge(rho=0.0, **settings):
    torch.manual_seed(0)
    net = networks.RidgeEnergy((1, 3, 5), kernel=3, knots=8, weak_convexity=rho)
    if rho:
        with torch.no_grad():
            net.slopes[3:6] -= 8.0
    return Ridge(net.requires_grad_(False), sigma=settings.pop("sigma", 0.1), **settings)


PRIORS = [ridge(), ridge(0.9), ridge(0.9, low=-3.0, high=5.0, sigma=0.9)]


@pytest.mark.parametrize("prior", PRIORS, ids=["convex", "weakly convex", "other units"])
def test_derivatives_and_their_bounds(prior):
    x = (0.3 * randn(2, *SHAPE)).requires_grad_(True)
    value = prior.value(x)
    assert value.shape == (2,) and torch.allclose(prior.value(x[1]), value[1])
    assert torch.autograd.gradcheck(prior.value, x)
    assert torch.allclose(prior.gradient(x.detach()), torch.autograd.grad(value.sum(), x)[0], atol=1e-11)
    point = x[0].detach()
    n = point.numel()
    dense = prior.hessian(point).matvec(torch.eye(n, dtype=torch.float64).reshape(n, *SHAPE)).reshape(n, n)
    assert torch.allclose(dense, torch.autograd.functional.hessian(prior.value, point).reshape(n, n), atol=1e-9)
    values = torch.linalg.eigvalsh(dense)
    assert float(values[-1]) <= prior.lipschitz and float(values[0]) >= -prior.weak_convexity - 1e-9


def test_draws_have_the_hessian_for_covariance():
    prior, x = ridge(), 0.3 * randn(1, 4, 5)
    hessian, n = prior.hessian(x), 20
    dense = hessian.matvec(torch.eye(n, dtype=torch.float64).reshape(n, 1, 4, 5)).reshape(n, n)
    generator = torch.Generator().manual_seed(4)
    draws = torch.stack([hessian.perturbation(generator) for _ in range(4000)]).reshape(-1, n)
    scale = dense.diagonal().sqrt()
    scale = scale[:, None] * scale
    assert float(((draws.T @ draws / 4000 - dense).abs() / scale).max()) < 6 * math.sqrt(2 / 4000)
    assert float(((draws.T @ draws / 4000 - 1.3 * dense).abs() / scale).max()) > 6 * math.sqrt(2 / 4000)


@pytest.mark.parametrize("prior", PRIORS, ids=["convex", "weakly convex", "other units"])
def test_denoise_is_the_prox_and_the_map(prior):
    assert isinstance(prior, Denoises)
    sigma = prior.sigma
    y = prior.low + (prior.high - prior.low) * (0.5 + 0.2 * randn(*SHAPE))
    sharp = Ridge(prior.network, sigma, prior.low, prior.high, accuracy=1e-7)
    clean = sharp.denoise(y, sigma)
    assert torch.allclose((clean - y) / sigma**2 + prior.gradient(clean), torch.zeros_like(y), atol=1e-4 / sigma)
    assert torch.allclose(clean, sharp.prox(y, sigma**2), atol=1e-6)
    estimate = MAP(prior=prior, weight=1.0, tolerance=1e-7)(y, Problem(Identity(SHAPE), Gaussian(sigma)))
    assert estimate.status.converged and torch.allclose(estimate.image, clean, atol=1e-5 * (prior.high - prior.low))
    assert float((prior.denoise(y, sigma) - clean).square().mean().sqrt()) <= 1e-3 * sigma


def test_units_and_levels():
    prior = ridge(0.9)
    y = 0.5 + 0.2 * randn(3, 1, 6, 6)
    wide = prior.scaled(100.0, 300.0)
    assert wide.sigma == pytest.approx(20.0)
    assert torch.allclose(wide.value(100 + 200 * y), prior.value(y))
    assert torch.allclose(wide.denoise(100 + 200 * y, 20.0), 100 + 200 * prior.denoise(y, 0.1), atol=1e-4)
    levels = torch.tensor([0.05, 0.1, 0.2])
    each = torch.stack([prior.denoise(image, float(s)) for image, s in zip(y, levels, strict=True)])
    assert torch.allclose(prior.denoise(y, levels), each, atol=1e-3)
    assert torch.allclose(prior.at(0.2).value(y), Ridge(prior.network, 0.2).value(y))
    assert not torch.allclose(prior.at(0.2).value(y), prior.value(y))
    copy = pickle.loads(pickle.dumps(prior))  # noqa: S301
    assert torch.equal(copy.gradient(y), prior.gradient(y))
    assert prior.gradient(y.float()).dtype == torch.float32


def test_laplace_and_langevin_take_it():
    problem = Problem(Identity((1, 6, 6)), Gaussian(0.1))
    y = 0.5 + 0.2 * randn(1, 6, 6)
    convex = Laplace(prior=ridge())(y, problem)
    assert convex.status.converged
    n = 36
    eye = torch.eye(n, dtype=torch.float64)
    curvature = ridge().hessian(convex.mean).matvec(eye.reshape(n, 1, 6, 6)).reshape(n, n) + 100 * eye
    exact = torch.linalg.inv(curvature).diagonal().sqrt().reshape(1, 6, 6)
    ratio = convex.std / exact
    assert 0.95 < float(ratio.mean()) < 1.05 and 0.7 < float(ratio.min()) and float(ratio.max()) < 1.3
    assert float(exact.max()) < 0.099  # the data alone would leave 0.1
    chains = Langevin(prior=ridge(0.9), samples=40, burn_in=20, chains=2)(y, problem)
    assert bool(chains.mean.isfinite().all()) and float((chains.mean - convex.mean).abs().max()) < 0.3


def test_what_it_cannot_do_is_said():
    x = 0.3 * randn(*SHAPE)
    calls = [
        lambda: ridge(sigma=0.0),
        lambda: ridge(low=1.0, high=1.0),
        lambda: ridge().value(x.to(torch.complex128)),
        lambda: ridge().denoise(x, -1.0),
        lambda: ridge().bind((1, 4, 4, 4)),
        lambda: ridge(0.9).prox(x, 1.0),
        lambda: ridge(0.9).hessian(x).perturbation(torch.Generator()),
    ]
    for call in calls:
        with pytest.raises(InputError) as caught:
            call()
        assert "\n" not in str(caught.value)
    with pytest.raises(NumericsError):
        ridge(accuracy=1e-30).denoise(x, 0.1)
