"""Third and fourth moments along a direction, against mixtures in closed form and against quadrature."""

import numpy as np
import pytest
import torch

import obverse as ob
from obverse.errors import InputError
from obverse.priors import directional_moments

SIGMA = 0.5  # its inverse square is exact in single precision, in which the noise law keeps it


def mixture(shape, count=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    n = int(np.prod(shape))
    # So near that the data leave all of them.
    means = 1.5 * torch.randn(count, *shape, generator=generator, dtype=torch.float64) / n**0.5
    roots = 0.5 * torch.randn(count, n, n, generator=generator, dtype=torch.float64) / n**0.5
    return ob.priors.GaussianMixture(torch.arange(1.0, count + 1), means, roots @ roots.mT)


def exact(prior, x, v):
    """Moments of ⟨v, image⟩ under the mixture that is the posterior of denoising."""
    posterior = prior.posterior(x, ob.Problem(ob.operators.Identity(tuple(x.shape)), ob.noise.Gaussian(SIGMA)))
    v = (v / v.norm()).flatten()
    centres, variances = posterior.means.flatten(1) @ v, torch.einsum("i,kij,j->k", v, posterior.covariances, v)
    w = posterior.weights
    mean = w @ centres
    off = centres - mean
    third = w @ (off**3 + 3 * off * variances)
    fourth = w @ (off**4 + 6 * off.square() * variances + 3 * variances.square())
    return [float(m) for m in (mean, w @ (off.square() + variances), third, fourth)]


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 2), (1, 6, 6)])
def test_moments_of_a_mixture_are_exact(shape):
    prior = mixture(shape)
    x = 0.3 * torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    directions = torch.randn(3, *shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = torch.stack(directional_moments(prior, x, SIGMA, directions), 1)
    truth = torch.tensor([exact(prior, x, v) for v in directions], dtype=torch.float64)
    torch.testing.assert_close(found, truth, rtol=1e-8, atol=1e-10)
    assert float((truth[:, 3] / truth[:, 1] ** 2 - 3).abs().max()) > 0.05, "a normal law would show nothing"
    wrong = torch.stack(directional_moments(prior, x, 1.1 * SIGMA, directions), 1)
    assert float((wrong / truth - 1).abs().max()) > 1e-2, "negative control: another noise level"


class Quadrature:
    """A denoiser of numbers for any prior density on the line, by the trapezoidal rule."""

    def __init__(self, log_prior):
        self.t = torch.linspace(-14, 14, 60001, dtype=torch.float64)
        self.log = log_prior(self.t)

    def weights(self, x, sigma):
        return (self.log - 0.5 * ((x.unsqueeze(-1) - self.t) / sigma).square()).softmax(-1)

    def denoise(self, x, sigma):
        return (self.weights(x, sigma) * self.t).sum(-1)


LAWS = {
    "two points": lambda t: torch.where((t - 1).abs().minimum((t + 1).abs()) < 1e-9, 0.0, -torch.inf),
    "laplace": lambda t: -t.abs(),
    "uniform": lambda t: torch.where(t.abs() <= 2, 0.0, -torch.inf),
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("at", [0.0, 0.4, -1.3])
def test_moments_of_laws_on_the_line(law, at):
    oracle, x = Quadrature(LAWS[law]), torch.full((1, 1, 1), at, dtype=torch.float64)
    if law == "two points":
        oracle.t = torch.tensor([-1.0, 1.0], dtype=torch.float64)
        oracle.log = torch.zeros(2, dtype=torch.float64)
    w = oracle.weights(x, SIGMA).flatten()
    mean = float(w @ oracle.t)
    truth = [mean, *(float(w @ (oracle.t - mean) ** k) for k in (2, 3, 4))]
    found = [float(m) for m in directional_moments(oracle, x, SIGMA, torch.ones_like(x)[None])]
    assert found == pytest.approx(truth, rel=1e-8, abs=1e-8)
    turned = directional_moments(oracle, x, SIGMA, -torch.ones_like(x)[None])
    assert float(turned[2]) == pytest.approx(-truth[2], abs=1e-8)


def test_a_fit_over_a_range_agrees_with_derivatives_the_better_the_shorter_it_is():
    prior = mixture((1, 1, 2))
    x, v = torch.tensor([[[0.3, -0.2]]], dtype=torch.float64), torch.tensor([[[[1.0, 0.5]]]], dtype=torch.float64)
    truth = torch.tensor(exact(prior, x, v[0]), dtype=torch.float64)
    errors = [
        float((torch.cat(directional_moments(prior, x, SIGMA, v, tilt)) / truth - 1).abs().max())
        for tilt in (1.0, 0.5, 0.1)
    ]
    assert errors[0] < 0.1 and errors[1] < errors[0] / 3 and errors[2] < 1e-4


class Kinked:
    """The denoiser of a mixture, its values joined by straight lines: what a network of ReLUs is along a line."""

    def __init__(self, prior, spacing):
        self.prior, self.spacing = prior, spacing

    def denoise(self, x, sigma):
        below = (x.detach() / self.spacing).floor() * self.spacing
        low, high = (self.prior.denoise(at, sigma) for at in (below, below + self.spacing))
        return low + (x - below) / self.spacing * (high - low)


def test_kinks_hide_the_moments_from_derivatives_and_not_from_the_fit():
    prior = mixture((1, 1, 1), count=2, seed=5)
    x, v = torch.full((1, 1, 1), 0.2, dtype=torch.float64), torch.ones(1, 1, 1, 1, dtype=torch.float64)
    truth = exact(prior, x, v[0])
    kinked = Kinked(prior, 0.05)
    _, _, third, fourth = (float(m) for m in directional_moments(kinked, x, SIGMA, v, tilt=1.0))
    assert third == pytest.approx(truth[2], rel=0.1) and fourth == pytest.approx(truth[3], rel=0.1)
    assert float(directional_moments(kinked, x, SIGMA, v)[2]) == 0.0


def test_a_gaussian_field_is_normal_in_every_direction():
    field = ob.priors.GaussianField.power_law((1, 6, 6), 2.0)
    v = torch.randn(2, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    _, variance, third, fourth = directional_moments(field, torch.zeros(1, 6, 6), 0.3, v)
    torch.testing.assert_close(fourth, 3 * variance.square())
    assert not bool(third.any())


def test_a_network_is_followed_in_double_precision_too():
    denoiser = ob.priors.load("natural-gray-gradient")
    x = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(0))
    v = torch.ones(1, 1, 16, 16)
    single = directional_moments(denoiser, x, 0.1, v)
    double = directional_moments(denoiser.to(torch.float64), x.double(), 0.1, v)
    for one, other in zip(single[:2], double[:2]):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=0)
    assert single[1].dtype == torch.float64


def test_directions_that_do_not_fit_are_refused():
    field = ob.priors.GaussianField(torch.ones(4, 4), (1, 4, 4))
    with pytest.raises(InputError, match="other than zero"):
        directional_moments(field, torch.zeros(1, 4, 4), 1.0, torch.zeros(1, 1, 4, 4))
    with pytest.raises(InputError, match="tilt"):
        directional_moments(field, torch.zeros(1, 4, 4), 1.0, torch.ones(1, 1, 4, 4), tilt=0.0)
