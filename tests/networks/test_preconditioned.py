"""Preconditioning: right at both ends of the noise levels, and indifferent to the image's unit."""

import pytest
import torch
from torch import nn

from obverse.errors import InputError
from obverse.networks import Preconditioned, UNet


class Nothing(nn.Module):
    def forward(self, x):
        return torch.zeros_like(x[:, :-2])


class Recorded(nn.Module):
    """Keeps what it was given, and answers 1."""

    def forward(self, x):
        self.given = x
        return torch.ones_like(x[:, :-2])


def image(*shape):
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def levels(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_with_no_network_the_image_passes_until_noise_drowns_it():
    x, sigma = image(3, 1, 5, 4), levels(0.03, 0.3, 30.0)
    found = Preconditioned(Nothing(), deviation=0.25, centre=0.4)(x, sigma)
    for item, (skip, tolerance) in enumerate([(1.0, 1e-6), (1 / (1 + 0.3**4), 1e-12), (0.0, 2e-6)]):
        torch.testing.assert_close(found[item], 0.4 + skip * (x[item] - 0.4), rtol=0, atol=tolerance)


def test_the_network_answers_in_units_of_the_noise():
    """And, where there is more noise than image, of the image: σs/√(σ² + s²)."""
    x, sigma = image(3, 1, 6, 6), levels(1e-4, 0.25, 1e4)
    gain = Preconditioned(Recorded())(x, sigma) - Preconditioned(Nothing())(x, sigma)
    expected = torch.stack([torch.full((1, 6, 6), g, dtype=x.dtype) for g in (1e-4, 0.25 * 0.5**0.5, 0.25)])
    torch.testing.assert_close(gain, expected, rtol=1e-6, atol=0)


def test_in_noise_alone_the_answer_rests_on_the_network():
    x, sigma = image(1, 1, 6, 6), 1e6
    found = Preconditioned(Nothing(), centre=0.4)(x, levels(sigma))
    torch.testing.assert_close(found, torch.full_like(x, 0.4), rtol=0, atol=1e-9)


def test_the_network_sees_unit_variance_and_the_level():
    recorded, sigma = Recorded(), levels(0.0025, 0.25, 25.0)
    random = torch.Generator().manual_seed(0)
    clean = 0.5 + 0.25 * torch.randn(3, 2, 64, 64, dtype=torch.float64, generator=random)
    noise = torch.randn(clean.shape, dtype=torch.float64, generator=random)
    Preconditioned(recorded)(clean + sigma.reshape(3, 1, 1, 1) * noise, sigma)
    assert recorded.given.shape == (3, 4, 64, 64)
    assert recorded.given[:, :2].std((1, 2, 3)).sub(1).abs().max() < 0.05
    noise_share, image_share = recorded.given[:, 2], recorded.given[:, 3]
    torch.testing.assert_close(noise_share.square() + image_share.square(), torch.ones_like(noise_share))
    torch.testing.assert_close(noise_share[:, 0, 0] / image_share[:, 0, 0], sigma / 0.25)


def test_another_unit_of_the_image_changes_nothing():
    """With a homogeneous network, D(m + a z, a σ; a s) = m + a (D(m + z, σ; s) − m)."""
    torch.manual_seed(0)
    inner = UNet(3, 1, widths=(3, 4), blocks=1).double()
    z, sigma = image(2, 1, 8, 8) - 0.5, levels(0.1, 0.5)
    one = Preconditioned(inner, deviation=0.25)(0.5 + z, sigma)
    for unit in (0.01, 40.0):
        other = Preconditioned(inner, deviation=0.25 * unit)(0.5 + unit * z, unit * sigma)
        torch.testing.assert_close((other - 0.5) / unit, one - 0.5, rtol=1e-9, atol=1e-12)


def test_each_item_has_its_own_level():
    torch.manual_seed(0)
    net, x = Preconditioned(UNet(3, 1, widths=(3,), blocks=1).double()), image(2, 1, 8, 8)
    together = net(x, levels(0.1, 0.7))
    for item, level in enumerate((0.1, 0.7)):
        torch.testing.assert_close(together[item], net(x[item : item + 1], levels(level))[0])
    assert not torch.allclose(together, net(x, levels(0.7, 0.1)))


@pytest.mark.parametrize("deviation", [0.0, -1.0, float("nan"), float("inf")])
def test_the_deviation_has_to_be_positive(deviation):
    with pytest.raises(InputError):
        Preconditioned(Nothing(), deviation=deviation)
