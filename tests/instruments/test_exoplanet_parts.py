"""The parts of a search against truths in closed form: PSF, spikes, frames, shifts, limits, small samples."""

import numpy as np
import pytest
import torch
from scipy import stats

from obverse.instruments import exoplanet_frames as frames
from obverse.instruments.exoplanet_geometry import north_of, pixel_scale, target, total_rotation
from obverse.instruments.exoplanet_products import candidate_rows, contrast_curve, detection_probability
from obverse.instruments.exoplanet_psf import aperture, prepare
from obverse.instruments.exoplanet_settings import Settings
from obverse.instruments.exoplanet_subtraction import Subtraction
from obverse.methods.detection import Candidate
from obverse.methods.small_sample import small_sample_snr
from obverse.noise import Gaussian
from obverse.operators import FieldRotation
from obverse.posterior.estimate import Estimate
from obverse.problem import Problem
from obverse.solvers.result import Status


def gaussian(side, width, row, column):
    y, x = np.mgrid[:side, :side]
    return np.exp(-4 * np.log(2) * ((y - row) ** 2 + (x - column) ** 2) / width**2)


def test_a_psf_is_centred_and_normalised():
    made = prepare(5 * gaussian(24, 4.0, 11.3, 12.6) + 0.2, (41, 41))
    side = made.values.shape[0]
    assert side % 2 == 1 and made.fwhm == pytest.approx(4.0, abs=0.05)
    circle = aperture(made.values.shape, (side // 2, side // 2), made.fwhm / 2)
    assert (circle * made.values).sum() == pytest.approx(1.0)
    np.testing.assert_allclose(made.values * made.flux[0], 5 * gaussian(side, 4.0, side // 2, side // 2), atol=0.03)
    # The light of a Gaussian within a circle as wide as its FWHM is one half.
    assert made.flux[0] == pytest.approx(0.5 * 5 * np.pi * 16 / (4 * np.log(2)), rel=0.04)
    assert "background" in made.notes[0]


def stack(count=30, size=31, seed=0):
    rng = np.random.default_rng(seed)
    return (300 * gaussian(size, 9.0, 15, 15) + rng.normal(size=(count, size, size)))[None]


def test_spikes_are_repaired_and_a_bright_star_is_not():
    cube = stack()
    companion = 500 * gaussian(31, 3.5, 6, 24)
    cube = cube + companion
    spoilt = cube.copy()
    spoilt[0, 4, 20, 8] += 400  # one frame
    spoilt[0, :, 25, 25] += 300  # always
    spoilt[0, 7, 3, 3] = np.nan
    made = frames.clean(spoilt, 0.25, repair=True, reject=True)
    assert abs(made.frames[0, 4, 20, 8] - cube[0, 4, 20, 8]) < 30
    assert np.abs(made.frames[0, :, 25, 25] - cube[0, :, 25, 25]).max() < 10
    np.testing.assert_array_equal(made.frames[0, :, 6, 24], cube[0, :, 6, 24])
    assert made.valid.all() and made.repaired == 1 + 30 + 1 and len(made.kept) == 30
    left = frames.clean(spoilt, 0.25, repair=False, reject=False)
    assert left.frames[0, 4, 20, 8] == spoilt[0, 4, 20, 8]


def test_frames_unlike_the_others_are_left_out():
    cube = stack()
    cube[0, 5] = np.roll(cube[0, 5], 6, axis=1)
    cube[0, 9] = np.nan
    made = frames.clean(cube, 0.25, repair=True, reject=True)
    assert set(range(30)) - set(made.kept) == {5, 9} and "2 of 30 frames" in made.notes[-1]
    assert 5 in frames.clean(cube, 0.25, repair=True, reject=False).kept
    assert len(frames.clean(stack(seed=1), 0.25, repair=True, reject=True).kept) == 30


def test_shifts_are_found_and_undone():
    reference = gaussian(32, 6.0, 15.5, 15.5)
    for shift in ((0.0, 0.0), (0.37, -1.62), (-2.25, 0.5)):
        moved = gaussian(32, 6.0, 15.5 + shift[0], 15.5 + shift[1])
        assert frames.offset(moved, reference) == pytest.approx(shift, abs=0.02)
        np.testing.assert_allclose(frames.moved(moved[None, None], np.array([shift]))[0, 0], reference, atol=1e-3)


@pytest.mark.parametrize("centre", [(10.0, 10.0), (9.5, 11.25), (12.0, 8.0)])
def test_the_centre_of_symmetry(centre):
    assert frames.symmetry_centre(gaussian(22, 7.0, *centre)) == pytest.approx(centre, abs=0.02)


def test_headers_say_scale_north_and_target():
    header = {"ESO INS PIXSCALE": 0.02719, "INSTRUME": "SPHERE", "ESO SEQ ARM": "IRDIS", "RA": 86.8, "DEC": -51.1}
    assert pixel_scale(Settings(), header)[0] == 0.02719
    assert pixel_scale(Settings(), {"PIXSCALE": 12.25})[0] == pytest.approx(0.01225)
    assert pixel_scale(Settings(pixel_scale_mas=10.0), header) == (0.01, "given")
    assert pixel_scale(Settings(), {})[0] is None
    assert north_of(Settings(), header) == (0.0, None)
    assert north_of(Settings(north_offset="header"), header)[0] == pytest.approx(134.24)
    assert target(header) == (86.8, -51.1) and target({"RA": "05:47"}) is None
    assert total_rotation(np.array([170.0, 178.0, -174.0])) == 16.0


def facts(**changes):
    known = {"centre": [20.0, 20.0], "pixel_scale_arcsec": 0.01, "north": "given", "star_flux": 1e4, "fwhm": 4.0}
    return {**known, **changes}


def test_places_and_their_errors_by_simulation():
    covariance = ((4.0, 0.05, -0.02), (0.05, 0.01, 0.002), (-0.02, 0.002, 0.02))
    row = candidate_rows([Candidate(26.0, 28.0, 9.0, 50.0, covariance)], facts(), 5.0)[0]
    draws = np.random.default_rng(0).multivariate_normal([50.0, 26.0, 28.0], covariance, 40_000)
    distance, theta = np.hypot(draws[:, 1] - 20, draws[:, 2] - 20), np.arctan2(draws[:, 2] - 20, draws[:, 1] - 20)
    expected = np.cov([distance, np.degrees(theta), draws[:, 0] / 1e4])
    found = np.array(row["covariance_separation_theta_contrast"])
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    np.testing.assert_allclose(found / scale, expected / scale, atol=0.03)
    assert row["separation_mas"] == 100.0 and row["pa"] == pytest.approx((np.degrees(np.arctan2(8, 6)) - 90) % 360)
    assert row["magnitude"] == pytest.approx(-2.5 * np.log10(5e-3))
    assert not np.allclose(found[0, 0], 4 * expected[0, 0], rtol=0.1), "twice too wide an error would be seen"


def test_detection_probability_by_simulation():
    draws = np.random.default_rng(0).normal(size=100_000) + 5.7
    assert detection_probability(5.7, 5.0) == pytest.approx((draws > 5).mean(), abs=0.005)


def test_the_limits_of_constant_noise_are_flat_and_charged_for():
    y, x = np.mgrid[:41, :41]
    sigma = np.where(np.hypot(y - 20, x - 20) < 3, np.nan, 2.0)
    curve = contrast_curve(sigma, facts(), 5.0)
    np.testing.assert_allclose(curve["limit"], 5 * 2.0 / 1e4)
    assert curve["separation"][0] == 3.0 and (np.diff(curve["limit_student"]) <= 0).all()
    at = np.flatnonzero(curve["separation"] == 10)[0]
    n = int(2 * np.pi * 10 / 4.0)
    factor = stats.t.ppf(stats.norm.cdf(5), n - 1) * np.sqrt(1 + 1 / n) / 5
    assert curve["limit_student"][at] / curve["limit"][at] == pytest.approx(factor, rel=1e-4)
    np.testing.assert_allclose(curve["limit_95"] / curve["limit"], (5 + stats.norm.ppf(0.95)) / 5)


def test_small_samples_follow_students_t():
    """On white noise the ratio of a disc to the others of its ring has the law that is charged for."""
    values = []
    for seed in range(60):
        image = np.random.default_rng(seed).normal(size=(33, 33))
        values.append(small_sample_snr(torch.from_numpy(image)[None], 3.0)[0].numpy())
    ratio = np.array(values)
    y, x = np.mgrid[:33, :33]
    near = (np.floor(2 * np.pi * np.hypot(y - 16, x - 16) / 3.0) == 12) & np.isfinite(ratio[0])
    # Interpolation narrows the discs around the tested one: the law is Student's up to that.
    spread = ratio[:, near].std() / np.sqrt(10 / 8)
    assert spread == pytest.approx(1.0, abs=0.12)
    assert not 0.88 < 1.5 * spread < 1.12


def test_the_answered_ratio_is_as_rare_as_a_normal_deviate():
    image = np.random.default_rng(0).normal(size=(33, 33))
    image[16, 23:25] += 9.0
    psf = torch.from_numpy(gaussian(13, 3.0, 6, 6))
    operator = FieldRotation((1, 33, 33), [0.0, 40.0], psf, dtype=torch.float64)
    left = Estimate(torch.from_numpy(image)[None], Status(True, "closed-form", "exact"), (), {})
    found = Subtraction(lambda y, problem: left, 3.0, 4.0)(torch.zeros(2, 33, 33), Problem(operator, Gaussian(1.0)))
    ratio = small_sample_snr(torch.from_numpy(image)[None], operator.fwhm)[0].numpy()
    rows, columns = np.mgrid[:33, :33]
    ratio[np.hypot(rows - 16, columns - 16) < 4.0] = np.nan
    snr = found.snr[0].numpy()
    places = int(2 * np.pi * 7 / operator.fwhm)
    assert stats.norm.sf(snr[16, 23]) == pytest.approx(stats.t.sf(ratio[16, 23], places - 2), rel=1e-6)
    assert 3 < snr[16, 23] < 0.8 * ratio[16, 23], "the ratio itself is not normal"
    np.testing.assert_array_equal(np.isnan(snr), np.isnan(ratio))
    assert found.candidates[0].snr == pytest.approx(np.nanmax(snr))
