"""Calibration tests accept the exact posterior of a Gaussian problem, and reject it halved, doubled and shuffled."""

import dataclasses
import functools

import numpy as np
import pytest
import torch

from obverse.errors import InputError
from obverse.posterior import coverage, mahalanobis, pc_scores, pit, rank_histogram, tarp
from obverse.posterior.calibration import Uniformity
from tests.posterior.calibration.cases import permuted
from tests.posterior.cases import gaussian_pairs, normal

COUNT = 400
# One threshold for both: what rejects the wrong covariance must accept the right one.
LEVEL = 1e-3


SPOILT = {
    "halved": lambda matrix: matrix / 2,
    "doubled": lambda matrix: 2 * matrix,
    "shuffled": permuted,
}


@functools.cache
def pairs(spoilt: str | None = None):
    return gaussian_pairs(COUNT, SPOILT[spoilt]) if spoilt else gaussian_pairs(COUNT)


def leading(posterior):
    return posterior.components(1).directions[0]


TESTS = {
    "coverage": lambda p, t: min(coverage(p, t, functional=leading).p_values),
    "pit": lambda p, t: pit(p, t, leading).p_value,
    "ranks": lambda p, t: rank_histogram(p, t, draws=31, functional=leading).p_value,
    "tarp": lambda p, t: tarp(p, t, draws=49).p_value,
    "component scores": lambda p, t: pc_scores(p, t).p_value,
    "mahalanobis": lambda p, t: mahalanobis(p, t).p_value,
}
# These weigh all pixels alike: a wrong size of Σ shows, a wrong shape of the same trace may not (white noise: p = 0.06)
BLIND_TO_SHAPE = {
    "pixel coverage": lambda p, t: min(coverage(p, t).p_values),
    "white-noise pit": lambda p, t: pit(p, t).p_value,
}


@pytest.mark.parametrize("name", [*TESTS, *BLIND_TO_SHAPE])
def test_the_exact_posterior_is_accepted(name):
    assert (TESTS | BLIND_TO_SHAPE)[name](*pairs()) > LEVEL


@pytest.mark.parametrize("spoilt", SPOILT)
@pytest.mark.parametrize("name", TESTS)
def test_spoilt_covariances_are_rejected(name, spoilt):
    assert TESTS[name](*pairs(spoilt)) < LEVEL


@pytest.mark.parametrize("spoilt", ["halved", "doubled"])
@pytest.mark.parametrize("name", BLIND_TO_SHAPE)
def test_spoilt_sizes_are_rejected_by_the_coarser_tests(name, spoilt):
    assert BLIND_TO_SHAPE[name](*pairs(spoilt)) < LEVEL


def test_a_displaced_mean_and_a_diagonal_covariance_are_rejected():
    posteriors, truths = pairs()
    moved = [truth + 0.5 * posterior.std for posterior, truth in zip(posteriors, truths)]
    total = torch.ones(1, 5, 4).double()
    tests = {
        "coverage": lambda p, t: min(coverage(p, t, functional=total).p_values),
        "pit": lambda p, t: pit(p, t, total).p_value,
        "ranks": lambda p, t: rank_histogram(p, t, draws=31, functional=total).p_value,
    }
    for test in tests.values():
        assert test(posteriors, truths) > LEVEL
        assert test(posteriors, moved) < LEVEL
    diagonal = gaussian_pairs(COUNT, lambda matrix: matrix.diagonal().diag())
    assert mahalanobis(*diagonal).p_value > LEVEL, (
        "E[zᵀ D⁻¹ z] = n whatever the correlations: Mahalanobis alone is blind"
    )
    largest = torch.linalg.eigh(posteriors[0].covariance.dense())[1][:, -1].reshape(1, 5, 4)
    assert pit(posteriors, truths, largest).p_value > LEVEL
    assert pit(*diagonal, largest).p_value < LEVEL


def test_numbers_are_what_they_say():
    posteriors, truths = pairs()
    covered = coverage(posteriors, truths)
    assert covered.count == COUNT
    assert np.allclose(covered.observed, covered.levels, atol=3 * max(covered.standard_errors))
    by_functional = coverage(posteriors, truths, (0.9,), functional=leading)
    assert by_functional.standard_errors[0] == pytest.approx((0.09 / COUNT) ** 0.5)
    scores = pc_scores(posteriors, truths, k=3)
    assert np.asarray(scores.values).shape == (COUNT, 3) and len(scores.p_values) == 3
    assert scores.mean_square == pytest.approx(1, abs=0.15)
    assert pc_scores(*pairs("halved"), k=3).mean_square == pytest.approx(2 * scores.mean_square)
    assert mahalanobis(*pairs("doubled")).mean_square == pytest.approx(mahalanobis(posteriors, truths).mean_square / 2)
    ranks = rank_histogram(posteriors, truths, draws=31, functional=leading)
    assert sum(ranks.counts) == COUNT and ranks.expected == COUNT / 8
    over_confident = rank_histogram(*pairs("halved"), draws=31, functional=leading).counts
    assert over_confident[0] + over_confident[-1] > 1.5 * (over_confident[3] + over_confident[4])
    curve = Uniformity((0.1, 0.2, 0.6, 0.9), 0.0, 1.0, 1.0).expected_coverage([0.5, 1.0])
    assert curve == (0.5, 1.0)


def test_tarp_takes_references_from_other_posteriors():
    posteriors, truths = pairs()
    others = [posterior.sample(1, seed=i)[0] for i, posterior in enumerate(posteriors[1:] + posteriors[:1])]
    assert tarp(posteriors, truths, references=others, draws=49).p_value > LEVEL
    halved, _ = pairs("halved")
    assert tarp(halved, truths, references=others, draws=49).p_value < LEVEL


def test_kept_draws_are_ranked():
    posteriors, truths = gaussian_pairs(200)
    with_draws = [dataclasses.replace(p, draws=p.sample(99, seed=i)) for i, p in enumerate(posteriors)]
    assert pit(with_draws, truths, leading).p_value > LEVEL
    narrow = [dataclasses.replace(p, draws=p.mean + 0.5 * (p.draws - p.mean)) for p in with_draws]
    assert pit(narrow, truths, leading).p_value < LEVEL


def test_results_are_reproducible():
    posteriors, truths = pairs()
    assert tarp(posteriors[:50], truths[:50]) == tarp(posteriors[:50], truths[:50])
    assert tarp(posteriors[:50], truths[:50]) != tarp(posteriors[:50], truths[:50], seed=1)


def test_unusable_input_is_refused():
    posteriors, truths = pairs()
    with pytest.raises(InputError, match="two"):
        coverage(posteriors[:1], truths[:1])
    with pytest.raises(InputError, match="shape"):
        mahalanobis(posteriors[:2], [normal(3), normal(3)])
    with pytest.raises(InputError, match="multiple"):
        rank_histogram(posteriors, truths, draws=30)
    with pytest.raises(InputError, match="reference for every truth"):
        tarp(posteriors[:3], truths[:3], references=truths[:2])
    empty = torch.zeros(1, 5, 4, dtype=torch.bool)
    with pytest.raises(InputError, match="empty mask"):
        coverage(posteriors[:3], truths[:3], functional=empty)
    with pytest.raises(ValueError):
        coverage(posteriors[:3], truths[:2])


def test_functionals_come_in_batches_and_as_masks():
    posteriors, truths = pairs()
    three = coverage(posteriors, truths, functional=lambda p: p.components(3).directions)
    assert min(three.p_values) > LEVEL and three.standard_errors[2] < (0.09 / COUNT) ** 0.5
    halved, _ = pairs("halved")
    assert min(coverage(halved, truths, functional=lambda p: p.components(3).directions).p_values) < LEVEL
    mask = torch.zeros(1, 5, 4, dtype=torch.bool)
    mask[0, 1:3] = True
    by_mask = coverage(posteriors, truths, functional=mask)
    assert by_mask == coverage(posteriors, truths, functional=mask.double() / 8)
    assert min(by_mask.p_values) > LEVEL
    broken = torch.full((1, 5, 4), float("nan")).double()
    with pytest.raises(InputError, match="NaN"):
        coverage(posteriors[:2], [truths[0], broken])


@pytest.mark.parametrize("levels", [(), (0.5, 1.0), (-0.1,)])
def test_levels_that_are_no_probabilities_are_refused(levels):
    with pytest.raises(InputError, match="levels"):
        coverage(*pairs(), levels=levels)


def test_unequal_numbers_of_posteriors_and_truths_are_refused():
    posteriors, truths = pairs()
    with pytest.raises(InputError, match="more posteriors than the 3 truths"):
        coverage(posteriors, truths[:3])
    with pytest.raises(InputError, match="more truths than the 3 posteriors"):
        pit(posteriors[:3], truths)
