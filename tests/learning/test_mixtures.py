"""Expectation–maximisation finds the mixture that made the samples."""

import pytest
import torch

from obverse.errors import InputError
from obverse.learning.mixtures import fit_mixture

NOISE = 1e-8


def truth():
    generator = torch.Generator().manual_seed(0)
    roots = torch.randn(3, 5, 5, generator=generator, dtype=torch.float64) / 5**0.5
    scale = torch.tensor([0.2, 1.0, 1.0], dtype=torch.float64)[:, None, None]
    stretch = torch.tensor([[1.0] * 5, [2, 0.1, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.1, 2]], dtype=torch.float64)
    roots = scale * stretch[:, :, None] * roots
    return torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), roots @ roots.mT


def likelihood(v, weights, covariances):
    eye = torch.eye(v.shape[1], dtype=v.dtype)
    law = torch.distributions.MultivariateNormal
    parts = [law(torch.zeros(v.shape[1]).to(v), c + 1e-9 * eye).log_prob(v) for c in covariances]
    return float((weights.log() + torch.stack(parts, 1)).logsumexp(1).mean())


def samples(n, seed):
    weights, covariances = truth()
    generator = torch.Generator().manual_seed(seed)
    k = torch.multinomial(weights, n, replacement=True, generator=generator)
    roots = torch.linalg.cholesky(covariances)
    return (roots[k] @ torch.randn(n, 5, 1, generator=generator, dtype=torch.float64))[..., 0]


def test_reaches_the_likelihood_of_the_truth():
    v, held, seen = samples(20000, 1), samples(4000, 2), []
    weights, covariances = fit_mixture(v, 3, 60, NOISE, seed=0, callback=lambda i, n, value: seen.append(value))
    assert len(seen) == 60 and all(after > before - 1e-3 for before, after in zip(seen, seen[1:]))
    best, single = likelihood(held, *truth()), likelihood(held, torch.ones(1).double(), (v.T @ v / len(v))[None])
    found = likelihood(held, weights, covariances)
    assert best - found < 0.05 and best - single > 0.3
    assert torch.allclose(weights.sort().values, truth()[0].sort().values, atol=0.05)
    assert torch.equal(covariances, covariances.mT)


def test_first_likelihood_is_that_of_the_definition():
    v, seen = samples(3000, 1), []
    weights, covariances = fit_mixture(v, 3, 1, NOISE, seed=0)
    fit_mixture(v, 3, 2, NOISE, seed=0, callback=lambda i, n, value: seen.append(value))
    assert seen[1] == pytest.approx(likelihood(v, weights, covariances), abs=1e-6)


def test_no_variance_falls_below_the_noise():
    v = samples(3000, 1)
    v[:, 4] = 0.0
    _, covariances = fit_mixture(v, 3, 5, NOISE)
    assert float(torch.linalg.eigvalsh(covariances).min()) >= NOISE * (1 - 1e-6)


def test_bad_use_is_refused():
    for wrong in ((torch.zeros(3, 5), 2, 1, NOISE), (torch.zeros(30, 5), 2, 1, 0.0), (torch.zeros(30), 2, 1, NOISE)):
        with pytest.raises(InputError):
            fit_mixture(*wrong)
