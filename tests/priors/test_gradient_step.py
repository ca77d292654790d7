"""The gradient-step prior in the unit of the image: energy, gradient and denoiser belong together."""

import pytest
import torch

from obverse import networks, priors
from obverse.errors import InputError
from obverse.priors import Denoiser, Denoises, GradientStep


def network(seed=0):
    torch.manual_seed(seed)
    inner = networks.UNet(3, 1, widths=(4, 6), blocks=1, activation="elu")
    return networks.GradientStep(inner).double().requires_grad_(False)


def images(*shape, seed=0):
    return -20 + 300 * torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("channels", [1, 2])
def test_energy_gradient_and_denoiser_agree(channels):
    prior, sigma = GradientStep(network(), low=-20.0, high=280.0), torch.tensor([10.0, 40.0], dtype=torch.float64)
    x = images(2, channels, 6, 8).requires_grad_(True)
    value = prior.value(x, sigma)
    (expected,) = torch.autograd.grad(value.sum(), x)
    x = x.detach()
    assert value.shape == (2,) and isinstance(prior, Denoises)
    assert torch.allclose(prior.gradient(x, sigma), expected, atol=1e-10)
    assert torch.allclose(prior.denoise(x, sigma), x - expected, atol=1e-10)
    assert torch.allclose(Denoiser(prior.network, low=-20.0, high=280.0).denoise(x, sigma), x - expected, atol=1e-10)
    assert torch.allclose(prior.value(x[1], 40.0), value[1])
    assert not torch.allclose(prior.gradient(x, 2 * sigma), expected, rtol=1e-2)


def test_unit_of_the_image_does_not_matter():
    prior, x = GradientStep(network()), images(1, 6, 8) / 300
    bright = prior.scaled(100.0, 350.0)
    assert isinstance(bright, GradientStep)
    assert torch.allclose(bright.denoise(100 + 250 * x, 25.0), 100 + 250 * prior.denoise(x, 0.1))
    assert torch.allclose(bright.value(100 + 250 * x, 25.0), 250**2 * prior.value(x, 0.1))
    assert torch.allclose(bright.gradient(100 + 250 * x, 25.0), 250 * prior.gradient(x, 0.1))


def test_jacobian_products_are_symmetric_and_the_derivative():
    prior, x, sigma = GradientStep(network(), low=-20.0, high=280.0), images(1, 4, 6), 20.0
    eye = torch.eye(24, dtype=torch.float64).reshape(24, 1, 4, 6)
    dense = torch.stack([prior.jacobian_matvec(x, sigma, v).flatten() for v in eye])
    truth = torch.autograd.functional.jacobian(lambda u: prior.denoise(u, sigma), x).reshape(24, 24)
    assert torch.allclose(dense, truth, atol=1e-10) and torch.allclose(dense, dense.T, atol=1e-10)
    with torch.no_grad():
        assert torch.equal(prior.jacobian_matvec(x, sigma, eye[3]).flatten(), dense[3])


def test_weights_on_disk_come_back_as_what_they_are(tmp_path):
    description = {"kind": "UNet", "inputs": 3, "outputs": 1, "widths": [4, 6], "blocks": 1}
    for outer, kind in (("GradientStep", GradientStep), ("Preconditioned", Denoiser)):
        card = {"network": {"kind": outer, "network": description}, "channels": 1, "sigma_range": [0.01, 0.2]}
        networks.save(tmp_path / f"{outer}.safetensors", networks.build(card["network"]), card)
        assert type(priors.load(tmp_path / f"{outer}.safetensors")) is kind


def test_bad_use_is_refused():
    with pytest.raises(InputError):
        GradientStep(torch.nn.Identity())  # type: ignore[arg-type]
    prior = GradientStep(network())
    for call in (prior.value, prior.gradient):
        with pytest.raises(InputError):
            call(torch.zeros(4, 4), 0.1)
        with pytest.raises(InputError):
            call(torch.zeros(1, 4, 4), -0.1)
    with pytest.raises(InputError):
        prior.jacobian_matvec(torch.zeros(1, 4, 4), 0.1, torch.zeros(4, 4))


def test_shipped_prior_has_a_symmetric_jacobian_and_denoises():
    prior = priors.load("natural-gray-gradient")
    assert isinstance(prior, GradientStep)
    double, shades = prior.to(torch.float64), torch.linspace(0.2, 0.8, 32, dtype=torch.float64)
    x = (shades + 0.2 * (shades[:, None] > 0.5))[None]
    generator = torch.Generator().manual_seed(0)
    y, u, v = (x + 0.1 * torch.randn(1, 32, 32, dtype=torch.float64, generator=generator) for _ in range(3))
    left, right = (a * double.jacobian_matvec(y, 0.1, b) for a, b in ((u, v), (v, u)))
    assert float(left.sum()) == pytest.approx(float(right.sum()), rel=1e-10)
    error = (double.denoise(y, 0.1) - x).square().mean()
    assert float(error) < 0.15 * 0.1**2 < float((double.denoise(y, 0.02) - x).square().mean())
    assert float(double.value(x, 0.1)) < float(double.value(y, 0.1))
