"""Convolutions of frozen weights: values and derivatives of any order as autograd's, one convolution each."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from obverse.priors.frozen_convolution import frozen_convolutions

LAYERS = {
    "plain": (nn.Conv2d(3, 4, 3), (2, 3, 7, 8)),
    "strided": (nn.Conv2d(3, 4, 3, stride=(2, 3), padding=1), (2, 3, 8, 9)),
    "dilated": (nn.Conv2d(4, 4, 3, dilation=2, padding=(2, 1), groups=2, bias=False), (1, 4, 9, 8)),
    "transposed": (nn.ConvTranspose2d(4, 3, 3, stride=2, padding=1, output_padding=(1, 0)), (2, 4, 5, 6)),
    "transposed groups": (nn.ConvTranspose2d(4, 2, 2, stride=2, groups=2, bias=False), (1, 4, 5, 5)),
    "line": (nn.Conv1d(2, 3, 3, padding=1), (2, 2, 9)),
    "volume": (nn.Conv3d(1, 2, 2, stride=2), (1, 1, 5, 4, 4)),
    "mirrored": (nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect"), (1, 1, 6, 6)),
    "same": (nn.Conv2d(1, 2, 3, padding="same"), (1, 1, 6, 6)),
    "one image": (nn.Conv2d(1, 2, 3), (1, 6, 6)),
}


def derivatives(layer, x):
    """y, Jᵀg, ∂(Jᵀg)/∂x v and a third derivative of a function with all of them."""
    y = layer(x).pow(3)
    found = [y]
    for _ in range(3):
        (slope,) = torch.autograd.grad(found[-1].square().sum(), x, create_graph=True)
        found.append(slope)
    return found


@pytest.mark.parametrize("name", LAYERS)
def test_values_and_derivatives_are_those_of_autograd(name):
    torch.manual_seed(0)
    layer, shape = LAYERS[name]
    layer = layer.double().requires_grad_(False)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    expected = derivatives(layer, x)
    with frozen_convolutions():
        got = derivatives(layer, x)
    for mine, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10 * float(theirs.detach().abs().max()))


class Counted(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += "convolution" in str(func)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("frozen", [True, False])
def test_each_derivative_takes_one_convolution_a_layer(frozen):
    layers = [nn.Conv2d(1, 1, 3, padding=1, bias=False) for _ in range(5)]
    net = nn.Sequential(*(part for layer in layers for part in (layer, nn.ELU()))).requires_grad_(False)
    x, g = torch.randn(1, 1, 8, 8, requires_grad=True), torch.randn(1, 1, 8, 8, requires_grad=True)

    def product():
        y = net(x)
        (back,) = torch.autograd.grad(y, x, g, create_graph=True)
        with Counted() as counted:
            torch.autograd.grad(back, g, torch.ones_like(back))
        return counted.count

    if not frozen:
        assert product() > 5  # or the file is needed no longer
        return
    with frozen_convolutions():
        assert product() == 5


def test_weights_that_are_learned_get_their_gradient():
    layer, x = nn.Conv2d(1, 1, 3), torch.randn(1, 1, 5, 5)
    with frozen_convolutions():
        layer(x).square().sum().backward()
    assert layer.weight.grad is not None and float(layer.weight.grad.abs().sum()) > 0


def test_autocast_is_left_alone():
    layer = nn.Conv2d(1, 1, 3).requires_grad_(False)
    with frozen_convolutions(), torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(1, 1, 5, 5, requires_grad=True)).dtype == torch.bfloat16
