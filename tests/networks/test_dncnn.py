"""DnCNN: its layers by hand, its reach, and that it learns."""

import pytest
import torch
from torch.nn.functional import conv2d, relu

from obverse.errors import InputError
from obverse.networks import DnCNN, Preconditioned, build


def test_against_its_definition():
    torch.manual_seed(0)
    net, x = DnCNN(2, 1, width=4, depth=3).double(), torch.rand(2, 2, 6, 5, dtype=torch.float64)
    first, second, third = (layer for layer in net.layers if isinstance(layer, torch.nn.Conv2d))
    z = relu(conv2d(x, first.weight, first.bias, padding=1))
    z = relu(conv2d(z, second.weight, second.bias, padding=1))
    noise = conv2d(z, third.weight, third.bias, padding=1)
    assert torch.allclose(net(x), x[:, :1] - noise)
    net.residual = False
    assert torch.allclose(net(x), noise)


def test_reach_and_homogeneity():
    torch.manual_seed(0)
    net = DnCNN(1, 1, width=4, depth=3, bias=False)
    x = torch.rand(1, 1, 15, 15).requires_grad_(True)
    (slope,) = torch.autograd.grad(net(x)[0, 0, 7, 7], x)
    touched = slope[0, 0].nonzero()
    assert touched.min() >= 4 and touched.max() <= 10 and len(touched) > 25
    assert torch.allclose(net(3 * x), 3 * net(x), atol=1e-5)
    assert not torch.allclose(net(-x), -net(x), atol=1e-3)


def test_learns_to_denoise():
    description = {"kind": "DnCNN", "inputs": 3, "outputs": 1, "width": 8, "depth": 3, "residual": False}
    torch.manual_seed(0)
    net = build({"kind": "Preconditioned", "network": description})
    assert isinstance(net, Preconditioned)
    x = torch.linspace(0, 1, 16).expand(4, 1, 16, 16).clone()
    noisy, sigma = x + 0.2 * torch.randn(x.shape), torch.full((4,), 0.2)
    optimiser, losses = torch.optim.Adam(net.parameters(), 3e-3), []
    for _ in range(40):
        loss = (net(noisy, sigma) - x).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0] and losses[-1] < 0.5 * 0.04


def test_published_size():
    assert sum(p.numel() for p in DnCNN(1, 1).parameters()) == 1 * 64 * 9 + 64 + 15 * (64 * 64 * 9 + 64) + 64 * 9 + 1


@pytest.mark.parametrize("wrong", [{"depth": 1}, {"width": 0}, {"outputs": 2}])
def test_bad_sizes_are_refused(wrong):
    with pytest.raises(InputError):
        DnCNN(**{"inputs": 1, "outputs": 1, **wrong})
