"""Unrolled schemes against closed forms: with a Gaussian prior's exact denoiser, each ends where mathematics says."""

import pytest
import torch

import obverse as ob
from obverse.errors import InputError
from obverse.methods.schemes import SCHEMES
from obverse.methods.whitened import Whitened
from obverse.problem import Problem

SHAPE = (1, 8, 8)
SIGMA = 1.0
STAGES = 180


class ExactStages(torch.nn.Module):
    """The denoiser of a Gaussian field in every stage, at a level that `ratio` times σ gives, or at a fixed one."""

    def __init__(self, field, stages, ratio=0.0, level=0.0):
        super().__init__()
        self.field, self.stages, self.ratio, self.level = field, stages, ratio, level

    def schedule(self, stage, sigma):
        level = self.ratio * sigma if self.ratio else torch.full_like(sigma, self.level)
        return torch.ones((), dtype=sigma.dtype), level

    def forward(self, stage, x, level):
        return self.field.denoise(x, level)


def field(extra=0.0):
    spectrum = ob.priors.GaussianField.power_law(SHAPE, exponent=1.0, variance=0.5).spectrum + 0.05
    return ob.priors.GaussianField(spectrum + extra, SHAPE)


def blur():
    generator = torch.Generator().manual_seed(0)
    kernel = torch.rand(3, 3, generator=generator, dtype=torch.float64)
    return ob.operators.Convolution(kernel / kernel.sum() * 1.7, SHAPE)  # of norm 1.7: the scale has to be undone


def masked():
    generator = torch.Generator().manual_seed(1)
    return ob.operators.Mask((torch.rand(SHAPE, generator=generator) < 0.6).double(), SHAPE)


def measurement(operator, noise=None, batch=()):
    problem = Problem(operator, noise or ob.noise.Gaussian(SIGMA))
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(*batch, *SHAPE, generator=generator, dtype=torch.float64)
    return problem.simulate(x, seed=3), problem


def posterior_mean(y, problem, prior):
    """Dense and independent of the package's solvers."""
    n = 64
    eye = torch.eye(n, dtype=torch.float64).reshape(n, *SHAPE)
    a = problem.operator(eye).reshape(n, -1).T
    covariance = prior.covariance_matvec(eye).reshape(n, n)
    weight = problem.weight().reshape(-1)
    hessian = a.T @ (weight[:, None] * a) + torch.linalg.inv(covariance)
    return torch.linalg.solve(hessian, a.T @ (weight * y.reshape(-1))).reshape(SHAPE)


LEVEL = 0.4
CASES = {
    "pgd": {"ratio": 1.0},
    "pdhg": {"ratio": 1.0},
    "admm": {"level": LEVEL},
    "modl": {"level": LEVEL},
    "hqs": {"level": LEVEL},
    "gradient": {"level": LEVEL},
}


@pytest.mark.parametrize(("operator", "noise"), [(blur, "white"), (masked, "varying")])
@pytest.mark.parametrize("scheme", CASES)
def test_each_scheme_ends_at_its_closed_form(scheme, noise, operator):
    generator = torch.Generator().manual_seed(4)
    varying = SIGMA * (0.5 + torch.rand(SHAPE, generator=generator, dtype=torch.float64))
    y, problem = measurement(operator(), ob.noise.Gaussian(SIGMA if noise == "white" else varying))
    envelope = scheme in ("modl", "hqs", "gradient")
    expected = posterior_mean(y, problem, field(LEVEL**2 if envelope else 0.0))
    if scheme == "hqs":
        expected = field().denoise(expected, LEVEL)
    found = ob.methods.Unrolled(ExactStages(field(), STAGES, **CASES[scheme]), scheme)(y, problem).image
    assert torch.allclose(found, expected, rtol=0, atol=1e-6)
    assert not torch.allclose(found, posterior_mean(y, problem, field(0.3)), rtol=0, atol=1e-3)  # another prior's mean


def test_a_wrong_level_misses_the_posterior_mean():
    y, problem = measurement(blur())
    expected = posterior_mean(y, problem, field())
    for ratio, hit in ((1.0, True), (1.1, False)):
        found = ob.methods.Unrolled(ExactStages(field(), STAGES, ratio=ratio), "pgd")(y, problem).image
        assert torch.allclose(found, expected, rtol=0, atol=1e-6) == hit


def network(scheme="hqs", channels=1, shared=True, dtype=torch.float64, stages=2, activation="silu"):
    torch.manual_seed(0)
    unet = {"kind": "UNet", "inputs": channels + 2, "outputs": channels, "widths": [3, 4], "blocks": 1}
    description = {
        "kind": "Stages",
        "stages": stages,
        "shared": shared,
        "network": {"kind": "Preconditioned", "network": unet | {"activation": activation}},
    }
    return ob.methods.Unrolled(ob.networks.build(description).to(dtype), scheme, channels=channels)


class Runner(torch.nn.Module):
    """The method as a module, so that torch can put other tensors in the place of its parameters."""

    def __init__(self, method):
        super().__init__()
        self.method, self.network = method, method.network

    def forward(self, y, problem):
        return self.method.reconstruct(y, problem)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_gradients_reach_every_parameter_and_are_right(scheme):
    method = network(scheme, shared=False)
    y, problem = measurement(masked())
    y = y.clone().requires_grad_(True)
    names = {"slope", "offset", "log_step"}
    few = [p for name, p in method.network.named_parameters() if name in names]
    assert len(few) == 3
    saved = [p.detach().clone() for p in few]

    def value(y, *parameters):
        state = dict(zip(["network.slope", "network.offset", "network.log_step"], parameters, strict=True))
        return torch.func.functional_call(Runner(method), state, (y, problem))

    point = [p.clone().requires_grad_(True) for p in saved]
    assert torch.autograd.gradcheck(value, (y, *point), eps=1e-6, atol=1e-5, nondet_tol=1e-8, fast_mode=True)
    method.reconstruct(y, problem).square().sum().backward()
    unused = {"slope", "offset"} if scheme == "pgd" else set()
    for name, parameter in method.network.named_parameters():
        if name not in unused:
            assert parameter.grad is not None and float(parameter.grad.abs().max()) > 0, name


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_batch_equals_its_items_whatever_their_operators(scheme):
    method = network(scheme)
    y, problem = measurement(blur(), batch=(2, 2))
    together = method(y, problem).image
    alone = torch.stack([method(item, problem).image for item in y.reshape(-1, *SHAPE)]).reshape(together.shape)
    assert torch.allclose(together, alone, rtol=0, atol=1e-12)
    others = [measurement(blur()), measurement(blur() @ blur(), ob.noise.Gaussian(0.1))]
    mixed = method.reconstruct(torch.stack([item for item, _ in others]), [one for _, one in others])
    for found, (item, one) in zip(mixed, others, strict=True):
        assert torch.allclose(found, method(item, one).image, rtol=0, atol=1e-12)
    swapped = method.reconstruct(torch.stack([item for item, _ in others]), [one for _, one in reversed(others)])
    assert not torch.allclose(mixed, swapped, rtol=0, atol=1e-3)


def test_complex_images_become_two_channels():
    mask = (torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0)) < 0.5).double()
    generator = torch.Generator().manual_seed(1)
    maps = torch.randn(3, 8, 8, dtype=torch.complex128, generator=generator)
    operator = ob.operators.Coils(maps / maps.abs().square().sum(0).sqrt(), (1, 8, 8))
    operator = ob.operators.Mask(mask, operator.data_shape, dtype=torch.complex128) @ operator
    problem = Problem(operator, ob.noise.ComplexGaussian(0.1))
    x = torch.randn(2, 1, 8, 8, dtype=torch.complex128, generator=generator)
    y = problem.simulate(x)
    estimate = network("modl", channels=2)(y, problem)
    assert estimate.image.shape == x.shape and estimate.image.is_complex()
    with pytest.raises(InputError, match="channels"):
        network("modl", channels=3)(y, problem)


def test_units_do_not_matter():
    method = network("hqs")
    y, problem = measurement(blur(), ob.noise.Gaussian(0.05))
    expected = 7.0 + 100.0 * method(y, problem).image
    scaled = Problem(problem.operator, ob.noise.Gaussian(5.0))
    offset = problem.operator(torch.full(SHAPE, 7.0, dtype=torch.float64))
    found = method.scaled(7.0, 107.0)(offset + 100.0 * y, scaled)
    assert torch.allclose(found.image, expected, rtol=0, atol=1e-9)
    assert not torch.allclose(method(offset + 100.0 * y, scaled).image, expected, rtol=0, atol=1e-2)


def test_whitened_data_are_white_and_of_norm_one():
    operator = blur()
    clean = 40.0 + torch.rand(400, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    problem = Problem(operator, ob.noise.Poisson(2.0))
    data = Whitened(problem.simulate(clean), problem, 0.0, 80.0, method="test")
    assert 0.9 < data.chi2(clean / 80.0) < 1.1
    assert data.chi2(clean / 70.0) > 2
    one = Whitened(problem.simulate(clean[0]), problem, 0.0, 80.0, method="test")
    assert len(one.sigma) == 1
    u = torch.randn(1, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert float(one.forward(u).norm()) <= float(u.norm())
    r = torch.randn(one.v.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    assert torch.allclose((one.forward(u) * r).sum(), (u * one.adjoint(r)).sum(), rtol=1e-12)


def test_single_precision_is_enough_for_counts_in_the_dark():
    operator = ob.operators.Convolution(torch.ones(5, 5) / 25, (1, 32, 32), boundary="valid")
    x = torch.zeros(1, 32, 32)
    x[:, 12:20, 12:20] = 1.0
    problem = Problem(operator, ob.noise.Poisson(0.01))
    y = problem.simulate(x)
    single, double = network("hqs", dtype=torch.float32)(y, problem), network("hqs")(y.double(), problem)
    assert single.image.dtype == torch.float32
    assert torch.allclose(single.image.double(), double.image, rtol=0, atol=3e-3)


def test_the_estimate_tells_its_data_residual_and_its_stages():
    told = []
    method = network("hqs", stages=3)
    y, problem = measurement(blur())
    estimate = method(y, problem, callback=lambda *figures: told.append(figures))
    assert [figures[:2] for figures in told] == [(1, 3), (2, 3), (3, 3)]
    assert [figures[2] for figures in told] == list(estimate.history)
    assert estimate.history[-1] == pytest.approx(float(problem.chi2(estimate.image, y)), rel=1e-9)
    assert estimate.status.reason == "completed" and len(estimate.diagnostics["levels"]) == 3


def test_what_does_not_fit_is_refused():
    y, problem = measurement(blur())
    with pytest.raises(InputError, match="low < high"):
        network().scaled(1.0, 1.0)
    with pytest.raises(InputError, match="one problem for each item"):
        network().reconstruct(torch.stack([y, y]), [problem])
    with pytest.raises(InputError, match="shape"):
        network()(y[..., :-1], problem)
    coloured = Problem(problem.operator, ob.noise.ColouredGaussian(torch.ones(8, 8, dtype=torch.float64)))
    with pytest.raises(InputError, match="independent"):
        network()(y, coloured)
