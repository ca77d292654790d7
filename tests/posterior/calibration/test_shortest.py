"""Factors for strata: shorter than one factor at the same guarantee, near the shortest there is."""

import numpy as np
import pytest
import scipy
import torch

from obverse.errors import InputError
from obverse.posterior import coverage
from obverse.posterior.calibration import Strata, risk_controlling, shortest_intervals
from obverse.posterior.calibration.shortest import _lower_envelope
from tests.posterior.calibration.cases import uneven_pairs

LABELS = torch.zeros(1, 6, 6, dtype=torch.int64)
LABELS[..., 3:] = 1
HALVES = Strata.from_labels(LABELS, ("narrow", "wide"))


def best_factors() -> np.ndarray:
    """Of errors N(0, 1.5²) and N(0, 1) on claims of 1 and 2: equal densities at the ends, mean coverage 0.9."""

    def ends(density: float) -> list[float]:
        return [s * np.sqrt(-2 * np.log(density * s * np.sqrt(2 * np.pi))) for s in (1.5, 1.0)]

    def excess(density: float) -> float:
        a, b = ends(density)
        return scipy.stats.norm.cdf(a / 1.5) + scipy.stats.norm.cdf(b) - 1 - 0.9

    a, b = ends(scipy.optimize.brentq(excess, 1e-4, 0.2))
    return np.array([a, b / 2]) / scipy.stats.norm.ppf(0.95)


def width(calibration, posterior) -> float:
    low, high = calibration.apply(posterior).interval()
    return float((high - low).mean())


def test_intervals_are_the_shortest_and_cover():
    posteriors, truths = uneven_pairs(300)
    fresh, others = uneven_pairs(150, seed=50)
    found = shortest_intervals(posteriors, truths, HALVES)
    one = risk_controlling(posteriors, truths)
    covered = coverage([found.apply(p) for p in fresh], others, (0.9,))
    assert covered.observed[0] > 0.9 - 3 * covered.standard_errors[0]
    assert width(found, fresh[0]) < 0.85 * width(one, fresh[0])
    proportion = found.factors[0] / found.factors[1]
    best = best_factors()
    assert proportion == pytest.approx(best[0] / best[1], rel=0.12)
    assert found.strata == HALVES and found.count == 300 and "150 of the calibration" in found.guarantee


def test_where_strata_are_alike_so_are_their_factors():
    posteriors, truths = uneven_pairs(200)
    rng = torch.Generator().manual_seed(0)
    mixed = Strata.from_labels(torch.randint(2, (1, 6, 6), generator=rng))
    found = shortest_intervals(posteriors, truths, mixed)
    assert found.factors[0] == pytest.approx(found.factors[1], rel=0.35)
    with pytest.raises(InputError, match="at least 22 calibration images in the second half, got 21"):
        shortest_intervals(posteriors[:42], truths[:42], HALVES)
    with pytest.raises(InputError, match="level"):
        shortest_intervals(posteriors, truths, HALVES, 90.0)


def test_the_envelope_is_convex_and_below_its_points():
    x = np.sort(np.random.default_rng(0).uniform(size=60))
    y = np.maximum.accumulate(np.random.default_rng(1).uniform(size=60)[::-1])[::-1]
    y = np.sort(y)[::-1]
    corners = _lower_envelope(np.append(0.0, x), np.append(1.0, y))
    cx, cy = np.array(corners).T
    assert (np.interp(x, cx, cy) <= y + 1e-12).all()
    slopes = np.diff(cy) / np.diff(cx)
    assert (np.diff(slopes) >= -1e-12).all() and set(cx) <= {0.0, *x}
    assert _lower_envelope(np.array([0.0, 1.0, 1.0]), np.array([1.0, 0.5, 0.2])) == [(0.0, 1.0), (1.0, 0.2)]
