"""Median and principal components against written-out references, and the right sign of the angles."""

import math
import os
from pathlib import Path

import pytest
import torch

from obverse import noise, operators
from obverse.errors import InputError
from obverse.methods import MedianADI, PrincipalComponentADI
from obverse.methods.residual_weights import frames_apart, residual_weights
from obverse.methods.small_sample import small_sample_snr
from obverse.problem import Problem
from tests.methods.stars import gaussian_psf, observation, speckles, white

ANGLES = [0.0, 8.0, 17.0, 25.0, 33.0, 42.0, 50.0, 58.0, 67.0, 75.0]


def without_components(frame, others, k):
    """`frame` less the mean of the others and the leading k directions of what remains of them."""
    mean = others.mean(0)
    directions = torch.linalg.svd(others - mean, full_matrices=False)[2][:k]
    return frame - mean - directions.T @ (directions @ (frame - mean))


def test_weights_are_those_of_the_singular_vectors():
    frames = torch.randn(10, 60, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    frames = frames * torch.linspace(1, 3, 10, dtype=torch.float64)[:, None] + 5.0
    for k in (1, 4):
        for apart in (None, frames_apart(ANGLES, 10.0, 3.0)):
            weights = residual_weights(frames, k, apart)
            for t in range(10):
                chosen = frames if apart is None else frames[apart[t]]
                expected = without_components(frames[t], chosen, k)
                assert (frames[t] - weights[t] @ frames - expected).abs().max() < 1e-10
                other = without_components(frames[t], chosen, k + 1)
                assert (frames[t] - weights[t] @ frames - other).abs().max() > 1e-2
            assert torch.allclose(weights.sum(1), torch.ones(10, dtype=torch.float64))
            if apart is not None:
                assert not weights[~apart].any()


def test_more_components_than_frames_leave_nothing():
    frames = torch.randn(5, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert (frames - residual_weights(frames, 9) @ frames).abs().max() < 1e-10


def test_frames_are_apart_by_the_arc_whichever_way_they_turn():
    apart = frames_apart([0.0, 10.0, 355.0], 20.0, 20.0 * math.radians(7.0))
    assert apart.tolist() == [[False, True, False], [True, False, True], [False, True, False]]


@pytest.mark.parametrize("size", [(41, 41), (40, 38)])
@pytest.mark.parametrize(
    ("method", "patterns", "left"),
    [
        (PrincipalComponentADI(3), 3, 0.4),
        (PrincipalComponentADI(3, inner_radius=6.0, annuli=10.0, gap=1.0), 3, 0.4),
        (PrincipalComponentADI(3, inner_radius=4.0), 3, 0.4),
        (MedianADI(), 0, 0.7),
    ],
)
def test_speckles_go_and_the_source_stays_where_it_is(method, patterns, left, size):
    problem = observation(ANGLES, size)
    position = (round(problem.operator.centre[0] + 9), round(problem.operator.centre[1] + 8))
    star = speckles(problem, patterns) if patterns else 50.0
    estimate = method(star + problem.operator.source(position, 10.0), problem)
    image = estimate.image[0]
    assert divmod(int(image.argmax()), size[1]) == position
    assert left * 10.0 < float(image.max()) < 10.5 and estimate.status.converged
    assert method(star + torch.zeros(problem.operator.data_shape), problem).image.abs().max() < 1e-8
    mirrored = Problem(
        operators.FieldRotation((1, *size), [-a for a in ANGLES], gaussian_psf(), dtype=torch.float64), problem.noise
    )
    assert method(star + problem.operator.source(position, 10.0), mirrored).image.max() < 0.6 * image.max()


def test_a_gap_spares_the_source():
    problem = observation([3.0 * t for t in range(20)])
    star = speckles(problem, 3) + white(problem, 0.5)
    kept = []
    for gap in (0.0, 1.0):
        method = PrincipalComponentADI(5, inner_radius=8.0, annuli=12.0, gap=gap)
        grown = method(star + problem.operator.source((30.0, 28.0), 5.0), problem).image - method(star, problem).image
        kept.append(float(grown[0, 30, 28]))
    assert kept[1] > 1.15 * kept[0]


def test_the_median_of_an_even_number_is_between_the_middle_two():
    problem = observation([0.0, 360.0, 720.0, 1080.0])
    cube = torch.tensor([1.0, 2.0, 4.0, 50.0], dtype=torch.float64)[:, None, None].expand(4, 41, 41)
    image = MedianADI()(cube * torch.ones_like(cube), problem).image
    assert image.abs().max() < 1e-9, "−2, −1, 1, 47 have the median 0"


def test_rings_are_treated_apart_and_the_inside_stays_zero():
    problem = observation(ANGLES)
    cube = speckles(problem, 4) + white(problem)
    residual = PrincipalComponentADI(2, inner_radius=5.0, annuli=6.0, gap=0.0).residual(cube, problem.operator)
    y, x = torch.meshgrid(*(torch.arange(41.0, dtype=torch.float64) - 20,) * 2, indexing="ij")
    r = y.hypot(x)
    assert not residual[:, r < 5].any()
    ring = (r >= 11) & (r < 17)
    others = torch.tensor([t != 4 for t in range(10)])
    expected = without_components(cube[4, ring], cube[others][:, ring], 2)
    assert (residual[4, ring] - expected).abs().max() < 1e-9


def test_wavelengths_are_treated_one_by_one():
    psf = torch.stack([gaussian_psf(fwhm=3.0), gaussian_psf(fwhm=4.0)])
    operator = operators.FieldRotation((2, 31, 31), ANGLES, psf, dtype=torch.float64)
    problem = Problem(operator, noise.Gaussian(1.0))
    cube = problem.simulate(torch.zeros(2, 31, 31, dtype=torch.float64), seed=3)
    for method in (MedianADI(), PrincipalComponentADI(2)):
        image = method(cube, problem).image
        for l in range(2):
            alone = observation(ANGLES, (31, 31))
            assert torch.allclose(image[l], method(cube[l], alone).image[0])


def test_data_are_untouched_and_single_precision_is_near():
    problem = observation(ANGLES)
    cube = speckles(problem, 2) + white(problem)
    kept = cube.clone()
    for method in (MedianADI(), PrincipalComponentADI(4), PrincipalComponentADI(2, annuli=8.0)):
        image = method(cube, problem).image
        assert torch.equal(cube, kept)
        single = method(cube.float(), problem).image
        assert single.dtype == torch.float32 and (single - image).abs().max() < 1e-3 * image.abs().max()


def test_refusals():
    for arguments in ({"components": 0}, {"components": 2, "annuli": 0.5}, {"components": 2, "inner_radius": -1.0}):
        with pytest.raises(InputError):
            PrincipalComponentADI(**arguments)
    with pytest.raises(InputError, match="gap"):
        PrincipalComponentADI(2, gap=math.nan)
    problem = observation(ANGLES)
    cube = white(problem)
    with pytest.raises(InputError, match="angles"):
        MedianADI()(cube[1:], problem)
    with pytest.raises(InputError, match="finite"):
        MedianADI()(cube / 0, problem)
    with pytest.raises(InputError, match="FieldRotation"):
        MedianADI()(cube, Problem(operators.Identity(cube.shape), noise.Gaussian(1.0)))
    with pytest.raises(InputError, match="turns too little"):
        PrincipalComponentADI(2, annuli=10.0, gap=3.0)(cube, problem)


@pytest.mark.data
@pytest.mark.skipif("OBVERSE_DATA" not in os.environ, reason="needs OBVERSE_DATA")
def test_beta_pictoris_b_is_found():
    fits = pytest.importorskip("astropy.io.fits")
    folder = Path(os.environ["OBVERSE_DATA"]) / "astro" / "naco_betapic"
    cube, angles, psf = (
        torch.from_numpy(fits.getdata(folder / f"naco_betapic_{name}.fits").astype("float32"))
        for name in ("cube", "pa", "psf")
    )
    for sign in (+1, -1):
        problem = Problem(operators.FieldRotation((1, 101, 101), sign * angles, psf), noise.Gaussian(1.0))
        image = PrincipalComponentADI(8, inner_radius=6.0)(cube, problem).image
        snr = small_sample_snr(image, 4.8)[0]
        near = snr[60:67, 59:66]
        if sign > 0:
            row, column = divmod(int(image[0, 55:72, 54:71].argmax()), 17)
            assert math.hypot(row + 55 - 63, column + 54 - 62) < 1.5 and float(snr[63, 62]) > 8
        else:
            assert float(near.max()) < 4
