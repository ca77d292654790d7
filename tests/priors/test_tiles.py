"""Tiles against the whole image, with small networks; a halo that is too small is seen."""

import pytest
import torch
from torch import nn

import obverse as ob
from obverse.errors import InputError
from obverse.networks import build
from obverse.priors import Denoiser
from obverse.priors.tiles import by_tiles, tile_side


def unet():
    torch.manual_seed(0)
    description = {"kind": "UNet", "inputs": 3, "outputs": 1, "widths": [4, 6, 8], "blocks": 1}
    network = build({"kind": "Preconditioned", "network": description}).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.mul_(1.5)  # fresh weights hardly look at their surroundings
    return network


def picture(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [(120, 147), (97, 161), (64, 131)])
def test_tiles_equal_the_whole(size):
    whole, x = Denoiser(unet()), picture(2, 1, *size)
    parts = Denoiser(whole.network, tile=32, halo=32)
    sigma = torch.tensor([0.1, 0.4])
    # the network reaches 2 + 4·(1 + 2) + 2·4 pixels, and up to 7 more by sampling: nothing that counts is cut off
    torch.testing.assert_close(parts.denoise(x, sigma), whole.denoise(x, sigma), atol=2e-6, rtol=0)


def test_without_a_halo_there_are_seams():
    whole, x = Denoiser(unet()), picture(1, 1, 96, 160)
    cut = Denoiser(whole.network, tile=32, halo=0)
    error = (cut.denoise(x, 0.2) - whole.denoise(x, 0.2)).abs()[0, 0].mean(0)
    assert error[31:33].mean() > 1e-3 and error[31:33].mean() > 3 * error[15:17].mean()  # the error sits on the seam


def test_weights_add_up_to_one_and_no_call_is_larger_than_allowed():
    seen = []

    def identity(x, levels):
        seen.append(x.numel())
        return x

    x = picture(3, 1, 203, 333)
    torch.testing.assert_close(by_tiles(identity, x, torch.ones(3), 64, 32), x)
    assert max(seen) <= (64 + 2 * 32) ** 2 and len(seen) > 3 * 3 * 5
    seen.clear()
    small = picture(40, 1, 32, 32)
    assert torch.equal(by_tiles(identity, small, torch.ones(40), 64, 32), small)
    assert max(seen) <= (64 + 2 * 32) ** 2 and len(seen) == 3


def test_tiles_are_differentiable_and_survive_scaling():
    denoiser = Denoiser(unet(), tile=32, halo=32).scaled(-3.0, 9.0)
    assert denoiser.tile == 32
    x = (12 * picture(1, 40, 140) - 3).requires_grad_(True)
    (cut,) = torch.autograd.grad(denoiser.denoise(x, 1.0).square().sum(), x)
    whole = Denoiser(denoiser.network).scaled(-3.0, 9.0)
    (expected,) = torch.autograd.grad(whole.denoise(x, 1.0).square().sum(), x)
    torch.testing.assert_close(cut, expected, atol=1e-3, rtol=1e-4)


def test_a_memory_budget_gives_a_tile():
    network = nn.Sequential(nn.Conv2d(1, 32, 3, padding=1), nn.Conv2d(32, 1, 3, padding=1))
    assert tile_side(network, 0.5e9) == 480  # (480 + 2·96)² pixels of 1 kB
    assert Denoiser(network).tiled(0.5e9).tile == 480
    with pytest.raises(InputError, match="MB for one tile"):
        tile_side(network, 1e6)
    with pytest.raises(InputError, match="multiples of 32"):
        by_tiles(lambda x, s: x, torch.zeros(1, 1, 8, 8), torch.ones(1), 50, 16)


def test_the_shipped_network_sees_no_tiles():
    whole = ob.priors.load("natural-gray")
    grid = torch.linspace(0, 40, 320)
    x = 0.5 + 0.3 * torch.sin(grid) * torch.cos(0.37 * grid[:40, None])
    x = x[None] + 0.1 * torch.randn(1, 40, 320, generator=torch.Generator().manual_seed(0))
    parts = Denoiser(whole.network, tile=96, halo=96)
    for sigma in (0.1, 1.0):
        assert (parts.denoise(x, sigma) - whole.denoise(x, sigma)).abs().max() < 1e-5
    cut = Denoiser(whole.network, tile=96, halo=0)
    assert (cut.denoise(x, 0.1) - whole.denoise(x, 0.1)).abs().max() > 1e-3
