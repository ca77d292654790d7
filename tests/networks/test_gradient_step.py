"""The gradient-step denoiser: a true gradient, a symmetric Jacobian, usable with and without autograd."""

import pytest
import torch

from obverse.errors import InputError
from obverse.networks import GradientStep, Preconditioned, UNet, build

SIGMA = torch.tensor([0.05, 0.2], dtype=torch.float64)


def inner(channels=1):
    torch.manual_seed(0)
    return UNet(channels + 2, channels, widths=(4, 6), blocks=1, activation="elu")


def network(channels=1):
    return GradientStep(inner(channels)).double()


def images(*shape, seed=0):
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def jacobian(net, x, sigma):
    dense = torch.autograd.functional.jacobian(lambda v: net(v[None], sigma)[0], x)
    return dense.reshape(x.numel(), x.numel())


@pytest.mark.parametrize("channels", [1, 3])
def test_jacobian_is_symmetric_and_that_of_a_plain_network_is_not(channels):
    x = images(channels, 6, 5)
    dense = jacobian(network(channels), x, SIGMA[:1])
    assert float((dense - dense.T).abs().max()) < 1e-10
    plain = jacobian(Preconditioned(inner(channels)).double(), x, SIGMA[:1])
    assert float((plain - plain.T).abs().max()) > 1e-3


def test_gradient_is_that_of_the_energy():
    net, x = network(), images(2, 1, 6, 5).requires_grad_(True)
    energy = net.energy(x, SIGMA)
    (expected,) = torch.autograd.grad(energy.sum(), x)
    assert energy.shape == (2,) and torch.allclose(net.gradient(x, SIGMA), expected, atol=1e-14)
    assert torch.allclose(net(x, SIGMA), x - expected)
    direction = images(2, 1, 6, 5, seed=1)
    with torch.no_grad():
        ahead, behind = net.energy(x + 1e-5 * direction, SIGMA), net.energy(x - 1e-5 * direction, SIGMA)
    assert torch.allclose((ahead - behind) / 2e-5, (expected * direction).sum((1, 2, 3)), rtol=1e-6)


def test_works_without_autograd_and_leaves_its_input_alone():
    net, x = network(), images(2, 1, 6, 5)
    expected = net(x, SIGMA)
    assert expected.requires_grad  # follows the weights
    with torch.no_grad():
        found = net(x, SIGMA)
        assert torch.equal(found, net(x.clone().requires_grad_(True), SIGMA))
    with torch.inference_mode(False), torch.no_grad():
        assert not found.requires_grad and not x.requires_grad
    assert torch.equal(found, expected)
    frozen = network().requires_grad_(False)
    assert not frozen(x, SIGMA).requires_grad
    assert frozen(x.requires_grad_(True), SIGMA).requires_grad


def test_derivatives_in_weights_image_and_level():
    net, x, sigma = network(), images(2, 1, 4, 4).requires_grad_(True), SIGMA.clone().requires_grad_(True)
    assert torch.autograd.gradcheck(net, (x, sigma))
    weight = net.network.head.weight
    (exact,) = torch.autograd.grad(net(x, SIGMA).square().sum(), weight)
    step = torch.zeros_like(weight)
    step[0, 0, 1, 0] = 1e-5
    with torch.no_grad():
        weight += step
        ahead = net(x, SIGMA).square().sum()
        weight -= 2 * step
        behind = net(x, SIGMA).square().sum()
    assert float((ahead - behind) / 2e-5) == pytest.approx(float(exact[0, 0, 1, 0]), rel=1e-6)


def test_training_in_bfloat16_lowers_the_loss():
    torch.manual_seed(0)
    net = GradientStep(inner())
    x = images(4, 1, 16, 16).float().cumsum(-1) / 16
    noisy, sigma = x + 0.2 * torch.randn(x.shape), torch.full((4,), 0.2)
    optimiser, losses = torch.optim.Adam(net.parameters(), 3e-3), []
    for _ in range(30):
        with torch.autocast("cpu", torch.bfloat16):
            loss = (net(noisy, sigma).float() - x).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.6 * losses[0]


def test_without_a_network_it_is_the_filter_of_white_images():
    net = network()
    torch.nn.init.zeros_(net.network.tail.weight)
    x, share = images(2, 1, 4, 4), (SIGMA**2 / (SIGMA**2 + 0.25**2)).reshape(2, 1, 1, 1)
    assert torch.allclose(net(x, SIGMA), x - share * (x - 0.5))


def test_is_built_from_a_description():
    description = {"kind": "GradientStep", "network": {"kind": "UNet", "inputs": 3, "outputs": 1, "activation": "elu"}}
    assert isinstance(build(description), GradientStep)
    with pytest.raises(InputError):
        build({**description, "deviation": 0.0})
