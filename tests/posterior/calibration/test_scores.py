"""Proper scores against their definitions, and as scores: the right posterior beats every spoilt one."""

import dataclasses
import functools

import numpy as np
import pytest
import scipy
import torch

from obverse.errors import InputError
from obverse.posterior import Posterior
from obverse.posterior.calibration import crps, energy_score, interval_score, joint_log_score, log_score
from tests.posterior.calibration.cases import diagonal, permuted
from tests.posterior.cases import DONE, gaussian_pairs, normal

COUNT = 120
SPOILT = {"quarter": lambda m: m / 4, "four": lambda m: 4 * m, "shuffled": permuted}
SCORES = {
    "crps": lambda p, t: crps(p, t, leading()),
    "log": lambda p, t: log_score(p, t, leading()),
    "interval": lambda p, t: interval_score(p, t, functional=leading()),
    "joint log": lambda p, t: joint_log_score(p[:60], t[:60]),
}


@functools.cache
def leading():
    """The right posterior's first component."""
    return pairs()[0][0].components(1).directions[0]


@functools.cache
def pairs(spoilt: str | None = None):
    return gaussian_pairs(COUNT, SPOILT[spoilt]) if spoilt else gaussian_pairs(COUNT)


def normal_pair(std: float, error: float, draws: torch.Tensor | None = None):
    """One pixel; twice, since a score of one image has no standard error."""
    posterior = Posterior(
        torch.zeros(1, 1, 1).double(), DONE, covariance=diagonal(torch.full((1, 1, 1), std, dtype=torch.float64))
    )
    if draws is not None:
        posterior = dataclasses.replace(posterior, draws=draws.reshape(-1, 1, 1, 1))
    return [posterior] * 2, [torch.full((1, 1, 1), error, dtype=torch.float64)] * 2


@pytest.mark.parametrize("std, error", [(1.0, 0.3), (0.5, -1.7), (2.0, 0.0)])
def test_closed_forms_are_the_definitions(std, error):
    law = scipy.stats.norm(0, std)
    below = scipy.integrate.quad(lambda x: law.cdf(x) ** 2, -12 * std, error, epsabs=1e-12)[0]
    squared = below + scipy.integrate.quad(lambda x: law.sf(x) ** 2, error, 12 * std, epsabs=1e-12)[0]
    assert crps(*normal_pair(std, error)).mean == pytest.approx(squared, abs=1e-8)
    assert log_score(*normal_pair(std, error)).mean == pytest.approx(-law.logpdf(error))
    assert joint_log_score(*normal_pair(std, error)).mean == pytest.approx(-law.logpdf(error))
    half = law.ppf(0.95)
    expected = 2 * half + 2 / 0.1 * max(0.0, abs(error) - half)
    assert interval_score(*normal_pair(std, error)).mean == pytest.approx(expected)


def test_draws_are_scored_fairly_whatever_their_number():
    """The mean over many sets of three draws is the score of the law itself; the naive one is off by E|X − X′|/6."""
    law = normal(2000, 3, seed=1)
    posteriors, truths = [], []
    for own in law:
        (posterior, _), (truth, _) = normal_pair(1.0, 0.4, own)
        posteriors.append(posterior)
        truths.append(truth)
    exact = crps(*normal_pair(1.0, 0.4)).mean
    found = crps(posteriors, truths)
    assert found.mean == pytest.approx(exact, abs=4 * found.standard_error)
    assert found.standard_error < 0.2 * (2 / np.sqrt(np.pi)) / 6, "a naive estimator would be seen"
    one = law[0]
    among = sum(float((a - b).abs()) for a in one for b in one) / 6
    assert found.values[0] == pytest.approx(float((one - 0.4).abs().mean()) - among / 2)


def test_the_energy_score_of_one_pixel_is_the_crps():
    (posterior, _), (truth, _) = normal_pair(1.0, 0.4)
    found = energy_score([posterior] * 200, [truth] * 200, draws=20)
    assert found.mean == pytest.approx(crps(*normal_pair(1.0, 0.4)).mean, abs=4 * found.standard_error)
    again = energy_score([posterior] * 3, [truth] * 3, draws=20)
    assert again.values == found.values[:3]
    with pytest.raises(InputError, match="two draws"):
        energy_score([posterior] * 2, [truth] * 2, draws=1)


@pytest.mark.parametrize("spoilt", SPOILT)
@pytest.mark.parametrize("name", SCORES)
def test_the_right_posterior_scores_best(name, spoilt):
    right, wrong = SCORES[name](*pairs()), SCORES[name](*pairs(spoilt))
    difference = np.subtract(wrong.values, right.values)
    assert difference.mean() > 3 * difference.std() / len(difference) ** 0.5


def test_the_energy_score_prefers_the_right_size():
    right = energy_score(*pairs(), draws=20)
    for spoilt in ("quarter", "four"):
        difference = np.subtract(energy_score(*pairs(spoilt), draws=20).values, right.values)
        assert difference.mean() > 3 * difference.std() / COUNT**0.5


def test_pixels_and_components_are_means_over_them():
    posteriors, truths = (part[:5] for part in pairs())
    whole = crps(posteriors, truths)
    assert len(whole.values) == 5 and whole.mean == pytest.approx(np.mean(whole.values))
    error, std = (truths[0] - posteriors[0].mean).flatten(), posteriors[0].std.flatten()
    each = [crps(*normal_pair(float(s), float(e))).mean for s, e in zip(std, error)]
    assert whole.values[0] == pytest.approx(np.mean(each))
    two = log_score(posteriors, truths, lambda p: p.components(2).directions)
    apart = [log_score(posteriors, truths, lambda p, k=k: p.components(2).directions[k]).values[0] for k in (0, 1)]
    assert two.values[0] == pytest.approx(np.mean(apart))


def test_a_pixel_without_spread_scores_its_error_or_is_refused():
    assert crps(*normal_pair(0.0, 0.7)).mean == pytest.approx(0.7)
    with pytest.raises(InputError, match="above zero"):
        log_score(*normal_pair(0.0, 0.7))


def test_scores_agree_with_another_library():
    library = pytest.importorskip("scoringrules")
    posteriors, truths = (part[:8] for part in pairs())
    x = np.stack([truth.numpy().reshape(-1) for truth in truths])
    m, s = (np.stack([getattr(p, name).numpy().reshape(-1) for p in posteriors]) for name in ("mean", "std"))
    assert np.allclose(crps(posteriors, truths).values, library.crps_normal(x, m, s).mean(1))
    assert np.allclose(log_score(posteriors, truths).values, library.logs_normal(x, m, s).mean(1))
    low, high = (np.stack([p.interval(None, 0.8)[i].numpy().reshape(-1) for p in posteriors]) for i in (0, 1))
    assert np.allclose(
        interval_score(posteriors, truths, 0.8).values, library.interval_score(x, low, high, 0.2).mean(1)
    )
    drawn = [dataclasses.replace(p, draws=p.sample(12, seed=i)) for i, p in enumerate(posteriors)]
    draws = np.stack([p.draws.numpy().reshape(12, -1) for p in drawn])
    fair = library.crps_ensemble(x, draws, m_axis=1, estimator="fair")
    assert np.allclose(crps(drawn, truths).values, fair.mean(1))
    kept = [p.sample(12, stream) for p, stream in zip(posteriors, _streams(8))]
    theirs = library.es_ensemble(x, np.stack([k.numpy().reshape(12, -1) for k in kept]), estimator="fair")
    assert np.allclose(np.asarray(energy_score(posteriors, truths, draws=12).values) * 20**0.5, theirs)


def _streams(count: int):
    from obverse.posterior.covariance import streams

    return streams(count, torch.Generator().manual_seed(0))
