"""Bilevel learning against closed forms: hypergradients, their bounds, and the weights that MAID and HOAG find."""

import math

import pytest
import torch

from obverse.errors import InputError
from obverse.learning.bilevel import Bilevel, experts_from_pairs, hoag, maid, through_minimiser, weight_from_pairs
from obverse.priors import TotalVariation

N, P = 8, 3


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def quadratic():
    """h = ½xᵀ(I + Σ e^θ_k B_k)x − xᵀ(y + Cθ): minimiser and gradient in closed form."""
    factors = [randn(N, N, seed=k) / 4 for k in range(P)]
    b = torch.stack([f @ f.T for f in factors])
    y, c, truth = randn(N, seed=10), randn(N, P, seed=11), randn(N, seed=12)

    def matrix(theta):
        return torch.eye(N, dtype=torch.float64) + torch.einsum("k,kij->ij", theta.exp(), b)

    problem = Bilevel(
        lower=lambda x, theta: 0.5 * x @ matrix(theta) @ x - x @ (y + c @ theta),
        upper=lambda x: 0.5 * (x - truth).square().sum(),
        start=torch.zeros(N, dtype=torch.float64),
        convexity=1.0,
        lipschitz=lambda theta: float(torch.linalg.matrix_norm(matrix(theta), 2)),
        hessian_lipschitz=0.0,
        mixed_lipschitz=lambda theta: float((theta.detach().exp() * torch.linalg.matrix_norm(b, 2)).norm()),
    )

    def loss(theta):
        return 0.5 * (torch.linalg.solve(matrix(theta), y + c @ theta) - truth).square().sum()

    return problem, loss


def logistic(convexity=0.5, seed=0):
    """h = Σ log cosh((Ax)_i e^θ₀) + ½·m‖x − y e^θ₁‖²: not quadratic, with all constants known."""
    a, y, truth = randn(10, N, seed=seed), randn(N, seed=seed + 1), randn(N, seed=seed + 2)
    norm, row = float(torch.linalg.matrix_norm(a, 2)), float(a.norm(dim=1).max())
    true = 0.5

    def lower(x, theta):
        t = (a @ x) * theta[0].exp()
        return (torch.nn.functional.softplus(2 * t) - t).sum() + 0.5 * true * (x - theta[1].exp() * y).square().sum()

    # (log cosh)'' ≤ 1 and |(log cosh)'''| ≤ 0.77; h_xθ₀ = Aᵀ(s tanh(su) + s²u sech²(su)) has a slope of at most
    # s²·sup|2 sech² v − 2 v tanh v sech² v| ≤ 2 s² in u, and h_xθ₁ does not depend on x
    problem = Bilevel(
        lower=lower,
        upper=lambda x: 0.5 * (x - truth).square().sum(),
        start=torch.zeros(N, dtype=torch.float64),
        convexity=convexity,
        lipschitz=lambda theta: 0.5 + norm**2 * float((2 * theta[0]).exp()),
        hessian_lipschitz=lambda theta: 0.77 * norm**2 * row * float((3 * theta[0]).exp()),
        mixed_lipschitz=lambda theta: 2 * norm**2 * float((2 * theta[0]).exp()),
    )
    return problem


def pairs(size=10, seed=3):
    clean = torch.zeros(1, size, size, dtype=torch.float64)
    clean[:, 3:8, 2:7] = 1.0
    return clean, clean + 0.1 * randn(1, size, size, seed=seed)


def test_hypergradient_in_closed_form():
    problem, loss = quadratic()
    theta = randn(P, seed=20).requires_grad_(True)
    solved = problem.solve(theta, 1e-11)
    found = problem.hypergradient(theta, solved, 1e-11)
    (expected,) = torch.autograd.grad(loss(theta), theta)
    assert solved.reached and torch.allclose(found.gradient, expected, rtol=0, atol=1e-8)
    assert found.error < 1e-8
    assert not torch.allclose(
        problem.hypergradient(theta, problem.solve(theta, 0.3), 0.3).gradient, expected, atol=1e-4
    )


def test_layer_gives_the_same_gradient():
    problem, loss = quadratic()
    theta = randn(P, seed=20).requires_grad_(True)
    x = problem.solve(theta, 1e-12).x.requires_grad_(True)
    (gradient,) = torch.autograd.grad(problem.lower(x, theta), x, create_graph=True)

    def product(v):
        return torch.autograd.grad(gradient, x, v, retain_graph=True)[0]

    out = through_minimiser(x, gradient, product, tolerance=1e-13)
    (found,) = torch.autograd.grad(problem.upper(out), theta)
    assert torch.allclose(found, torch.autograd.grad(loss(theta), theta)[0], atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_the_bounds_hold(seed):
    problem = logistic(seed=seed)
    theta = 0.3 * randn(2, seed=seed + 50)
    exact = problem.solve(theta, 1e-12)
    gradient = problem.hypergradient(theta, exact, 1e-12).gradient
    for accuracy in (1.0, 0.1, 1e-2, 1e-4, 1e-7):
        solved = problem.solve(theta, accuracy)
        found = problem.hypergradient(theta, solved, accuracy)
        assert float((solved.x - exact.x).norm()) <= solved.distance <= accuracy
        assert solved.low <= exact.value <= solved.high
        assert float((found.gradient - gradient).norm()) <= found.error < math.inf
    assert found.error < 0.1  # and say something


def test_a_false_modulus_breaks_the_bounds():
    broken = []
    for seed in range(4):
        theta = 0.3 * randn(2, seed=seed + 50)
        exact = logistic(seed=seed).solve(theta, 1e-12)
        boast = logistic(convexity=25.0, seed=seed)
        boast = Bilevel(
            boast.lower, boast.upper, boast.start, 25.0, lambda t, b=boast: 25.0 + b.lipschitz(t), 1.0,
            boast.hessian_lipschitz, boast.mixed_lipschitz,
        )  # fmt: skip
        solved = boast.solve(theta, 1e-2)
        broken.append(float((solved.x - exact.x).norm()) > solved.distance or not solved.low <= exact.value)
    assert any(broken)


def test_error_is_unknown_without_constants():
    clean, noisy = pairs(6)
    problem = experts_from_pairs(clean[None], noisy[None], side=2)
    theta = torch.cat([torch.full((1, 1), -3.0), torch.tensor([[1.0, -1.0, 0.0, 0.0]])], 1).double()
    assert problem.hypergradient(theta, problem.solve(theta, 1e-3)).error == math.inf


def best_on_a_grid(clean, noisy, smoothing):
    """The weight of least loss among many, each solved tightly."""
    problem = weight_from_pairs(clean, noisy, smoothing)
    grid = torch.linspace(-3.4, -1.4, 41, dtype=torch.float64)
    losses, start = [], None
    for theta in grid:
        solved = problem.solve(theta, 1e-4, start)
        start = solved.x
        losses.append(solved.value)
    best = int(torch.tensor(losses).argmin())
    assert 0 < best < len(grid) - 1
    return float(grid[best]), losses[best]


def test_maid_and_hoag_find_the_weight_that_a_grid_finds():
    clean, noisy = pairs()
    where, least = best_on_a_grid(clean, noisy, 0.1)
    problem = weight_from_pairs(clean, noisy, 0.1)
    start = torch.tensor(-4.0, dtype=torch.float64)
    for learned in (
        maid(problem, start, tolerance=2e-3),
        hoag(problem, start, accuracy=1e-2, decay=0.6, tolerance=2e-3, max_iterations=60),
    ):
        assert learned.status.converged, learned.status.message
        assert abs(float(learned.theta) - where) < 0.05  # the grid's spacing
        assert learned.history[-1].low <= least * (1 + 1e-3)
        assert learned.history[-1].value < 0.75 * learned.history[0].value


def test_every_step_of_maid_is_certified():
    clean, noisy = pairs()
    learned = maid(weight_from_pairs(clean, noisy, 0.1), torch.tensor(-4.0).double(), tolerance=2e-3)
    history = learned.history
    assert len(history) > 3
    for before, after in zip(history, history[1:], strict=False):
        assert after.high < before.low
        assert after.gradients > before.gradients and after.solves > before.solves
    assert max(i.accuracy for i in history) > 10 * history[-1].accuracy  # rough at first, exact at the end


def test_hoag_makes_no_such_promise():
    clean, noisy = pairs()
    learned = hoag(
        weight_from_pairs(clean, noisy, 0.1), torch.tensor(-4.0).double(), accuracy=0.3, decay=0.9, max_iterations=8
    )
    assert any(b.high >= a.low for a, b in zip(learned.history, learned.history[1:], strict=False))
    assert not learned.status.converged and "steps" in learned.status.message


def test_experts_are_learnt_and_beat_the_first_ones():
    clean, noisy = pairs(12)
    problem = experts_from_pairs(clean[None], noisy[None], side=3, smoothing=0.1)
    theta = torch.cat([torch.full((2, 1), -2.5, dtype=torch.float64), 0.3 * randn(2, 9, seed=5)], 1)
    learned = maid(problem, theta, step=0.5, max_iterations=6)
    assert learned.history[-1].high < 0.9 * learned.history[0].low
    assert learned.theta.shape == theta.shape and not torch.equal(learned.theta, theta)


def test_the_constants_of_total_variation_are_bounds():
    clean, noisy = pairs(5)
    problem, theta, prior = (
        weight_from_pairs(clean, noisy, 0.1),
        torch.tensor(-1.0).double(),
        TotalVariation(smoothing=0.1),
    )

    def hessian(x):
        return torch.autograd.functional.hessian(lambda u: problem.lower(u, theta), x).reshape(25, 25)

    ratios = []
    for seed in range(6):
        a = 0.05 * randn(1, 5, 5, seed=seed)
        b = a + 0.02 * randn(1, 5, 5, seed=seed + 30)
        distance = float((a - b).norm())
        ratios.append(float(torch.linalg.matrix_norm(hessian(a) - hessian(b), 2)) / distance)
        mixed = theta.exp() * (prior.gradient(a) - prior.gradient(b)).norm() / distance
        assert float(mixed) <= problem.mixed_lipschitz(theta)
        assert float(torch.linalg.eigvalsh(hessian(a))[-1]) <= problem.lipschitz(theta)
    assert 0.01 * problem.hessian_lipschitz(theta) < max(ratios) <= problem.hessian_lipschitz(theta)


def test_bad_settings_are_refused():
    clean, noisy = pairs(5)
    problem, theta = weight_from_pairs(clean, noisy), torch.tensor(-3.0).double()
    calls = [
        lambda: weight_from_pairs(clean, noisy[..., :4]),
        lambda: weight_from_pairs(clean, noisy, 0.0),
        lambda: maid(problem, torch.tensor(math.nan)),
        lambda: maid(problem, theta, step=0.0),
        lambda: hoag(problem, theta, decay=1.0),
        lambda: hoag(problem, theta, accuracy=-1.0),
    ]
    for call in calls:
        with pytest.raises(InputError) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_what_could_not_be_proved_is_said():
    clean, noisy = pairs(6)
    single = weight_from_pairs(clean.float(), noisy.float(), 0.1)
    learned = maid(single, torch.tensor(-4.0), tolerance=1e-9, max_iterations=60)
    assert not learned.status.converged and learned.status.reason == "stagnation"
