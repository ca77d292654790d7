"""Noise laws: densities against brute force, samplers against densities, and values that cannot be changed."""

import dataclasses
import math
import pickle

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch

from obverse.errors import InputError
from obverse.noise import ComplexGaussian, Gaussian, Poisson, PoissonGaussian

LAWS = [
    Gaussian(0.7),
    Gaussian(torch.tensor([0.5, 1.5])),
    Poisson(2.0),
    PoissonGaussian(1.5, 0.4),
    PoissonGaussian(1.5, torch.tensor([0.5, 1.5])),
    ComplexGaussian(1.3),
]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def brute_force(y, mean, gain, sigma):
    """log p(y | mean) and its derivative by the full sum."""
    rate = mean / gain
    centre = max(rate, y / gain, 0.0)
    k = np.arange(0, int(centre + 40 * math.sqrt(max(centre, 1.0)) + 200))
    terms = k * np.log(rate) - rate - scipy.special.gammaln(k + 1)
    terms = terms - (y - gain * k) ** 2 / (2 * sigma**2) - 0.5 * np.log(2 * np.pi * sigma**2)
    value = scipy.special.logsumexp(terms)
    return value, ((np.exp(terms - value) * k).sum() / rate - 1) / gain


@pytest.mark.parametrize("sigma", [1e-3, 0.05, 0.5, 2.0, 30.0])
@pytest.mark.parametrize("gain", [0.01, 1.0, 5.0])
def test_poisson_gaussian_density_equals_the_full_sum(gain, sigma):
    law = PoissonGaussian(gain, sigma)
    for rate in [1e-5, 1e-2, 0.3, 2.0, 16.0, 300.0, 5000.0]:
        mean = gain * rate
        spread = math.sqrt(gain * mean + sigma**2)
        for z in [-5.0, -1.0, 0.0, 0.3, 3.0, 8.0]:
            y = mean + z * spread
            value, slope = brute_force(y, mean, gain, sigma)
            pair = torch.tensor([y], dtype=torch.float64), torch.tensor([mean], dtype=torch.float64)
            assert float(law.log_prob(*pair)) == pytest.approx(value, rel=1e-10, abs=1e-10)
            assert float(law.score(*pair)) == pytest.approx(slope, rel=1e-6, abs=1e-7 / spread)


def test_a_window_centred_on_the_data_alone_would_be_caught():
    """Negative control: a sum centred at y/gain misses the mass when sigma is large."""
    gain, sigma, rate, y = 1.0, 30.0, 16.0, 106.0
    value, _ = brute_force(y, gain * rate, gain, sigma)
    k = np.arange(int(y - 8), int(y + 8))
    terms = scipy.stats.poisson.logpmf(k, rate) + scipy.stats.norm.logpdf(y, gain * k, sigma)
    assert abs(scipy.special.logsumexp(terms) - value) > 1.0


def test_poisson_gaussian_tends_to_its_two_limits():
    mean = torch.tensor([3.0, 40.0], dtype=torch.float64)
    count = torch.tensor([2.0, 45.0], dtype=torch.float64)
    sigma = 1e-4
    sharp = PoissonGaussian(1.0, sigma).log_prob(count, mean) + math.log(sigma * math.sqrt(2 * math.pi))
    assert torch.allclose(sharp, Poisson().log_prob(count, mean), atol=1e-9)
    wide = PoissonGaussian(1e-4, 2.0).log_prob(count, mean)
    variance = 1e-4 * mean + 4.0
    normal = -((count - mean) ** 2) / (2 * variance) - 0.5 * torch.log(2 * math.pi * variance)
    assert torch.allclose(wide, normal, atol=1e-3)


@pytest.mark.parametrize(
    ("gain", "sigma", "mean"), [(1.0, 0.3, 2.0), (2.0, 1.0, 0.5), (0.1, 0.05, 0.8), (1.0, 4.0, 30.0)]
)
def test_poisson_gaussian_sampler_draws_its_density(gain, sigma, mean):
    n = 40_000
    law = PoissonGaussian(gain, sigma)
    y = law.sample(torch.full((n,), mean, dtype=torch.float64), generator(1))

    def rejected(other):
        edges = torch.quantile(y, torch.linspace(0, 1, 41, dtype=torch.float64))
        edges[0], edges[-1] = edges[0] - 5 * sigma, edges[-1] + 5 * sigma
        observed = np.histogram(y.numpy(), edges.numpy())[0]
        expected = []
        for low, high in zip(edges[:-1], edges[1:], strict=True):
            grid = torch.linspace(float(low), float(high), 401, dtype=torch.float64)
            density = other.log_prob(grid, torch.full_like(grid, mean)).exp()
            expected.append(float(torch.trapezoid(density, grid)))
        expected = n * np.array(expected) / np.sum(expected)
        return scipy.stats.chisquare(observed, expected).pvalue < 1e-4

    assert not rejected(law)
    assert rejected(PoissonGaussian(gain * 1.2, sigma))


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_sample_has_the_stated_mean_and_variance(law):
    mean = torch.tensor([4.0, 9.0], dtype=torch.complex128 if law.complex else torch.float64).expand(60_000, 2)
    y = law.sample(mean, generator(2))
    assert y.dtype == mean.dtype and y.shape == mean.shape
    variance = law.variance(mean)[0]
    assert (abs(y.mean(0) - mean[0]) < 5 * (variance / len(y)).sqrt()).all()
    assert torch.allclose((y - mean).abs().square().mean(0), variance, rtol=0.05)
    assert torch.allclose(law.weight(mean)[0], 1 / variance)


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_score_is_the_derivative_of_log_prob(law):
    if law.complex:
        y, mean = (
            torch.tensor([3 + 1j, 2 - 2j], dtype=torch.complex128),
            torch.tensor([1j, 2.0], dtype=torch.complex128),
        )
    else:
        y, mean = torch.tensor([4.0, 6.0], dtype=torch.float64), torch.tensor([3.0, 8.0], dtype=torch.float64)
    mean.requires_grad_(True)
    (gradient,) = torch.autograd.grad(law.log_prob(y, mean).sum(), mean)
    assert torch.allclose(law.score(y, mean.detach()), gradient, rtol=1e-9)
    assert torch.autograd.gradcheck(lambda m: law.log_prob(y, m), mean)


def test_information_is_the_mean_squared_score():
    mean = torch.full((200_000,), 6.0, dtype=torch.float64)
    for law in (Gaussian(0.7), Poisson(2.0)):
        y = law.sample(mean, generator(3))
        assert float(law.score(y, mean).square().mean()) == pytest.approx(float(law.information(mean)[0]), rel=0.02)
    law = ComplexGaussian(1.3)
    y = law.sample(mean.to(torch.complex128), generator(3))
    score = law.score(y, mean.to(torch.complex128)).real
    assert float(score.square().mean()) == pytest.approx(float(law.information(mean)[0]), rel=0.02)
    law = PoissonGaussian(2.0, 1.0)
    y = law.sample(mean[:20_000], generator(3))
    exact = float(law.score(y, mean[:20_000]).square().mean())
    assert 0.97 * float(law.information(mean)[0]) < exact < 1.3 * float(law.information(mean)[0])


@pytest.mark.parametrize("law", [Poisson(2.0), PoissonGaussian(2.0, 0.5)], ids=str)
def test_negative_rates_are_finite_and_push_upwards(law):
    mean = torch.tensor([-1e-7, 0.0, -1e-3], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([2.0, 4.0, 2.0], dtype=torch.float64)
    assert bool(law.sample(mean.detach(), generator()).isfinite().all())
    value = law.log_prob(y, mean)
    assert bool(value.isfinite().all())
    (gradient,) = torch.autograd.grad(value.sum(), mean)
    assert bool((gradient > 0).all()) and bool(law.weight(mean).isfinite().all())
    assert torch.allclose(gradient, law.score(y, mean.detach()))


def test_poisson_density_sums_to_one():
    count = torch.arange(0, 200, dtype=torch.float64)
    for mean in (0.01, 3.0, 60.0):
        law = Poisson(0.5)
        assert float(law.log_prob(0.5 * count, torch.full_like(count, mean)).exp().sum()) == pytest.approx(
            1.0, abs=1e-9
        )


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_laws_are_values(law):
    copy = pickle.loads(pickle.dumps(law))  # noqa: S301
    assert copy == law and hash(copy) == hash(law)
    assert law != dataclasses.replace(law, **{dataclasses.fields(law)[-1].name: 9.0})
    with pytest.raises(dataclasses.FrozenInstanceError):
        law.sigma = 1.0
    with pytest.raises(TypeError):
        type(law)(unknown=1.0)
    mean = torch.full((2,), 5.0, dtype=torch.complex64 if law.complex else torch.float32)
    before = mean.clone()
    y = law.sample(mean, generator())
    assert torch.equal(y, law.sample(mean, generator())) and torch.equal(mean, before)
    assert law.log_prob(y, mean).dtype == torch.float32 and law.score(y, mean).dtype == mean.dtype


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_scaled_is_the_law_in_other_units(law):
    kind = torch.complex128 if law.complex else torch.float64
    mean, y = torch.tensor([4.0, 9.0], dtype=kind), torch.tensor([6.0, 8.0], dtype=kind)
    assert torch.allclose(law.scaled(3.0).score(3 * y, 3 * mean), law.score(y, mean) / 3)
    assert torch.allclose(law.scaled(3.0).variance(3 * mean), 9 * law.variance(mean))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Gaussian(0.0),
        lambda: Gaussian(float("nan")),
        lambda: Gaussian(torch.tensor([1.0, -1.0])),
        lambda: Poisson(-1.0),
        lambda: Poisson(torch.tensor(2.0)),
        lambda: PoissonGaussian(1.0, 0.0),
        lambda: ComplexGaussian("a"),
        lambda: Gaussian(1.0).sample(torch.zeros(2, dtype=torch.complex64)),
        lambda: Poisson(1.0).log_prob(torch.zeros(2, dtype=torch.int64), torch.ones(2)),
        lambda: ComplexGaussian(1.0).sample(torch.zeros(2)),
    ],
)
def test_bad_constants_and_kinds_are_refused(make):
    with pytest.raises((InputError, Exception), match="expects|violat|type") as caught:
        make()
    assert isinstance(caught.value, InputError) or "beartype" in str(type(caught.value)) or "TypeCheck" in repr(caught)
