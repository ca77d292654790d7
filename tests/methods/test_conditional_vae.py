"""The conditional autoencoder as a method: with the networks of a linear model its answer is the exact posterior."""

import math

import pytest
import torch
from torch import nn

from obverse import methods, networks, noise, operators
from obverse.errors import InputError
from obverse.problem import Problem

SHAPE, LATENT, N = (1, 6, 6), 4, 36
V, SIGMA = 0.05, 0.4


def loadings():
    generator = torch.Generator().manual_seed(1)
    axes = torch.linalg.qr(torch.randn(N, LATENT, generator=generator, dtype=torch.float64)).Q
    return axes * torch.tensor([2.0, 1.5, 1.0, 0.7], dtype=torch.float64)


class Exact(nn.Module):
    """p(z | y) and p(x | z, y) of x = W z + e, y = x + n, for the noise that the condition tells."""

    def __init__(self, factor=1.0):
        super().__init__()
        self.W, self.factor = nn.Parameter(loadings(), requires_grad=False), factor

    def _noise(self, c):
        return V + (self.factor * c[:, 1, 0, 0]).square()[:, None]

    def prior(self, c):
        power, noise_level = self.W.square().sum(0), self._noise(c)
        mean = c[:, :1].flatten(1) @ self.W / (power + noise_level)
        return mean, (noise_level / (noise_level + power)).log()

    def decode(self, z, c):
        mean, noise_level = (z @ self.W.mT).reshape(-1, *SHAPE), self._noise(c)[..., None, None]
        left = V * (noise_level - V) / noise_level
        return mean + V / noise_level * (c[:, :1] - mean), left.expand_as(mean)


def case():
    problem = Problem(operators.Identity(SHAPE, dtype=torch.float64), noise.Gaussian(SIGMA))
    z = torch.randn(LATENT, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return problem, problem.simulate((loadings() @ z).reshape(SHAPE), seed=7)


def exact(y):
    W, unit = loadings(), torch.eye(N, dtype=torch.float64)
    prior = W @ W.mT + V * unit
    gain = prior @ torch.linalg.inv(prior + SIGMA**2 * unit)
    return gain @ y.flatten(), prior - gain @ prior


def departure(posterior, mean, covariance, draws):
    """Largest distance of mean, variances and leading variance from a law, in their Monte-Carlo errors."""
    found, std = posterior.covariance.dense(), covariance.diagonal().sqrt()
    direction = torch.linalg.eigh(covariance).eigenvectors[:, -1]
    along = (direction @ found @ direction) / (direction @ covariance @ direction)
    return max(
        float(((posterior.mean.flatten() - mean) / std).abs().max()) * math.sqrt(draws),
        float((found.diagonal() / covariance.diagonal() - 1).abs().max()) * math.sqrt(draws / 2),
        abs(float(along) - 1) * math.sqrt(draws / 2),
    )


def test_it_is_the_exact_posterior_of_a_linear_model_and_of_no_other():
    problem, y = case()
    draws = 4000
    mean, covariance = exact(y)
    posterior = methods.ConditionalVAE(Exact(), samples=draws, start="adjoint")(y, problem)
    assert departure(posterior, mean, covariance, draws) < 5
    assert departure(posterior, mean, 2 * covariance, draws) > 8
    assert departure(posterior, mean, 0.5 * covariance, draws) > 8
    for factor in (0.8, 1.25):
        wrong = methods.ConditionalVAE(Exact(factor), samples=draws, start="adjoint")(y, problem)
        assert departure(wrong, mean, covariance, draws) > 8
    assert 0.1 < posterior.diagnostics["latent_share"] < 0.9


def test_the_two_parts_of_the_variance_add_up_exactly():
    problem, y = case()
    posterior = methods.ConditionalVAE(Exact(), samples=50, rank=2, start="adjoint", keep_samples=True)(y, problem)
    left = V * SIGMA**2 / (V + SIGMA**2)
    total = posterior.covariance.diagonal()
    assert posterior.covariance.rank == 2 and float(posterior.covariance.d.min()) >= left * (1 - 1e-9)
    share = posterior.diagnostics["latent_share"]
    assert float((total.sum() - N * left) / total.sum()) == pytest.approx(share, rel=1e-6)
    again = methods.ConditionalVAE(Exact(), samples=50, rank=2, start="adjoint", keep_samples=True)(y, problem)
    assert torch.equal(posterior.mean, again.mean) and torch.equal(posterior.draws, again.draws)
    more = methods.ConditionalVAE(Exact(), samples=60, rank=2, start="adjoint", keep_samples=True)(y, problem)
    torch.testing.assert_close(more.draws[:50], posterior.draws)


def test_draws_carry_the_decoders_noise():
    problem, y = case()
    posterior = methods.ConditionalVAE(Exact(), samples=3000, start="adjoint", keep_samples=True)(y, problem)
    ratio = posterior.draws.var(0) / posterior.covariance.diagonal()
    assert float((ratio - 1).abs().max()) < 5 * math.sqrt(2 / 3000)


def test_units_weights_and_wrong_input(tmp_path):
    problem, y = case()
    plain = methods.ConditionalVAE(Exact(), samples=20, start="adjoint")
    there = Problem(problem.operator, noise.Gaussian(100 * SIGMA))
    scaled = plain.scaled(50.0, 150.0)(100 * y + 50, there)
    torch.testing.assert_close(scaled.mean, 50 + 100 * plain(y, problem).mean)
    torch.testing.assert_close(scaled.std, 100 * plain(y, problem).std)
    description = {
        "kind": "ConditionalVAE",
        "network": {"kind": "UNet", "inputs": 4, "outputs": 2, "widths": [4, 8], "blocks": 1},
        "latent": 2,
        "widths": [4, 8],
    }
    net = networks.build(description)
    networks.save(tmp_path / "net.safetensors", net, {"network": description, "objective": {"start": "adjoint"}})
    loaded = methods.ConditionalVAE.load(tmp_path / "net.safetensors")
    assert loaded.start == "adjoint"
    with pytest.raises(InputError, match="images that its network takes"):
        loaded(torch.zeros(3, 8, 8), Problem(operators.Identity((3, 8, 8)), noise.Gaussian(0.1)))
    other = {"kind": "DnCNN", "inputs": 1, "outputs": 1, "depth": 2, "width": 2}
    networks.save(tmp_path / "other.safetensors", networks.build(other), {"network": other})
    with pytest.raises(InputError, match="weights of a ConditionalVAE"):
        methods.ConditionalVAE.load(tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="samples"):
        methods.ConditionalVAE(net, samples=1)
