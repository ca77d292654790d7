"""EPLL against its definition, patch by patch, and what may not matter: batches, bands, constants."""

import pytest
import torch

from obverse.errors import InputError
from obverse.networks import PatchMixture, patch_mixture
from obverse.priors import Denoiser, load

SIDE, SIGMA = 3, 0.1


def mixture(components=4, stride=1):
    generator = torch.Generator().manual_seed(0)
    roots = torch.randn(components, SIDE**2, SIDE**2, generator=generator, dtype=torch.float64)
    scale = torch.logspace(-2.5, -1, components, dtype=torch.float64)[:, None, None]
    covariances = scale**2 * roots @ roots.mT / SIDE**2
    centre = torch.eye(SIDE**2, dtype=torch.float64) - 1 / SIDE**2
    weights = torch.arange(1.0, components + 1, dtype=torch.float64)
    covariances = centre @ covariances @ centre
    return PatchMixture.of(weights, covariances, stride).double().requires_grad_(False), weights, covariances


def image(seed=0, shape=(8, 9)):
    x = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x.cumsum(1) / 5


def by_definition(y, weights, covariances, sigma):
    """Every patch in a loop, with dense inverses."""
    x, eye = y.clone(), torch.eye(SIDE**2, dtype=y.dtype)
    for b in (1, 4, 8, 16, 32):
        total, count = torch.zeros_like(y), torch.zeros_like(y)
        blurred = covariances + sigma**2 / b * eye
        for i in range(y.shape[0] - SIDE + 1):
            for j in range(y.shape[1] - SIDE + 1):
                v = x[i : i + SIDE, j : j + SIDE].flatten()
                d = v - v.mean()
                scores = weights.log() - 0.5 * torch.logdet(blurred) - 0.5 * d @ (torch.linalg.inv(blurred) @ d).T
                k = int(scores.argmax())
                z = v.mean() + covariances[k] @ torch.linalg.solve(blurred[k], d)
                total[i : i + SIDE, j : j + SIDE] += z.reshape(SIDE, SIDE)
                count[i : i + SIDE, j : j + SIDE] += 1
        x = (y + b * total / count) / (1 + b)
    return x


def test_against_the_definition(monkeypatch):
    net, weights, covariances = mixture()
    y = image() + SIGMA * torch.randn(8, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    truth = by_definition(y, weights, covariances, SIGMA)
    monkeypatch.setattr(patch_mixture, "_DROWNED", 0.0)
    assert torch.allclose(net(y[None, None], torch.tensor([SIGMA]))[0, 0], truth, atol=1e-6)
    monkeypatch.undo()
    found = net(y[None, None], torch.tensor([SIGMA]))[0, 0]
    assert float((found - truth).square().mean()) < 1e-3 * float((y - truth).square().mean())


def test_exact_and_fast_log_densities_agree():
    net, weights, covariances = mixture()
    v = torch.randn(20, SIDE**2, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * 0.1
    v = v - v.mean(1, keepdim=True)
    law = torch.distributions.MultivariateNormal
    eye = torch.eye(SIDE**2, dtype=torch.float64)
    truth = torch.stack(
        [
            (w / weights.sum()).log() + law(torch.zeros(SIDE**2).double(), c + 0.01 * eye).log_prob(v)
            for w, c in zip(weights, covariances)
        ],
        1,
    )
    assert torch.allclose(net.log_joint(v + 3.0, 0.01), truth, atol=1e-5)


def test_batches_bands_and_constants_do_not_matter(monkeypatch):
    net, _, _ = mixture()
    y = torch.stack([image(0), image(1)])[:, None]
    levels = torch.tensor([0.1, 0.05], dtype=torch.float64)
    found = net(y, levels)
    assert torch.allclose(found[1], net(y[1:], levels[1:])[0])
    assert torch.allclose(net(y + 2.0, levels), found + 2.0)
    assert not torch.allclose(net(2 * y, levels), 2 * found, atol=1e-3)
    monkeypatch.setattr(patch_mixture, "_AT_ONCE", 14)
    assert torch.allclose(net(y, levels), found)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_denoises_with_every_stride(stride):
    # flat patches, and an edge in either direction at either place
    steps = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 1.0]], dtype=torch.float64)
    edges = torch.cat([steps[:, None].expand(2, 3, 3), steps[:, :, None].expand(2, 3, 3)]).flatten(1)
    edges = torch.cat([torch.zeros(1, 9, dtype=torch.float64), edges - edges.mean(1, keepdim=True)])
    covariances = edges[:, :, None] * edges[:, None] + 1e-6 * torch.eye(9, dtype=torch.float64)
    net = PatchMixture.of(torch.tensor([0.8, 0.05, 0.05, 0.05, 0.05]), covariances, stride).requires_grad_(False)
    net = net.double()
    x = torch.zeros(17, 20, dtype=torch.float64)
    x[5:, 7:] = 1.0
    y = x + 0.05 * torch.randn(17, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    prior = Denoiser(net)
    found = prior.denoise(y[None], 0.05)[0]
    assert float((found - x).square().mean()) < 0.5 * float((y - x).square().mean())
    scaled = prior.scaled(100.0, 300.0)
    assert torch.allclose(scaled.denoise(100 + 200 * y[None], 10.0)[0], 100 + 200 * found, atol=1e-3)


def test_bad_use_is_refused():
    for make in (
        lambda: PatchMixture(0),
        lambda: PatchMixture(3, side=4, stride=5),
        lambda: PatchMixture.of(torch.ones(2), torch.eye(5).expand(2, 5, 5)),
        lambda: PatchMixture(2)(torch.zeros(1, 1, 7, 9), torch.ones(1)),
    ):
        with pytest.raises(InputError):
            make()


def test_shipped_mixture_denoises():
    prior = load("patches-gray")
    assert isinstance(prior.network, PatchMixture)
    shades = torch.linspace(0.2, 0.8, 32)
    x = (shades + 0.2 * (shades[:, None] > 0.5))[None]
    y = x + 0.1 * torch.randn(1, 32, 32, generator=torch.Generator().manual_seed(0))
    error = (prior.denoise(y, 0.1) - x).square().mean()
    assert float(error) < 0.2 * 0.1**2 < float((prior.denoise(y, 0.02) - x).square().mean())
    assert abs(float(prior.network.weights.sum()) - 1) < 1e-5
