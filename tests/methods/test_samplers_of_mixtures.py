"""Samplers with a denoiser, on mixtures of eight Gaussians: do draws come from the posterior known in closed form?

Distribution functions along a few directions are compared where the posterior's are known, so that weights, places and
widths of the modes all count. The same comparison rejects a posterior of other noise, or of half the width.
"""

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch

import obverse as ob
from obverse.methods import Schedule


def two_pixels():
    """Eight modes in a ring, of which one pixel is measured."""
    generator = torch.Generator().manual_seed(0)
    angle = torch.arange(8, dtype=torch.float64) * (math.pi / 4)
    means = 1.1 * torch.stack([angle.cos(), angle.sin()], -1).reshape(8, 1, 1, 2)
    roots = 0.25 * torch.randn(8, 2, 2, generator=generator, dtype=torch.float64)
    weights = torch.tensor([1.0, 3, 1, 1, 1, 1, 1, 1])
    prior = ob.priors.GaussianMixture(weights, means, roots @ roots.mT + 0.03 * torch.eye(2))
    operator = ob.operators.Mask(torch.tensor([[[1.0, 0.0]]]).double())
    return prior, operator, 0.5, torch.tensor([[[1.8, 0.0]]], dtype=torch.float64)


def images():
    """Eight kinds of 6 × 6 images, of which half the pixels are missing."""
    generator = torch.Generator().manual_seed(1)
    axis = torch.arange(6, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    smooth = torch.exp(-0.5 * (torch.cdist(grid, grid) / 1.5).square()) + 1e-2 * torch.eye(36)
    root = torch.linalg.cholesky(smooth)
    means = 0.45 * (torch.randn(8, 36, generator=generator, dtype=torch.float64) @ root.mT).reshape(8, 1, 6, 6)
    sizes = torch.linspace(0.05, 0.15, 8, dtype=torch.float64)
    prior = ob.priors.GaussianMixture(torch.ones(8), means, sizes[:, None, None] * smooth)
    kept = (torch.rand(1, 6, 6, generator=generator) > 0.5).double()
    y = kept * (0.55 * means[2] + 0.45 * means[5])
    return prior, ob.operators.Mask(kept), 0.4, y


CASES = {"two pixels": two_pixels, "images": images}


@dataclass
class Case:
    prior: ob.priors.GaussianMixture
    problem: ob.Problem
    y: torch.Tensor

    def truth(self, smoothed=0.0, noise=1.0, width=1.0):
        """The posterior, of the prior smoothed, of other noise, or with its covariance scaled."""
        n = self.prior.means[0].numel()
        wide = self.prior.covariances + smoothed**2 * torch.eye(n, dtype=torch.float64)
        problem = ob.Problem(self.problem.operator, self.problem.noise.scaled(noise))
        exact = ob.priors.GaussianMixture(self.prior.weights, self.prior.means, wide).posterior(self.y, problem)
        means = exact.mean + width**0.5 * (exact.means - exact.mean)
        return ob.priors.GaussianMixture(exact.weights, means, width * exact.covariances)


@pytest.fixture(params=list(CASES))
def case(request):
    prior, operator, noise, y = CASES[request.param]()
    made = Case(prior, ob.Problem(operator, ob.noise.Gaussian(noise)), y)
    assert 0.4 < float(made.truth().weights.max()) < 0.7, "one mode alone would show nothing"
    return made


def distance(draws, truth):
    """Largest difference of distribution functions along three directions at seven places."""
    flat, leading = draws.flatten(1), torch.linalg.eigh(truth.covariance).eigenvectors.mT.flip(0)
    worst = 0.0
    for direction in (leading[0], leading[1], torch.ones_like(leading[0])):
        means = truth.means.flatten(1) @ direction
        widths = ((truth.covariances @ direction) @ direction).sqrt()
        middle, half = truth.mean.flatten() @ direction, (direction @ truth.covariance @ direction).sqrt()
        for place in (-1.6, -1.0, -0.5, 0.0, 0.5, 1.0, 1.6):
            exact = float(truth.weights @ torch.special.ndtr((middle + place * half - means) / widths))
            found = float((flat @ direction < middle + place * half).double().mean())
            worst = max(worst, abs(found - exact))
    return worst


def check(posterior, case, allowed, **law):
    """The draws are those of the law, and not those of others."""
    draws: Any = posterior.draws
    assert distance(draws, case.truth(**law)) < allowed
    assert distance(draws, case.truth(**law, width=0.5)) > 1.25 * allowed
    assert distance(draws, case.truth(**{**law, "noise": 0.8 * law.get("noise", 1.0)})) > 1.25 * allowed


def test_langevin_chains_sample_the_smoothed_prior(case):
    level, step = 0.25, 0.05 if case.y.numel() == 2 else 0.02  # short enough to show the law and not the kernel's bias
    score = ob.priors.Score(case.prior, level) + ob.priors.Box(-6.0, 6.0)
    method = ob.methods.Langevin(
        score, step=step, samples=12, burn_in=60, chains=400, thin=5, rank=2, keep_samples=True
    )
    posterior = method(case.y, case.problem)
    assert posterior.diagnostics["prior"] == "smoothed by white noise of 0.25" and posterior.diagnostics["ess"] > 400
    check(posterior, case, 0.05, smoothed=level)


def test_coupled_split_gibbs_samples_the_posterior(case):
    method = ob.methods.SplitGibbs(
        case.prior, annealing=Schedule(3.0, 0.3, 20), burn_in=30, samples=12, chains=300, rank=2, keep_samples=True
    )
    posterior = method(case.y, case.problem)
    assert posterior.diagnostics["coupling"] == "exact"
    check(posterior, case, 0.05)


def test_published_split_gibbs_samples_the_posterior_of_noisier_data(case):
    rho = 1.2 * float(case.problem.noise.sigma)
    method = ob.methods.SplitGibbs(case.prior, rho=rho, burn_in=30, samples=12, chains=300, rank=2, keep_samples=True)
    posterior = method(case.y, case.problem)
    factor = posterior.diagnostics["noise_factor"]
    assert posterior.diagnostics["coupling"] == "split" and factor == pytest.approx(1 + 1.2**2, rel=0.05)
    check(posterior, case, 0.05, noise=factor**0.5)


def test_decoupled_annealing_gives_modes_too_even_weights_on_coarse_levels(case):
    """Its bias, as stated: it shrinks slowly with the levels, and is several times that of the chains above."""
    coarse, fine = (
        ob.methods.DecoupledAnnealing(case.prior, schedule=Schedule(8.0, 0.02, steps), samples=800, rank=2)(
            case.y, case.problem
        )
        for steps in (12, 120)
    )
    truth = case.truth()
    assert distance(fine.draws, truth) < 0.75 * distance(coarse.draws, truth)
    assert distance(fine.draws, truth) < (0.09 if case.y.numel() == 2 else 0.24)
    assert float(fine.covariance.trace() / truth.covariance.trace()) == pytest.approx(1.0, abs=0.2)
