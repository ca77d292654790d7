"""Amortised components: what a network says becomes a covariance that has exactly the variances said."""

import pytest
import torch

import obverse as ob
from obverse.errors import InputError
from obverse.methods.component_network import low_rank_diagonal
from obverse.networks.components import Prediction

SHAPE, RANK = (1, 4, 5), 3


class Told(torch.nn.Module):
    """A network that says the same of every image."""

    def __init__(self, form, mean, factors, remainder):
        super().__init__()
        self.form, self.said = form, Prediction(mean, factors, remainder)

    def forward(self, x, sigma):
        self.given = x, sigma
        return Prediction(*(part.expand(len(x), *part.shape) for part in self.said))


def truth(decay=0.5):
    """A covariance, its leading eigenpairs as factors, and the variances that these leave to the pixels."""
    generator, n = torch.Generator().manual_seed(0), 20
    axes = torch.linalg.qr(torch.randn(n, n, dtype=torch.float64, generator=generator)).Q
    values = decay ** torch.arange(n, dtype=torch.float64)
    factors = (axes[:, :RANK] * values[:RANK].sqrt()).mT
    covariance = (axes * values) @ axes.mT
    left = (covariance - factors.mT @ factors).diagonal()
    return covariance, axes[:, :RANK], values[:RANK], factors.reshape(RANK, *SHAPE), left.reshape(SHAPE)


def posterior(form="components", scale=1.0, decay=0.5, **settings):
    _, _, _, factors, left = truth(decay)
    network = Told(form, torch.full(SHAPE, 0.5, dtype=torch.float64), factors, left)
    problem = ob.Problem(ob.operators.Identity(SHAPE, dtype=torch.float64), ob.noise.Gaussian(0.1 * scale))
    method = ob.methods.ComponentNetwork(network, start="adjoint", **settings)
    return method(torch.full(SHAPE, 0.25 * scale, dtype=torch.float64), problem)


def test_the_covariance_has_the_variances_that_the_network_said():
    covariance, axes, values, factors, left = truth()
    found = posterior()
    dense = found.covariance.dense()
    along = (axes * (dense @ axes)).sum(0)
    torch.testing.assert_close(along, values, rtol=1e-9, atol=0)
    torch.testing.assert_close(found.std.square().flatten(), covariance.diagonal(), rtol=1e-9, atol=0)
    assert float(torch.linalg.eigvalsh(dense).min()) > 0 and 0.005 < found.diagnostics["overlap"] < 0.2
    assert found.target == "posterior" and found.diagnostics["evaluations"] == 1
    # The factors and the remainder simply added would have more along each component.
    added = (axes * ((axes * values) @ axes.mT @ axes + left.reshape(-1, 1) * axes)).sum(0)
    assert float((added / values - 1).min()) > 0.005


def test_a_remainder_larger_than_a_component_leaves_no_factor_and_no_negative_variance():
    found, (covariance, axes, values, _, _) = posterior(decay=0.99), truth(0.99)
    dense = found.covariance.dense()
    assert float(torch.linalg.eigvalsh(dense).min()) > 0
    assert bool(((axes * (dense @ axes)).sum(0) >= values - 1e-9).all())
    torch.testing.assert_close(found.std.square().flatten(), covariance.diagonal(), rtol=1e-9, atol=0)
    flat = Prediction(torch.zeros(1, *SHAPE), torch.ones(1, 1, *SHAPE) / 20**0.5, torch.full((1, *SHAPE), 2.0))
    factors, diagonal = low_rank_diagonal(flat, "components")  # variance 1 along the ones, 2 in each pixel
    assert float(factors.abs().max()) == 0 and torch.allclose(diagonal, torch.full_like(diagonal, 2.05))


def test_a_single_pixel_as_direction_keeps_its_variance():
    factors = torch.zeros(1, 1, *SHAPE)
    factors[..., 1, 2] = 3.0
    parts, diagonal = low_rank_diagonal(
        Prediction(torch.zeros(1, *SHAPE), factors, torch.ones(1, *SHAPE)), "components"
    )
    total = (parts.square().sum(1) + diagonal).flatten()
    assert float(total.max()) == pytest.approx(10.0, rel=1e-6) and float(total.median()) == pytest.approx(1.0)


def test_a_likelihood_head_is_its_factors_plus_its_diagonal():
    _, _, _, factors, left = truth()
    found = posterior("likelihood")
    expected = factors.flatten(1).mT @ factors.flatten(1) + left.flatten().diag()
    torch.testing.assert_close(found.covariance.dense(), expected, rtol=0, atol=1e-12)
    assert found.diagnostics["overlap"] == pytest.approx(0.0, abs=1e-12)
    assert not torch.allclose(posterior().covariance.dense(), expected, rtol=0, atol=1e-4)


def test_another_unit_scales_mean_and_covariance():
    one, other = posterior(), posterior(scale=200.0, high=200.0)
    torch.testing.assert_close(other.mean, 200.0 * one.mean)
    torch.testing.assert_close(other.covariance.dense(), 4e4 * one.covariance.dense())
    assert other.diagnostics["chi2"] == pytest.approx(one.diagnostics["chi2"]) == pytest.approx(0.25**2 / 0.1**2)


def test_the_network_sees_the_first_image_and_its_noise():
    _, _, _, factors, left = truth()
    network = Told("components", torch.zeros(SHAPE), factors, left)
    problem = ob.Problem(2.0 * ob.operators.Identity(SHAPE), ob.noise.Gaussian(0.1))
    y = torch.rand(SHAPE)
    ob.methods.ComponentNetwork(network, start="adjoint")(y, problem)
    torch.testing.assert_close(network.given[0][0], y / 2)
    assert float(network.given[1]) == pytest.approx(0.05)


def test_what_does_not_fit_is_refused():
    _, _, _, factors, left = truth()
    network = Told("components", torch.zeros(SHAPE), factors, left)
    problem = ob.Problem(ob.operators.Identity(SHAPE), ob.noise.Gaussian(0.1))
    with pytest.raises(InputError, match="form"):
        ob.methods.ComponentNetwork(torch.nn.Identity())
    with pytest.raises(InputError, match="3, H, W"):
        ob.methods.ComponentNetwork(network, channels=3)(torch.zeros(SHAPE), problem)
    with pytest.raises(InputError, match="one measurement"):
        ob.methods.ComponentNetwork(network)(torch.zeros(2, *SHAPE), problem)
    with pytest.raises(InputError, match="linear"):
        bent = ob.operators.PhaseRetrieval(ob.operators.Identity(SHAPE, dtype=torch.complex64))
        ob.methods.ComponentNetwork(network)(torch.zeros(SHAPE), ob.Problem(bent, ob.noise.Gaussian(0.1)))
    with pytest.raises(InputError, match="low < high"):
        ob.methods.ComponentNetwork(network, low=1.0, high=0.0)
