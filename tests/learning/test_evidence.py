"""The evidence bounds: tight and stationary at the exact law of a linear model, and untempered at the end."""

import math

import pytest
import torch
from torch import nn

from obverse.errors import InputError
from obverse.learning.data import Place, places
from obverse.learning.objectives import ConditionalEvidence, Evidence, make_objective
from obverse.noise.base import stream

from .conftest import curve, trained

CPU, SHAPE, N, LATENT = torch.device("cpu"), (1, 6, 6), 36, 4
V, SIGMA = 0.05, 0.4


def loadings():
    generator = torch.Generator().manual_seed(1)
    axes = torch.linalg.qr(torch.randn(N, LATENT, generator=generator, dtype=torch.float64)).Q
    return (axes * torch.tensor([2.0, 1.5, 1.0, 0.7], dtype=torch.float64)).float()


class Model:
    """x = W z + e: a data set whose law is known, and as a network the exact encoder and decoder of it."""

    def __init__(self):
        self.W = loadings()

    def __len__(self):
        return 1000

    def item(self, index, generator):
        z = torch.randn(LATENT, generator=generator)
        return (self.W @ z).reshape(SHAPE) + math.sqrt(V) * torch.randn(SHAPE, generator=generator)


class Exact(nn.Module):
    """All that the two objectives ask of a network, with the parameters of the exact law, or others."""

    def __init__(self):
        super().__init__()
        W = loadings()
        power = W.square().sum(0)
        self.W, self.log_v = nn.Parameter(W.clone()), nn.Parameter(torch.tensor(V).log())
        self.gain = nn.Parameter((W / (power + V)).mT.clone())
        self.spread = nn.Parameter((V / (V + power)).log())
        noise = V + SIGMA**2
        self.prior_gain = nn.Parameter((W / (power + noise)).mT.clone())
        self.prior_spread = nn.Parameter((noise / (noise + power)).log())
        self.share = nn.Parameter(torch.tensor(V / noise))
        self.log_left = nn.Parameter(torch.tensor(V * SIGMA**2 / noise).log())

    def encode(self, x):
        return x.flatten(1) @ self.gain.mT, self.spread.expand(len(x), -1)

    def prior(self, c):
        return c[:, :1].flatten(1) @ self.prior_gain.mT, self.prior_spread.expand(len(c), -1)

    def posterior(self, x, c):
        centre, log_spread = self.prior(c)
        mean, log_variance = self.encode(x)
        return (mean - centre) / (0.5 * log_spread).exp(), log_variance - log_spread

    def decode(self, z, c=None):
        mean = (z @ self.W.mT).reshape(-1, *SHAPE)
        if c is None:
            return mean, self.log_v.exp().expand_as(mean)
        return mean + self.share * (c[:, :1] - mean), self.log_left.exp().expand_as(mean)


def denoising(**options):
    settings = {"operator": {"kind": "Identity"}, "noise": {"kind": "Gaussian", "sigma": SIGMA}, "start": "adjoint"}
    return ConditionalEvidence(**settings, **options)


def entropy(covariance):
    """Nats per pixel of a Gaussian."""
    return 0.5 * float(torch.logdet(2 * math.pi * math.e * covariance)) / N


def laws():
    W, unit = loadings().double(), torch.eye(N, dtype=torch.float64)
    prior = W @ W.mT + V * unit
    return prior, prior - prior @ torch.linalg.solve(prior + SIGMA**2 * unit, prior)


@pytest.mark.parametrize("conditional", [False, True])
def test_at_the_exact_law_the_bound_is_the_entropy_and_stationary(conditional):
    network, count = Exact(), 1500 if conditional else 3000
    objective = denoising() if conditional else Evidence()
    loss = objective.loss(network, Model(), places(1000, 0, count, seed=0), CPU)
    expected = entropy(laws()[conditional])
    assert loss.item() == pytest.approx(expected, abs=5 / math.sqrt(2 * N * count))
    loss.backward()
    assert max(float(p.grad.abs().max()) for p in network.parameters() if p.grad is not None) < 0.05
    # Elsewhere the bound is lower, and its gradient is not zero.
    for name in ("W", "gain", "log_v") if not conditional else ("prior_gain", "log_left"):
        wrong = Exact()
        with torch.no_grad():
            getattr(wrong, name).mul_(1.2)
        other = objective.loss(wrong, Model(), places(1000, 0, count, seed=0), CPU)
        other.backward()
        assert float(other) > float(loss) + 3e-3, name
        assert float(getattr(wrong, name).grad.abs().max()) > 0.05, name


def test_the_charge_for_latent_variables_rises_and_what_is_free_goes():
    objective = Evidence(warmup=100, free=0.5)
    divergence = torch.tensor([[0.1, 2.0]])
    charges = [
        float(objective.schedule.charged(divergence, [Place(0, stream(0, 0), number)])) for number in (0, 50, 100, 1000)
    ]
    assert charges == pytest.approx([0.0, 0.5 * (0.25 + 2.0), 2.1, 2.1])
    plain = Evidence().schedule.charged(divergence, [Place(0, stream(0, 0), 0)])
    assert float(plain) == pytest.approx(2.1)
    with pytest.raises(InputError):
        Evidence(warmup=-1)


def test_a_recipe_trains_and_goes_on_as_if_never_stopped(recipe, tmp_path):
    recipe |= {
        "network": {"kind": "VAE", "image_shape": [1, 8, 8], "latent": 2, "widths": [4, 8]},
        "objective": {"kind": "Evidence", "warmup": 10},
    }
    trained(recipe, tmp_path / "whole")
    inner = {"kind": "UNet", "inputs": 4, "outputs": 2, "widths": [4, 8], "blocks": 1}
    recipe |= {
        "network": {"kind": "ConditionalVAE", "network": inner, "latent": 2, "widths": [4, 8]},
        "objective": {
            "kind": "ConditionalEvidence",
            "operator": {"kind": "Identity"},
            "noise": {"kind": "Gaussian", "sigma": [0.1, 0.3]},
            "warmup": 10,
        },
    }
    trained(recipe, tmp_path / "conditional")
    for name in ("whole", "conditional"):
        assert all(map(math.isfinite, curve(tmp_path / name)))
        assert len(curve(tmp_path / name, "evidence")) == 3
    assert make_objective(recipe["objective"]).metric == "evidence"
