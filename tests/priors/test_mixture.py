"""The Gaussian mixture against numeric integration, finite differences and its own samples."""

import math

import pytest
import torch

from obverse.errors import InputError
from obverse.noise import ComplexGaussian, Gaussian, Poisson
from obverse.operators import Convolution, Dense, Fourier, Identity
from obverse.priors import GaussianField, GaussianMixture
from obverse.problem import Problem

SHAPE = (1, 2, 3)


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def mixture(shape=SHAPE, count=3, spread=1.0):
    n = math.prod(shape)
    roots = randn(count, n, n, seed=1)
    covariances = 0.3 * roots @ roots.mT / n + 0.05 * torch.eye(n, dtype=torch.float64)
    return GaussianMixture(torch.arange(1.0, count + 1), spread * randn(count, *shape, seed=2), covariances)


def grid(points=161, reach=5.0):
    """Images of two pixels on a square grid, and the cell's area."""
    axis = torch.linspace(-reach, reach, points, dtype=torch.float64)
    return torch.cartesian_prod(axis, axis).reshape(-1, 1, 1, 2), float(axis[1] - axis[0]) ** 2


def test_density_integrates_to_one_and_denoising_is_the_integral():
    prior = mixture((1, 1, 2))
    u, cell = grid()
    density = prior.log_prob(u).exp()
    assert float(density.sum()) * cell == pytest.approx(1.0, abs=1e-6)
    x, sigma = randn(4, 1, 1, 2, seed=3), torch.tensor([0.3, 0.5, 1.0, 2.0], dtype=torch.float64)
    energy = (x[:, None] - u).square().sum((2, 3, 4)) / (2 * sigma[:, None] ** 2)
    likelihood = (-energy).exp() / (2 * math.pi * sigma[:, None] ** 2)
    joint = likelihood * density
    truth = (joint @ u.reshape(-1, 2)) / joint.sum(1, keepdim=True)
    assert torch.allclose(prior.denoise(x, sigma).reshape(4, 2), truth, atol=1e-6)
    assert torch.allclose(prior.log_prob(x, sigma), (joint.sum(1) * cell).log(), atol=1e-6)
    assert not torch.allclose(prior.denoise(x, 1.2 * sigma).reshape(4, 2), truth, atol=1e-3)
    assert torch.allclose(prior.denoise(x[1], 0.5), prior.denoise(x, sigma)[1])


def test_gradient_score_and_hessian():
    prior = mixture()
    x = randn(2, *SHAPE, seed=4).requires_grad_(True)
    value = prior.value(x)
    (expected,) = torch.autograd.grad(value.sum(), x)
    assert prior.smooth and torch.allclose(prior.gradient(x.detach()), expected, atol=1e-12)
    assert torch.allclose(prior.score(x.detach()), -expected, atol=1e-12)
    point = x.detach()[0]
    eye = torch.eye(6, dtype=torch.float64).reshape(6, *SHAPE)
    dense = prior.hessian(point).matvec(eye).reshape(6, 6)
    assert torch.allclose(dense, torch.autograd.functional.hessian(prior.value, point).reshape(6, 6), atol=1e-10)
    assert torch.autograd.gradcheck(lambda v: prior.denoise(v, 0.5), x)
    with pytest.raises(InputError):
        prior.hessian(point).perturbation(torch.Generator())


def test_one_component_is_a_gaussian_field():
    field = GaussianField.power_law((1, 3, 4), 2.0, mean=0.4)
    eye = torch.eye(12, dtype=torch.float64).reshape(12, 1, 3, 4)
    dense = field.covariance_matvec(eye).reshape(1, 12, 12)
    one = GaussianMixture(torch.ones(1), torch.full((1, 1, 3, 4), 0.4, dtype=torch.float64), dense)
    x = randn(2, 1, 3, 4)
    assert torch.allclose(one.denoise(x, 0.7), field.denoise(x, 0.7))
    assert torch.allclose(one.gradient(x), field.gradient(x))
    assert torch.allclose(one.denoise(x.float(), 0.7), field.denoise(x, 0.7).float(), atol=1e-5)


@pytest.mark.parametrize("kind", ["dense", "complex", "pixels"])
def test_posterior_is_bayes_rule(kind):
    prior = mixture((1, 1, 2))
    u, cell = grid()
    if kind == "dense":
        operator, noise = Dense(randn(3, 2, seed=5), (1, 1, 2), (3,)), Gaussian(0.8)
    elif kind == "complex":
        operator, noise = Fourier((1, 1, 2), dtype=torch.complex128), ComplexGaussian(0.9)
    else:
        operator = Identity((1, 1, 2), dtype=torch.float64)
        noise = Gaussian(torch.tensor([0.5, 1.5], dtype=torch.float64))
    problem = Problem(operator, noise)
    images = u.to(operator.dtype)
    y = problem.simulate(images[7000], seed=1)
    found = prior.posterior(y, problem)
    joint = (problem.log_likelihood(images, y.expand(len(u), *y.shape)) + prior.log_prob(u)).exp()
    truth = joint / (joint.sum() * cell)
    assert torch.allclose(found.log_prob(u).exp(), truth, atol=1e-6 * float(truth.max()))
    assert torch.allclose(found.mean.flatten(), truth @ u.reshape(-1, 2) * cell, atol=1e-6)
    assert not torch.allclose(prior.log_prob(u).exp(), truth, atol=1e-2 * float(truth.max()))


def test_posterior_of_a_denoising_problem_has_the_denoised_mean():
    prior, x = mixture(), randn(*SHAPE, seed=6)
    found = prior.posterior(x, Problem(Identity(SHAPE, dtype=torch.float64), Gaussian(0.6)))
    assert torch.allclose(found.mean, prior.denoise(x, 0.6))
    step = torch.autograd.functional.jacobian(lambda v: prior.denoise(v, 0.6), x).reshape(6, 6)
    assert torch.allclose(found.covariance, 0.36 * step, atol=1e-10)  # Tweedie's second formula
    blur = Convolution(torch.ones(1, 3) / 3, SHAPE)
    assert prior.posterior(blur(x.float()), Problem(blur, Gaussian(0.1))).smooth


def test_samples_have_the_moments_and_their_own_streams():
    prior = mixture(spread=2.0)
    draws = prior.sample(6000, seed=1)
    flat = (draws - prior.mean).reshape(6000, -1)
    covariance, scale = prior.covariance, float(prior.covariance.diagonal().max())
    assert float((flat.T @ flat / 6000 - covariance).abs().max()) < 6 * scale * math.sqrt(2 / 6000)
    assert float((flat.T @ flat / 6000 - prior.covariances[0]).abs().max()) > 6 * scale * math.sqrt(2 / 6000)
    assert torch.equal(prior.sample(2, seed=1), draws[:2]) and not torch.equal(prior.sample(2, seed=2), draws[:2])


def test_points_may_have_no_spread():
    images = randn(3, *SHAPE, seed=7)
    points = GaussianMixture(torch.ones(3), images, torch.zeros(3, 6, 6))
    x = images[0] + 0.1
    shares = (-(images - x).square().sum((1, 2, 3)) / (2 * 0.5**2)).softmax(0)
    assert torch.allclose(points.denoise(x, 0.5), torch.tensordot(shares, images, 1))
    assert not points.smooth
    with pytest.raises(InputError):
        points.value(x)


@pytest.mark.parametrize(
    "make",
    [
        lambda: GaussianMixture(torch.ones(2), torch.zeros(3, *SHAPE), torch.eye(6).expand(3, 6, 6)),
        lambda: GaussianMixture(torch.ones(1), torch.zeros(1, *SHAPE), torch.eye(5).expand(1, 5, 5)),
        lambda: GaussianMixture(torch.zeros(1), torch.zeros(1, *SHAPE), torch.eye(6).expand(1, 6, 6)),
        lambda: GaussianMixture(torch.ones(1), torch.zeros(1, *SHAPE), -torch.eye(6).expand(1, 6, 6)),
        lambda: GaussianMixture(torch.ones(1), torch.zeros(1, *SHAPE), torch.rand(1, 6, 6)),
        lambda: mixture().value(torch.zeros(1, 3, 3)),
        lambda: mixture().denoise(torch.zeros(SHAPE), 0.0),
        lambda: mixture().posterior(torch.zeros(SHAPE), Problem(Identity(SHAPE), Poisson(1.0))),
        lambda: mixture().posterior(torch.zeros(2, *SHAPE), Problem(Identity(SHAPE), Gaussian(1.0))),
    ],
)
def test_bad_mixtures_are_refused(make):
    with pytest.raises(InputError):
        make()
