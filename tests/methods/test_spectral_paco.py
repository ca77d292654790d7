"""PACO through all wavelengths at once: alignment in closed form, its S/N, and what it adds to single channels."""

import functools

import pytest
import torch

from obverse.errors import InputError
from obverse.instruments.exoplanet_simulation import Planet, simulated_sequence
from obverse.methods import PACO, SpectralPACO
from obverse.methods.paco_joint import _scaled
from obverse.noise import Gaussian
from obverse.operators import FieldRotation
from obverse.problem import Problem

WAVELENGTHS = (1.0, 1.15, 1.3, 1.45)
PLANETS = [Planet(32.4, 21.0, (4e-6,) * 4), Planet(9.2, 13.1, (5e-6,) * 4)]


@functools.cache
def sequence(planets, seed=1):
    return simulated_sequence(
        PLANETS if planets else (), wavelengths=WAVELENGTHS, frames=16, size=41, arc=70, seed=seed
    )


def problem_of(made):
    psf = made.psf / made.psf.sum((1, 2), keepdim=True)
    shape = (len(psf), *made.cube.shape[-2:])
    lengths = made.wavelengths.tolist()
    return Problem(FieldRotation(shape, made.degrees, psf, wavelengths=lengths, dtype=torch.float64), Gaussian(1.0))


@functools.cache
def found(planets, joint=True):
    made = sequence(planets)
    return (SpectralPACO() if joint else PACO())(made.cube, problem_of(made))


def test_a_shrunk_frame_has_its_light_nearer_to_the_star():
    y, x = torch.meshgrid(torch.arange(31.0), torch.arange(31.0), indexing="ij")

    def blob(row, column, width):
        return torch.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * width**2)).double()

    for scale in (0.7, 1.3):
        shrunk = _scaled(blob(20.0, 9.0, 2.0), scale, (15.0, 14.0))
        truth = blob(15 + 5 * scale, 14 - 5 * scale, 2.0 * scale)
        torch.testing.assert_close(shrunk, truth, atol=2e-3, rtol=0)


def test_planets_that_no_channel_shows_are_found_with_their_flux():
    made, answer = sequence(True), found(True)
    light = float(made.psf.sum((1, 2)).mean())
    assert len(answer.candidates) == 2
    for planet in PLANETS:
        near = min(answer.candidates, key=lambda c: (c.x - planet.x) ** 2 + (c.y - planet.y) ** 2)
        assert abs(near.x - planet.x) < 0.5 and abs(near.y - planet.y) < 0.5
        deviation = near.covariance[0][0] ** 0.5
        assert near.flux == pytest.approx(planet.contrast[0] * light, abs=4 * deviation) and deviation < 0.2 * near.flux
        single = found(True, joint=False).snr[0, round(planet.y), round(planet.x)]
        assert near.snr > 2 * float(single) and len(near.spectrum) == 4


def test_without_a_source_signal_to_noise_is_standard_normal():
    answer = found(False)
    assert answer.candidates == () and float(answer.snr[answer.covered].std()) == pytest.approx(1.0, abs=0.1)
    assert answer.diagnostics["reversed_deviation"] == pytest.approx(1.0, abs=0.1)


def test_channels_that_share_no_speckles_add_nothing():
    """The gain is that of common speckles: with those of another star in each channel there is none."""
    made = [sequence(False, seed) for seed in range(4)]
    problem = problem_of(made[0])
    cube = torch.stack([one.cube[channel] for channel, one in enumerate(made)])
    cube = cube + problem.operator.source((21.0, 32.0), 1500.0)
    joint, single = (method.maps(cube, problem)[2] if isinstance(method, PACO) else method(cube, problem).snr
                     for method in (SpectralPACO(), PACO()))  # fmt: skip
    assert float(joint[0, 20:23, 31:34].max()) < 1.5 * float(single[0, 20:23, 31:34].max())


def test_borders_without_values_are_left_out():
    made = sequence(True)
    cube = made.cube.clone()
    cube[..., :, :3] = torch.nan
    answer = SpectralPACO()(cube, problem_of(made))
    assert any(abs(c.x - 32.4) < 0.6 and abs(c.y - 21.0) < 0.6 for c in answer.candidates)


def test_one_wavelength_is_refused():
    operator = FieldRotation((1, 21, 21), [0.0, 9.0, 20.0, 40.0], torch.ones(3, 3))
    with pytest.raises(InputError, match="two wavelengths or more"):
        SpectralPACO()(torch.zeros(4, 21, 21), Problem(operator, Gaussian(1.0)))
