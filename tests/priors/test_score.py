"""A denoiser's score as a prior: the law of images with white noise in them, against closed forms."""

import math

import pytest
import torch

from obverse import networks
from obverse.errors import InputError
from obverse.priors import Box, Denoiser, GaussianField, GaussianMixture, GradientStep, Score

SHAPE, SIGMA = (1, 4, 4), 0.3
FIELD = GaussianField.power_law(SHAPE, 2.0, 0.2, mean=0.4)


def mixture():
    generator = torch.Generator().manual_seed(0)
    roots = 0.3 * torch.randn(3, 16, 16, generator=generator, dtype=torch.float64)
    means = torch.randn(3, *SHAPE, generator=generator, dtype=torch.float64)
    return GaussianMixture(torch.tensor([0.5, 0.3, 0.2]), means, roots @ roots.mT)


def energy_network():
    torch.manual_seed(0)
    network = networks.GradientStep(networks.UNet(3, 1, widths=(4, 4), blocks=1, activation="elu"))
    return GradientStep(network.double().requires_grad_(False), low=0.0, high=2.0)


@pytest.mark.parametrize("denoiser", [FIELD, mixture(), energy_network()], ids=["field", "mixture", "network"])
def test_value_gradient_and_hessian_belong_together(denoiser):
    score = Score(denoiser, SIGMA)
    x = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
    values = score.value(x)
    (slope,) = torch.autograd.grad(values.sum(), x)
    torch.testing.assert_close(score.gradient(x.detach()), slope, rtol=1e-7, atol=1e-9)
    assert values.shape == (2,) and score.smooth and score.valued and not score.proximable
    point = x[0].detach()
    dense = torch.autograd.functional.hessian(score.value, point).reshape(16, 16)
    found = score.hessian(point).matvec(torch.eye(16, dtype=torch.float64).reshape(16, *SHAPE)).reshape(16, 16)
    torch.testing.assert_close(found, dense, rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(score.hessian(point).matvec(x[1].detach()).flatten(), dense @ x[1].detach().flatten())


def test_the_law_is_the_prior_smoothed():
    x = FIELD.sample(3, seed=2)
    exact = GaussianField(FIELD.spectrum + SIGMA**2, SHAPE, FIELD.mean)
    torch.testing.assert_close(Score(FIELD, SIGMA).gradient(x), exact.gradient(x))
    torch.testing.assert_close(Score(FIELD, SIGMA).value(x), exact.value(x))
    assert not torch.allclose(Score(FIELD, SIGMA).gradient(x), FIELD.gradient(x), rtol=0.1)
    points = mixture()
    wider = GaussianMixture(points.weights, points.means, points.covariances + SIGMA**2 * torch.eye(16))
    torch.testing.assert_close(Score(points, SIGMA).gradient(x), wider.gradient(x))
    bend = torch.linalg.eigvalsh(wider_hessian(points, x[0]))
    assert float(bend.max()) <= 1 / SIGMA**2


def wider_hessian(prior, x):
    matvec = Score(prior, SIGMA).hessian(x).matvec
    return matvec(torch.eye(16, dtype=torch.float64).reshape(16, *SHAPE)).reshape(16, 16)


def test_it_joins_other_priors():
    total = 2.0 * Score(FIELD, SIGMA) + Box(0.0, 1.0)
    assert total.valued and total.image_shape == SHAPE
    plain = Score(Denoiser(torch.nn.Identity()), 0.1)
    assert not (plain + Box(0.0, 1.0)).valued and not (2.0 * plain).valued
    with pytest.raises(InputError, match="gradient alone"):
        plain.value(torch.zeros(SHAPE))
    with pytest.raises(InputError, match="not convex"):
        Score(FIELD, SIGMA).hessian(torch.zeros(SHAPE).double()).perturbation(torch.Generator())


def test_bad_arguments_are_refused():
    with pytest.raises((InputError, TypeError), match="denoise|Denoises"):  # annotations are checked in the test run
        Score(Box(0.0, 1.0), 0.1)  # type: ignore[arg-type]
    trained = Denoiser(torch.nn.Identity(), card={"sigma_range": [0.02, 4.0]})
    for sigma in (0.0, 0.01, math.inf, math.nan):
        with pytest.raises(InputError, match="knows"):
            Score(trained, sigma)


def test_box():
    x = torch.tensor([[[-1.0, 0.5]], [[0.2, 2.0]], [[0.0, 1.0]]])[:, None]
    assert Box(0.0, 1.0).value(x).tolist() == [math.inf, math.inf, 0.0]
    assert torch.equal(Box(-0.5, 1.5).prox(x, 3.0), x.clamp(-0.5, 1.5))
    for bounds in ((1.0, 1.0), (0.0, math.inf), (math.nan, 1.0)):
        with pytest.raises(InputError, match="finite bounds"):
            Box(*bounds)
