"""Variational autoencoders: shapes, variances that stay above their floor, numbers that stay finite."""

import pytest
import torch

from obverse.errors import InputError
from obverse.networks import VAE, ConditionalVAE, UNet, build


def conditional(variance="pixel", outputs=2):
    torch.manual_seed(0)
    network = UNet(5, outputs, widths=(4, 6), blocks=1, bias=True)
    return ConditionalVAE(network, latent=3, widths=(4, 6), variance=variance)


@pytest.mark.parametrize("variance", ["scalar", "pixel"])
def test_shapes_and_the_two_variances(variance):
    vae = VAE((2, 8, 12), latent=3, widths=(4, 6), variance=variance)
    mean, log_variance = vae.encode(torch.rand(5, 2, 8, 12))
    image, spread = vae.decode(torch.randn(5, 3))
    assert mean.shape == log_variance.shape == (5, 3) and image.shape == spread.shape == (5, 2, 8, 12)
    assert bool((spread == spread[0, 0, 0, 0]).all()) == (variance == "scalar")
    network = conditional(variance, 1 if variance == "scalar" else 2)
    c = torch.rand(2, 2, 9, 14)  # any size
    assert network.posterior(torch.rand(2, 1, 9, 14), c)[0].shape == network.prior(c)[0].shape == (2, 3, 2, 3)
    image, spread = network.decode(network.prior(c)[0], c)
    assert image.shape == spread.shape == (2, 1, 9, 14)
    assert bool((spread == spread[0, 0, 0, 0]).all()) == (variance == "scalar")


def test_extreme_weights_give_finite_densities():
    vae = VAE((1, 8, 8), latent=3, widths=(4, 6), variance="pixel", floor=0.01)
    for factor in (-1e4, 1e4):
        with torch.no_grad():
            vae.tail.bias.fill_(factor)
            vae.encoder[-1].bias.fill_(factor)
        with torch.no_grad():
            _, log_variance = vae.encode(torch.rand(1, 1, 8, 8))
            _, variance = vae.decode(torch.zeros(1, 3))
        assert float(log_variance.abs().max()) <= 8 and bool(variance.isfinite().all())
        assert float(variance.min()) >= 1e-4 * (1 - 1e-6)


def test_the_latent_variables_reach_every_part_of_a_conditional_image():
    network, c = conditional(), torch.rand(1, 2, 8, 8)
    z = network.prior(c)[0].detach().requires_grad_(True)
    network.decode(z, c)[0].sum().backward()
    assert bool((z.grad != 0).all())


def test_descriptions_and_wrong_ones():
    assert build({"kind": "VAE", "image_shape": [1, 8, 8], "latent": 2, "widths": [4]}).image_shape == (1, 8, 8)
    inner = {"kind": "UNet", "inputs": 4, "outputs": 2, "widths": [4], "blocks": 1}
    assert isinstance(build({"kind": "ConditionalVAE", "network": inner, "latent": 2}), ConditionalVAE)
    for wrong in ({"image_shape": [1, 9, 8]}, {"latent": 0}, {"floor": 0.0}):
        with pytest.raises(InputError):
            build({"kind": "VAE", "image_shape": [1, 8, 8], "widths": [4], **wrong})
    with pytest.raises(InputError, match="outputs"):
        conditional("pixel", 1).decode(torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 8, 8))
