"""FISTA, PDHG and ADMM on problems whose minimiser is known; their statuses against wrong constants and operators."""

import pytest
import torch

from obverse.errors import InputError
from obverse.solvers import Coupling, System, admm, certify, fista, pdhg

D, C = torch.float64, torch.complex128


def randn(*shape, seed=0, dtype=D):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def same(v):
    return v


def shrink(v, s):
    """prox of s‖·‖₁, complex included."""
    return v * (1 - s / v.abs().clamp_min(s)) if v.is_complex() else v - v.clamp(-s, s)


def difference_adjoint(u):
    return torch.cat([-u[:1], u[:-1] - u[1:], u[-1:]])


def total_variation(weight):
    return Coupling(torch.diff, difference_adjoint, lambda v, s: shrink(v, weight * s))


def staircase():
    """A signal of two levels: with TV weight w, each level of m samples moves by w/m towards the other, exactly."""
    b = torch.cat([torch.zeros(10, dtype=D), torch.ones(20, dtype=D)])
    weight = 1.5
    return b, weight, torch.cat([torch.full((10,), weight / 10, dtype=D), torch.full((20,), 1 - weight / 20, dtype=D)])


class Lasso:
    """½‖A x − b‖² + w‖x‖₁ with more unknowns than data; its optimality is checked against the definition."""

    def __init__(self, dtype=D):
        self.a, self.b, self.weight = randn(30, 50, dtype=dtype), randn(30, seed=1, dtype=dtype), 3.0
        self.norm = float(torch.linalg.matrix_norm(self.a, 2))

    def gradient(self, x):
        return self.a.mH @ (self.a @ x - self.b)

    def prox(self, v, s):
        return shrink(v, self.weight * s)

    def objective(self, x):
        return 0.5 * float((self.a @ x - self.b).norm()) ** 2 + self.weight * float(x.abs().sum())

    def violation(self, x):
        """Largest distance of −∇f(x) from w ∂‖·‖₁(x), relative to w."""
        g, on = -self.gradient(x) / self.weight, x.abs() > 1e-9
        inside = (g[~on].abs() - 1).clamp_min(0)
        return max(float((g[on] - x[on] / x[on].abs()).abs().max()), float(inside.max()) if inside.numel() else 0.0)

    def couplings(self):
        inverse = torch.linalg.inv  # prox of ½‖· − b‖² seen through A
        data = Coupling(lambda x: self.a @ x, lambda u: self.a.mH @ u, lambda v, s: (v + s * self.b) / (1 + s))
        system = inverse(self.a.mH @ self.a + torch.eye(50, dtype=self.a.dtype))
        return [data, Coupling(same, same, self.prox)], lambda v: system @ v


@pytest.mark.parametrize("dtype", [D, C])
def test_three_solvers_meet_the_optimality_of_the_lasso(dtype):
    problem, zero = Lasso(dtype), torch.zeros(50, dtype=dtype)
    terms, solve = problem.couplings()
    results = {
        "fista": fista(
            problem.gradient, problem.prox, zero, problem.norm**-2, tolerance=1e-10, max_iterations=5000,
            objective=problem.objective,
        ),
        "admm": admm(terms, solve, zero, tolerance=1e-11, max_iterations=5000),
        "pdhg": pdhg(terms[:1], zero, problem.norm, prox=problem.prox, tolerance=1e-10, max_iterations=50000),
        "condat-vu": pdhg(
            terms[1:], zero, 1.0, gradient=problem.gradient, lipschitz=problem.norm**2,
            tolerance=1e-10, max_iterations=50000,
        ),
    }  # fmt: skip
    for name, result in results.items():
        assert result.status.converged, (name, result.status)
        assert torch.allclose(result.x, results["fista"].x, atol=1e-6), name
    assert problem.violation(results["fista"].x) < 1e-7
    assert problem.violation(results["fista"].x + 0.01) > 1e-3


def test_total_variation_of_a_staircase_in_closed_form():
    b, weight, exact = staircase()
    tv, data = total_variation(weight), Coupling(same, same, lambda v, s: (v + s * b) / (1 + s))
    found = pdhg([tv], b, 2.0, prox=data.prox, tolerance=1e-9, max_iterations=5000)
    assert found.status.converged and torch.allclose(found.x, exact, atol=1e-7)
    smooth = pdhg([tv], b, 2.0, gradient=lambda x: x - b, lipschitz=1.0, tolerance=1e-9, max_iterations=5000)
    assert smooth.status.converged and torch.allclose(smooth.x, exact, atol=1e-7)
    matrix = torch.eye(30, dtype=D).diff(dim=0)
    system = torch.linalg.inv(matrix.T @ matrix + torch.eye(30, dtype=D))
    split = admm([data, tv], lambda v: system @ v, b, tolerance=1e-9, max_iterations=3000)
    assert split.status.converged and torch.allclose(split.x, exact, atol=1e-7)


def test_pdhg_stops_on_the_duality_gap_given():
    b, weight, exact = staircase()

    def gap(x, z, u):
        primal = 0.5 * float((x - b).square().sum()) + weight * float(x.diff().abs().sum())
        back = difference_adjoint(u[0])
        return primal - float((back * b).sum() - 0.5 * back.square().sum())

    found = pdhg(
        [total_variation(weight)], b, 2.0, prox=lambda v, s: (v + s * b) / (1 + s), gap=gap, tolerance=1e-10,
        max_iterations=5000,
    )  # fmt: skip
    assert found.status.converged and found.residual <= 1e-10
    # ½‖x − x*‖² is at most the gap.
    assert 0.5 * float((found.x - exact).square().sum()) <= 1e-10


def test_fista_quadratic_restart_and_backtracking():
    q = torch.linalg.qr(randn(40, 40)).Q
    a = (q * torch.logspace(-4, 0, 40, dtype=D)) @ q.T
    b = randn(40, seed=1)
    common = {"tolerance": 1e-8, "max_iterations": 20000}
    fast = fista(lambda x: a @ x - b, None, torch.zeros(40, dtype=D), 1.0, **common)
    slow = fista(lambda x: a @ x - b, None, torch.zeros(40, dtype=D), 1.0, restart=False, **common)
    assert fast.status.converged and torch.allclose(a @ fast.x, b, atol=1e-7)
    assert fast.iterations < slow.iterations
    found = fista(
        lambda x: a @ x - b, None, torch.zeros(40, dtype=D), 64.0,
        smooth=lambda x: 0.5 * (x @ a @ x) - b @ x, **common,
    )  # fmt: skip
    assert found.status.converged and torch.allclose(a @ found.x, b, atol=1e-7)


def test_zero_solution_converges():
    assert fista(lambda x: x, lambda v, s: shrink(v, s), torch.zeros(4, dtype=D), 1.0).status.converged
    b = torch.full((4,), 0.1, dtype=D)
    sparse = Coupling(same, same, shrink)
    found = pdhg([sparse], b, 1.0, prox=lambda v, s: (v + s * b) / (1 + s), tolerance=1e-8)
    assert found.status.converged and float(found.x.abs().max()) < 1e-8


def staircase_with_data_as_quadratic():
    """The staircase with ½‖x − b‖² as f, the system in closed form and the certificate as the criterion."""
    b, weight, exact = staircase()
    tv = total_variation(weight)
    tv = Coupling(tv.apply, tv.adjoint, tv.prox, value=lambda z: weight * z.abs().sum())
    matrix = torch.eye(30, dtype=D).diff(dim=0)

    def solve(penalties):
        inverse = torch.linalg.inv(torch.eye(30, dtype=D) + penalties[0] * matrix.T @ matrix)
        return lambda v: inverse @ (v + b)

    def smooth(x):
        return 0.5 * (x - b).square().sum(), x - b

    return b, exact, tv, System(solve, lambda x: x - b), smooth


@pytest.mark.parametrize("rho", [1e-3, 1.0, 1e3])
def test_admm_with_a_quadratic_f_finds_its_penalty_and_stops_on_the_certificate(rho):
    b, exact, tv, system, smooth = staircase_with_data_as_quadratic()

    def gap(x, z, u):
        return certify([tv], x, z, u, smooth).residual

    found = admm([tv], system, b, rho=rho, gap=gap, check_every=10, tolerance=1e-9, max_iterations=4000)
    assert found.status.converged and torch.allclose(found.x, exact, atol=1e-6)
    assert len(found.history) == found.iterations // 10
    plain = admm([tv], system, b, rho=rho, tolerance=1e-9, max_iterations=4000)
    assert plain.status.converged and torch.allclose(plain.x, exact, atol=1e-6)


def test_the_certificate_bounds_what_is_missing_and_is_zero_at_the_solution_only():
    b, exact, tv, system, smooth = staircase_with_data_as_quadratic()
    u = torch.cumsum(exact - b, 0)[:-1]  # Kᴴu = −∇f at the solution
    best = certify([tv], exact, [exact.diff()], [u], smooth)
    assert best.residual < 1e-12
    for seed in range(5):
        x = exact + 0.1 * randn(30, seed=seed)
        # u is a subgradient at z = K x* and so certifies any other point, with the gradient's share
        other = certify([tv], x, [exact.diff()], [u], smooth)
        missing = other.objective - best.objective
        force = smooth(x)[1] + difference_adjoint(u)
        assert missing > 0 and other.residual > 1e-3
        assert missing <= other.gap + float(force.norm() * (x - exact).norm()) + 1e-12
    outside = Coupling(tv.apply, tv.adjoint, tv.prox, value=lambda z: torch.tensor(torch.inf))
    assert certify([outside], exact, [exact.diff()], [u], smooth).residual == torch.inf
    with pytest.raises(InputError, match="value"):
        certify([total_variation(1.0)], exact, [exact.diff()], [u], smooth)


# What must not pass: wrong constants, wrong operators, too little work.


def test_a_step_too_large_is_reported_and_a_tiny_one_does_not_pass_for_convergence():
    problem = Lasso()
    diverged = fista(problem.gradient, problem.prox, torch.zeros(50, dtype=D), 10 / problem.norm**2)
    assert not diverged.status.converged and diverged.status.reason == "diverged"
    crawling = fista(problem.gradient, problem.prox, torch.zeros(50, dtype=D), 1e-9 / problem.norm**2, max_iterations=9)
    assert not crawling.status.converged and crawling.residual > 0.1


def test_pdhg_notices_a_norm_that_is_too_small():
    b, weight, _ = staircase()
    wrong = pdhg([total_variation(weight)], b, 0.5, prox=lambda v, s: (v + s * b) / (1 + s))
    assert not wrong.status.converged and wrong.status.reason == "norm-too-small"


def test_a_wrong_adjoint_cannot_converge_in_pdhg_to_the_wrong_point_unseen():
    b, weight, exact = staircase()
    tv = total_variation(weight)
    wrong = Coupling(tv.apply, lambda u: -difference_adjoint(u), tv.prox)
    found = pdhg([wrong], b, 2.0, prox=lambda v, s: (v + s * b) / (1 + s), max_iterations=500)
    assert not found.status.converged and found.status.reason == "wrong-adjoint"
    assert not torch.allclose(found.x, exact, atol=1e-2)


def test_admm_names_a_solve_that_is_not_the_inverse():
    terms, solve = Lasso().couplings()
    wrong = admm(terms, lambda v: 0.3 * solve(v), torch.zeros(50, dtype=D), max_iterations=200)
    assert not wrong.status.converged and wrong.status.reason == "wrong-solve"
    b, _, tv, system, _ = staircase_with_data_as_quadratic()
    shifted = System(lambda rho: lambda v: 0.9 * system.solve(rho)(v), system.gradient)
    wrong = admm([tv], shifted, b, max_iterations=200)
    assert not wrong.status.converged and wrong.status.reason == "wrong-solve"


def test_few_iterations_are_admitted_and_inputs_checked():
    problem, zero = Lasso(), torch.zeros(50, dtype=D)
    terms, solve = problem.couplings()
    for result in (
        fista(problem.gradient, problem.prox, zero, problem.norm**-2, max_iterations=3),
        pdhg(terms[:1], zero, problem.norm, prox=problem.prox, max_iterations=3),
        admm(terms, solve, zero, max_iterations=3),
    ):
        assert not result.status.converged and result.status.reason == "max-iterations" and result.iterations == 3
    with pytest.raises(InputError, match="step"):
        fista(problem.gradient, problem.prox, zero, 0.0)
    with pytest.raises(InputError, match="relaxation"):
        pdhg(terms, zero, 1.0, relaxation=2.5)
    with pytest.raises(InputError, match="weight"):
        admm(terms, solve, zero, weights=[1.0])


def test_float32_stagnation_is_said():
    b, weight, _ = staircase()
    b = b.float()
    found = pdhg([total_variation(weight)], b, 2.0, prox=lambda v, s: (v + s * b) / (1 + s), tolerance=1e-12)
    assert not found.status.converged and found.residual > 1e-12
    a, b = Lasso().a.float(), Lasso().b.float()
    stuck = fista(lambda x: a.T @ (a @ x - b), shrink, torch.zeros(50), 0.005, tolerance=1e-12, max_iterations=20000)
    assert not stuck.status.converged and stuck.residual > 1e-12


def test_callback_may_interrupt_and_inputs_stay():
    problem, zero = Lasso(), torch.zeros(50, dtype=D)
    terms, solve = problem.couplings()

    def interrupt(iteration, total, value):
        raise KeyboardInterrupt

    for run in (
        lambda: fista(problem.gradient, problem.prox, zero, 1e-3, callback=interrupt),
        lambda: pdhg(terms, zero, 20.0, callback=interrupt),
        lambda: admm(terms, solve, zero, callback=interrupt),
    ):
        with pytest.raises(KeyboardInterrupt):
            run()
    assert (zero == 0).all()
