"""The stationary Gaussian field against its dense covariance."""

import math

import pytest
import torch

from obverse.errors import InputError
from obverse.priors import GaussianField

SHAPES = [(1, 4, 6), (2, 5, 4), (1, 3, 4, 5)]


def dense(field):
    n = math.prod(field.image_shape)
    eye = torch.eye(n, dtype=torch.float64).reshape(n, *field.image_shape)
    return field.covariance_matvec(eye).reshape(n, n)


def images(field, n, seed=0):
    return torch.randn(n, *field.image_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", SHAPES)
def test_against_the_dense_covariance(shape):
    mean = torch.linspace(-1, 1, shape[-1], dtype=torch.float64)
    field = GaussianField.power_law(shape, 2.5, 2.0, mean=mean)
    sigma = dense(field)
    n = len(sigma)
    assert torch.allclose(sigma, sigma.T) and torch.allclose(
        sigma.diagonal(), torch.full((n,), 2.0, dtype=torch.float64)
    )
    modes = torch.fft.fftn(
        torch.eye(n, dtype=torch.float64).reshape(n, *shape), dim=tuple(range(2, len(shape) + 1)), norm="ortho"
    )
    modes = modes.reshape(n, n)
    variance = field.spectrum.expand(shape).flatten()
    assert torch.allclose((modes * variance @ modes.conj().T).real, sigma)
    x = images(field, 3)
    difference = (x - mean).reshape(3, n)
    assert torch.allclose(field.precision_matvec(x).reshape(3, n), torch.linalg.solve(sigma, x.reshape(3, n).T).T)
    energy = 0.5 * (difference * torch.linalg.solve(sigma, difference.T).T).sum(1)
    assert torch.allclose(field.value(x), energy)
    wiener = torch.linalg.solve(sigma + 0.49 * torch.eye(n, dtype=torch.float64), difference.T)
    expected = (sigma @ wiener).T.reshape(3, *shape) + mean
    assert torch.allclose(field.denoise(x, 0.7), expected)
    assert torch.allclose(field.denoise(x, torch.tensor([0.7, 0.7, 0.7])), expected, atol=1e-6)
    assert torch.allclose(field.prox(x, 0.49), expected)
    assert torch.allclose(field.terms()[0].functional.prox(x, 0.49), expected)


def test_samples_have_the_covariance_and_their_own_streams():
    field = GaussianField.power_law((1, 4, 5), 2.0, 1.0, mean=2.0)
    draws = field.sample(6000, seed=1)
    flat = (draws - 2.0).reshape(6000, -1)
    truth = dense(field)
    error = (flat.T @ flat / 6000 - truth).abs().max()
    assert float(error) < 6 * math.sqrt(2 / 6000)
    assert float((flat.T @ flat / 6000 - 1.3 * truth).abs().max()) > 6 * math.sqrt(2 / 6000)
    assert torch.equal(field.sample(2, seed=1), draws[:2]) and not torch.equal(field.sample(2, seed=2), draws[:2])


def test_denoising_is_the_best_estimate():
    field = GaussianField.power_law((1, 32, 32), 2.0)
    x = field.sample(20)
    y = x + 0.5 * images(field, 20)
    best = (field.denoise(y, 0.5) - x).square().mean()
    modes = field.spectrum
    assert float(best) == pytest.approx(float((modes * 0.25 / (modes + 0.25)).mean()), rel=0.05)
    assert best < (field.denoise(y, 0.3) - x).square().mean() and best < (field.denoise(y, 0.8) - x).square().mean()


@pytest.mark.parametrize("form", ["radial", "power-law"])
def test_fit_finds_the_spectrum_again(form):
    truth = GaussianField.power_law((1, 64, 64), 2.0, 3.0, corner=0.002, mean=5.0)
    noise = 0.2
    data = truth.sample(20) + math.sqrt(noise) * images(truth, 20)
    found = GaussianField.fit(data, form=form, noise_variance=noise)
    assert found.mean == pytest.approx(5.0, abs=2.0)
    radius = torch.fft.fftfreq(64).square()
    band = (radius[:, None] + radius).sqrt()
    inside = (band > 0.03) & (band < 0.25)
    ratio = (found.spectrum / truth.spectrum)[inside].log().mean().exp()
    assert float(ratio) == pytest.approx(1.0, abs=0.15)
    biased = GaussianField.fit(data, form=form)
    outer = (band > 0.35) & (band < 0.5)
    assert (biased.spectrum / truth.spectrum)[outer].mean() > 1.2 * (found.spectrum / truth.spectrum)[outer].mean()


def test_spacing_stretches_the_spectrum():
    field = GaussianField.power_law((1, 8, 16, 16), 2.0, spacing=(3.0, 1.0, 1.0), corner=0.01)
    assert field.spectrum[1, 0, 0] > field.spectrum[0, 1, 0]


@pytest.mark.parametrize(
    "make",
    [
        lambda: GaussianField(torch.ones(4, 3), (1, 4, 4)),
        lambda: GaussianField(torch.zeros(4, 4), (1, 4, 4)),
        lambda: GaussianField(torch.rand(4, 4) + 0.5, (1, 4, 4)),
        lambda: GaussianField(torch.ones(4, 4), (1, 4, 4), mean=torch.ones(3)),
        lambda: GaussianField(torch.ones(4, 4), (1, 4, 4)).value(torch.ones(1, 4, 5)),
        lambda: GaussianField(torch.ones(4, 4), (1, 4, 4)).denoise(torch.ones(1, 4, 4), 0.0),
        lambda: GaussianField.fit(torch.ones(1, 8, 8)),
        lambda: GaussianField.fit(torch.rand(1, 8, 8), form="cubic"),
        lambda: GaussianField.power_law((1, 8, 8), variance=-1.0),
    ],
)
def test_bad_fields_are_refused(make):
    with pytest.raises(InputError):
        make()
