"""Denoising with skewness and kurtosis along the components, against a mixture known in closed form."""

import pytest
import torch

import obverse as ob
from obverse.errors import InputError
from obverse.priors.denoiser import Denoiser
from tests.priors.test_moments import SIGMA, exact, mixture

SHAPE = (1, 6, 6)
PROBLEM = ob.Problem(ob.operators.Identity(SHAPE), ob.noise.Gaussian(SIGMA))


def test_components_come_with_their_density():
    prior, x = mixture(SHAPE), 0.3 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    posterior = ob.methods.Tweedie(prior, rank=3, moments=2, probes=36)(x, PROBLEM)
    directions = posterior.components(3).directions
    for v in directions[:2]:
        mean, variance, third, fourth = exact(prior, x, v)
        assert posterior.moments.along(v) == pytest.approx((third / variance**1.5, fourth / variance**2), rel=1e-6)
        density = posterior.marginal(v)
        assert density.mean == pytest.approx(mean, abs=1e-6) and density.std == pytest.approx(variance**0.5, rel=1e-6)
    assert posterior.marginal(directions[0]).kind == "maximum-entropy"
    assert posterior.marginal(directions[2]).kind == "gaussian"
    assert posterior.moments.along(directions[2]) is None
    assert ob.methods.Tweedie(prior, rank=3, probes=36)(x, PROBLEM).moments is None


def test_more_moments_than_components_are_refused():
    with pytest.raises(InputError, match="moments"):
        ob.methods.Tweedie(mixture((1, 1, 1)), rank=2, moments=3)


def test_more_noise_than_the_denoiser_knows_is_refused_as_a_matter_of_units():
    known = Denoiser(Halving(), card={"sigma_range": (0.0, 2.0)})
    y, problem = torch.ones(SHAPE), ob.Problem(ob.operators.Identity(SHAPE), ob.noise.Gaussian(25.0))
    with pytest.raises(InputError, match=r"at most 2 in units of the image, got 25; denoiser\.scaled"):
        ob.methods.Tweedie(known)(y, problem)
    posterior = ob.methods.Tweedie(known.scaled(0.0, 255.0), rank=2, probes=36)(y, problem)
    assert posterior.std.mean() == pytest.approx(25 * 0.5**0.5, rel=1e-3)


class Halving(torch.nn.Module):
    """Its Jacobian is one half."""

    def forward(self, x, sigma):
        return x / 2


@pytest.mark.parametrize("method", [ob.methods.Tweedie, ob.methods.PlugAndPlay, ob.methods.LocalGaussian])
def test_images_of_other_units_are_refused(method):
    unit = Denoiser(Halving(), card={"sigma_range": (0.0, 2.0)})
    problem = ob.Problem(ob.operators.Identity(SHAPE), ob.noise.Gaussian(0.1))
    with pytest.raises(
        InputError, match=r"expects images in the denoiser's range, from 0 to 1, got values of about 120; den"
    ):
        method(unit)(120 * torch.ones(SHAPE), problem)
    problem = ob.Problem(ob.operators.Identity(SHAPE), ob.noise.Gaussian(25.0))
    assert bool(method(unit.scaled(0.0, 255.0))(120 * torch.ones(SHAPE), problem).image.isfinite().all())
