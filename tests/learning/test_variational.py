"""Training a ridge energy by implicit differentiation: the right gradient, and a falling loss."""

import pytest
import torch

from obverse.errors import InputError
from obverse.learning.data import Crops, places
from obverse.learning.objectives import OBJECTIVES, VariationalDenoising, make_objective
from obverse.networks import RidgeEnergy

CPU = torch.device("cpu")


def steps(size=12, count=4):
    """Images of one step each, in float64 so that gradients can be compared with differences."""
    images = []
    for k in range(count):
        image = torch.full((1, size, size), 0.2, dtype=torch.float64)
        image[..., 2 + k :] = 0.8
        images.append(image)
    return Crops(images, size)


class Double(Crops):
    """The same items in float64."""

    def item(self, index, generator):
        return super().item(index, generator).double()


def network(rho=0.5):
    torch.manual_seed(1)
    return RidgeEnergy((1, 2, 4), kernel=3, knots=6, weak_convexity=rho).double()


def test_it_is_registered():
    assert OBJECTIVES["VariationalDenoising"] is VariationalDenoising
    made = make_objective({"kind": "VariationalDenoising", "sigma": [0.02, 0.1]})
    assert made.metric == "psnr_25" and made.sigma_range == (0.02, 0.1)
    for bad in ({"sigma": [0.0, 0.1]}, {"sigma": [0.2, 0.1]}, {"accuracy": 0.0}, {"tolerance": 1.0}):
        with pytest.raises(InputError):
            VariationalDenoising(**bad)


def test_gradient_against_differences(monkeypatch):
    data = Double(steps().images, 12)
    objective, net = VariationalDenoising(sigma=(0.05, 0.1), accuracy=1e-9, tolerance=1e-12), network()
    monkeypatch.setattr(
        torch, "tensor", lambda *a, _tensor=torch.tensor, **k: _tensor(*a, **{"dtype": torch.float64} | k)
    )

    def loss():
        return objective.loss(net, data, places(4, 0, 2, 0), CPU)

    loss().backward()
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        slope = float((parameter.grad * direction).sum())
        reach, values = 1e-5, []
        for sign in (1, -1):
            with torch.no_grad():
                parameter.add_(sign * reach * direction)
                values.append(float(loss().detach()))
                parameter.sub_(sign * reach * direction)
        difference = (values[0] - values[1]) / (2 * reach)
        # kinks of ψ′ between the two points make the difference itself a little wrong
        assert slope == pytest.approx(difference, rel=2e-2, abs=1e-6)
        assert abs(1.2 * slope - difference) > abs(slope - difference)


def test_training_improves_the_denoiser():
    data, net = steps(), network().float()
    objective = VariationalDenoising(sigma=(0.05, 0.1))
    before = objective.validate(net, data, CPU)
    optimiser = torch.optim.Adam(net.parameters(), 2e-2)
    for k in range(25):
        optimiser.zero_grad()
        objective.loss(net, data, places(4, 4 * k, 4, 0), CPU).backward()
        optimiser.step()
    after = objective.validate(net, data, CPU)
    assert sorted(after) == ["psnr_15", "psnr_25", "psnr_5"]
    assert after["psnr_25"] > before["psnr_25"] + 0.5
