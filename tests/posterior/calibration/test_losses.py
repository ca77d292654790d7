"""What is kept of an image errs on one side only, and the factors are those at which intervals hold."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from obverse.posterior import Posterior
from obverse.posterior.calibration.losses import Losses, needed_factors, thinned
from tests.posterior.calibration.cases import diagonal
from tests.posterior.cases import DONE, gaussian_pairs, seeded


@pytest.mark.parametrize("size", [1, 7, 1000, 1001, 3777])
def test_thinned_losses_are_never_below_the_true_ones(size):
    factors = np.random.default_rng(size).lognormal(size=size)
    losses = Losses.of([thinned(factors)])
    for s in np.random.default_rng(1).lognormal(size=40).tolist() + [0.0, factors.max(), factors.min()]:
        true = float((factors > s).mean())
        assert true - 1e-12 <= losses.risk(s) <= true + (0 if size <= 1000 else 1e-3) + 1e-12


def test_the_risk_of_several_images_is_the_mean_of_theirs():
    images = [np.array([1.0, 2.0]), np.array([2.0, 3.0, 4.0, 5.0]), np.array([0.5])]
    losses = Losses.of([thinned(own) for own in images])
    for s in (0.4, 0.5, 1.0, 1.5, 2.0, 4.5, 9.0):
        assert losses.risk(s) == pytest.approx(np.mean([(own > s).mean() for own in images]))
    assert losses.least(lambda risk: risk <= 0.5) == 1.0
    assert losses.least(lambda risk: risk < 0.5) == 2.0
    assert losses.least(lambda risk: risk <= 0) == 5.0
    assert losses.least(lambda risk: False) == math.inf


def test_intervals_stretched_by_their_factor_just_hold_the_truth():
    posteriors, truths = gaussian_pairs(2)
    posterior, truth = posteriors[0], truths[0]
    drawn = dataclasses.replace(posterior, draws=posterior.sample(200, seed=0).exp())
    drawn = dataclasses.replace(drawn, image=drawn.draws.mean(0))
    for one in (posterior, drawn):
        factors = needed_factors(one, truth, 0.9)
        low, high = one.interval(level=0.9)
        for stretched, held in ((factors * 1.001, True), (factors * 0.999, False)):
            ends = one.mean + stretched * (low - one.mean), one.mean + stretched * (high - one.mean)
            inside = (truth >= ends[0]) & (truth <= ends[1])
            assert bool((inside == held).all())


def test_intervals_that_cannot_hold_the_truth_need_an_infinite_factor():
    flat = Posterior(torch.zeros(1, 1, 2).double(), DONE, covariance=diagonal(torch.tensor([[[0.0, 1.0]]]).double()))
    found = needed_factors(flat, torch.tensor([[[0.1, 0.0]]]).double(), 0.9)
    assert found.flatten().tolist() == [math.inf, 0.0]
    assert needed_factors(flat, torch.zeros(1, 1, 2).double(), 0.9).flatten().tolist() == [0.0, 0.0]
    skewed = torch.zeros(1000, 1, 1, 2, dtype=torch.float64)
    skewed[:20, ..., 0] = 1000 + torch.rand(20, 1, 1, generator=seeded(0), dtype=torch.float64)
    skewed[:, ..., 1] = torch.randn(1000, 1, 1, generator=seeded(1), dtype=torch.float64)
    beside = Posterior(skewed.mean(0), DONE, covariance=diagonal(skewed.std(0)), draws=skewed)
    assert float(beside.interval(level=0.9)[1][0, 0, 0]) < float(beside.mean[0, 0, 0])
    found = needed_factors(beside, torch.tensor([[[1000.0, 0.1]]]).double(), 0.9)
    assert found[0, 0, 0] == math.inf and found[0, 0, 1] < 0.2
    # Below the mean too: at one factor the interval passes over this truth, and leaves it behind at larger ones.
    assert needed_factors(beside, torch.tensor([[[10.0, 0.1]]]).double(), 0.9)[0, 0, 0] == math.inf
