"""Direct networks: what enters them is A†y, and the last step is the posterior mean of their image."""

import pytest
import torch

import obverse as ob
from obverse.errors import InputError
from obverse.problem import Problem

SHAPE = (1, 8, 8)


class Echo(torch.nn.Module):
    """Returns what it is given."""

    def forward(self, x, sigma):
        self.given = x, sigma
        return x


def problem(sigma=0.1, shape=SHAPE):
    kernel = torch.rand(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Problem(ob.operators.Convolution(2.0 * kernel / kernel.sum(), shape), ob.noise.Gaussian(sigma))


def dense(one):
    n = 64
    return one.operator(torch.eye(n, dtype=torch.float64).reshape(n, *SHAPE)).reshape(n, n).T


def test_the_network_is_given_ridge_regression_and_the_noise_in_image_units():
    one, network = problem(), Echo()
    y = torch.rand(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = ob.methods.Network(network)(y, one).image
    a = dense(one)
    expected = torch.linalg.solve(a.T @ a + (0.1 / 0.5) ** 2 * torch.eye(64).double(), a.T @ y.reshape(-1))
    assert torch.allclose(found.reshape(-1), expected, rtol=0, atol=1e-9)
    assert float(network.given[1]) == pytest.approx(0.1 / 2.0)  # the operator doubles the image
    other = ob.methods.Network(network, start="adjoint")(y, one).image
    assert torch.allclose(other.reshape(-1), a.T @ y.reshape(-1) / 4.0, rtol=0, atol=1e-9)
    assert not torch.allclose(other, found, rtol=0, atol=1e-3)


def test_consistency_is_the_posterior_mean_given_the_networks_error():
    one, error = problem(), 0.3
    y = torch.rand(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    first = ob.methods.Network(Echo())(y, one)
    second = ob.methods.Network(Echo(), consistency=error)(y, one)
    a, x = dense(one), first.image.reshape(-1)
    hessian = a.T @ a / 0.1**2 + torch.eye(64).double() / error**2
    expected = torch.linalg.solve(hessian, a.T @ y.reshape(-1) / 0.1**2 + x / error**2)
    assert torch.allclose(second.image.reshape(-1), expected, rtol=0, atol=1e-9)
    assert second.history[1] < second.history[0] == pytest.approx(first.history[0])
    assert second.history[1] == pytest.approx(float(one.chi2(second.image, y)))
    scaled = ob.methods.Network(Echo(), consistency=error).scaled(0.0, 10.0)(10.0 * y, problem(1.0))
    assert torch.allclose(scaled.image, 10.0 * second.image, rtol=0, atol=1e-9)


def test_any_data_shape_and_a_grey_network_on_colour():
    unet = {"kind": "UNet", "inputs": 3, "outputs": 1, "widths": [3], "blocks": 1}
    network = ob.networks.build({"kind": "Preconditioned", "network": unet}).double()
    method = ob.methods.Network(network)
    for one in (
        problem(),
        Problem(ob.operators.Downsample((1, 12, 10), 2, dtype=torch.float64), ob.noise.Gaussian(0.1)),
    ):
        y = torch.rand(2, *one.operator.data_shape, dtype=torch.float64)
        assert method(y, one).image.shape == (2, *one.operator.image_shape)
    colour = problem(shape=(3, 8, 8))
    y = torch.rand(3, 8, 8, dtype=torch.float64)
    each = torch.stack([method(y[i : i + 1], problem()).image[0] for i in range(3)])
    assert torch.allclose(method(y, colour).image, each, rtol=0, atol=1e-12)
    volume = Problem(ob.operators.Identity((1, 4, 8, 8), dtype=torch.float64), ob.noise.Gaussian(0.1))
    y = torch.rand(2, 1, 4, 8, 8, dtype=torch.float64)
    flat = Problem(ob.operators.Identity((1, 8, 8), dtype=torch.float64), ob.noise.Gaussian(0.1))
    slices = method(y.movedim(2, 1), flat).image.movedim(1, 2)
    assert torch.allclose(method(y, volume).image, slices, rtol=0, atol=1e-12)


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="channels"):
        ob.methods.Network(Echo(), channels=3)(torch.rand(SHAPE), problem())
    with pytest.raises(InputError, match="consistency"):
        ob.methods.Network(Echo(), consistency=0.0)
    with pytest.raises(InputError, match="linear"):
        law = Problem(
            ob.operators.PhaseRetrieval(ob.operators.Identity(SHAPE, dtype=torch.complex64)), ob.noise.Gaussian(0.1)
        )
        ob.methods.Network(Echo())(torch.rand(SHAPE), law)
