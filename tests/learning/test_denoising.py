"""The denoising objective: its noise levels, its figures, and that the posterior mean minimises it."""

import math

import pytest
import torch
from torch import nn

from obverse.errors import InputError
from obverse.learning.data import places
from obverse.learning.objectives import Denoising
from obverse.noise.base import stream

CPU = torch.device("cpu")


class White:
    """Images of white Gaussian noise of deviation 0.25 around one half: their posterior mean is known."""

    def __init__(self, size=64, deviation=0.25):
        self.size, self.deviation = size, deviation

    def __len__(self):
        return 6

    def item(self, index, generator):
        return 0.5 + self.deviation * torch.randn(1, self.size, self.size, generator=generator)


class Shrinking(nn.Module):
    """m + k (x − m) with k a power of the exact s²/(s² + σ²); notes the levels it is given."""

    def __init__(self, power=1.0):
        super().__init__()
        self.power, self.levels = power, []

    def forward(self, x, sigma):
        self.levels += sigma.tolist()
        shrink = (0.0625 / (0.0625 + sigma.square())) ** self.power
        return 0.5 + shrink.reshape(-1, 1, 1, 1) * (x - 0.5)


def loss(network, count=64, **settings):
    return float(Denoising(**settings).loss(network, White(16), places(6, 0, count, seed=0), CPU))


def test_levels_fill_their_range_and_differ_between_items():
    network = Shrinking()
    loss(network, 2000, sigma=(0.05, 0.2), high=None)
    levels = torch.tensor(network.levels)
    assert 0.05 <= levels.min() < 0.052 and 0.198 < levels.max() <= 0.2
    histogram = torch.histc(levels, 10, 0.05, 0.2)
    assert ((histogram - 200).abs() < 5 * math.sqrt(200)).all(), "not uniform"


def test_a_share_of_the_levels_is_log_uniform_above():
    network = Shrinking()
    loss(network, 2000, sigma=(0.0, 0.2), high=4.0, share=0.3)
    levels = torch.tensor(network.levels)
    above = levels[levels > 0.2]
    assert abs(len(above) / 2000 - 0.3) < 5 * math.sqrt(0.3 * 0.7 / 2000) and levels.min() >= 1e-4
    assert abs(float(above.log().mean()) - math.log(math.sqrt(0.2 * 4.0))) < 5 * math.log(20) / math.sqrt(12 * 600)
    assert Denoising(sigma=(0.0, 0.2), high=4.0).sigma_range == (1e-4, 4.0)


def test_the_posterior_mean_minimises_it():
    exact = loss(Shrinking())
    for power in (0.8, 0.9, 1.1, 1.25):
        assert loss(Shrinking(power)) > exact * 1.001


def test_its_value_is_the_weighted_error():
    """The exact error is s²σ²/(s² + σ²), so that each item adds (σs/√(σ²+s²))^(2 − 3/2)."""
    network = Shrinking()
    found = loss(network, 200)
    expected = sum((sigma * 0.25 / math.hypot(sigma, 0.25)) ** 0.5 for sigma in network.levels) / 200
    assert found == pytest.approx(expected, rel=0.02)


def test_the_levels_and_noise_of_an_item_are_its_places():
    together, apart = Shrinking(), Shrinking()
    whole = loss(together, 8)
    parts = [float(Denoising().loss(apart, White(16), places(6, start, 2, seed=0), CPU)) for start in (0, 2, 4, 6)]
    assert together.levels == apart.levels
    assert sum(parts) / 4 == pytest.approx(whole, rel=1e-5)


def test_the_figures_of_a_network_that_does_nothing_are_those_of_the_noise():
    class Same(nn.Module):
        def forward(self, x, sigma):
            return x

    found = Denoising().validate(Same(), White(), CPU)
    for level in (15, 25, 50):
        assert found[f"psnr_{level}"] == pytest.approx(-20 * math.log10(level / 255), abs=0.05)
    assert found == Denoising().validate(Same(), White(), CPU)
    better = Denoising().validate(Shrinking(), White(), CPU)
    gain = 10 * math.log10(1 + (25 / 255 / 0.25) ** 2)
    assert better["psnr_25"] - found["psnr_25"] == pytest.approx(gain, abs=0.05)


@pytest.mark.parametrize(
    "wrong", [{"sigma": (0.2, 0.1)}, {"sigma": (-1, 1)}, {"share": 1.0}, {"high": 0.1, "sigma": (0, 0.2)}], ids=str
)
def test_levels_out_of_order_are_refused(wrong):
    with pytest.raises(InputError):
        Denoising(**wrong)


def test_it_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    loss(Shrinking(), 4)
    Denoising().validate(Shrinking(), White(8), CPU)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(torch.randn(2, generator=stream(0, 0)), torch.randn(2, generator=stream(0, 1)))
