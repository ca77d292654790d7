"""Laplace: the minimum is a minimum, the covariance is the inverse curvature, failures are admitted."""

import pytest
import torch

from obverse import methods, noise, operators, priors
from obverse.errors import InputError
from obverse.methods.newton import newton
from obverse.operators.base import Operator
from obverse.problem import Problem

N = 16


def blur(boundary: str = "circular"):
    r = torch.arange(-3, 4, dtype=torch.float64)
    kernel = torch.exp(-(r[:, None] ** 2 + r**2) / 2)
    return operators.Convolution(kernel / kernel.sum(), (1, N, N), boundary=boundary)


def disc(low: float, high: float):
    r = torch.arange(N, dtype=torch.float64) - 7.0
    return (low + (high - low) * ((r[:, None] ** 2 + r**2) < 16).double())[None]


CASES = {
    "gaussian": (noise.Gaussian(0.03), 0.1, 1.0, 0.01, 10.0),
    "gaussian, little smoothing": (noise.Gaussian(0.03), 0.1, 1.0, 0.001, 10.0),
    "poisson": (noise.Poisson(1.0), 10.0, 100.0, 1.0, 0.1),
    "poisson–gaussian": (noise.PoissonGaussian(2.0, 5.0), 10.0, 100.0, 1.0, 0.1),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("boundary", ["circular", "reflect"])
def test_smoothed_total_variation(case, boundary):
    law, low, high, smoothing, weight = CASES[case]
    problem = Problem(blur(boundary), law)
    y = problem.simulate(disc(low, high), seed=1)
    prior = priors.TotalVariation(smoothing=smoothing)
    posterior = methods.Laplace(prior=prior, weight=weight)(y, problem)
    assert posterior.status.converged

    def energy(x):
        return weight * prior.value(x) - problem.log_likelihood(x, y)

    x = posterior.mean.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(energy(x), x)
    scale = float((weight * prior.gradient(posterior.mean)).norm())
    assert float(gradient.norm()) < 1e-6 * scale
    # No nearby image is better; a displaced one is not a minimum.
    kicks = torch.randn(20, 1, N, N, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert bool((energy(posterior.mean + 1e-3 * high * kicks) > energy(posterior.mean)).all())

    identity = torch.eye(N * N, dtype=torch.float64).reshape(-1, 1, N, N)
    fisher = problem.fisher_weight(posterior.mean)
    precision = problem.operator.gram(identity, fisher) + weight * prior.hessian(posterior.mean).matvec(identity)
    covariance = torch.linalg.inv(precision.reshape(N * N, -1))
    torch.testing.assert_close(posterior.std.reshape(-1) ** 2, covariance.diagonal(), rtol=1e-6, atol=0)
    v = torch.randn(2, N * N, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(posterior.covariance.matvec(v), v @ covariance, rtol=1e-5, atol=1e-7 * high**2)


def test_fisher_curvature_is_the_hessian_for_gaussian_noise():
    problem, prior = Problem(blur(), noise.Gaussian(0.1)), priors.TotalVariation(smoothing=0.05)
    y = problem.simulate(disc(0.1, 1.0), seed=0)
    posterior = methods.Laplace(prior=prior)(y, problem)
    v = torch.randn(1, N, N, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gradient = lambda x: problem.gradient(x, y) + prior.gradient(x)  # noqa: E731
    h = 1e-5
    difference = (gradient(posterior.mean + h * v) - gradient(posterior.mean - h * v)) / (2 * h)
    torch.testing.assert_close(posterior.covariance.solve(v), difference, rtol=1e-4, atol=1e-4)


def test_draws_have_the_covariance():
    problem = Problem(blur("reflect"), noise.PoissonGaussian(2.0, 5.0))
    y = problem.simulate(disc(10.0, 100.0), seed=1)
    posterior = methods.Laplace(prior=priors.TotalVariation(smoothing=1.0), weight=0.1)(y, problem)
    draws = posterior.sample(600, seed=0) - posterior.mean
    energy = (draws * posterior.covariance.solve(draws)).mean()
    assert abs(float(energy) - 1) < 0.02  # a mean of 600·256 squared normals: standard error 0.0036
    assert abs(float((draws.square().mean(0) / posterior.std**2).mean()) - 1) < 0.05
    assert abs(float(2 * energy) - 1) > 0.02 and abs(float(energy / 2) - 1) > 0.02


@pytest.mark.parametrize("boundary", ["circular", "reflect"])
def test_a_gaussian_field_gives_the_exact_posterior(boundary):
    prior = priors.GaussianField.power_law((1, N, N), 2.0, mean=0.4)
    problem = Problem(blur(boundary), noise.Gaussian(0.1))
    y = problem.simulate(prior.sample(1, seed=0)[0], seed=0)
    exact, approximate = (method(prior=prior)(y, problem) for method in (methods.Gaussian, methods.Laplace))
    torch.testing.assert_close(approximate.mean, exact.mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(approximate.std, exact.std, rtol=1e-6, atol=0)
    weighted = methods.Laplace(prior=prior, weight=4.0)(y, problem)
    torch.testing.assert_close(weighted.std, methods.Gaussian(prior=4.0 * prior)(y, problem).std, rtol=1e-6, atol=0)
    assert float((weighted.std - exact.std).abs().max()) > 0.01


def test_single_precision_reaches_the_same_minimum():
    problem, prior = Problem(blur(), noise.Gaussian(0.03)), priors.TotalVariation(smoothing=0.01)
    y = problem.simulate(disc(0.1, 1.0), seed=1)
    exact, single = (methods.Laplace(prior=prior, weight=10.0)(data, problem) for data in (y, y.float()))
    assert single.status.converged and single.mean.dtype == torch.float32
    assert float((single.mean - exact.mean).abs().max()) < 1e-3


class Squares(Operator):
    """x ↦ x², a non-linear operator."""

    def _apply(self, x):
        return x.square()


def test_a_non_linear_operator_enters_by_gauss_newton():
    prior = priors.GaussianField.power_law((1, 8, 8), 2.0, 0.05, mean=2.0)
    problem = Problem(Squares((1, 8, 8), (1, 8, 8), torch.float64), noise.Gaussian(0.1))
    truth = prior.sample(1, seed=0)[0]
    posterior = methods.Laplace(prior=prior)(problem.simulate(truth, seed=0), problem)
    assert posterior.status.converged
    assert float((posterior.mean - truth).abs().max()) < 0.15
    # σ_x ≈ σ_y/(2x) where the data dominate.
    ratio = posterior.std / (0.1 / (2 * posterior.mean))
    assert 0.8 < float(ratio.mean()) < 1.0


def test_it_admits_that_it_stopped_early():
    problem = Problem(blur(), noise.Gaussian(0.03))
    y = problem.simulate(disc(0.1, 1.0), seed=1)
    method = methods.Laplace(prior=priors.TotalVariation(smoothing=0.001), weight=10.0, max_iterations=2)
    status = method(y, problem).status
    assert not status.converged and status.reason == "max-iterations" and "allow more iterations" in status.message


def test_photon_starved_poisson_data_are_admitted_to_be_out_of_reach():
    problem = Problem(blur(), noise.Poisson(1.0))
    y = problem.simulate(disc(0.5, 10.0), seed=1)
    status = methods.Laplace(prior=priors.TotalVariation(smoothing=0.1), max_iterations=10)(y, problem).status
    assert not status.converged and "touch zero" in status.message


def test_newton_does_not_claim_a_minimum_where_there_is_none():
    x0 = torch.ones(3, dtype=torch.float64)
    slope = lambda x: x.sum()  # noqa: E731
    found = newton(slope, lambda x: (torch.ones_like(x),), lambda x: (lambda v: v, None), x0, max_iterations=5)
    assert not found.status.converged
    broken = newton(lambda x: x.sum() * torch.nan, lambda x: (x,), lambda x: (lambda v: v, None), x0)
    assert broken.status.reason == "breakdown"


def test_newton_on_a_quadratic_takes_one_step():
    a = torch.tensor([[4.0, 1.0], [1.0, 3.0]], dtype=torch.float64)
    b = torch.tensor([1.0, 2.0], dtype=torch.float64)
    found = newton(
        lambda x: 0.5 * x @ a @ x - b @ x,
        lambda x: (a @ x, -b),
        lambda x: (lambda v: a @ v, lambda v: torch.linalg.solve(a, v)),
        torch.zeros(2, dtype=torch.float64),
        tolerance=1e-12,
    )
    assert found.status.converged and found.iterations == 1
    torch.testing.assert_close(found.x, torch.linalg.solve(a, b))


def test_it_refuses_what_it_cannot_do():
    problem, y = Problem(blur(), noise.Gaussian(0.1)), torch.zeros(1, N, N, dtype=torch.float64)
    with pytest.raises(InputError, match="smooth prior"):
        methods.Laplace(prior=priors.TotalVariation())(y, problem)
    with pytest.raises(InputError, match="positive weight"):
        methods.Laplace(prior=priors.TotalVariation(smoothing=0.1), weight=0.0)
    with pytest.raises(InputError, match="one measurement"):
        methods.Laplace(prior=priors.TotalVariation(smoothing=0.1))(y[0], problem)


def test_an_interrupt_passes_through():
    def stop(iteration, total, value):
        raise KeyboardInterrupt

    problem = Problem(blur(), noise.Gaussian(0.1))
    with pytest.raises(KeyboardInterrupt):
        methods.Laplace(prior=priors.Tikhonov())(torch.ones(1, N, N).double(), problem, callback=stop)
