"""What frames share taken from what is sparse in them."""

import pytest
import torch

from obverse.errors import InputError
from obverse.methods import LowRankSparseADI, MedianADI
from obverse.noise import Gaussian
from obverse.operators import FieldRotation
from obverse.problem import Problem

SIZE, FRAMES = 31, 24


def problem_of(arc=90.0):
    place = torch.arange(9.0) - 4
    psf = torch.exp(-(place[:, None] ** 2 + place**2) / (2 * 1.3**2))
    return Problem(FieldRotation((1, SIZE, SIZE), torch.linspace(0, arc, FRAMES), psf), Gaussian(1.0))


def speckles(rank=3, seed=0):
    """Still patterns whose brightness changes."""
    generator = torch.Generator().manual_seed(seed)
    patterns = 20 * torch.randn(rank, SIZE * SIZE, generator=generator)
    return (torch.randn(FRAMES, rank, generator=generator) @ patterns).reshape(FRAMES, SIZE, SIZE)


def test_without_a_threshold_it_is_what_principal_components_leave():
    problem, generator = problem_of(), torch.Generator().manual_seed(1)
    cube = torch.randn(FRAMES, SIZE, SIZE, generator=generator, dtype=torch.float64)
    part = next(iter(LowRankSparseADI()._parts(problem.operator, cube)))
    pixels = cube[:, part]
    left, values, right = torch.linalg.svd(pixels, full_matrices=False)
    expected = pixels - left[:, :4] * values[:4] @ right[:4]
    sparse, rounds = LowRankSparseADI(4, 0.0, iterations=1)._sparse(pixels)
    assert rounds == 1 and torch.allclose(sparse, expected, atol=1e-8)


def test_every_pixel_is_in_one_part():
    method, like = LowRankSparseADI(inner_radius=4.0, sectors=3), torch.zeros(1)
    total = torch.stack(list(method._parts(problem_of().operator, like))).sum(0)
    place = torch.arange(SIZE, dtype=torch.float64) - SIZE // 2
    assert torch.equal(total > 0, place[:, None].hypot(place) >= 4.0) and int(total.max()) == 1


def test_a_source_among_changing_speckles_is_found_where_a_median_fails():
    problem = problem_of()
    noise = torch.randn(FRAMES, SIZE, SIZE, generator=torch.Generator().manual_seed(2))
    cube = speckles() + noise + problem.operator.source((15.0, 24.0), 6.0)
    estimate = LowRankSparseADI(3)(cube, problem)
    assert divmod(int(estimate.image.argmax()), SIZE) == (15, 24)
    assert divmod(int(MedianADI()(cube, problem).image.argmax()), SIZE) != (15, 24)
    assert 1.0 < float(estimate.image.max()) < 6.0, "part of the source is taken for what frames share, or for noise"


def test_channels_are_treated_one_by_one():
    psf = torch.ones(2, 1, 1)
    two = Problem(FieldRotation((2, SIZE, SIZE), torch.linspace(0, 90, FRAMES), psf), Gaussian(1.0))
    cubes = torch.stack([speckles(seed=1), speckles(seed=2)])
    both = LowRankSparseADI(2)(cubes, two)
    one = Problem(FieldRotation((1, SIZE, SIZE), torch.linspace(0, 90, FRAMES), psf[0]), Gaussian(1.0))
    assert torch.allclose(both.image[1], LowRankSparseADI(2)(cubes[1], one).image[0], atol=1e-4)


def test_what_does_not_fit_is_said_in_a_sentence():
    for wrong in ({"rank": 0}, {"sectors": 0}, {"iterations": 0}, {"threshold": -1.0}, {"inner_radius": float("nan")}):
        with pytest.raises(InputError, match=f"LowRankSparseADI expects.*{next(iter(wrong))}"):
            LowRankSparseADI(**wrong)
    with pytest.raises(InputError, match="finite cube"):
        LowRankSparseADI()(torch.full((FRAMES, SIZE, SIZE), torch.nan), problem_of())
