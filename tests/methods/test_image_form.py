"""Total variation in tomography: the split on the image against the split on its differences, and its certificate."""

import torch

import obverse as ob
from obverse.methods import image_form, map_solvers
from obverse.methods.fidelity import fidelity
from obverse.priors import L1, Positivity, TotalVariation
from obverse.solvers.certificate import certify

N = 16


def scan(noise=0.1):
    x = torch.zeros(1, N, N, dtype=torch.float64)
    x[:, 4:12, 5:11] = 1.0
    x[:, 6:9, 7:9] = 2.0
    A = ob.operators.Radon((1, N, N), torch.arange(12) * torch.pi / 12, dtype=torch.float64)
    problem = ob.Problem(A, ob.noise.Gaussian(noise))
    return x, problem, problem.simulate(x, seed=0)


def test_it_finds_what_the_primal_dual_method_finds_in_fewer_steps(monkeypatch):
    _, problem, y = scan()
    method = ob.methods.MAP(prior=TotalVariation(), weight=5.0, tolerance=1e-3, max_iterations=2000)
    found = method(y, problem)
    monkeypatch.setattr(map_solvers, "image_form", lambda *arguments: None)
    other = method(y, problem)
    assert [e.diagnostics["solver"] for e in (found, other)] == ["admm", "primal-dual"]
    assert found.status.converged and other.status.converged
    assert torch.allclose(found.image, other.image, atol=3e-2)
    assert abs(found.diagnostics["objective"] / other.diagnostics["objective"] - 1) < 2e-3
    assert 2 * found.diagnostics["iterations"] <= other.diagnostics["iterations"]


def test_several_terms_and_positivity():
    x, problem, y = scan()
    prior = TotalVariation(isotropic=False) + 0.1 * L1() + Positivity()
    found = ob.methods.MAP(prior=prior, weight=5.0, tolerance=1e-3)(y, problem)
    assert found.status.converged and found.diagnostics["solver"] == "admm" and bool((found.image >= 0).all())
    truth = float(5.0 * prior.value(x) - problem.log_likelihood(x, y))
    other = float(5.0 * prior.value(found.image) - problem.log_likelihood(found.image, y))
    assert other < truth


def test_a_weight_for_each_datum():
    _, problem, y = scan()
    sigma = 0.1 * torch.ones(problem.operator.data_shape, dtype=torch.float64)
    sigma[:, ::2] *= 3
    uneven = ob.Problem(problem.operator, ob.noise.Gaussian(sigma))
    method = ob.methods.MAP(prior=TotalVariation(), weight=5.0, tolerance=1e-3)
    found = method(y, uneven)
    assert found.status.converged and found.diagnostics["solver"] == "admm"
    assert float((found.image - method(y, problem).image).abs().max()) > 1e-2


def test_a_wrong_prox_does_not_pass_the_certificate():
    _, problem, y = scan()
    data = fidelity(y, problem.noise)
    form = image_form.image_form(problem.operator, data, [(5.0, TotalVariation())], torch.zeros(1, N, N).double(), 1e-5)
    assert form is not None and form.blocks[0].homogeneous
    x = ob.methods.MAP(prior=TotalVariation(), weight=5.0, tolerance=1e-5)(y, problem).image
    assert form.smooth is not None
    multiplier = -form.smooth(x)[1]

    def certified(u):
        return certify(form.blocks, x, (torch.zeros_like(x),), (u,), form.smooth).residual

    assert certified(multiplier) < 1e-4
    assert certified(0.9 * multiplier) > 1e-2


def test_other_problems_keep_their_solver():
    _, problem, y = scan()
    x0, data = torch.zeros(1, N, N).double(), fidelity(y, problem.noise)
    smooth = [(1.0, TotalVariation(smoothing=0.1))]
    assert image_form.image_form(problem.operator, data, smooth, x0, 1e-3) is None
    mask = ob.operators.Mask(torch.ones(1, N, N).double())
    seen = fidelity(x0, ob.noise.Gaussian(0.1))
    assert image_form.image_form(mask, seen, [(1.0, TotalVariation())], x0, 1e-3) is None
