"""The spread of draws of the weights, wherever the network sits in the method."""

import pytest
import torch

import obverse as ob
from obverse.errors import InputError
from obverse.networks import GaussianWeights
from obverse.noise.base import stream
from obverse.posterior.spread import spread_covariance

SHAPE = (1, 8, 8)
PROBLEM = ob.Problem(ob.operators.Identity(SHAPE, dtype=torch.float64), ob.noise.Gaussian(0.1))
UNET = {"kind": "UNet", "inputs": 3, "outputs": 1, "widths": [4], "blocks": 1}


def network(kind="GaussianWeights", **settings):
    torch.manual_seed(0)
    inner = {"kind": "Preconditioned", "network": UNET}
    return ob.networks.build({"kind": kind, "network": inner, **settings}).double().eval()


class Linear(torch.nn.Module):
    """x̂ = w x, one weight."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(1, 1, 1, bias=False)

    def forward(self, x, sigma):
        return self.layer(x)


def test_one_gaussian_weight_gives_its_known_spread():
    """x̂ = w A†y with w ~ N(μ, σ²): the covariance is σ² A†y (A†y)ᵀ, of rank one."""
    net = GaussianWeights(Linear().double(), deviation=0.4)
    sigma = 0.4 * float(net.network.layer.layer.weight.abs())
    given = torch.ones(SHAPE).double()
    found = ob.methods.WeightSampling(ob.methods.Network(net, start="adjoint"), draws=400)(given, PROBLEM)
    assert found.target == "epistemic" and found.covariance.rank == 1
    assert torch.allclose(found.std, torch.full(SHAPE, sigma).double(), rtol=0.12)
    twice = ob.methods.WeightSampling(ob.methods.Network(net, start="adjoint"), draws=400)(2 * given, PROBLEM)
    assert torch.allclose(twice.std, 2 * found.std)


@pytest.mark.parametrize("kind", ["GaussianWeights", "Dropout"])
def test_draws_are_those_of_the_seed_and_repeat(kind):
    method = ob.methods.Network(network(kind))
    sampling = ob.methods.WeightSampling(method, draws=4, seed=2)
    y = torch.rand(SHAPE, generator=stream(0, 0)).double()
    found = sampling(y, PROBLEM)
    assert found.covariance.rank <= 3 and torch.equal(found.draws, sampling(y, PROBLEM).draws)
    longer = ob.methods.WeightSampling(method, draws=6, seed=2)(y, PROBLEM)
    assert torch.equal(longer.draws[:4], found.draws)
    assert torch.allclose(found.covariance.dense(), spread_covariance(found.draws).dense())
    assert not torch.equal(ob.methods.WeightSampling(method, draws=4, seed=3)(y, PROBLEM).draws, found.draws)


def test_a_draw_is_held_through_all_stages_of_an_unrolled_network():
    """K stages of x ← w x with one weight give w^K: its spread is that of the power, not of K independent weights."""
    net = ob.networks.Stages(GaussianWeights(Linear().double(), deviation=0.3), stages=3).double()
    method = ob.methods.Unrolled(net, "hqs")
    found = ob.methods.WeightSampling(method, draws=5)(torch.ones(SHAPE).double(), PROBLEM)
    for number, image in enumerate(found.draws):
        held = ob.networks.stochastic.drawn(net, stream(0, number))
        assert len(held.networks) == 1 and not any("paced_log" in name for name, _ in held.named_parameters())
        assert torch.equal(ob.methods.Unrolled(held, "hqs")(torch.ones(SHAPE).double(), PROBLEM).image, image)


def test_the_network_of_a_denoiser_is_drawn_too_and_may_bring_its_own_covariance():
    method = ob.methods.Tweedie(ob.priors.Denoiser(network()), probes=64)
    y = torch.rand(SHAPE, generator=stream(0, 0)).double()
    alone = ob.methods.WeightSampling(method, draws=3)(y, PROBLEM)
    assert alone.target == "epistemic" and alone.covariance.rank == 2
    whole = ob.methods.WeightSampling(method, draws=3, aleatoric=True)(y, PROBLEM)
    assert whole.target == "posterior" and torch.allclose(whole.mean, alone.mean)
    assert bool((whole.std > alone.std).all())
    with pytest.raises(InputError, match="aleatoric"):
        ob.methods.WeightSampling(ob.methods.Network(network()), draws=2, aleatoric=True)(y, PROBLEM)


def test_a_method_without_random_weights_is_refused():
    plain = ob.networks.build({"kind": "Preconditioned", "network": UNET})
    for method in (ob.methods.Network(plain), ob.methods.Gaussian(ob.priors.GaussianField(torch.ones(8, 8), SHAPE))):
        with pytest.raises(InputError, match="random weights"):
            ob.methods.WeightSampling(method)
    with pytest.raises(InputError, match="two draws"):
        ob.methods.WeightSampling(ob.methods.Network(network()), draws=1)
