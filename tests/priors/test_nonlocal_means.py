"""Non-local means: its limits, and that it averages what is alike."""

import pytest
import torch

from obverse.errors import InputError
from obverse.priors import Denoises, NonLocalMeans

pytest.importorskip("skimage")


def test_limits_of_the_strength():
    x = torch.rand(1, 25, 27, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    box = NonLocalMeans(strength=1e6, patch=3, reach=4).denoise(x, 0.01)
    assert float(box[0, 12, 13]) == pytest.approx(float(x[0, 8:17, 9:18].mean()), rel=1e-9)
    assert torch.allclose(NonLocalMeans(strength=0.01, patch=3, reach=4).denoise(x, 1e-4), x)


def test_averages_over_likes_only():
    """Two shades that alternate from row to row, in noise: each pixel keeps its own shade."""
    shade = (torch.arange(24) % 2).double()[:, None].expand(1, 24, 24)
    y = shade + 0.1 * torch.randn(1, 24, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    error = (NonLocalMeans().denoise(y, 0.1) - shade).square().mean()
    assert float(error) < 0.1 * float((y - shade).square().mean())
    blurred = torch.nn.functional.avg_pool2d(y, 3, 1, 1)
    assert float((blurred - shade).square().mean()) > 10 * float(error)


def test_denoises_batches_in_any_unit():
    x = torch.zeros(2, 3, 24, 24, dtype=torch.float64)
    x[..., 12:] = 1.0
    sigma = torch.tensor([0.05, 0.1], dtype=torch.float64)
    noise = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y, prior = x + sigma.reshape(2, 1, 1, 1) * noise, NonLocalMeans()
    found = prior.denoise(y, sigma)
    assert isinstance(prior, Denoises)
    assert bool(((found - x).square().mean((1, 2, 3)) < 0.2 * (y - x).square().mean((1, 2, 3))).all())
    assert torch.allclose(prior.denoise(y[1], 0.1), found[1])
    assert torch.allclose(prior.denoise(500 * y[1] + 100, 50.0), 500 * found[1] + 100)


def test_bad_use_is_refused():
    for call in (
        lambda: NonLocalMeans(strength=0.0),
        lambda: NonLocalMeans().denoise(torch.zeros(4, 4), 0.1),
        lambda: NonLocalMeans().denoise(torch.zeros(1, 4, 4), 0.0),
    ):
        with pytest.raises(InputError):
            call()
