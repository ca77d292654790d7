"""Candidates and the maps they come from, against peaks whose place is known."""

import math

import pytest
import torch

from obverse.errors import InputError
from obverse.methods.detection import Candidate, Detection, candidates_of
from obverse.solvers.result import Status

EXACT = Status(True, "closed-form", "exact")
UNIT = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def paraboloid(row, column, height, shape=(21, 25), curvature=0.5):
    y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in shape), indexing="ij")
    return height - curvature * ((x - column) ** 2 + (y - row) ** 2)


def test_the_vertex_of_a_paraboloid_is_found_exactly():
    peak, *others = candidates_of(paraboloid(9.3, 14.8, 8.0)[None], 5.0, 3.0)
    assert not others
    assert peak.x == pytest.approx(14.8, abs=1e-12) and peak.y == pytest.approx(9.3, abs=1e-12)
    assert peak.snr == pytest.approx(8.0 - 0.5 * (0.3**2 + 0.2**2)), "the height is the pixel's own"


def test_peaks_closer_than_the_width_are_one_and_the_strongest_leads():
    image = torch.maximum(paraboloid(5.0, 5.0, 7.0, curvature=2.0), paraboloid(5.0, 8.0, 9.0, curvature=2.0))
    image = torch.maximum(image, paraboloid(15.0, 20.0, 6.0, curvature=2.0))
    assert [(p.x, p.y) for p in candidates_of(image, 5.0, 4.0)] == [(8.0, 5.0), (20.0, 15.0)]
    assert len(candidates_of(image, 5.0, 2.0)) == 3, "narrower than their distance, both stay"
    assert len(candidates_of(image, 6.5, 4.0)) == 1 and candidates_of(image, 9.5, 4.0) == ()


def test_a_plateau_is_one_candidate_and_edges_and_gaps_are_no_trouble():
    image = torch.zeros(9, 9)
    image[4, 4:6] = 6.0
    assert len(candidates_of(image, 5.0, 2.0)) == 1
    image = torch.zeros(9, 9)
    image[0, 8] = 6.0
    assert candidates_of(image, 5.0, 2.0) == ((8.0, 0.0, 6.0),)
    image[0, 7] = math.nan
    assert candidates_of(image, 5.0, 2.0) == ((8.0, 0.0, 6.0),)
    assert candidates_of(torch.full((5, 5), math.nan), 5.0, 2.0) == ()
    assert candidates_of(torch.full((5, 5), math.nan), -5.0, 2.0) == ()


def test_false_alarms_of_white_noise_are_no_more_than_the_threshold_says():
    noise = torch.randn(400, 400, generator=torch.Generator().manual_seed(0))
    expected = 160_000 * 0.5 * math.erfc(3.5 / math.sqrt(2))  # 37 pixels above 3.5
    found = len(candidates_of(noise, 3.5, 1.0))
    assert abs(found - expected) < 4 * math.sqrt(expected)
    wide = len(candidates_of(1.31 * noise, 3.5, 1.0))
    assert abs(wide - expected) > 4 * math.sqrt(expected), "a noise that is 1.31 times too large must show"


@pytest.mark.parametrize(("x", "y", "angle"), [(3.0, 2.0, 0.0), (2.0, 3.0, 90.0), (1.0, 2.0, 180.0), (2.0, 1.0, 270.0)])
def test_angles_are_anticlockwise_from_the_columns(x, y, angle):
    found = Candidate(x, y, 6.0, 1.0, UNIT)
    assert found.angle((2.0, 2.0)) == pytest.approx(angle) and found.separation((2.0, 2.0)) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "covariance",
    [
        ((1.0, 0.0), (0.0, 1.0)),
        ((-1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
        ((1.0, 2.0, 0.0), (2.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
        ((1.0, 0.5, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
        ((math.nan, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    ],
)
def test_what_is_no_covariance_is_refused(covariance):
    Candidate(1.0, 2.0, 6.0, 1.0, UNIT)
    with pytest.raises(InputError, match="covariance"):
        Candidate(1.0, 2.0, 6.0, 1.0, covariance)


def test_maps_must_agree():
    flux = torch.ones(1, 4, 5)
    gap = flux.clone()
    gap[0, 0, 0] = math.nan
    detection = Detection(gap, EXACT, snr=gap * 2, sigma=gap / 2, candidates=(Candidate(1.0, 2.0, 6.0, 1.0, UNIT),))
    assert detection.covered.sum() == 19 and detection.candidates[0].snr == 6.0
    for snr, word in ((flux, "same pixels"), (flux[:, :3], "one shape"), (gap * math.inf, "infinite")):
        with pytest.raises(InputError, match=word):
            Detection(gap, EXACT, snr=snr, sigma=gap)
    with pytest.raises(InputError, match="everywhere"):
        Detection(gap * math.nan, EXACT, snr=gap * math.nan, sigma=gap * math.nan)
    with pytest.raises(InputError, match="finite"):
        Candidate(math.nan, 1.0, 6.0, 1.0, UNIT)


def test_candidates_of_refuses_what_it_cannot_search():
    image = torch.zeros(4, 4)
    for arguments in ((torch.zeros(2, 4, 4), 5.0, 2.0), (image, math.nan, 2.0), (image, 5.0, 0.0)):
        with pytest.raises(InputError):
            candidates_of(*arguments)
