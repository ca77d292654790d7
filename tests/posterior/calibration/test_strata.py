"""Groups of pixels, what an operator sees of them, and coverage in each."""

import json

import pytest
import torch

import obverse as ob
from obverse.errors import InputError
from obverse.posterior import Posterior, coverage
from obverse.posterior.calibration import Strata, conditional_coverage, coverage_by_error, seen_share
from tests.posterior.calibration.cases import diagonal, uneven_pairs
from tests.posterior.cases import DONE, gaussian_pairs, normal

STEP = torch.zeros(1, 6, 8).double()
STEP[..., 4:] = 1.0
RISING = torch.linspace(0.1, 2.0, 48, dtype=torch.float64).reshape(1, 6, 8)
KNOWN = Posterior(STEP + 0.001 * RISING, DONE, covariance=diagonal(RISING))


def test_strata_are_cut_at_quantiles_of_each_image():
    labels = Strata("uncertainty", (0.25, 0.5)).labels(KNOWN)
    assert labels.unique(return_counts=True)[1].tolist() == [12, 12, 24]
    assert bool((labels.flatten().diff() >= 0).all()), "the standard deviation rises from first to last pixel"
    bright = Strata("intensity", (0.5,)).labels(KNOWN)
    assert torch.equal(bright, STEP.long())
    edges = Strata("edges", (0.75,))
    assert edges.labels(KNOWN)[0].nonzero()[:, 1].unique().tolist() == [3, 4]
    assert edges.names == ("edges, lowest 75 %", "edges, top 25 %")
    colour = Posterior(torch.cat([STEP, 0 * STEP]), DONE, covariance=diagonal(torch.cat([RISING, RISING])))
    both = edges.labels(colour)
    assert torch.equal(both[0], both[1]), "an edge in one channel is an edge"
    flat = Posterior(0 * STEP, DONE, covariance=diagonal(torch.ones(1, 6, 8).double()))
    assert len(Strata("uncertainty", (0.5,)).labels(flat).unique()) == 1, "a plateau is not cut"
    values = Strata("uncertainty", (0.5,)).split(RISING, KNOWN)
    assert [len(part) for part in values] == [24, 24] and float(values[0].max()) < float(values[1].min())


def test_strata_come_back_from_json():
    for strata in (Strata("edges", (0.2, 0.9), ("a", "b", "c")), Strata.from_labels(STEP.long(), ("dark", "bright"))):
        assert Strata.from_facts(json.loads(json.dumps(strata.facts()))) == strata


def test_wrong_strata_are_refused():
    for cuts in ((), (0.5, 0.5), (0.0,), (1.2,)):
        with pytest.raises(InputError, match="ascending cuts"):
            Strata("edges", cuts)
    with pytest.raises(InputError, match="expect one of"):
        Strata("colour", (0.5,))
    with pytest.raises(InputError, match="3 names"):
        Strata("edges", (0.2, 0.5), ("one",))
    with pytest.raises(InputError, match="integers"):
        Strata.from_labels(STEP)
    with pytest.raises(InputError, match="name for each"):
        Strata.from_labels(STEP.long() + 1, ("a", "b"))
    with pytest.raises(InputError, match="expect values of that shape"):
        Strata.from_labels(torch.zeros(1, 2, 2, dtype=torch.int64)).split(RISING, KNOWN)


def test_the_share_seen_is_the_diagonal_of_the_projector():
    matrix = normal(7, 12, seed=3)
    A = ob.operators.Dense(matrix, (1, 3, 4))
    projector = torch.linalg.pinv(matrix) @ matrix
    damped = 1e-8
    found = seen_share(A, damping=damped)
    assert torch.allclose(found.flatten(), projector.diagonal(), atol=1e-5)
    assert float(found.sum()) == pytest.approx(7, abs=1e-4), "the rank"
    seen, unseen = projector[0], (torch.eye(12) - projector)[1]
    both = torch.stack([seen, unseen, seen + unseen]).reshape(3, 1, 3, 4)
    shares = seen_share(A, both, damped)
    expected = float(seen.square().sum() / (seen.square().sum() + unseen.square().sum()))
    assert shares.tolist() == pytest.approx([1.0, 0.0, expected], abs=1e-4)
    mask = (RISING > 1).float()
    strata = Strata.seen_by(ob.operators.Mask(mask, (1, 6, 8)))
    assert strata.names == ("seen to 0–10 %", "seen to 90–100 %")
    assert torch.equal(strata.labels(KNOWN), mask.long())
    with pytest.raises(InputError, match="complex"):
        seen_share(ob.operators.Fourier((1, 4, 4)))


def worst(found) -> float:
    return min(len(found) * min(own.p_values) for own in found.values())


def test_the_exact_posterior_covers_in_every_stratum():
    posteriors, truths = gaussian_pairs(120)
    for strata in (Strata("uncertainty", (0.3, 0.7)), Strata("intensity", (0.5,)), Strata("edges", (0.8,))):
        found = conditional_coverage(posteriors, truths, strata)
        assert tuple(found) == strata.names and worst(found) > 1e-3
        assert all(own.count == 120 and own.levels == (0.5, 0.8, 0.9, 0.95) for own in found.values())
    assert worst(coverage_by_error(posteriors, truths)) > 1e-3


def test_a_stratum_that_is_wrong_is_found():
    posteriors, truths = uneven_pairs(60)
    found = conditional_coverage(posteriors, truths, Strata("uncertainty", (0.5,)), (0.9,))
    low, high = found.values()
    assert worst(found) < 1e-6 and low.observed[0] < 0.8 and high.observed[0] > 0.98
    # The same two strata by a function, which may also look at the truth.
    same = conditional_coverage(posteriors, truths, lambda p, t: (p.std > 1.5).long(), (0.9,))
    assert same == {"label 0": low, "label 1": high}
    whole = coverage(posteriors, truths, (0.9,)).observed[0]
    assert (low.observed[0] + high.observed[0]) / 2 == pytest.approx(whole)
    assert low.standard_errors[0] == pytest.approx((0.73 * 0.27 / 18 / 60) ** 0.5, rel=0.35)


def test_functionals_are_labelled_by_what_is_seen_of_them():
    posteriors, truths = gaussian_pairs(60)
    rows = torch.eye(20).double()[:6].reshape(6, 1, 5, 4)
    strata = Strata.from_labels(torch.tensor([0, 0, 0, 1, 1, 1]), ("seen", "unseen"))
    found = conditional_coverage(posteriors, truths, strata, (0.8,), rows)
    assert found["seen"] == coverage(posteriors, truths, (0.8,), rows[:3]) and worst(found) > 1e-3
    with pytest.raises(InputError, match="label every pixel"):
        conditional_coverage(posteriors, truths, strata)


def test_images_with_large_errors_are_covered_less_even_by_the_exact_posterior():
    posteriors, truths = gaussian_pairs(120)
    actual = coverage_by_error(posteriors, truths, (0.9,), expected=False)
    covered = [own.observed[0] for own in actual.values()]
    assert covered[0] > 0.93 and covered[3] < 0.86 and all(own.count == 30 for own in actual.values())
    assert "actual error" in list(actual)[0] and "part 4 of 4" in list(actual)[3]
    for parts in (0, 61):
        with pytest.raises(InputError, match="two images a part"):
            coverage_by_error(posteriors, truths, (0.9,), parts=parts)


def test_a_stratum_of_one_image_is_left_out():
    posteriors, truths = uneven_pairs(3)
    labels = iter([torch.zeros(1, 6, 6).long(), torch.zeros(1, 6, 6).long(), torch.ones(1, 6, 6).long()])
    found = conditional_coverage(posteriors, truths, lambda p, t: next(labels), (0.9,))
    assert list(found) == ["label 0"] and found["label 0"].count == 2
