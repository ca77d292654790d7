"""Linearised Laplace is exact where the network is linear in its weights, wherever these are when it is fitted."""

import math

import pytest
import torch
from scipy.optimize import minimize
from torch import nn

import obverse as ob
from obverse.errors import InputError
from obverse.methods.linearised_laplace import LinearisedLaplace
from obverse.methods.weight_evidence import regress
from obverse.noise.base import stream
from tests.posterior.cases import normal

SHAPE, N = (1, 5, 4), 20
PROBLEM = ob.Problem(ob.operators.Identity(SHAPE, dtype=torch.float64), ob.noise.Gaussian(0.2))


class Features(nn.Module):
    """x̂ = Σ_k w_k φ_k(x): fixed nonlinear features, then weights; linear in these, so that all is known."""

    def __init__(self, weights=(0.3, -0.2, 0.5)):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))
        self.layer = nn.Conv2d(3, 1, 1, bias=False)
        with torch.no_grad():
            self.layer.weight.copy_(torch.tensor(weights).reshape(1, 3, 1, 1))

    def forward(self, x, sigma):
        return self.layer(self.gain * features(x))


def features(x):
    return torch.cat([x, x.abs(), x.roll(1, -1)], 1)


def items(count=6, error=0.3):
    """Images that the features explain up to noise of a known size."""
    truth = torch.tensor([1.0, 0.5, -0.4]).double()
    found = []
    for i in range(count):
        y = normal(*SHAPE, seed=i)
        start = y / (1 + (0.2 / 0.5) ** 2)  # ridge regression of methods.Network
        image = torch.tensordot(truth, features(start[None])[0], 1)[None] + error * normal(*SHAPE, seed=100 + i)
        found.append((image, y, PROBLEM))
    return found


def design(pairs):
    rows = [features((y / (1 + (0.2 / 0.5) ** 2))[None])[0].reshape(3, N).mT for _, y, _ in pairs]
    return torch.cat(rows), torch.cat([x.reshape(-1) for x, _, _ in pairs])


def exact(pairs, precision, error):
    J, t = design(pairs)
    inverse = torch.linalg.inv(J.mT @ J / error**2 + precision * torch.eye(3).double())
    return inverse @ J.mT @ t / error**2, inverse


@pytest.mark.parametrize("weights", [(0.3, -0.2, 0.5), (5.0, 5.0, -5.0)])
def test_image_and_covariance_are_those_of_bayesian_regression(weights):
    method = ob.methods.Network(Features(weights).double())
    fitted = LinearisedLaplace.fit(method, items(), precision=2.0, error=0.4)
    mean, inverse = exact(items(), 2.0, 0.4)
    y = normal(*SHAPE, seed=50)
    J = design([(y, y, PROBLEM)])[0]
    found = fitted(y, PROBLEM)
    assert found.target == "epistemic" and found.covariance.rank == 3
    assert torch.allclose(found.mean.reshape(-1), J @ mean, rtol=0, atol=1e-9)
    expected = J @ inverse @ J.mT
    assert float((found.covariance.dense() - expected).norm() / expected.norm()) < 1e-9
    wrong = J @ exact(items(), 2.0, 0.8)[1] @ J.mT  # another error
    assert float((found.covariance.dense() - wrong).norm() / expected.norm()) > 0.5
    draws = found.sample(3000, seed=1).reshape(3000, -1)
    assert float((torch.cov(draws.mT) - expected).norm() / expected.norm()) < 0.12


def test_precision_and_error_are_at_the_maximum_of_the_evidence():
    pairs = items(12)
    J, t = design(pairs)

    def minus_evidence(logs):
        precision, error = math.exp(logs[0]), math.exp(logs[1])
        covariance = error**2 * torch.eye(len(t)).double() + J @ J.mT / precision
        return -float(torch.distributions.MultivariateNormal(torch.zeros(len(t)).double(), covariance).log_prob(t))

    best = minimize(minus_evidence, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-9})
    fitted = LinearisedLaplace.fit(ob.methods.Network(Features().double()), pairs)
    assert fitted.regression.precision == pytest.approx(math.exp(best.x[0]), rel=1e-4)
    assert fitted.error == pytest.approx(math.exp(best.x[1]), rel=1e-4)
    assert fitted.error == pytest.approx(0.3, rel=0.1)  # that of the data
    assert fitted.regression.log_evidence == pytest.approx(-best.fun, abs=1e-5)
    assert 2.5 < fitted.regression.determined < 3.0
    fixed = regress(J.mT @ J, J.mT @ t, float(t @ t), len(t), precision=1.0, error=0.5)
    assert fixed.log_evidence == pytest.approx(-minus_evidence([0.0, math.log(0.5)]), abs=1e-8)
    assert fixed.log_evidence < fitted.regression.log_evidence


def test_the_spread_shrinks_with_the_items_and_the_aleatoric_term_does_not():
    method, y = ob.methods.Network(Features().double()), normal(*SHAPE, seed=50)
    few, many = (LinearisedLaplace.fit(method, items(count)) for count in (3, 48))
    assert float(many(y, PROBLEM).std.mean()) < 0.4 * float(few(y, PROBLEM).std.mean())
    assert many.error == pytest.approx(few.error, rel=0.3)
    whole = ob.posterior.with_aleatoric(many(y, PROBLEM), many.error**2)
    assert whole.target == "posterior" and float(whole.std.min()) >= many.error


def test_the_jacobian_is_that_of_autograd_through_a_real_network_and_a_data_step():
    torch.manual_seed(0)
    unet = {"kind": "UNet", "inputs": 3, "outputs": 1, "widths": [2], "blocks": 1}
    net = ob.networks.build({"kind": "Preconditioned", "network": unet}).double()
    kernel = torch.rand(3, 3, generator=stream(0, 0)).double()
    problem = ob.Problem(ob.operators.Convolution(kernel / kernel.sum(), SHAPE), ob.noise.Gaussian(0.1))
    method, y = ob.methods.Network(net, consistency=0.3), normal(*SHAPE)
    images = [problem.simulate(normal(*SHAPE, seed=i), seed=i) for i in range(2)]
    data = [(normal(*SHAPE, seed=i), image, problem) for i, image in enumerate(images)]
    fitted = LinearisedLaplace.fit(method, data, precision=1.0, error=1.0)
    assert fitted.parameters == ("network.tail.weight",)

    def image(weight, given):
        moved = ob.networks.build({"kind": "Preconditioned", "network": unet}).double()
        moved.load_state_dict(net.state_dict())
        with torch.no_grad():
            moved.network.tail.weight.copy_(weight)
        return ob.methods.Network(moved, consistency=0.3)(given, problem).image.reshape(-1)

    base = net.network.tail.weight.detach()
    steps = torch.eye(base.numel()).double().reshape(-1, *base.shape)
    J = [torch.stack([image(base + s, v) - image(base, v) for s in steps], 1) for v in (*images, y)]
    inverse = torch.linalg.inv(J[0].mT @ J[0] + J[1].mT @ J[1] + torch.eye(len(steps)).double())
    expected = J[2] @ inverse @ J[2].mT
    found = fitted(y, problem)
    assert float((found.covariance.dense() - expected).norm() / expected.norm()) < 1e-6
    assert found.diagnostics["weights"] == len(steps) == 18


def test_weights_may_be_named_and_stages_are_followed():
    net = ob.networks.Stages(Features().double(), stages=3).double()
    method = ob.methods.Unrolled(net, "hqs")
    names = ["networks.0.layer.weight", "networks.0.gain"]
    fitted = LinearisedLaplace.fit(method, items(3), names, precision=1.0, error=0.5)
    found = fitted(normal(*SHAPE, seed=9), PROBLEM)
    assert found.diagnostics["weights"] == 4 and 1 <= found.covariance.rank <= 4
    assert not any(parameter.grad is not None for parameter in net.parameters())


def test_what_cannot_be_fitted_is_refused():
    method = ob.methods.Network(Features().double())
    with pytest.raises(InputError, match="at least one item"):
        LinearisedLaplace.fit(method, [])
    with pytest.raises(InputError, match="parameters out of"):
        LinearisedLaplace.fit(method, items(), ["head.weight"])
    with pytest.raises(InputError, match="reconstruct"):
        LinearisedLaplace.fit(ob.methods.Gaussian(ob.priors.GaussianField(torch.ones(5, 4), SHAPE)), items())
    with pytest.raises(InputError, match="an image"):
        LinearisedLaplace.fit(method, [(torch.zeros(2, 5, 4), items()[0][1], PROBLEM)])
    with pytest.raises(InputError, match="positive"):
        LinearisedLaplace.fit(method, items(), precision=-1.0)
    with pytest.raises(InputError, match="4096"):
        wide = ob.networks.DnCNN(1, 1, width=32, depth=3, residual=False)
        names = [name for name, _ in wide.named_parameters()]
        LinearisedLaplace.fit(ob.methods.Network(wide), items(), names)
    with pytest.raises(InputError, match="more data than weights"):
        regress(torch.eye(3), torch.ones(3), 3.0, 3)
