"""Sources as bright as the throughput says have the S/N that was asked for, in the maps of a whole search."""

import pytest
import torch

from obverse.errors import InputError
from obverse.methods import PACO
from obverse.methods.paco_throughput import paco_throughput
from obverse.noise import Gaussian
from obverse.operators import FieldRotation
from obverse.problem import Problem

SIZE, FRAMES, RADIUS, DISTANCE = 29, 20, 3, 8.0
PLACES = ((14, 22), (14, 6), (22, 14), (6, 14))


def operator_of():
    place = torch.arange(11, dtype=torch.float64) - 5
    psf = torch.exp(-(place[:, None] ** 2 + place**2) / (2 * 1.5**2))
    return FieldRotation((1, SIZE, SIZE), torch.linspace(0, 60, FRAMES), psf, dtype=torch.float64)


def noise(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(FRAMES, SIZE, SIZE, generator=generator, dtype=torch.float64)


def test_a_source_of_the_stated_flux_has_the_stated_signal_to_noise():
    operator, method = operator_of(), PACO(patch_radius=RADIUS)
    problem = Problem(operator, Gaussian(1))
    corrected, naive = [], []
    for seed in range(5):
        cube = noise(seed)
        share = float(paco_throughput(cube, operator, RADIUS, [DISTANCE])[0, 0])
        _, sigma, before = method.maps(cube, problem)
        assert 0.4 < share < 0.9
        for kept, level in ((corrected, 5 / share), (naive, 5.0)):
            filled = cube
            for row, column in PLACES:
                filled = filled + operator.source((row, column), level * float(sigma[0, row, column]))
            gain = method.maps(filled, problem)[2] - before
            kept += [float(gain[0, row, column]) for row, column in PLACES]
    corrected, naive = (sum(values) / len(values) for values in (corrected, naive))
    assert corrected == pytest.approx(5.0, abs=0.4)
    assert naive < 4.4, "τ σ alone is too faint to be found"


def test_brighter_sources_lose_more_and_nothing_is_said_where_none_turns():
    found = paco_throughput(noise(9), operator_of(), RADIUS, [0.0, DISTANCE], (4.0, 9.0), azimuths=2)
    assert found.shape == (2, 2) and bool(found[:, 0].isnan().all())
    assert float(found[0, 1]) > 1.1 * float(found[1, 1])
    places = [DISTANCE, DISTANCE + 1.0]
    one, other = (paco_throughput(noise(9), operator_of(), RADIUS, places, (4.0, s), azimuths=2)[1] for s in (7.0, 6.0))
    own = paco_throughput(noise(9), operator_of(), RADIUS, places, (4.0, [7.0, 6.0]), azimuths=2)[1]
    assert own.tolist() == pytest.approx([float(one[0]), float(other[1])]) and float(one[1]) < float(other[1])


def test_other_cubes_and_levels_are_refused():
    with pytest.raises(InputError, match="one wavelength"):
        paco_throughput(noise(0)[None], operator_of(), RADIUS, [DISTANCE])
    with pytest.raises(InputError, match="levels"):
        paco_throughput(noise(0), operator_of(), RADIUS, [DISTANCE], ())
    with pytest.raises(InputError, match="level for each of 1 distances"):
        paco_throughput(noise(0), operator_of(), RADIUS, [DISTANCE], ([5.0, 6.0],))
