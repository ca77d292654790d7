"""The Jacobian of denoisers: against closed forms and finite differences, symmetrised where it is not symmetric."""

import pytest
import torch
from torch import nn

import obverse as ob
from obverse import networks
from obverse.errors import InputError
from obverse.priors import Denoiser, GradientStep, Jacobian

SHAPE = (1, 8, 8)


def directions(count=3, dtype=torch.float64):
    return torch.randn(count, *SHAPE, dtype=dtype, generator=torch.Generator().manual_seed(0))


def learned(kind):
    torch.manual_seed(0)
    if kind == "plain":
        net = networks.Preconditioned(networks.UNet(3, 1, widths=(4, 6), blocks=1))
        return Denoiser(net.double().requires_grad_(False), low=-1.0, high=3.0)
    net = networks.GradientStep(networks.UNet(3, 1, widths=(4, 6), blocks=1, activation="elu"))
    return GradientStep(net.double().requires_grad_(False), low=-1.0, high=3.0)


def test_of_a_field_it_is_wieners_filter():
    field = ob.priors.GaussianField.power_law(SHAPE, 2.0, variance=0.1)
    J = Jacobian(field, directions(1)[0], 0.3)
    expected = field.denoise(directions(), 0.3) - field.denoise(torch.zeros_like(directions()), 0.3)
    torch.testing.assert_close(J(directions()), expected)
    assert J.asymmetry < 1e-12 and J.products == 3


@pytest.mark.parametrize("kind", ["plain", "gradient-step"])
def test_of_a_network_it_is_the_symmetric_part(kind):
    denoiser, x, sigma = learned(kind), directions(1)[0], 0.4
    J = Jacobian(denoiser, x, sigma)
    torch.testing.assert_close(J.output, denoiser.denoise(x, sigma))
    eye = torch.eye(64, dtype=torch.float64).reshape(-1, *SHAPE)
    step = 1e-6
    ahead = [(denoiser.denoise(x + step * e, sigma) - denoiser.denoise(x - step * e, sigma)) / (2 * step) for e in eye]
    dense = torch.stack([column.flatten() for column in ahead], 1)
    torch.testing.assert_close(J(eye).reshape(64, 64), (dense + dense.mT) / 2, rtol=0, atol=1e-7)
    skew = float((dense - dense.mT).norm() / (dense + dense.mT).norm())
    if kind == "plain":
        assert skew > 1e-3 and J.asymmetry == pytest.approx(skew, rel=1e-3)
    else:
        assert skew < 1e-6 and J.asymmetry == 0


def test_a_denoiser_without_a_graph_is_refused():
    class Detached(nn.Module):
        def forward(self, x, sigma):
            return x.detach() / 2

    class Bias(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(1))

        def forward(self, x, sigma):
            return x.detach() / 2 + self.bias

    with pytest.raises(InputError, match="differentiate"):
        Jacobian(Denoiser(Bias()), torch.zeros(SHAPE), 0.1)
    with pytest.raises(InputError, match="differentiate"):
        Jacobian(Denoiser(Detached()), torch.zeros(SHAPE), 0.1)
