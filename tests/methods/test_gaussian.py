"""The exact Gaussian posterior: routes agree, counting noise settles, and everything else is refused in words."""

import pytest
import torch

from obverse import methods, noise, operators, priors
from obverse.errors import InputError, NumericsError
from obverse.problem import Problem

N = 16


def blur(boundary: str = "circular", dtype=torch.float64):
    r = torch.arange(-3, 4, dtype=dtype)
    kernel = torch.exp(-(r[:, None] ** 2 + r**2) / 2)
    return operators.Convolution(kernel / kernel.sum(), (1, N, N), boundary=boundary)


def field(mean: float = 0.0, variance: float = 1.0):
    return priors.GaussianField.power_law((1, N, N), 2.0, variance, mean=mean)


def dense(problem, prior, y, noise_precision: torch.Tensor):
    """Mean and covariance by dense linear algebra, for real linear problems."""
    identity = torch.eye(N * N, dtype=torch.float64).reshape(-1, 1, N, N)
    A = problem.operator(identity).reshape(N * N, -1).mT
    origin = torch.zeros(1, N, N, dtype=torch.float64)
    P = prior.hessian(origin).matvec(identity).reshape(N * N, -1)
    W = torch.diag(noise_precision.expand(problem.operator.data_shape).reshape(-1))
    covariance = torch.linalg.inv(A.mT @ W @ A + P)
    mean = covariance @ (A.mT @ W @ y.reshape(-1) - prior.gradient(origin).reshape(-1))
    return mean.reshape(1, N, N), covariance


@pytest.mark.parametrize("boundary", ["circular", "reflect", "zero", "valid"])
@pytest.mark.parametrize("varied", [False, True])
def test_mean_and_covariance_equal_dense_algebra(boundary, varied):
    A = blur(boundary)
    sigma = 0.1
    if varied:
        sigma = 0.05 + 0.2 * torch.rand(A.data_shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    problem, prior = Problem(A, noise.Gaussian(sigma)), field(0.7)
    y = problem.simulate(prior.sample(1, seed=2)[0], seed=3)
    posterior = methods.Gaussian(prior=prior)(y, problem)
    mean, covariance = dense(problem, prior, y, torch.as_tensor(sigma, dtype=torch.float64) ** -2)
    assert posterior.status.converged
    assert posterior.diagnostics["closed_form"] == (boundary == "circular" and not varied)
    torch.testing.assert_close(posterior.mean, mean, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(posterior.std.reshape(-1) ** 2, covariance.diagonal(), rtol=1e-8, atol=0)
    v = torch.randn(3, N * N, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(posterior.covariance.matvec(v), v @ covariance, rtol=1e-7, atol=1e-9)


def test_sums_and_tikhonov_are_quadratic_too():
    prior = 0.5 * priors.Tikhonov(operators.Gradient((1, N, N), dtype=torch.float64)) + field(0.2)
    problem = Problem(blur("reflect"), noise.Gaussian(0.1))
    y = problem.simulate(field().sample(1, seed=0)[0], seed=0)
    posterior = methods.Gaussian(prior=prior)(y, problem)
    mean, covariance = dense(problem, prior, y, torch.tensor(100.0, dtype=torch.float64))
    torch.testing.assert_close(posterior.mean, mean, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(posterior.std.reshape(-1) ** 2, covariance.diagonal(), rtol=1e-8, atol=0)


@pytest.mark.parametrize("kind", ["circular", "reflect"])
def test_draws_have_the_posterior_variance(kind):
    problem, prior = Problem(blur(kind), noise.Gaussian(0.1)), field()
    posterior = methods.Gaussian(prior=prior)(torch.zeros(1, N, N, dtype=torch.float64), problem)
    draws = posterior.sample(500, seed=0) - posterior.mean
    ratio = float((draws.square().mean(0) / posterior.std**2).mean())
    assert abs(ratio - 1) < 0.05
    assert torch.equal(posterior.sample(3, seed=0) - posterior.mean, draws[:3])


def test_mean_stays_in_the_data_range_of_the_prior_without_data():
    nothing = operators.Mask(torch.zeros(1, N, N, dtype=torch.float64))
    posterior = methods.Gaussian(prior=field(0.4))(torch.zeros(1, N, N).double(), Problem(nothing, noise.Gaussian(1.0)))
    torch.testing.assert_close(posterior.mean, torch.full((1, N, N), 0.4, dtype=torch.float64))
    torch.testing.assert_close(posterior.std.mean(), torch.tensor(1.0, dtype=torch.float64))


def test_single_precision_agrees_with_double():
    prior = field(0.3)
    problem = Problem(blur("reflect"), noise.Gaussian(0.1))
    y = problem.simulate(prior.sample(1, seed=1)[0], seed=1)
    exact, single = (methods.Gaussian(prior=prior)(data, problem) for data in (y, y.float()))
    assert single.mean.dtype == single.std.dtype == torch.float32
    assert float((single.mean - exact.mean).abs().max()) < 1e-2 * float(exact.std.mean())
    torch.testing.assert_close(single.std.double(), exact.std, rtol=1e-4, atol=0)


@pytest.mark.parametrize("law", [noise.Poisson(2.0), noise.PoissonGaussian(2.0, 5.0)])
def test_counting_noise_takes_its_variance_at_the_predicted_mean(law):
    prior = field(200.0, 30.0**2)
    problem = Problem(blur(), law)
    y = problem.simulate(prior.sample(1, seed=4)[0], seed=4)
    posterior = methods.Gaussian(prior=prior)(y, problem)
    assert posterior.status.converged and "predicted mean" in posterior.diagnostics["likelihood"]
    weight = problem.weight(posterior.mean)
    mean, covariance = dense(problem, prior, y, weight)
    torch.testing.assert_close(posterior.mean, mean, rtol=1e-4, atol=0)
    torch.testing.assert_close(posterior.std.reshape(-1) ** 2, covariance.diagonal(), rtol=1e-3, atol=0)
    # A variance read off the noisy data instead is another answer: dark pixels get too much weight.
    biased, _ = dense(problem, prior, y, law.weight(y))
    assert float((biased - posterior.mean).mean()) < -0.1


def test_too_few_reweightings_are_admitted():
    prior, law = field(20.0, 100.0), noise.Poisson(1.0)
    problem = Problem(blur(), law)
    y = problem.simulate(prior.sample(1, seed=4)[0].clamp_min(1.0), seed=4)
    status = methods.Gaussian(prior=prior, reweightings=1)(y, problem).status
    assert not status.converged and "reweightings" in status.message


def test_too_few_iterations_are_admitted():
    problem = Problem(blur("reflect"), noise.Gaussian(0.01))
    y = problem.simulate(field().sample(1, seed=0)[0], seed=0)
    posterior = methods.Gaussian(prior=field(), max_iterations=1)(y, problem)
    assert not posterior.status.converged
    with pytest.raises(NumericsError, match="did not reach"):
        posterior.covariance.matvec(y)


def test_intervals_cover():
    """90 % intervals over many images and pixels; halved and doubled ones are rejected."""
    prior, problem = field(0.5), Problem(blur(), noise.Gaussian(0.2))
    hits = {0.5: 0.0, 1.0: 0.0, 2.0: 0.0}
    truths = prior.sample(60, seed=9)
    for seed, truth in enumerate(truths):
        posterior = methods.Gaussian(prior=prior)(problem.simulate(truth, seed=seed), problem)
        score = (truth - posterior.mean).abs() / posterior.std
        for factor in hits:
            hits[factor] += float((score < 1.645 * factor).double().mean()) / len(truths)
    assert abs(hits[1.0] - 0.9) < 0.015
    assert abs(hits[0.5] - 0.9) > 0.1 and abs(hits[2.0] - 0.9) > 0.05


def test_it_refuses_what_it_cannot_do():
    problem = Problem(blur(), noise.Gaussian(0.1))
    y = torch.zeros(1, N, N, dtype=torch.float64)
    method = methods.Gaussian(prior=field())
    with pytest.raises(InputError, match="one measurement of shape"):
        method(y[None], problem)
    with pytest.raises(InputError, match="finite"):
        method(y.clone().index_fill_(2, torch.tensor([0]), float("nan")), problem)
    with pytest.raises(InputError, match="floating"):
        method(y.long(), problem)
    for prior in (priors.TotalVariation(), priors.TotalVariation(smoothing=0.1), field() + priors.Positivity()):
        with pytest.raises(InputError, match="quadratic prior"):
            methods.Gaussian(prior=prior)(y, problem)
    with pytest.raises(InputError, match="is for images"):
        methods.Gaussian(prior=priors.GaussianField.power_law((1, 8, 8), 2.0))(y, problem)
    with pytest.raises(TypeError):
        methods.Gaussian(field(), 20)  # type: ignore[misc]


def test_inputs_are_not_modified_and_the_method_is_a_value():
    problem, method = Problem(blur("reflect"), noise.Gaussian(0.1)), methods.Gaussian(prior=field())
    y = problem.simulate(field().sample(1, seed=0)[0], seed=0)
    before = y.clone()
    first, second = method(y, problem), method(y, problem)
    assert torch.equal(y, before)
    assert torch.equal(first.mean, second.mean) and torch.equal(first.std, second.std)


def test_progress_is_told():
    problem = Problem(blur("reflect"), noise.Gaussian(0.1))
    seen = []
    methods.Gaussian(prior=field())(torch.ones(1, N, N).double(), problem, callback=lambda *told: seen.append(told))
    assert [told[0] for told in seen] == list(range(1, len(seen) + 1))
