"""Patches of several sizes in one search: its law without sources, and what it finds."""

import functools
import math

import pytest
import torch

from obverse.errors import InputError
from obverse.methods import PACO
from obverse.methods.paco_scales import joined_scales
from tests.methods.test_paco import noise, off_centre, problem_of

RADII = (2, 4)


@functools.cache
def maps(correlated, radii, seed, flux=0.0):
    problem = problem_of(30)
    cube = noise(30, correlated, seed) + flux * problem.operator.source((15.0, 22.0))
    return PACO(radii).maps(cube, problem)


def deviation(correlated, seeds=6):
    return float(torch.cat([off_centre(maps(correlated, RADII, seed)[2]) for seed in range(seeds)]).std())


# Six cubes hold some 250 independent values of S/N, a standard error of 4.5 %, as for one radius.
@pytest.mark.parametrize("correlated", [False, True])
def test_signal_to_noise_is_standard_normal_without_a_source(correlated):
    assert abs(deviation(correlated) - 1) < 0.14


def test_taking_the_sizes_for_independent_is_rejected(monkeypatch):
    """Their tests are of the same frames; the same check has to say so."""

    def identity(z, distance, width, radii):
        return torch.eye(len(z), dtype=z.dtype).repeat(len(radii), 1, 1)

    monkeypatch.setattr("obverse.methods.paco_spectral.correlations_at", identity)
    values = [off_centre(PACO(RADII).maps(noise(30, False, seed), problem_of(30))[2]) for seed in range(2)]
    assert float(torch.cat(values).std()) > 1.14


@pytest.mark.parametrize("correlated", [False, True])
def test_a_source_stands_out_at_least_as_far_as_with_either_size(correlated):
    """The mean gain in S/N over a few cubes: paired, so that only what the sizes do with the source remains."""

    def gain(radii):
        with_source, without = (
            [maps(correlated, radii, seed, flux)[2][0, 15, 22] for seed in range(2)] for flux in (4.0, 0.0)
        )
        return float(torch.stack(with_source).mean() - torch.stack(without).mean())

    assert gain(RADII) > 0.97 * max(gain(2), gain(4)) > 0


def test_flux_of_a_faint_source_is_that_of_one_size():
    faint = [maps(True, radii, 0, 1.0)[0][0, 15, 22] - maps(True, radii, 0)[0][0, 15, 22] for radii in (RADII, 4)]
    assert float(faint[0]) == pytest.approx(float(faint[1]), rel=0.15) and faint[0] > 0.6


def test_weights_are_those_of_generalised_least_squares():
    """Fields with a known correlation: the joint variance is (uᵀ Q⁻¹ u)⁻¹, below that of either."""
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 80, 80, generator=generator, dtype=torch.float64)
    z = (first, 0.6 * first + 0.8 * second)
    variance = [torch.full_like(first, v) for v in (4.0, 3.0)]
    sums = [(one * v.sqrt(), v, torch.ones_like(v)) for one, v in zip(z, variance)]
    distance = torch.full_like(first, 20.0)
    score, joint, seen = joined_scales(sums, distance, 1.0)
    u = torch.tensor([2.0, math.sqrt(3.0)], dtype=torch.float64)
    truth = float(u @ torch.linalg.solve(torch.tensor([[1.0, 0.6], [0.6, 1.0]], dtype=torch.float64), u))
    assert float(joint.mean()) == pytest.approx(truth, rel=0.02) and truth > 4.0
    assert float(score.square().mean()) == pytest.approx(truth, rel=0.05) and bool((seen == 1).all())
    assert joined_scales(sums[:1], distance, 1.0)[1] is variance[0]


def test_one_size_in_a_list_is_that_size():
    assert torch.allclose(maps(True, (4,), 0)[2], maps(True, 4, 0)[2], equal_nan=True)


def test_a_search_with_several_sizes_measures_what_it_finds():
    problem = problem_of(24)
    cube = noise(24, correlated=True, seed=5) + problem.operator.source((14.7, 22.4), 15.0)
    search = PACO((3, 4))
    found = search(cube, problem)
    (candidate,) = found.candidates
    again = PACO(3).characterise(cube, problem, (14.7, 22.4))
    assert candidate.flux == pytest.approx(again.flux, rel=1e-2) and found.diagnostics["patch_radius"] == (3, 4)
    assert math.hypot(candidate.x - 22.4, candidate.y - 14.7) < 0.5


@pytest.mark.parametrize("radii", [(), (3, 3), (4, 0), (True, 2)])
def test_sizes_out_of_range_are_refused(radii):
    with pytest.raises(InputError, match="patch_radius"):
        PACO(radii)
