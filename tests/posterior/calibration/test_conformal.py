"""Split conformal calibration mends posteriors that are wrong in known ways, and covers as often as it says."""

import dataclasses

import numpy as np
import pytest
import torch

from obverse.errors import InputError
from obverse.posterior import coverage
from obverse.posterior.calibration import Calibration, conformal_quantile, split_conformal
from tests.posterior.calibration.cases import permuted, wrong_noise_factor, wrong_noise_pairs
from tests.posterior.cases import gaussian_pairs

COUNT = 300
FIRST_PIXEL = torch.zeros(1, 4, 5, dtype=torch.bool)
FIRST_PIXEL[0, 0, 0] = True


def leading(posterior):
    """The component that the posterior itself takes for its first."""
    return (posterior.covariance.U[:, 0]).reshape(1, 5, 4)


# name → (pairs of a seed, functional, the right factor if it is known)
WRONG = {
    "quarter": (lambda seed: gaussian_pairs(COUNT, lambda m: m / 4, seed), leading, 2.0),
    "four": (lambda seed: gaussian_pairs(COUNT, lambda m: 4 * m, seed), leading, 0.5),
    "shuffled": (lambda seed: gaussian_pairs(COUNT, permuted, seed), leading, None),
    "noise": (lambda seed: wrong_noise_pairs(COUNT, 0.8, seed), FIRST_PIXEL, wrong_noise_factor(0.8)),
}
# Relative standard error of the 90 % quantile of |z| over COUNT images.
SPREAD = (0.09 / COUNT) ** 0.5 / (2 * 0.1031 * 1.645)
# Of the coverage of new images: of the calibration and of the new images.
ERROR = (2 * 0.09 / COUNT) ** 0.5


def covered(calibration: Calibration, posteriors, truths, functional) -> float:
    found = coverage([calibration.apply(p) for p in posteriors], truths, (calibration.level,), functional)
    return found.observed[0]


def test_the_right_posterior_keeps_its_size():
    posteriors, truths = gaussian_pairs(COUNT)
    calibration = split_conformal(posteriors, truths, functional=leading)
    assert calibration.factors[0] == pytest.approx(1, abs=3.5 * SPREAD)
    assert calibration.count == COUNT and "90%" in calibration.guarantee


@pytest.mark.parametrize("name", WRONG)
def test_wrong_posteriors_are_rejected_before_and_right_after(name):
    made, functional, factor = WRONG[name]
    calibration = split_conformal(*made(0), functional=functional)
    fresh = made(100)
    assert coverage(*fresh, (0.9,), functional).p_values[0] < 1e-3
    assert covered(calibration, *fresh, functional) == pytest.approx(0.9, abs=3 * ERROR)
    if factor is not None:
        assert calibration.factors[0] == pytest.approx(factor, rel=3.5 * SPREAD)


def test_components_are_covered_together_and_pixels_in_a_share():
    made = WRONG["quarter"][0]
    posteriors, truths = made(0)
    fresh, others = made(100)

    def three(posterior):
        return posterior.covariance.U.mT[:3].reshape(3, 1, 5, 4)

    together = split_conformal(posteriors, truths, functional=three)

    def share(calibration, functional, least):
        held = [
            float(((value >= low) & (value <= high)).double().mean()) >= least - 1e-12
            for p, t in zip(fresh, others)
            for low, high in [calibration.apply(p).interval(None if functional is None else functional(p))]
            for value in [t if functional is None else (functional(p) * t).flatten(1).sum(1)]
        ]
        return np.mean(held)

    assert share(together, three, 1.0) == pytest.approx(0.9, abs=3 * ERROR)
    pixels = split_conformal(posteriors, truths, share=0.8, confidence=0.75)
    assert share(pixels, None, 0.8) == pytest.approx(0.75, abs=3 * (2 * 0.75 * 0.25 / COUNT) ** 0.5 + 0.01)
    assert (
        pixels.guarantee.startswith("In at least 75% of new images") and "80% of the 90% intervals" in pixels.guarantee
    )


@pytest.mark.parametrize("count, right", [(19, 18 / 20), (18, 18 / 19)])
def test_the_finite_sample_quantile_covers_exactly(count, right):
    """The new score is equally likely in each of n + 1 places: below the 18-th of 19 or 18 with P = 18/(n + 1)."""
    scores = np.random.default_rng(0).exponential(size=(10000, count + 1))
    own = [conformal_quantile(row[:count].tolist(), 0.9) for row in scores]
    error = (right * (1 - right) / 10000) ** 0.5
    assert (scores[:, count] <= own).mean() == pytest.approx(right, abs=3.5 * error)
    plain = np.quantile(scores[:, :count], 0.9, axis=1)
    assert (scores[:, count] <= plain).mean() < 0.9 - 3.5 * error
    without = np.sort(scores[:, :count], axis=1)[:, 16]
    assert (scores[:, count] <= without).mean() < 18 / (count + 1) - 3.5 * error, "one rank less is seen"


def test_kept_draws_are_stretched_about_the_mean():
    """Skewed draws, twice too narrow about the mean: their quantiles stay skewed, and become right."""

    def made(seed):
        posteriors, truths = gaussian_pairs(80, seed=seed)
        wide = [dataclasses.replace(p, draws=_centred(p, i + seed)) for i, p in enumerate(posteriors)]
        truths = [p.draws[0] for p in wide]
        narrow = [p.mean + (p.draws[1:] - p.mean) / 2 for p in wide]
        return [dataclasses.replace(p, draws=d) for p, d in zip(wide, narrow)], truths

    posteriors, truths = made(0)
    calibration = split_conformal(posteriors, truths, share=0.9, confidence=0.5)
    assert calibration.factors[0] == pytest.approx(2, rel=0.1)
    fresh, others = made(500)
    one = calibration.apply(fresh[0])
    low, high = one.interval()
    assert one.diagnostics["intervals"] == "quantiles"
    assert float(((high - one.mean) / (one.mean - low)).mean()) > 1.5
    before, after = coverage(fresh, others, (0.9,)), coverage([calibration.apply(p) for p in fresh], others, (0.9,))
    assert before.p_values[0] < 1e-6
    assert after.observed[0] == pytest.approx(0.9, abs=0.03)


def _centred(posterior, seed):
    """Draws of a skewed law with the posterior's mean."""
    steps = -torch.rand(121, 1, 5, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).log()
    return posterior.mean + steps - 1


def test_a_generator_is_read_once_and_nothing_is_kept():
    posteriors, truths = gaussian_pairs(40)
    lazy = split_conformal((p for p in posteriors), (t for t in truths), functional=leading)
    assert lazy == split_conformal(posteriors, truths, functional=leading)


def test_too_few_images_are_counted():
    posteriors, truths = gaussian_pairs(8)
    with pytest.raises(InputError, match="at least 9 calibration images, got 8"):
        split_conformal(posteriors, truths, functional=leading)
    with pytest.raises(InputError, match="at least 19 .*, got 8"):
        split_conformal(posteriors, truths, 0.95)
    assert split_conformal(posteriors, truths, 0.8, functional=leading).count == 8


def test_unusable_input_is_refused():
    posteriors, truths = gaussian_pairs(10)
    broken = [*truths[:9], torch.full((1, 5, 4), torch.nan).double()]
    with pytest.raises(InputError, match="20 NaN"):
        split_conformal(posteriors, broken)
    with pytest.raises(InputError, match="shape"):
        split_conformal(posteriors, [truth[:, :3] for truth in truths])
    with pytest.raises(InputError, match="share"):
        split_conformal(posteriors, truths, share=0.0)
    with pytest.raises(InputError, match="confidence"):
        split_conformal(posteriors, truths, confidence=1.0)
    mixed = [*posteriors[:9], dataclasses.replace(posteriors[9], target="epistemic")]
    with pytest.raises(InputError, match="epistemic and posterior"):
        split_conformal(mixed, truths)
    exact = [dataclasses.replace(p, covariance=p.covariance.compact(0).scaled(1e-300)) for p in posteriors]
    with pytest.raises(InputError, match="finite factors"):
        split_conformal(exact, truths)
