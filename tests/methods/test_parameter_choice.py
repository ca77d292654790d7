"""The weight chosen from the data against the best one in hindsight, on simulated images."""

import math

import numpy as np
import pytest
import torch

from obverse.errors import InputError
from obverse.methods.map import MAP
from obverse.methods.parameter_choice import choose, whiteness
from obverse.noise import Gaussian, Poisson
from obverse.operators import Convolution, Dense, Identity, Mask
from obverse.priors import Tikhonov, TotalVariation, WaveletL1
from obverse.problem import Problem

N = 48


def picture():
    x = torch.full((1, N, N), 0.2)
    x[:, 8:30, 10:38] = 0.9
    x[:, 34:44, 6:24] = 0.6
    i, j = torch.meshgrid(torch.arange(N), torch.arange(N), indexing="ij")
    return x + 0.4 * torch.exp(-((i - 30) ** 2 + (j - 34) ** 2) / 40.0)


def blur(width, size=9):
    g = torch.exp(-((torch.arange(size) - size // 2) ** 2) / (2 * width**2))
    k = g[:, None] * g
    return Convolution(k / k.sum(), (1, N, N))


def psnr(image):
    return -10 * math.log10(float((image - picture()).square().mean()))


CASES = {
    "denoise, TV": (Identity((1, N, N)), Gaussian(0.1), TotalVariation(), 0.5),
    "denoise, wavelet": (Identity((1, N, N)), Gaussian(0.1), WaveletL1(wavelet="haar", levels=3), 0.5),
    "mild blur, TV": (blur(0.6), Gaussian(0.05), TotalVariation(), 0.5),
    "blur, TV": (blur(1.3), Gaussian(0.03), TotalVariation(), 0.7),
    "blur, Poisson": (blur(1.3), Poisson(0.02), TotalVariation(), 1.0),
}


def measured(problem):
    """Data of the picture; counts by numpy, since torch draws others on other processors."""
    if not isinstance(problem.noise, Poisson):
        return problem.simulate(picture(), seed=0)
    gain = float(problem.noise.gain)
    rates = problem.operator(picture()).clamp_min(0).double().numpy() / gain
    return torch.from_numpy(gain * np.random.default_rng(0).poisson(rates)).float()


@pytest.mark.parametrize("name", CASES)
def test_automatic_weight_is_near_the_oracle(name):
    """Within 0.5 to 1 dB, the last number of each case, of the best weight on a grid of ten a decade and a half."""
    operator, noise, prior, allowed = CASES[name]
    problem = Problem(operator, noise)
    y = measured(problem)
    estimate = MAP(prior=prior, tolerance=2e-3)(y, problem)
    chosen = estimate.diagnostics["weight"]
    assert estimate.diagnostics["selection"] == ("whiteness" if name.startswith("blur") else "sure")
    qualities = {
        w: psnr(MAP(prior=prior, weight=w, tolerance=2e-3)(y, problem).image) for w in (2, 4, 6, 9, 13, 20, 30)
    }
    assert psnr(estimate.image) >= max(qualities.values()) - allowed
    for factor in (0.05, 20.0):  # the check can fail: a wrong weight is far worse
        off = MAP(prior=prior, weight=chosen * factor, tolerance=2e-3)(y, problem).image
        assert psnr(off) < max(qualities.values()) - allowed
    tried = estimate.diagnostics["tried"]
    assert len(tried) >= 9 and min(value for _, value in tried) == estimate.diagnostics["criterion"]


def test_sure_estimates_the_mean_squared_error():
    """Its standard error is about σ²√(2/n), from the noise's own energy."""
    sigma, found = 0.1, []
    problem = Problem(Identity((1, N, N)), Gaussian(sigma))
    for seed in range(4):
        y = problem.simulate(picture(), seed=seed)
        estimate = MAP(prior=TotalVariation(), selection="sure", seed=seed)(y, problem)
        found.append((estimate.diagnostics["criterion"], float((estimate.image - picture()).square().mean())))
    told, true = torch.tensor(found).mean(0)
    allowed = 3 * sigma**2 * math.sqrt(2 / N**2) / math.sqrt(4)
    assert abs(told - true) < allowed
    assert sigma**2 - true > 10 * allowed, "the error of the data themselves would be told apart"


def test_discrepancy_makes_the_residual_as_large_as_the_noise():
    problem = Problem(blur(1.3), Gaussian(0.03))
    y = problem.simulate(picture(), seed=0)
    estimate = MAP(prior=TotalVariation(), selection="discrepancy", tolerance=1e-3)(y, problem)
    assert estimate.diagnostics["chi2"] == pytest.approx(1.0, abs=0.03)
    less = MAP(prior=TotalVariation(), weight=estimate.diagnostics["weight"] / 5, tolerance=1e-3)(y, problem)
    assert less.diagnostics["chi2"] < 0.97


@pytest.mark.parametrize("rule", ["discrepancy", "whiteness"])
def test_pixels_that_were_not_measured_do_not_count(rule):
    kept = torch.rand(1, N, N, generator=torch.Generator().manual_seed(3)) < 0.5
    problem = Problem(Mask(kept), Gaussian(0.1))
    y = problem.simulate(picture(), seed=1)
    blank, bright = y * kept, torch.where(kept, y, 5.0)
    images = [MAP(TotalVariation(), weight="auto", selection=rule)(data, problem).image for data in (blank, bright)]
    assert float((images[0] - images[1]).norm() / images[0].norm()) < 0.02
    # zeros counted as data without noise would ask for twice the residual where there are data
    chi2 = float((problem.residual(images[0], blank)[kept.expand_as(blank)]).square().mean())
    assert chi2 == pytest.approx(1.0, abs=0.3)


def test_whiteness_knows_white_from_coloured():
    white = torch.randn(1, 64, 64, generator=torch.Generator().manual_seed(0))
    assert whiteness(white, 2) == pytest.approx(2 / 4096, rel=0.15)
    coloured = white + white.roll(1, -1)
    assert whiteness(coloured, 2) > 1.3 * whiteness(white, 2)
    assert whiteness(torch.ones(1, 8, 8), 2) == pytest.approx(1.0)
    assert whiteness(5.0 * white, 2) == pytest.approx(whiteness(white, 2))


def test_rules_are_refused_where_they_do_not_hold():
    x = picture()
    lossy = Problem(blur(1.3), Gaussian(0.03))
    with pytest.raises(InputError, match="SURE"):
        MAP(prior=TotalVariation(), selection="sure")(lossy.simulate(x), lossy)
    counts = Problem(Identity((1, N, N)), Poisson(0.02))
    with pytest.raises(InputError, match="SURE"):
        MAP(prior=TotalVariation(), selection="sure")(counts.simulate(x), counts)
    with pytest.raises(InputError, match="by hand"):
        flat = Problem(Identity((1, 4, 4)), Gaussian(1.0))
        MAP(prior=TotalVariation())(torch.ones(1, 4, 4), flat)


def test_default_for_data_that_are_no_picture_is_discrepancy():
    generator = torch.Generator().manual_seed(0)
    operator = Dense(torch.randn(60, 64, generator=generator) / 8, (1, 8, 8), (1, 1, 60))
    problem = Problem(operator, Gaussian(0.1))
    y = problem.simulate(picture()[:, ::6, ::6].contiguous(), seed=0)
    prior = Tikhonov()
    choice = choose(lambda d, w: MAP(prior=prior, weight=w)(d, problem).image, y, problem, prior)
    assert choice.rule == "discrepancy" and choice.weight > 0
    assert any(weight == choice.weight for weight, _ in choice.tried)
