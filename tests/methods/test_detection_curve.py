"""Curves of found against false: areas known by hand and in closed form, and their convention."""

import pytest
import torch

from obverse.errors import InputError
from obverse.methods import detection_curve, matched_peaks
from obverse.methods.detection import Peak


def test_a_perfect_search_has_area_one_and_a_blind_one_none():
    assert detection_curve([3.0, 2.0, 1.0], [True, True, False], 2).area == pytest.approx(1.0)
    assert detection_curve([3.0, 2.0], [False, False], 2).area == 0.0
    assert detection_curve([], [], 2).area == 0.0


def test_area_is_interpolated_average_precision():
    """The same region, cut along the other axis: mean over sources of the best precision at that recall or above."""
    generator = torch.Generator().manual_seed(0)
    score = torch.randn(40, generator=generator, dtype=torch.float64)
    hit = torch.rand(40, generator=generator, dtype=torch.float64) < torch.sigmoid(2 * score)
    sources = int(hit.sum()) + 13
    curve = detection_curve(score, hit, sources)
    found = hit[score.argsort(descending=True)].double().cumsum(0)
    precision = found / torch.arange(1, 41)
    average = sum(float(precision[found >= k].max()) for k in range(1, int(hit.sum()) + 1)) / sources
    assert curve.area == pytest.approx(average, abs=1e-12)
    ends = torch.cat([curve.false_discovery_rate, torch.ones(1)])
    crossed = float((ends.diff() * curve.true_positive_rate).sum())
    assert abs(crossed - average) > 0.005, "without the envelope it must be another number"


def test_scores_that_say_nothing_find_sources_at_the_rate_of_chance():
    """Of peaks of which a part p is right, a precision of p is kept whatever the threshold: area p, for all found."""
    generator = torch.Generator().manual_seed(1)
    hit = torch.rand(20000, generator=generator) < 0.3
    curve = detection_curve(torch.rand(20000, generator=generator), hit, int(hit.sum()))
    assert curve.area == pytest.approx(0.3, abs=0.02)
    assert curve.recovered(0.75) == 1.0 and curve.recovered(0.5) < 0.01


def test_order_and_monotone_changes_of_the_scores_do_not_matter():
    score, hit = torch.tensor([4.0, 1.0, 2.0, 3.0]), torch.tensor([True, False, False, True])
    area = detection_curve(score, hit, 2).area
    assert detection_curve(score.flip(0), hit.flip(0), 2).area == area
    assert detection_curve(score.exp(), hit, 2).area == area
    assert detection_curve(-score, hit, 2).area != area


def test_equal_scores_pass_together():
    curve = detection_curve([1.0, 1.0], [True, False], 1)
    assert curve.false_discovery_rate.tolist() == [0.5] and curve.area == 0.5
    assert curve.area == detection_curve([1.0, 1.0], [False, True], 1).area


def test_every_source_is_found_once_by_the_highest_peak():
    near, nearer, far = Peak(10.0, 12.0, 3.0), Peak(10.0, 10.5, 2.0), Peak(30.0, 30.0, 9.0)
    assert matched_peaks([near, nearer, far], [(10.0, 10.0)], 3.0) == (0, None, None)
    assert matched_peaks([near, nearer], [(10.0, 10.0), (13.5, 10.0)], 3.0) == (1, 0)
    assert matched_peaks([far], [(30.0, 33.1)], 3.0) == (None,) and matched_peaks([], [(1.0, 1.0)], 3.0) == ()


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: detection_curve([1.0], [True, False], 2), "one number"),
        (lambda: detection_curve([float("nan")], [True], 2), "NaN"),
        (lambda: detection_curve([1.0, 2.0], [True, True], 1), "sources"),
        (lambda: matched_peaks([], [], 0.0), "radius"),
    ],
)
def test_what_does_not_fit_is_refused(call, words):
    with pytest.raises(InputError, match=words):
        call()
