"""The laws of detectors beyond counting and read noise: samplers against densities, moments, scores and extremes."""

import math
import pickle

import numpy as np
import pytest
import scipy.stats
import torch

from obverse.errors import InputError
from obverse.methods import MAP
from obverse.methods.fidelity import fidelity
from obverse.noise import ColouredGaussian, Gamma, Gaussian, LogPoisson, Poisson, Quantised, Rician, Saturated
from obverse.operators import Convolution, Dense, Identity
from obverse.priors import GaussianField, TotalVariation
from obverse.problem import Problem

N = 40_000
CLIPPED = Saturated(Gaussian(1.0), -0.5, 2.0)
DISCRETE = [  # law, another law that the test must reject, mean, all data that it can give
    (LogPoisson(20.0), LogPoisson(19.0), 1.0, LogPoisson(20.0).line_integrals(torch.arange(60.0, dtype=torch.float64))),
    (LogPoisson(8.0, 2.0), LogPoisson(8.5, 2.0), 3.0, None),
    (Quantised(Gaussian(1.0), 0.7), Quantised(Gaussian(1.05), 0.7), 0.3, 0.7 * torch.arange(-15.0, 16.0).double()),
    (Quantised(Gaussian(0.2), 1.0), Quantised(Gaussian(0.25), 1.0), 0.4, torch.arange(-3.0, 4.0).double()),
    (Quantised(CLIPPED, 0.5), Quantised(Saturated(Gaussian(1.1), -0.5, 2.0), 0.5), 0.6, 0.5 * torch.arange(-1.0, 5.0)),
]
CONTINUOUS = [  # law, another that must be rejected, mean
    (Rician(1.0), Rician(1.05), 0.0),
    (Rician(0.7), Rician(0.75), 1.5),
    (Rician(2.0), Rician(2.1), 60.0),
    (Gamma(1.0), Gamma(1.1), 2.0),
    (Gamma(0.5), Gamma(0.55), 2.0),
    (Gamma(6.0), Gamma(6.5), 0.1),
]
LAWS = [case[0] for case in (*DISCRETE, *CONTINUOUS)] + [CLIPPED, Saturated(Gaussian(0.5), high=1.0)]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(law, mean, n=N, seed=1):
    return law.sample(torch.full((n,), mean, dtype=torch.float64), generator(seed))


@pytest.mark.parametrize("law, wrong, mean, levels", DISCRETE, ids=str)
def test_discrete_law_sums_to_one_and_its_sampler_draws_it(law, wrong, mean, levels):
    if levels is None:
        levels = law.line_integrals(torch.arange(40.0, dtype=torch.float64))
    levels = levels.double()
    y = drawn(law, mean)
    observed = torch.stack([((y - level).abs() < 1e-9).sum() for level in levels]).numpy()
    assert observed.sum() == N, "every datum is one of the levels"

    def pvalue(other):
        probability = other.log_prob(levels, torch.full_like(levels, mean)).exp().numpy()
        if other is law:
            assert probability.sum() == pytest.approx(1.0, abs=1e-9)
        kept = N * probability > 8
        rest = [observed[~kept].sum()], [N * probability[~kept].sum()]
        expected = np.append(N * probability[kept], max(rest[1][0], 1e-9))
        counts = np.append(observed[kept], rest[0][0])
        return scipy.stats.chi2.sf(((counts - expected)[expected > 2] ** 2 / expected[expected > 2]).sum(), kept.sum())

    assert pvalue(law) > 1e-3
    assert pvalue(wrong) < 1e-4


@pytest.mark.parametrize("law, wrong, mean", CONTINUOUS, ids=str)
def test_continuous_density_integrates_to_one_and_its_sampler_draws_it(law, wrong, mean):
    y = drawn(law, mean).numpy()
    root = np.linspace(0, math.sqrt(1.5 * y.max()), 40_001)
    grid = torch.from_numpy(root**2)  # finer at zero, where a density may grow without bound

    def distribution(other):
        density = other.log_prob(grid[1:], torch.full_like(grid[1:], mean)).exp().numpy() * 2 * root[1:]
        cumulated = np.cumsum(density) * root[1]
        return lambda v: np.interp(v, root[1:] ** 2, cumulated), cumulated[-1]

    cdf, total = distribution(law)
    assert total == pytest.approx(1.0, abs=1e-3)
    assert scipy.stats.kstest(y, cdf).pvalue > 1e-3
    assert scipy.stats.kstest(y, distribution(wrong)[0]).pvalue < 1e-4


def test_densities_equal_scipys():
    y, mean = torch.tensor([0.3, 2.0, 5.0]).double(), torch.tensor([1.0, 2.5, 4.0]).double()
    rice = scipy.stats.rice.logpdf(y, mean / 0.7, scale=0.7)
    gamma = scipy.stats.gamma.logpdf(y, 3.0, scale=mean / 3.0)
    assert np.allclose(Rician(0.7).log_prob(y, mean), rice, atol=1e-10)
    assert np.allclose(Gamma(3.0).log_prob(y, mean), gamma, atol=1e-12)
    count = torch.tensor([3.0, 7.0, 0.0]).double()
    rate = 20 * torch.exp(-mean)
    law = LogPoisson(20.0)
    assert np.allclose(law.log_prob(law.line_integrals(count), mean), Poisson().log_prob(count, rate), atol=1e-10)


def test_clipped_data_have_the_stated_masses_and_density():
    mean = 0.4
    y = drawn(CLIPPED, mean)
    grid = torch.linspace(-0.5 + 1e-9, 2.0 - 1e-9, 4001, dtype=torch.float64)
    inside = float(torch.trapezoid(CLIPPED.log_prob(grid, torch.full_like(grid, mean)).exp(), grid))
    ends = CLIPPED.log_prob(torch.tensor([-0.5, 2.0]).double(), torch.full((2,), mean).double()).exp()
    assert inside + float(ends.sum()) == pytest.approx(1.0, abs=1e-7)
    for share, probability in zip(((y == -0.5).double().mean(), (y == 2.0).double().mean()), ends, strict=True):
        assert abs(float(share - probability)) < 5 * math.sqrt(float(probability) / N)
    middle = y[(y > -0.5) & (y < 2.0)].numpy()
    kept = scipy.stats.truncnorm((-0.5 - mean), (2.0 - mean), loc=mean)
    assert scipy.stats.kstest(middle, kept.cdf).pvalue > 1e-3
    assert float(CLIPPED.log_prob(torch.tensor([2.1]), torch.tensor([2.0]))) == -math.inf
    # data in float32 at an end that float32 cannot hold
    law = Saturated(Gaussian(0.1), high=0.7)
    assert float(law.log_prob(law.sample(torch.full((1,), 5.0)), torch.full((1,), 0.7)).exp()) == pytest.approx(0.5)


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_moments_score_and_information(law):
    mean = torch.tensor([0.4, 1.3], dtype=torch.float64)
    n = 20_000
    means = mean.expand(n, 2)
    y = law.sample(means, generator(2))
    variance = law.variance(mean)
    assert ((y.mean(0) - law.expectation(mean)).abs() < 5 * (variance / n).sqrt()).all()
    assert torch.allclose(y.var(0), variance, rtol=0.08)
    assert torch.allclose(law.residual(y, means).square().mean(0), torch.ones(2).double(), rtol=0.08)
    score, information = law.score(y, means), law.information(mean)
    assert torch.isfinite(score).all()
    assert (score.mean(0).abs() < 5 * (information / n).sqrt()).all(), "the score has mean zero"
    assert torch.allclose(score.square().mean(0), information, rtol=0.08)
    assert not torch.allclose(law.score(y, 1.2 * means).mean(0), torch.zeros(2).double(), atol=1e-3)


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_score_is_the_derivative_of_log_prob(law):
    means = torch.tensor([0.4, 1.3, 2.0, 0.8], dtype=torch.float64, requires_grad=True)
    y = law.sample(means.detach(), generator(4))
    (gradient,) = torch.autograd.grad(law.log_prob(y, means).sum(), means)
    assert torch.allclose(law.score(y, means.detach()), gradient, rtol=1e-9)
    assert torch.autograd.gradcheck(lambda m: law.log_prob(y, m), means)


EXTREMES = [
    (Rician(1e-3), [0.0, 1e-3, 1e4, 0.5], [0.0, 0.0, 1e4, 40.0]),
    (Gamma(4.0), [1e-8, 1.0, 1e8, 1.0], [1e-8, -1.0, 1e8, 0.0]),
    (LogPoisson(1e5), [12.206, 0.0, -1.0, 0.0], [60.0, -60.0, -1.0, 1e3]),
    (Saturated(Gaussian(1e-3), 0.0, 1.0), [0.0, 1.0, 1.0, 0.0], [-50.0, 1e4, -1e4, 1e4]),
    (Quantised(Gaussian(1e-3), 1.0), [0.0, 1.0, 1e4, 0.0], [0.2, -1e4, 1e4, 0.5]),
    (Quantised(Gaussian(1e4), 1.0), [0.0, 1.0, 1e4, 0.0], [0.2, -1e6, 1e4, 1e7]),
    (Quantised(Saturated(Gaussian(0.1), 0.0, 8.0), 1.0), [0.0, 8.0, 8.0, 4.0], [-99.0, 99.0, -99.0, 1e4]),
]


@pytest.mark.parametrize("law, y, mean", EXTREMES, ids=str)
def test_nothing_overflows_in_single_precision(law, y, mean):
    data, means = torch.tensor(y), torch.tensor(mean, requires_grad=True)
    value = law.log_prob(data, means)
    (gradient,) = torch.autograd.grad(value[data > 0].sum(), means)
    assert not value.isnan().any() and value[data > 0].isfinite().all() and gradient.isfinite().all()
    assert torch.allclose(value, law.log_prob(data.double(), means.double()).float(), rtol=1e-3, atol=1e-3)
    inside = means.detach()
    for figure in (law.variance(inside), law.weight(inside), law.information(inside.clamp_min(1e-6))):
        assert figure.isfinite().all() and (figure >= 0).all()


@pytest.mark.parametrize("law", [*LAWS, ColouredGaussian(torch.ones(4))], ids=str)
def test_laws_are_values_and_scale(law):
    copy = pickle.loads(pickle.dumps(law))  # noqa: S301
    assert copy == law and hash(copy) == hash(law) and law != law.scaled(2.0) or isinstance(law, Gamma)
    mean = torch.tensor([0.4, 1.3, 0.9, 0.7], dtype=torch.float64)
    y = law.sample(mean, generator(5))
    assert torch.equal(y, law.sample(mean, generator(5)))
    scaled = law.scaled(3.0)
    assert torch.allclose(scaled.score(3 * y, 3 * mean), law.score(y, mean) / 3)
    assert torch.allclose(scaled.variance(3 * mean), 9 * law.variance(mean))
    assert torch.allclose(scaled.expectation(3 * mean), 3 * law.expectation(mean))
    single = law.sample(mean.float(), generator(5))
    assert single.dtype == law.log_prob(single, mean.float()).dtype == torch.float32
    assert law.score(single, mean.float()).dtype == law.variance(mean.float()).dtype == torch.float32


def colours(shape=(6, 7)):
    f = [torch.fft.fftfreq(n, dtype=torch.float64) for n in shape]
    spectrum = 0.2 + torch.exp(-20 * (f[0][:, None] ** 2 + 2 * f[1] ** 2 + f[0][:, None] * f[1]))
    return 0.5 * (spectrum + spectrum.flip((0, 1)).roll((1, 1), (0, 1)))


def test_coloured_noise_is_the_multivariate_normal_of_its_covariance():
    spectrum = colours()
    law, n = ColouredGaussian(spectrum), spectrum.numel()
    basis = torch.eye(n, dtype=torch.float64).reshape(n, 6, 7)
    covariance = torch.fft.ifft2(torch.fft.fft2(basis) * spectrum).real.reshape(n, n)
    y, mean = torch.randn(2, 2, 6, 7, generator=generator(), dtype=torch.float64)
    reference = scipy.stats.multivariate_normal(np.zeros(n), covariance.numpy())
    expected = reference.logpdf((y - mean).reshape(2, n).numpy())
    assert np.allclose(law.log_prob(y, mean).sum((-2, -1)), expected, rtol=1e-10)
    draws = law.sample(torch.zeros(20_000, 6, 7, dtype=torch.float64), generator(1)).reshape(-1, n)
    assert torch.allclose(draws.T @ draws / len(draws), covariance, atol=0.06)
    assert not torch.allclose(covariance, torch.diag(covariance.diagonal()), atol=0.06)
    assert torch.allclose(law.variance(mean), covariance[0, 0].expand(2, 6, 7))
    assert torch.allclose(law.information(mean), torch.linalg.inv(covariance)[0, 0].expand(2, 6, 7))
    assert torch.allclose(law.score(y, mean).reshape(2, n), (y - mean).reshape(2, n) @ torch.linalg.inv(covariance))


def test_coloured_residual_is_white_and_another_spectrum_is_seen():
    law = ColouredGaussian(colours((16, 16)))
    mean = torch.zeros(400, 16, 16, dtype=torch.float64)
    y = law.sample(mean, generator())
    power = torch.fft.fft2(law.residual(y, mean), norm="ortho").abs().square().mean(0)
    assert (power - 1).abs().max() < 6 / math.sqrt(400)
    other = torch.fft.fft2(ColouredGaussian(colours((16, 16)) ** 1.5).residual(y, mean), norm="ortho")
    assert (other.abs().square().mean(0) - 1).abs().max() > 0.6


@pytest.mark.parametrize(
    "law, level",
    [
        (LogPoisson(300.0), 2.0), (LogPoisson(torch.linspace(5, 300, 32)), 2.5), (Rician(1.0), 1.0), (Gamma(3.0), 2.0),
        (CLIPPED, 0.8), (Quantised(Gaussian(0.5), 1.0), 3.0), (ColouredGaussian(colours((32, 32))), 1.0),
    ],
    ids=str,
)  # fmt: skip
def test_problem_simulates_and_judges(law, level):
    kernel = torch.ones(3, 3, dtype=torch.float64) / 9
    problem = Problem(Convolution(kernel, (1, 32, 32)), law)
    x = level * (0.7 + 0.6 * torch.rand(3, 1, 32, 32, generator=generator(), dtype=torch.float64))
    y = problem.simulate(x, seed=1)
    assert y.shape == (3, 1, 32, 32) and problem.log_likelihood(x, y).isfinite().all()
    assert (problem.chi2(x, y) - 1).abs().max() < 0.25
    assert problem.residual(x, y).mean().abs() < 0.08
    assert (problem.log_likelihood(x, y) > problem.log_likelihood(1.3 * x, y)).all()
    point = x[:1].clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(-problem.log_likelihood(point, y[:1]).sum(), point)
    assert torch.allclose(problem.gradient(x[:1], y[:1]), gradient, rtol=1e-8, atol=1e-10)


def field(shape=(1, 10, 10), mean=1.0):
    f = torch.fft.fftfreq(10, dtype=torch.float64)
    return GaussianField(1.0 / (1 + 200 * (f[:, None] ** 2 + f**2)), shape, mean=mean)


@pytest.mark.parametrize(
    "law",
    [LogPoisson(200.0), Rician(0.3), Gamma(8.0), Saturated(Gaussian(0.2), 0.0, 1.3), Quantised(Gaussian(0.2), 0.5)],
    ids=str,
)
def test_map_finds_a_stationary_point_that_beats_the_prior_mean(law):
    x = 1.0 + 0.3 * torch.sin(torch.arange(10.0, dtype=torch.float64) / 3).expand(1, 10, 10)
    problem, prior = Problem(Convolution(torch.ones(3, 3).double() / 9, (1, 10, 10)), law), field()
    y = problem.simulate(x, seed=3)
    estimate = MAP(prior=prior, weight=1.0, positivity=False, tolerance=1e-5)(y, problem)
    assert estimate.status.converged, estimate.status.message
    image = estimate.image.requires_grad_(True)
    (gradient,) = torch.autograd.grad(-problem.log_likelihood(image, y).sum() + prior.value(image).sum(), image)
    assert gradient.norm() < 1e-4 * problem.gradient(torch.ones_like(x), y).norm()
    found = image.detach()
    assert (found - x).norm() < 0.8 * (torch.ones_like(x) - x).norm()


def test_map_of_line_integrals_under_total_variation_equals_that_of_many_counts():
    x = torch.zeros(1, 4, 4, dtype=torch.float64)
    x[:, 1:3, 2:] = 1.0
    law, prior = LogPoisson(1e6), TotalVariation()
    problem = Problem(Identity((1, 4, 4), dtype=torch.float64), law)
    y = problem.simulate(x, seed=0)
    plain = Problem(problem.operator, Gaussian(law.variance(x).sqrt()))
    expected = MAP(prior=prior, weight=1e4, positivity=False, tolerance=1e-4)(y, plain).image
    for weight, close in ((1e4, True), (2e4, False)):
        estimate = MAP(prior=prior, weight=weight, tolerance=1e-4)(y, problem)
        assert estimate.status.converged, estimate.status.message
        assert ((estimate.image - expected).norm() < 2e-3 * x.norm()) == close


def test_proximal_operator_is_the_minimiser():
    law, v = LogPoisson(50.0), torch.linspace(-1, 5, 9, dtype=torch.float64)
    data = fidelity(torch.linspace(0.1, 3, 9, dtype=torch.float64), law)
    for step in (1e-4, 0.1, 10.0):
        z = data.prox(v, step)
        assert (z - v + step * data.gradient(z)).abs().max() < 1e-9 * (1 + step * data.gradient(v).abs().max())


@pytest.mark.parametrize(
    "make",
    [
        lambda: LogPoisson(0.0),
        lambda: LogPoisson(10.0, torch.tensor(1.0)),
        lambda: LogPoisson(10.0).line_integrals(torch.tensor([-1.0])),
        lambda: Rician(-1.0),
        lambda: Rician(1.0).scaled(-1.0),
        lambda: Gamma(0.0),
        lambda: Gamma(1.0).sample(torch.zeros(2, dtype=torch.complex64)),
        lambda: Quantised(Gaussian(1.0), 0.0),
        lambda: Quantised(Poisson(), 1.0),
        lambda: Saturated(Gaussian(1.0)),
        lambda: Saturated(Gaussian(1.0), 2.0, 1.0),
        lambda: Saturated(Gaussian(1.0), float("nan")),
        lambda: ColouredGaussian(2.0),
        lambda: ColouredGaussian(torch.tensor([1.0, 2.0, 3.0])),
        lambda: ColouredGaussian(torch.tensor([1.0, 0.0])),
        lambda: ColouredGaussian(torch.ones(8, 8)).sample(torch.zeros(4, 4)),
        lambda: Problem(Dense(torch.eye(4), (1, 1, 4), (1, 1, 4)), Rician(torch.ones(3))),
        lambda: MAP(prior=TotalVariation(), weight=1.0)(
            torch.ones(1, 4, 4), Problem(Identity((1, 4, 4)), ColouredGaussian(torch.ones(4, 4)))
        ),
        lambda: MAP(prior=TotalVariation(), weight=1.0)(torch.ones(1, 4, 4), Problem(Identity((1, 4, 4)), Gamma(2.0))),
        lambda: Problem(Identity((1, 4, 4)), ColouredGaussian(torch.ones(4, 4))).weight(torch.ones(1, 4, 4)),
        lambda: Problem(Identity((1, 4, 4)), ColouredGaussian(torch.ones(4, 4))).fisher_weight(torch.ones(1, 4, 4)),
    ],
)
def test_bad_constants_and_uses_are_refused(make):
    with pytest.raises((InputError, Exception), match="expects|expected|violat|type") as caught:
        make()
    assert isinstance(caught.value, InputError) or "TypeCheck" in repr(caught)
