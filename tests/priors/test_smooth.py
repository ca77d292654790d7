"""Smooth priors: gradients, Hessians and draws from them, against autograd and Monte Carlo; sums and scaling."""

import math
import pickle

import pytest
import torch

from obverse.errors import InputError
from obverse.operators.differences import Gradient
from obverse.priors import L1, GaussianField, Positivity, Tikhonov, TotalGeneralizedVariation, TotalVariation, WaveletL1

SHAPE = (1, 4, 5)
VOLUME = (1, 3, 4, 3)


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def field(shape=SHAPE):
    return GaussianField.power_law(shape, 2.0, 1.5, mean=0.3)


SMOOTH = [
    (field(), SHAPE),
    (field(VOLUME), VOLUME),
    (Tikhonov(), SHAPE),
    (Tikhonov(Gradient(SHAPE, dtype=torch.float64)), SHAPE),
    (TotalVariation(smoothing=0.3), SHAPE),
    (TotalVariation(smoothing=0.3, spacing=(2.0, 0.5)), SHAPE),
    (TotalVariation(smoothing=0.3, isotropic=False), SHAPE),
    (TotalVariation(smoothing=0.2, dimensions=3, spacing=(3.0, 1.0, 1.0)), VOLUME),
    (TotalVariation(smoothing=0.3, weight=torch.rand(SHAPE, generator=torch.Generator().manual_seed(1))), SHAPE),
    (2.5 * TotalVariation(smoothing=0.3) + Tikhonov() + 0.5 * field(), SHAPE),
]


@pytest.mark.parametrize(("prior", "shape"), SMOOTH, ids=lambda v: str(v)[:40] if not isinstance(v, tuple) else "")
class TestSmooth:
    def test_gradient(self, prior, shape):
        assert prior.smooth
        x = randn(2, *shape).requires_grad_(True)
        value = prior.value(x)
        assert value.shape == (2,)
        (expected,) = torch.autograd.grad(value.sum(), x)
        assert torch.allclose(prior.gradient(x.detach()), expected, atol=1e-12)
        assert torch.autograd.gradcheck(prior.value, x)
        assert torch.allclose(prior.value(x[0]), value[0])

    def test_hessian_and_its_draws(self, prior, shape):
        x = randn(*shape, seed=3)
        hessian = prior.hessian(x)
        n = x.numel()
        dense = hessian.matvec(torch.eye(n, dtype=torch.float64).reshape(n, *shape)).reshape(n, n)
        expected = torch.autograd.functional.hessian(prior.value, x).reshape(n, n)
        assert torch.allclose(dense, expected, atol=1e-10)
        generator = torch.Generator().manual_seed(4)
        draws = torch.stack([hessian.perturbation(generator) for _ in range(4000)]).reshape(-1, n)
        error = (draws.T @ draws / len(draws) - dense).abs()
        scale = dense.diagonal().sqrt()
        # standard error of a covariance entry is at most √(2/4000) of the two deviations
        assert float((error / (scale[:, None] * scale)).max()) < 6 * math.sqrt(2 / 4000)
        wrong = (draws.T @ draws / len(draws) - 1.3 * dense).abs() / (scale[:, None] * scale)
        assert float(wrong.max()) > 6 * math.sqrt(2 / 4000)

    def test_value_pickle_and_dtype(self, prior, shape):
        x = randn(*shape).float()
        before = x.clone()
        assert prior.gradient(x).dtype == torch.float32 and prior.value(x).dtype == torch.float32
        assert torch.equal(x, before)
        copy = pickle.loads(pickle.dumps(prior))  # noqa: S301
        assert torch.equal(copy.gradient(x), prior.gradient(x))


def test_spectrum_of_a_stationary_hessian():
    prior = 2.0 * field() + Tikhonov()
    hessian = prior.hessian(randn(*SHAPE))
    spectrum = hessian.spectrum()
    assert spectrum is not None and spectrum.shape == (1, 4, 3)
    v = randn(*SHAPE, seed=5)
    product = torch.fft.irfftn(torch.fft.rfftn(v, dim=(-2, -1)) * spectrum, s=(4, 5), dim=(-2, -1))
    assert torch.allclose(product, hessian.matvec(v))
    assert (prior + TotalVariation(smoothing=0.1)).hessian(v).spectrum() is None


def test_algebra():
    x = randn(*SHAPE)
    a, b = TotalVariation(), L1(0.5)
    assert torch.allclose((a + 2.0 * b).value(x), a.value(x) + 2 * b.value(x))
    assert torch.allclose((3.0 * (2.0 * b)).prox(x, 0.1), b.prox(x, 0.6))
    assert not (a + b).proximable and len((a + b + Positivity()).terms(SHAPE)) == 3
    total = sum(term.functional.value(term.operator(x)) for term in (a + 2.0 * b).terms(SHAPE, torch.float64))
    assert torch.allclose(total, (a + 2.0 * b).value(x))
    for bad in (lambda: a * -1.0, lambda: a * math.inf, lambda: field() + field(VOLUME), lambda: (a + b).prox(x, 1.0)):
        with pytest.raises(InputError):
            bad()


def test_bind_sets_the_dimensions():
    cube = (1, 4, 4, 4)
    for prior in (TotalVariation(), L1(), Positivity(), WaveletL1(), TotalGeneralizedVariation(), Tikhonov()):
        assert prior.bind(cube).dimensions == 3 and prior.bind(SHAPE) is prior
        assert prior.bind(cube).terms(cube)[0].operator.image_shape == cube
    assert (2.0 * TotalVariation() + L1()).bind(cube).dimensions == 3
    with pytest.raises(InputError):
        field().bind(VOLUME)
    with pytest.raises(InputError):
        TotalVariation(spacing=(1.0, 2.0)).bind(VOLUME)


def test_what_a_prior_lacks_is_said():
    x = randn(*SHAPE)
    calls = [
        lambda: TotalVariation().gradient(x),
        lambda: TotalVariation().hessian(x),
        lambda: TotalVariation(smoothing=0.1).prox(x, 1.0),
        lambda: TotalVariation(smoothing=0.1).terms(SHAPE),
        lambda: L1().gradient(x),
        lambda: TotalVariation().terms(),
        lambda: TotalVariation(smoothing=-1.0),
        lambda: TotalVariation(spacing=(1.0, 0.0)),
        lambda: TotalVariation(weight=-torch.ones(3)),
        lambda: TotalVariation().prox(x, 0.0),
        lambda: TotalVariation().prox(x * math.nan, 1.0),
        lambda: L1(-1.0),
        lambda: Positivity(math.nan),
        lambda: TotalGeneralizedVariation(first=0.0),
    ]
    for call in calls:
        with pytest.raises(InputError) as caught:
            call()
        assert "\n" not in str(caught.value)
