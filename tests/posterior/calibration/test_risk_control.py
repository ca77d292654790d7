"""Guarantees of risk control by simulation: what is promised holds, and what is not promised fails."""

import math

import numpy as np
import pytest
import scipy
import torch

from obverse.errors import InputError
from obverse.posterior import coverage
from obverse.posterior.calibration import (
    Strata,
    conditional_coverage,
    conformal_risk_control,
    hoeffding_bentkus,
    risk_controlling,
)
from obverse.posterior.calibration.losses import Losses
from obverse.posterior.calibration.risk_control import conformal_risk, risk_p_value
from tests.posterior.calibration.cases import uneven_pairs, wrong_noise_factor, wrong_noise_pairs
from tests.posterior.cases import gaussian_pairs

HALVES = torch.zeros(1, 6, 6, dtype=torch.int64)
HALVES[..., 3:] = 1
HALVES = Strata.from_labels(HALVES, ("narrow", "wide"))


def simulated(rng, images: int, pixels: int) -> np.ndarray:
    """Needed factors of images whose errors have a size of their own: dependent within an image."""
    return np.abs(rng.standard_normal((images, pixels))) * rng.lognormal(0, 0.3, (images, 1))


def true_risk(factor: float) -> float:
    """E over images of the missed share, by Gauss–Hermite quadrature over their size."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    return float(weights @ (2 * scipy.stats.norm.sf(factor / np.exp(0.3 * nodes))) / weights.sum())


def chosen(rule, runs: int, images: int, pixels: int, seed: int = 0) -> np.ndarray:
    """True risks of the factors that a rule on the empirical risk accepts, over many calibration sets."""
    rng = np.random.default_rng(seed)
    return np.array([true_risk(Losses.of(list(simulated(rng, images, pixels))).least(rule)) for _ in range(runs)])


def test_risk_control_fails_in_at_most_delta_of_the_calibrations():
    alpha, delta, n, runs = 0.1, 0.2, 60, 200
    slack = 3 * (delta * (1 - delta) / runs) ** 0.5
    risks = chosen(lambda risk: risk_p_value(risk, n, alpha) <= delta, runs, n, 20)
    assert (risks > alpha).mean() <= delta
    assert risks.mean() > alpha / 3, "a bound that is far from used up would be no bound worth having"
    plain = chosen(lambda risk: risk <= alpha, runs, n, 20)
    assert (plain > alpha).mean() > delta + slack, "the empirical risk alone is not enough"


def test_the_bound_is_compared_with_alpha_and_not_with_delta():
    """The slip that is invisible when both are 0.1."""
    alpha, delta, n, runs = 0.05, 0.2, 80, 100
    # The bound is ≤ α exactly where the p-value of α is ≤ δ.
    right = chosen(lambda risk: risk_p_value(risk, n, alpha) <= delta, runs, n, 20)
    slip = chosen(lambda risk: risk_p_value(risk, n, delta) <= delta, runs, n, 20)
    assert (right > alpha).mean() <= delta
    assert (slip > alpha).mean() > 0.9


def test_conformal_risk_control_holds_on_average():
    alpha, n, runs = 0.1, 19, 400
    rng = np.random.default_rng(0)
    risks = {"controlled": [], "plain": []}
    for _ in range(runs):
        losses = Losses.of(list(simulated(rng, n, 1)))
        risks["controlled"].append(true_risk(losses.least(lambda risk: conformal_risk(risk, n) <= alpha + 1e-9)))
        risks["plain"].append(true_risk(losses.least(lambda risk: risk <= 2 / n + 1e-9)))
    error = np.std(risks["controlled"]) / math.sqrt(runs)
    # With one pixel an image the guarantee is tight: the second largest of 19 is passed with probability 2/20.
    assert np.mean(risks["controlled"]) == pytest.approx(alpha, abs=3.5 * error)
    assert np.mean(risks["plain"]) > alpha + 10 * error, "two of 19 missed is 0.105, and 3/20 for the next image"


def test_the_bound_is_where_its_p_value_is_delta():
    for risk, n, delta in ((0.0, 50, 0.1), (0.05, 200, 0.1), (0.3, 20, 0.01)):
        bound = hoeffding_bentkus(risk, n, delta)
        assert risk_p_value(risk, n, bound * 1.0001) <= delta < risk_p_value(risk, n, bound * 0.9999)
        entropy = risk * math.log(risk / bound) if risk else 0.0
        hoeffding = math.exp(-n * (entropy + (1 - risk) * math.log((1 - risk) / (1 - bound))))
        bentkus = math.e * scipy.stats.binom.cdf(round(n * risk), n, bound)
        assert min(hoeffding, bentkus) == pytest.approx(delta, rel=1e-6)
    assert hoeffding_bentkus(1.0, 100, 0.1) == 1.0


@pytest.mark.parametrize("control", [conformal_risk_control, risk_controlling])
def test_pixels_of_wrong_posteriors_are_covered(control):
    calibration = control(*wrong_noise_pairs(150, 0.8))
    fresh, truths = wrong_noise_pairs(150, 0.8, seed=100)
    assert coverage(fresh, truths, (0.9,)).p_values[0] < 1e-6
    found = coverage([calibration.apply(p) for p in fresh], truths, (0.9,))
    if control is conformal_risk_control:
        assert calibration.factors[0] == pytest.approx(wrong_noise_factor(0.8), rel=0.05)
        # The correction for the new image asks for 1/(n + 1) more than 0.9.
        assert found.observed[0] == pytest.approx(0.9 + 1 / 151, abs=3 * 2**0.5 * found.standard_errors[0])
    else:
        assert 0.9 - 3 * found.standard_errors[0] < found.observed[0] < 0.97
        assert "90% over such calibrations" in calibration.guarantee


def test_the_right_posterior_keeps_its_size():
    assert conformal_risk_control(*gaussian_pairs(200)).factors[0] == pytest.approx(1, abs=0.08)


def test_one_factor_fails_strata_that_a_factor_each_mends():
    posteriors, truths = uneven_pairs(150)
    fresh, others = uneven_pairs(150, seed=50)
    one = conformal_risk_control(posteriors, truths)
    each = conformal_risk_control(posteriors, truths, strata=HALVES)
    assert coverage([one.apply(p) for p in fresh], others, (0.9,)).p_values[0] > 1e-3, "right on average"
    before = conditional_coverage([one.apply(p) for p in fresh], others, HALVES, (0.9,))
    assert before["narrow"].observed[0] < 0.85 < 0.95 < before["wide"].observed[0]
    assert max(own.p_values[0] for own in before.values()) < 1e-6
    after = conditional_coverage([each.apply(p) for p in fresh], others, HALVES, (0.9,))
    assert each.factors == pytest.approx((1.5, 0.5), rel=0.06)
    for own in after.values():
        assert own.observed[0] == pytest.approx(0.9, abs=3 * 2**0.5 * own.standard_errors[0])


def test_functionals_and_too_few_images():
    posteriors, truths = gaussian_pairs(30)
    total = torch.ones(1, 5, 4).double()
    assert conformal_risk_control(posteriors, truths, functional=total).count == 30
    with pytest.raises(InputError, match="at least 9 calibration images, got 8"):
        conformal_risk_control(posteriors[:8], truths[:8])
    with pytest.raises(InputError, match="at least 22 calibration images, got 21"):
        risk_controlling(posteriors[:21], truths[:21])
    # With 22 images a risk of zero is just enough: every pixel of every image is held.
    strict = risk_controlling(posteriors[:22], truths[:22]).factors[0]
    assert coverage([p.affine(1.0) for p in posteriors[:22]], truths[:22], (0.9,)).observed[0] < 1 and strict > 1.2
    labels = Strata.from_labels(torch.zeros(1, 5, 4, dtype=torch.int64), ("all", "none"))
    with pytest.raises(InputError, match="with pixels of 'none', got 0"):
        conformal_risk_control(posteriors, truths, strata=labels)
    with pytest.raises(InputError, match="functional as well"):
        conformal_risk_control(posteriors, truths, functional=total, strata=labels)
    with pytest.raises(InputError, match="level"):
        risk_controlling(posteriors, truths, 1.0)
    with pytest.raises(InputError, match="delta"):
        risk_controlling(posteriors, truths, delta=0.0)
