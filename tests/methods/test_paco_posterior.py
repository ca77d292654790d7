"""Draws of a source's flux and place against closed forms and sums over a grid."""

import dataclasses
import functools
import math

import pytest
import torch

from obverse.errors import InputError
from obverse.methods.paco_posterior import PlaceDensity, source_posterior
from obverse.methods.paco_source import fit_source
from obverse.methods.source_tests import SourcePatches
from obverse.operators import FieldRotation

SIZE, TRUTH, RADIUS = 25, (12.3, 19.4), 4


def operator_of(frames):
    place = torch.arange(11, dtype=torch.float64) - 5
    psf = torch.exp(-(place[:, None] ** 2 + place**2) / (2 * 1.5**2))
    return FieldRotation((1, SIZE, SIZE), torch.linspace(0, 80, frames), psf, dtype=torch.float64)


@functools.cache
def found(flux, frames=40, seed=1):
    """Operator, cube and fit of a source in white noise."""
    operator = operator_of(frames)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(operator.data_shape, generator=generator, dtype=torch.float64)
    cube = noise + operator.source(TRUTH, flux)
    fit = fit_source(cube, operator, (12.0, 19.0), RADIUS)
    assert fit.converged
    return operator, cube, fit


@functools.cache
def drawn(flux, frames=40, draws=120):
    operator, cube, fit = found(flux, frames)
    return source_posterior(cube, operator, fit, RADIUS, draws=draws)


def cramer_rao(operator, flux):
    """Of (flux, x, y) in white noise of unit variance, its mean over the frames free in each pixel."""
    step = 1e-4
    sides = [(operator.source(TRUTH, flux + e) for e in (step, -step))]
    for axis in (1, 0):
        places = [tuple(p + e * (i == axis) for i, p in enumerate(TRUTH)) for e in (step, -step)]
        sides.append(operator.source(place, flux) for place in places)
    slopes = torch.stack([(a - b) / (2 * step) for a, b in sides])
    slopes = slopes - slopes.mean(1, keepdim=True)
    return torch.linalg.inv(torch.einsum("ithw,jthw->ij", slopes, slopes))


def whitened(covariance, truth):
    """Eigenvalues of a covariance against another: ones where they agree."""
    root = torch.linalg.inv(torch.linalg.cholesky(truth))
    return torch.linalg.eigvalsh(root @ covariance @ root.mT)


def test_a_bright_source_has_the_covariance_of_cramer_and_rao():
    """Up to what sixty frames teach of the noise; twice the noise or none of the rotation's loss is told from it."""
    operator, _, fit = found(4.0, 60)
    posterior = drawn(4.0, 60)
    samples = posterior.samples.flatten(0, 1)
    bound = cramer_rao(operator, 4.0)
    assert posterior.rhat < 1.02 and posterior.ess > 200
    values = whitened(torch.cov(samples.mT), bound)
    assert bool((values > 0.7).all()) and bool((values < 1.45).all())
    assert not bool((whitened(torch.cov(samples.mT), 4 * bound) > 0.7).all()), "twice the noise must be noticed"
    errors = (samples.mean(0) - torch.tensor([4.0, TRUTH[1], TRUTH[0]])) / bound.diagonal().sqrt()
    assert float(errors.abs().max()) < 3.5


def test_a_bright_source_is_gaussian_about_the_fit():
    """Mean and covariance are those of the fit within Monte-Carlo error."""
    _, _, fit = found(4.0, 60)
    posterior = drawn(4.0, 60)
    samples, truth = posterior.samples.flatten(0, 1), torch.tensor(fit.covariance, dtype=torch.float64)
    deviation, count = truth.diagonal().sqrt(), posterior.ess
    centre = torch.tensor([fit.flux, fit.position[1], fit.position[0]], dtype=torch.float64)
    assert float(((samples.mean(0) - centre) / deviation).abs().max()) < 4 / math.sqrt(count)
    values = whitened(torch.cov(samples.mT), truth)
    assert float((values - 1).abs().max()) < 5 * math.sqrt(2 / count)
    assert float((whitened(torch.cov(samples.mT), 1.5 * truth) - 1).abs().max()) > 5 * math.sqrt(2 / count)


def test_a_faint_source_is_drawn_as_a_sum_over_a_grid_has_it():
    operator, cube, fit = found(0.28)
    posterior = drawn(0.28)
    density = PlaceDensity(SourcePatches(cube, operator, fit.position, RADIUS), torch.ones(()), fit)
    steps = torch.arange(-operator.fwhm, operator.fwhm, 0.3, dtype=torch.float64)
    places = [density.place + torch.stack([r, c]) for r in steps for c in steps if math.hypot(r, c) < operator.fwhm]
    logs = torch.tensor([density(place)[0] for place in places], dtype=torch.float64)
    weights, spots = logs.softmax(0), torch.stack(places).flip(1)
    samples = posterior.samples.flatten(0, 1)
    mean = weights @ spots
    spread = (weights @ (spots - mean).square()).sqrt()
    assert posterior.rhat < 1.05
    assert float(((samples.mean(0)[1:] - mean) / spread).abs().max()) < 5 / math.sqrt(posterior.ess)
    assert (samples.std(0)[1:] / spread).tolist() == pytest.approx([1, 1], abs=0.25)
    gaussian = torch.tensor(fit.covariance).diagonal().sqrt()
    assert float((spread / gaussian[1:]).max()) > 1.15, "a source this faint has wider tails than the fit's Gaussian"
    assert float(samples[:, 0].min()) >= 0 and math.dist(mean.tolist(), spots[0].tolist()) > 1


def test_draws_come_from_the_seed_and_each_chain_from_its_number():
    operator, cube, fit = found(4.0, 60)
    two, three = (source_posterior(cube, operator, fit, RADIUS, draws=4, chains=n, seed=3) for n in (2, 3))
    assert torch.equal(two.samples, three.samples[:2])
    other = source_posterior(cube, operator, fit, RADIUS, draws=4, chains=2, seed=4)
    assert not torch.equal(two.samples, other.samples)


def test_intervals_hold_their_share():
    posterior = drawn(4.0, 60)
    low, high = posterior.interval(0.9).unbind(1)
    inside = ((posterior.samples >= low) & (posterior.samples <= high)).double().mean((0, 1))
    assert inside.tolist() == pytest.approx([0.9] * 3, abs=0.01)
    with pytest.raises(InputError, match="level"):
        posterior.interval(1.0)


def test_what_has_no_posterior_is_refused():
    operator, cube, fit = found(4.0, 60)
    with pytest.raises(InputError, match="converged"):
        source_posterior(cube, operator, dataclasses.replace(fit, converged=False), RADIUS)
    with pytest.raises(InputError, match="draws"):
        source_posterior(cube, operator, fit, RADIUS, draws=2)
