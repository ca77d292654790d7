"""PACO on noise and sources of known law, and on a real cube with a planet in it."""

import dataclasses
import functools
import math
import os
from pathlib import Path

import pytest
import torch

from obverse.errors import InputError
from obverse.io.fits import load
from obverse.methods import PACO
from obverse.methods.paco_detection import FilteredFrames, derotated, filtered_frames, robust_deviation
from obverse.methods.paco_source import fit_source, hypothesis
from obverse.methods.paco_spectral import channel_correlation, combined, corrected_maximum
from obverse.methods.patch_statistics import PatchStatistics
from obverse.noise import Gaussian
from obverse.operators import FieldRotation
from obverse.problem import Problem

SIZE = 31


def gaussian_psf(width=1.6, side=13):
    place = torch.arange(side, dtype=torch.float64) - side // 2
    return torch.exp(-(place[:, None] ** 2 + place**2) / (2 * width**2))


def problem_of(frames=40, arc=90.0, size=SIZE, psf=None, **keywords):
    psf = gaussian_psf() if psf is None else psf
    shape = (psf.shape[0] if psf.ndim == 3 else 1, size, size)
    return Problem(
        FieldRotation(shape, torch.linspace(0, arc, frames), psf, dtype=torch.float64, **keywords), Gaussian(1)
    )


def noise(frames=40, correlated=False, seed=0, size=SIZE):
    """White noise, or speckles as wide as the PSF beside a tenth of it."""
    generator = torch.Generator().manual_seed(seed)
    white = torch.randn(frames, size, size, generator=generator, dtype=torch.float64)
    if not correlated:
        return white
    kernel = gaussian_psf()
    wide = torch.randn(frames, 1, size + 12, size + 12, generator=generator, dtype=torch.float64)
    return 3 * torch.nn.functional.conv2d(wide, (kernel / kernel.norm())[None, None])[:, 0] + 0.3 * white


def off_centre(snr):
    """S/N where every frame sees the place, and where it turns."""
    place = torch.arange(SIZE) - SIZE // 2
    distance = (place[:, None] ** 2 + place**2).sqrt()
    return snr[0][(distance > 3) & (distance < 12)]


@functools.cache
def spread(correlated, calibration, arc=90.0, cubes=6):
    """Standard deviation of S/N off-source over some cubes."""
    values = [
        off_centre(PACO(calibration=calibration).maps(noise(30, correlated, seed), problem_of(30, arc))[2])
        for seed in range(cubes)
    ]
    return float(torch.cat(values).std())


@pytest.fixture
def half_of_the_covariance(monkeypatch):
    """A peer's error: the law of a patch has half the covariance that its frames have."""
    learned = PatchStatistics.learned

    def wrong(*arguments, **keywords):
        law = learned(*arguments, **keywords)
        return dataclasses.replace(law, factor=law.factor / math.sqrt(2))

    monkeypatch.setattr(PatchStatistics, "learned", staticmethod(wrong))


# Six cubes hold some 250 independent values of S/N: 4.5 % of standard error. The benchmark takes two hundred cubes.
@pytest.mark.parametrize("correlated", [False, True])
@pytest.mark.parametrize("arc", [90.0, 25.0])
def test_signal_to_noise_is_standard_normal_without_a_source(correlated, arc):
    assert abs(spread(correlated, "leave-one-out", arc) - 1) < 0.14


def test_the_form_of_the_paper_is_too_narrow():
    assert spread(False, None) < 0.86 and spread(False, None, 25.0) < 0.6


def test_half_of_the_covariance_is_rejected(half_of_the_covariance):
    """By S/N of speckles. Of white noise the dispersion takes a wrong scale out: there only σ can tell, see below."""
    assert abs(spread.__wrapped__(True, "leave-one-out", cubes=2) - 1) > 0.14
    assert abs(spread.__wrapped__(True, None, cubes=2) - 1) > 0.14


def test_robust_rings_bring_it_to_one():
    assert abs(spread(True, "robust") - 1) < 0.14


def deviation_over_truth():
    """σ of the flux in white noise over its truth for many frames, 1/√(T Σ h²)."""
    sigma = PACO(calibration=None, patch_radius=4).maps(noise(60), problem_of(60))[1]
    return float(off_centre(sigma).median()) * math.sqrt(60 * float(gaussian_psf()[2:11, 2:11].square().sum()))


def test_flux_deviation_is_that_of_white_noise():
    assert deviation_over_truth() == pytest.approx(1, rel=0.12)


def test_half_of_the_covariance_is_rejected_by_the_flux_deviation(half_of_the_covariance):
    assert deviation_over_truth() != pytest.approx(1, rel=0.12)


def test_turned_noise_keeps_its_variance():
    z = noise(40)
    maps = FilteredFrames(torch.full_like(z[:1], 4.0), 2 * z, z[0], torch.ones_like(z[0]), 0)
    angles = torch.linspace(1, 80, 40).tolist()
    score, variance, seen = derotated(maps, angles, (15.0, 15.0), overlap=False)
    whole = seen > 0.999
    assert float((score[whole].square() / variance[whole]).mean()) == pytest.approx(1.0, abs=0.15)
    assert torch.allclose(variance[whole], torch.tensor(160.0, dtype=z.dtype), rtol=1e-6)
    grid = torch.nn.functional.affine_grid(torch.tensor([[[0.8, 0.6, 0.0], [-0.6, 0.8, 0.0]]] * 40), (40, 1, 31, 31))
    bilinear = torch.nn.functional.grid_sample(z[:, None].float(), grid)[:, 0, 8:23, 8:23]
    assert float(bilinear.square().mean()) < 0.6, "bilinear weights must lose variance"


@pytest.mark.parametrize("centre", [None, (13.5, 16.25)])
def test_fast_maps_agree_with_the_exact_form(centre):
    """A faint source, which the law hardly notices, adds its flux to both, a tenth less to the map between pixels."""
    problem = problem_of(centre=centre)
    background, source = noise(correlated=True), problem.operator.source((15.0, 22.0), 2.0)
    maps = [PACO(patch_radius=3).maps(cube, problem) for cube in (background, background + source)]
    exact = [hypothesis(cube, problem.operator, (15.0, 22.0), 3) for cube in (background, background + source)]
    gain = [float(after - before) / 2 for before, after in ((m[0][0, 15, 22] for m in maps), (e[0] for e in exact))]
    assert gain[0] == pytest.approx(gain[1], abs=0.15) and gain[1] > 0.7
    assert float(maps[0][1][0, 15, 22]) == pytest.approx(exact[0][1], rel=0.2)


def test_flux_is_freed_of_its_own_trace():
    problem = problem_of(24)
    operator, truth = problem.operator, (14.7, 22.4)
    cube = noise(24, correlated=True, seed=5) + operator.source(truth, 15.0)
    found = PACO()(cube, problem)
    (candidate,) = found.candidates
    assert math.hypot(candidate.x - truth[1], candidate.y - truth[0]) < 0.5
    deviation = math.sqrt(candidate.covariance[0][0])
    assert abs(candidate.flux - 15) < 3 * deviation
    assert float(found.image[0, 15, 22]) < candidate.flux - 2 * deviation, "the map's flux must be too small"
    assert found.diagnostics["reversed_maximum"] < candidate.snr / 2, "with reversed angles it must not add up"


def squared_errors(frames_of, seeds, of="covariance"):
    """Mean square of the errors of flux and place, whitened by what is stated of them: 1 where it is true."""
    operator = problem_of(30, size=27).operator
    errors = []
    for seed in range(seeds):
        angle = 2 * math.pi * seed / 12
        truth = (13 + 7.3 * math.sin(angle), 13 + 7.3 * math.cos(angle))
        fit = fit_source(
            frames_of(seed) + operator.source(truth, 20.0), operator, (round(truth[0]), round(truth[1])), 3
        )
        assert fit.converged
        error = torch.tensor([fit.flux - 20, fit.position[1] - truth[1], fit.position[0] - truth[0]])
        factor = torch.linalg.cholesky(torch.tensor(getattr(fit, of)))
        errors.append(torch.linalg.solve_triangular(factor, error[:, None], upper=False))
    return float(torch.stack(errors).square().mean())


def test_errors_of_flux_and_place_are_as_stated():
    assert 0.45 < squared_errors(lambda seed: noise(30, True, seed, 27), 12) < 1.75  # 36 values: 1 ± 0.24


def lasting(seed):
    """Noise that keeps 0.6 of itself from frame to frame."""
    frames = list(noise(30, True, seed, 27))
    for t in range(1, 30):
        frames[t] = 0.6 * frames[t - 1] + 0.8 * frames[t]
    return torch.stack(frames)


def test_errors_are_as_stated_where_noise_lasts():
    stated, independent = (squared_errors(lasting, 12, of) for of in ("covariance", "bound"))
    assert 0.45 < stated < 1.75
    assert independent > max(1.75, 1.4 * stated), "the bound takes frames to be independent, and must be too small"


@pytest.mark.parametrize("place", [(13.0, 13.0), (13.0, 14.0), (14.0, 14.0)])
def test_where_nothing_turns_no_source_is_fitted(place):
    """At the star all frames see a source alike: its law is learned with it, and says nothing of it."""
    operator = problem_of(12, size=27).operator
    for seed in range(4):
        fit = fit_source(noise(12, True, seed, 27) + operator.source(place, 5.0), operator, place, 3)
        assert not fit.converged


def test_a_fit_that_leaves_the_frames_ends_without_a_result():
    operator = FieldRotation((1, 24, 24), torch.linspace(-5, 5, 12), gaussian_psf(1.4), dtype=torch.float64)
    problem, found = Problem(operator, Gaussian(1.0)), []
    for seed in (3, 7):
        cube = noise(12, True, seed, 24) + operator.source((23.4, 13.0), 10.0)
        found.append(PACO()(cube, problem).diagnostics["covered"])
    assert min(found) > 0


def test_a_field_that_does_not_turn_is_refused():
    operator = FieldRotation((1, 21, 21), torch.zeros(12), gaussian_psf(1.4), dtype=torch.float64)
    with pytest.raises(InputError, match="the field turns"):
        PACO()(noise(12, size=21), Problem(operator, Gaussian(1.0)))


def test_gradients_reach_the_cube():
    problem = problem_of(6, size=7, psf=gaussian_psf(0.9, 5))
    cube = noise(6, size=7).requires_grad_(True)
    method = PACO(patch_radius=1)

    def middle(y):
        flux, sigma, snr = method.maps(y, problem)
        return torch.stack([flux[0, 3, 5], sigma[0, 2, 4], snr[0, 4, 1]])

    assert torch.autograd.gradcheck(middle, (cube,), atol=1e-5, fast_mode=True)


def test_channels_are_whitened():
    generator = torch.Generator().manual_seed(0)
    mixing = torch.tensor([[1.0, 0.0, 0.0], [0.9, 0.44, 0.0], [0.9, 0.2, 0.39]], dtype=torch.float64)
    z = torch.einsum("lm,mhw->lhw", mixing, torch.randn(3, 60, 60, generator=generator, dtype=torch.float64))
    z = z / z.std((1, 2), keepdim=True)
    correlation = channel_correlation(z.flatten(1))
    assert float(correlation[0, 1]) == pytest.approx(0.9, abs=0.05)
    variance = torch.tensor([4.0, 1.0, 9.0], dtype=torch.float64)[:, None, None].expand(3, 60, 60)
    spectra = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.2, 1.0]], dtype=torch.float64)
    score = variance.sqrt() * z
    flux, spread_, snr = combined(score, variance, spectra, torch.zeros(60, 60), 1.0)
    assert snr.std((1, 2)).tolist() == pytest.approx([1, 1], abs=0.05)
    naive = score.sum(0) / variance.sum(0).sqrt()
    assert float(naive.std()) > 1.4, "adding correlated channels as independent ones must be too wide"
    with_source = combined(
        score + 7 * spectra[1][:, None, None] * variance, variance, spectra, torch.zeros(60, 60), 1.0
    )[0]
    assert float((with_source - flux)[1].mean()) == pytest.approx(7.0, rel=0.05)


def test_the_correlation_of_channels_follows_the_distance_from_the_star():
    """Two channels with the same speckles near the star and others far from it; one matrix for all would be wrong."""
    generator = torch.Generator().manual_seed(0)
    place = torch.arange(81.0, dtype=torch.float64) - 40
    distance = (place[:, None].square() + place.square()).sqrt()
    one, two = torch.randn(2, 81, 81, generator=generator, dtype=torch.float64)
    shared = (1 - distance / 40).clamp(min=0)
    z = torch.stack([one, shared * one + (1 - shared.square()).sqrt() * two])
    variance, flat = torch.ones_like(z), torch.ones(1, 2, dtype=torch.float64)

    def spreads(distance_):
        snr = combined(z, variance, flat, distance_, 2.0)[2][0]
        return [float(snr[(distance > low) & (distance <= high)].std()) for low, high in ((3, 10), (40, 56))]

    assert spreads(distance) == pytest.approx([1, 1], abs=0.05)
    near, far = spreads(torch.zeros_like(distance))
    assert near > 1.1 and far < 0.95


def test_the_largest_of_many_is_as_rare_as_stated():
    generator = torch.Generator().manual_seed(0)
    best = torch.randn(20, 40000, generator=generator, dtype=torch.float64).amax(0)
    corrected = corrected_maximum(best, 20)
    assert float((corrected > 2.0).double().mean()) == pytest.approx(0.02275, abs=0.003)
    assert float((best > 2.0).double().mean()) > 0.3
    ends = corrected_maximum(torch.tensor([-9.0, 7.999, 8.001, 50.0], dtype=torch.float64), 20)
    assert bool(ends.isfinite().all()) and bool((ends.diff() > 0).all())


def test_a_spectral_cube_takes_the_same_road():
    psf = torch.stack([gaussian_psf(1.4), gaussian_psf(1.6)])
    problem = problem_of(24, psf=psf)
    speckles = noise(24, correlated=True, seed=1)
    cube = torch.stack([speckles, 0.8 * speckles + 0.5 * noise(24, correlated=True, seed=2)])
    assert 0.7 < float(off_centre(PACO().maps(cube, problem)[2]).std()) < 1.3
    cube = cube + problem.operator.source((15.0, 23.0), torch.tensor([6.0, 9.0]))
    found = PACO(spectra=torch.tensor([[1.0, 1.0], [0.67, 1.0]]))(cube, problem)
    assert [(round(c.x), round(c.y)) for c in found.candidates] == [(23, 15)]


def test_borders_without_data_and_reversed_angles():
    problem = problem_of()
    cube = noise(correlated=True) + problem.operator.source((15.0, 22.0), 12.0)
    cube[:, :, :3] = torch.nan
    found = PACO()(cube, problem)
    assert [(round(c.x), round(c.y)) for c in found.candidates] == [(22, 15)]
    turned = FieldRotation((1, SIZE, SIZE), [-a for a in problem.operator.degrees], gaussian_psf(), dtype=torch.float64)
    assert not PACO()(cube, Problem(turned, Gaussian(1))).candidates


def test_transmission_changes_flux_and_not_signal_to_noise():
    cube, dim = noise(), torch.tensor([[0.0, 50.0], [0.5, 0.5]])
    plain, dimmed = (PACO().maps(cube, p) for p in (problem_of(), problem_of(transmission=dim)))
    assert torch.allclose(dimmed[2], plain[2], equal_nan=True)
    assert torch.allclose(dimmed[0], 2 * plain[0], equal_nan=True)


def test_single_precision_in_single_precision_out():
    problem = Problem(FieldRotation((1, 15, 15), torch.linspace(0, 90, 12), gaussian_psf(1.0, 7).float()), Gaussian(1))
    assert PACO()(noise(12, size=15).float(), problem).snr.dtype == torch.float32


def test_rings_find_the_spread_of_each():
    place = torch.arange(61, dtype=torch.float64) - 30
    distance = (place[:, None] ** 2 + place**2).sqrt()
    values = noise(1, size=61)[0] * torch.where(distance < 15, 1.0, 3.0)
    found = robust_deviation(values, distance, 4.0)
    assert float(found[distance < 10].mean()) == pytest.approx(1, abs=0.15)
    assert float(found[(distance > 20) & (distance < 28)].mean()) == pytest.approx(3, abs=0.3)


def test_bands_do_not_matter(monkeypatch):
    cube = noise(12, size=15)
    whole = filtered_frames(cube, gaussian_psf(1.0, 7), 2, left_out=True)
    monkeypatch.setattr("obverse.methods.paco_detection._BAND_BYTES", 1)
    rows = filtered_frames(cube, gaussian_psf(1.0, 7), 2, left_out=True)
    assert torch.allclose(whole.score, rows.score) and torch.allclose(whole.precision, rows.precision)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"patch_radius": 0}, "patch_radius"),
        ({"calibration": "bootstrap"}, "calibration"),
        ({"threshold": math.nan}, "threshold"),
        ({"spectra": torch.ones(2, 2, 2)}, "spectra"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, words):
    with pytest.raises(InputError, match=words):
        PACO(**arguments)


def test_other_problems_are_refused():
    with pytest.raises(InputError, match="shape"):
        PACO()(noise(12), problem_of(13))
    with pytest.raises(InputError, match="no source|some frame"):
        PACO().characterise(noise(12), problem_of(12), (-40.0, 3.0))
    with pytest.raises(InputError, match="frames"):
        PACO()(noise(3), problem_of(3))
    with pytest.raises(InputError, match="channels"):
        PACO(spectra=torch.ones(3))(noise(12), problem_of(12))


def read(name):
    return torch.from_numpy(load(Path(os.environ["OBVERSE_DATA"]) / "astro/naco_betapic" / name)[0].astype(float))


@pytest.mark.data
@pytest.mark.skipif("OBVERSE_DATA" not in os.environ, reason="needs OBVERSE_DATA")
def test_beta_pictoris_b_is_found_and_nothing_beside_it():
    psf = read("naco_betapic_psf.fits")
    psf = psf / psf.max()

    def search(cube, angles):
        operator = FieldRotation((1, 101, 101), angles, psf, dtype=torch.float64)
        return PACO()(read(cube), Problem(operator, Gaussian(1)))

    found = search("naco_betapic_cube.fits", read("naco_betapic_pa.fits").flatten())
    (planet,) = found.candidates
    assert math.hypot(planet.x - 62, planet.y - 63) < 0.5 and planet.snr > 10.5
    assert planet.flux == pytest.approx(46.6, rel=0.1)  # least squares to the difference of the two cubes
    empty, angles = "naco_betapic_empty_cube.fits", read("naco_betapic_empty_pa.fits").flatten()
    for result in (search(empty, -angles), search(empty, angles)):
        assert not result.candidates
        assert result.diagnostics["snr_deviation"] == pytest.approx(1, abs=0.06)
