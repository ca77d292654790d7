"""Random weights: dropout and Gaussian ones, their draws, their noise while training, and the known optimum."""

import math

import pytest
import torch
from torch import nn

from obverse.errors import InputError
from obverse.networks import DnCNN, Dropout, GaussianWeights, UNet, build, load, save
from obverse.networks.stochastic import divergence, drawn, item_noise, noisy
from obverse.noise.base import stream
from tests.posterior.cases import normal, seeded

KINDS = {"dropout": lambda net: Dropout(net, rate=0.3), "gaussian": lambda net: GaussianWeights(net, deviation=0.2)}


def streams(count: int, first: int = 0):
    return [stream(5, first + i) for i in range(count)]


def unet() -> nn.Module:
    torch.manual_seed(0)
    return UNet(1, 1, widths=(4, 6), blocks=1, bias=True).double()


@pytest.mark.parametrize("kind", KINDS)
class TestBothKinds:
    def test_without_noise_it_is_the_plain_network(self, kind):
        x = normal(2, 1, 8, 8)
        assert torch.equal(KINDS[kind](unet())(x), unet()(x))

    def test_a_draw_is_an_ordinary_network_that_stays_as_it_is(self, kind):
        net, x = KINDS[kind](unet()), normal(2, 1, 8, 8)
        one = drawn(net, seeded(0))
        assert torch.equal(one(x), one(x))
        assert torch.equal(one(x), drawn(net, seeded(0))(x))
        assert not torch.allclose(one(x), drawn(net, seeded(1))(x))
        assert torch.equal(net(x), unet()(x))  # untouched
        plain = sum(p.numel() for p in unet().parameters())
        assert sum(p.numel() for p in one.parameters()) == plain

    def test_noise_of_an_item_does_not_depend_on_the_batch(self, kind):
        net, x = KINDS[kind](unet()), normal(4, 1, 8, 8)
        with noisy(net, streams(4)):
            whole = net(x)
        parts = []
        for first in (0, 2):
            with noisy(net, streams(2, first)):
                parts.append(net(x[first : first + 2]))
        assert torch.allclose(torch.cat(parts), whole, rtol=0, atol=1e-12)
        assert not torch.allclose(whole, net(x))

    def test_noise_ends_with_its_block_even_when_that_fails(self, kind):
        net, x = KINDS[kind](unet()), normal(1, 1, 8, 8)
        with pytest.raises(ZeroDivisionError), noisy(net, streams(1)):
            _ = 1 / 0
        assert torch.equal(net(x), unet()(x))

    def test_draws_and_noise_of_a_linear_layer_have_the_same_moments(self, kind):
        torch.manual_seed(1)
        net = KINDS[kind](nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)).double())
        x = normal(1, 3)
        layer = net.network[1]
        given = net.network[0](x).detach()
        with torch.no_grad():
            by_weights = torch.cat([layer.draw(stream(1, i))(given) for i in range(4000)])
            layer.streams = streams(4000)
            by_noise = layer(given.expand(4000, -1))
        for found in (by_weights, by_noise):
            assert torch.allclose(found.mean(0), layer.layer(given)[0], atol=5 * float(found.std(0).max()) / 60)
        assert torch.allclose(by_weights.std(0), by_noise.std(0), rtol=0.06)

    def test_it_is_built_saved_and_loaded_like_any_network(self, kind, tmp_path):
        name = {"dropout": "Dropout", "gaussian": "GaussianWeights"}[kind]
        plain = {"kind": "DnCNN", "inputs": 1, "outputs": 1, "width": 4, "depth": 3}
        card = {"network": {"kind": name, "network": plain}}
        net = build(card["network"])
        save(tmp_path / "one.safetensors", net, card)
        again, _ = load(tmp_path / "one.safetensors")
        x = torch.rand(1, 1, 6, 6)
        assert torch.equal(drawn(again, seeded(3))(x), drawn(net, seeded(3))(x))

    def test_weights_of_transposed_and_strided_layers_are_drawn_too(self, kind):
        net = KINDS[kind](unet())
        plain, one = dict(unet().named_parameters()), dict(drawn(net, seeded(0)).named_parameters())
        same = {name for name in plain if torch.equal(plain[name], one["network." + name])}
        if kind == "gaussian":
            assert not same
        else:  # the first layer and the biases are not dropped
            assert same == {"head.weight"} | {name for name in plain if name.endswith("bias")}


def test_dropout_takes_whole_channels_with_its_rate_and_keeps_the_mean():
    net = Dropout(nn.Sequential(nn.Linear(4, 400), nn.Linear(400, 3, bias=False)).double(), rate=0.25)
    weight, kept = net.network[1].layer.weight.detach(), []
    for seed in range(50):
        mask = drawn(net, seeded(seed)).network[1].weight.detach() / weight
        assert torch.allclose(mask, mask[:1].expand_as(mask))  # a column is there for all outputs, or for none
        kept.append(float((mask[0] > 0).double().mean()))
        assert set(mask[0].round(decimals=6).tolist()) <= {0.0, round(4 / 3, 6)}
    assert sum(kept) / 50 == pytest.approx(0.75, abs=0.01)


def test_gaussian_divergence_is_the_formula():
    net = GaussianWeights(nn.Linear(3, 2).double(), deviation=0.3, prior=0.7)
    layer = net.network
    means = torch.cat([p.detach().reshape(-1) for p in layer.layer.parameters()])
    sigmas = torch.cat([layer.log_deviation(n).detach().exp() for n in ("weight", "bias")])
    law = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(law(means, sigmas), law(torch.zeros(8), torch.full((8,), 0.7))).sum()
    assert float(divergence(net)) == pytest.approx(float(expected))


def test_training_reaches_the_mean_field_optimum_of_a_linear_model():
    """q's mean is the exact posterior mean and its variances 1/Λ_jj, below the true marginals."""
    error, prior, count = 0.5, 1.0, 60
    features = normal(count, 3) @ torch.tensor([[1.0, 0.5, 0.0], [0.0, 1.0, 0.4], [0.0, 0.0, 1.0]]).double()
    target = features @ torch.tensor([1.0, -0.5, 0.3]).double() + error * normal(count, seed=2)
    precision = features.mT @ features / error**2 + torch.eye(3).double() / prior**2
    mean = torch.linalg.solve(precision, features.mT @ target / error**2)
    net = GaussianWeights(nn.Linear(3, 1, bias=False).double(), deviation=0.5, prior=prior)
    repeated, truth = features.repeat(20, 1), target.repeat(20)
    optimiser, steps = torch.optim.Adam(net.parameters(), lr=0.02, betas=(0.9, 0.99)), 800
    generators = streams(1)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 0.01 * (1 + math.cos(math.pi * step / steps))
        with noisy(net, generators):
            misfit = (net(repeated)[:, 0] - truth).square().mean()
        loss = count * misfit / (2 * error**2) + divergence(net)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    found, variance = net.network.layer.weight.detach()[0], net.network.log_deviation("weight").detach().mul(2).exp()
    assert torch.allclose(found, mean, rtol=0, atol=0.02 * float(mean.abs().max()))
    assert torch.allclose(variance, 1 / precision.diagonal(), rtol=0.05)
    marginal = torch.linalg.inv(precision).diagonal()
    assert bool((variance[:2] < 0.9 * marginal[:2]).all())  # independence costs, and is seen


def test_rows_of_items_must_be_whole():
    with pytest.raises(InputError, match="whole items"):
        item_noise(torch.zeros(3, 2), (2,), streams(2))
    assert item_noise(torch.zeros(6, 2), (2,), streams(2)).shape == (6, 2)


def test_networks_that_cannot_be_random_are_refused():
    with pytest.raises(InputError, match="random weights"), noisy(DnCNN(1, 1, 4, 3), streams(1)):
        pass
    plain = DnCNN(1, 1, 4, 3)
    assert drawn(plain, seeded(0)) is plain
    for net in (nn.Linear(2, 2), nn.ReLU()):
        with pytest.raises(InputError, match="layers"):
            Dropout(net)
    with pytest.raises(InputError, match="layers"):
        GaussianWeights(nn.ReLU())
    with pytest.raises(InputError, match="rate"):
        Dropout(plain, rate=1.0)
    with pytest.raises(InputError, match="positive deviation"):
        GaussianWeights(plain, deviation=0.0)
