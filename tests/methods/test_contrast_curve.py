"""Contrast curves against white noise, whose limits are known, and against sources of just that brightness."""

import math

import pytest
import torch

from obverse.errors import InputError
from obverse.methods import MedianADI, PrincipalComponentADI
from obverse.methods.contrast_curve import contrast_curve
from obverse.methods.small_sample import aperture_sums, student_factor
from tests.methods.stars import FWHM, observation, speckles, white

ANGLES = [9.0 * t for t in range(14)]


@pytest.fixture(scope="module")
def problem():
    return observation(ANGLES, (51, 51))


def test_white_noise_has_the_limit_that_is_expected(problem):
    cube = white(problem, 2.0)
    curve = contrast_curve(MedianADI(), cube, problem, 1e4, branches=2, fwhm=FWHM)
    # the median of 14 Gaussian numbers, by drawing; the sum over a disc, where parts of pixels count as parts
    medians = torch.randn(14, 40_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).quantile(0.5, 0)
    unit = torch.zeros(1, 51, 51, dtype=torch.float64)
    unit[0, 25, 25] = 1.0
    discs = float(aperture_sums(unit, FWHM).square().sum())
    expected = 2.0 * float(medians.std()) * math.sqrt(discs)
    assert float((curve.noise / expected).mean()) == pytest.approx(1.0, abs=0.08)
    far = curve.radius > 14
    assert bool(far.any()) and float((curve.throughput[far] - 1).abs().max()) < 0.15
    psf = float(aperture_sums(problem.operator.psf[None], FWHM)[6, 6])
    assert torch.allclose(curve.gaussian, 5 * curve.noise / (curve.throughput * psf * 1e4))
    factors = [student_factor(math.floor(2 * math.pi * r / FWHM)) for r in curve.radius.tolist()]
    assert torch.allclose(curve.contrast / curve.gaussian, torch.tensor(factors, dtype=torch.float64) / 5)


def test_a_source_at_the_limit_stands_out_by_the_level(problem):
    method, star = PrincipalComponentADI(4, inner_radius=3.0), speckles(problem, 4)
    cube = star + white(problem)
    curve = contrast_curve(method, cube, problem, 1.0, branches=2)
    empty = aperture_sums(method(cube, problem).image, problem.operator.fwhm)
    ratios = []
    for radius, azimuth in ((12, 0.4), (15, 2.1), (18, 4.0), (20, 5.3)):
        place = 25 + round(radius * math.sin(azimuth)), 25 + round(radius * math.cos(azimuth))
        r = math.hypot(place[0] - 25, place[1] - 25)
        i = int((curve.radius - r).abs().argmin())
        filled = cube + problem.operator.source(place, float(curve.gaussian[i]))
        grown = aperture_sums(method(filled, problem).image, problem.operator.fwhm) - empty
        ratios.append(float(grown[place] / curve.noise[i]))
    assert sum(ratios) / 4 == pytest.approx(5.0, rel=0.15)
    assert all(3.5 < ratio < 6.5 for ratio in ratios)
    assert float(curve.throughput[2:].min()) > 0.1 and float(curve.throughput.max()) < 0.95, (
        "components take their part"
    )


def test_refusals(problem):
    cube = white(problem)
    for keywords in ({"star_flux": 0.0}, {"level": -1.0}, {"branches": 0}, {"inner_radius": 30.0}):
        with pytest.raises(InputError):
            contrast_curve(MedianADI(), cube, problem, **{"star_flux": 1.0, **keywords})
