"""Negative sources find flux and place; the errors that they state are those that they make."""

import math

import pytest
import torch

from obverse.errors import InputError
from obverse.methods.negative_source import NegativeSource
from tests.methods.stars import observation, speckles, white

ANGLES = [8.0 * t for t in range(12)]
PLACE, FLUX = (27.3, 25.6), 20.0


@pytest.fixture(scope="module")
def problem():
    return observation(ANGLES, (37, 37))


def test_without_noise_flux_and_place_are_exact(problem):
    cube = speckles(problem, 3) + problem.operator.source(PLACE, FLUX)
    fit = NegativeSource(3, injections=3)(cube, problem, (26.5, 26.2))
    found = fit.candidate
    assert fit.status.converged and "0 of the 3" in fit.status.message
    assert abs(found.flux - FLUX) < 0.02 and abs(found.y - PLACE[0]) < 2e-3 and abs(found.x - PLACE[1]) < 2e-3
    assert fit.errors.shape == (3, 3) and float(fit.errors.abs().max()) < 0.1


def test_errors_are_those_of_white_noise(problem):
    """With one component the noise is near white: Cramér and Rao say what is possible."""
    operator = problem.operator
    cube = 5.0 + white(problem, 2.0) + operator.source(PLACE, FLUX)
    fit = NegativeSource(1, injections=5)(cube, problem, PLACE)
    flux = torch.tensor(FLUX, dtype=torch.float64)
    place = torch.tensor(PLACE, dtype=torch.float64)
    jacobian = torch.func.jacfwd(operator.source, argnums=(1, 0))(place, flux)
    columns = torch.cat([jacobian[0][..., None], jacobian[1]], -1).reshape(-1, 3)
    bound = torch.linalg.inv(columns.mT @ columns / 2.0**2)
    stated = torch.tensor(fit.candidate.covariance, dtype=torch.float64)
    ratio = (stated.diagonal() / bound.diagonal()[[0, 2, 1]]).sqrt()
    # a standard deviation from five errors is good to a third; the disc and the subtraction lose something
    assert bool((ratio > 0.5).all()) and bool((ratio < 3.0).all()), ratio
    found = fit.candidate
    off = torch.tensor([found.flux - FLUX, found.x - PLACE[1], found.y - PLACE[0]], dtype=torch.float64)
    assert float(off @ torch.linalg.solve(stated, off)) < 20
    assert found.snr == pytest.approx(found.flux / math.sqrt(stated[0, 0]))


def test_errors_are_turned_to_the_sources_azimuth(problem):
    """A source above the star: along the radius is y."""
    place = (28.0, 18.0)
    cube = 5.0 + white(problem, 1.0, seed=3) + problem.operator.source(place, FLUX)
    fit = NegativeSource(1, injections=3)(cube, problem, place)
    _, along, across = fit.errors.square().mean(0).tolist()
    covariance = fit.candidate.covariance
    azimuth = math.radians(fit.candidate.angle(problem.operator.centre))
    assert abs(azimuth - math.pi / 2) < 0.05
    assert covariance[2][2] == pytest.approx(along, rel=0.2) and covariance[1][1] == pytest.approx(across, rel=0.2)


def test_refusals(problem):
    for arguments in ({"components": 0}, {"components": 2, "injections": 2}, {"components": 2, "aperture": 3.0}):
        with pytest.raises(InputError):
            NegativeSource(**arguments)
    cube = speckles(problem, 3) - problem.operator.source(PLACE, FLUX)
    with pytest.raises(InputError, match="check the start"):
        NegativeSource(3)(cube, problem, PLACE)
