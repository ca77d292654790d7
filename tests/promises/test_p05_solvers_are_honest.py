"""P5: solvers reach the known answer and say so honestly. Every residual is computed again here, in float64."""

import pytest
import torch

from obverse.solvers import Coupling, admm, block_krylov, cg, fista, lsqr, minres, pdhg

D = torch.float64
N = 48
_Q = torch.linalg.qr(torch.randn(N, N, generator=torch.Generator().manual_seed(0), dtype=D)).Q
A = (_Q * torch.logspace(-3, 0, N, dtype=D)) @ _Q.T
A = (A + A.T) / 2
B = torch.randn(N, generator=torch.Generator().manual_seed(1), dtype=D)
EXACT = torch.linalg.solve(A, B)


def residual(x):
    return float((B - A @ x.to(D)).norm() / B.norm())


def _identity(v):
    return v


def _fista(dtype, iterations, tolerance):
    a, b = A.to(dtype), B.to(dtype)
    return fista(lambda x: a @ x - b, None, torch.zeros_like(b), 1.0, tolerance=tolerance, max_iterations=iterations)


def _pdhg(dtype, iterations, tolerance):
    a, b = A.to(dtype), B.to(dtype)
    prox = lambda v, s: torch.linalg.solve(torch.eye(N, dtype=dtype) + s * a, v + s * b)  # noqa: E731
    return pdhg([Coupling(_identity, _identity, prox)], b, 1.0, tolerance=tolerance, max_iterations=iterations)


def _admm(dtype, iterations, tolerance):
    a, b = A.to(dtype), B.to(dtype)
    prox = lambda v, s: torch.linalg.solve(torch.eye(N, dtype=dtype) + s * a, v + s * b)  # noqa: E731
    term, free = Coupling(_identity, _identity, prox), Coupling(_identity, _identity, lambda v, s: v)
    return admm([term, free], lambda v: v / 2, torch.zeros_like(b), tolerance=tolerance, max_iterations=iterations)


SOLVERS = {
    "cg": lambda dtype, n, t: cg(lambda v: A.to(dtype) @ v, B.to(dtype), tolerance=t, max_iterations=n),
    "minres": lambda dtype, n, t: minres(lambda v: A.to(dtype) @ v, B.to(dtype), tolerance=t, max_iterations=n),
    "lsqr": lambda dtype, n, t: lsqr(
        lambda v: A.to(dtype) @ v, lambda v: A.to(dtype) @ v, B.to(dtype), tolerance=t, max_iterations=n
    ),
    "fista": _fista,
    "pdhg": _pdhg,
    "admm": _admm,
}


@pytest.mark.parametrize("name", SOLVERS)
def test_what_says_converged_is_at_the_known_answer(name):
    result = SOLVERS[name](D, 20000, 1e-9)
    assert result.status.converged, result.status
    assert result.residual <= 1e-9
    assert residual(result.x) <= 1e-5
    assert float((result.x - EXACT).norm() / EXACT.norm()) <= 1e-4


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("dtype", [D, torch.float32])
def test_stopped_after_three_iterations_says_not_converged(name, dtype):
    result = SOLVERS[name](dtype, 3, 1e-9)
    assert not result.status.converged and result.status.reason == "max-iterations"
    # The negative control of the test above: this point really is far from the answer.
    assert float((result.x.to(D) - EXACT).norm() / EXACT.norm()) > 1e-2


@pytest.mark.parametrize("name", SOLVERS)
def test_float32_never_claims_what_it_cannot_reach(name):
    result = SOLVERS[name](torch.float32, 3000, 1e-12)
    assert not result.status.converged
    assert len(result.status.message) > 40 and result.status.reason in ("stagnation", "max-iterations", "inconsistent")


@pytest.mark.parametrize("solver", [cg, minres])
@pytest.mark.parametrize("dtype", [D, torch.float32])
def test_reported_residuals_are_the_true_ones(solver, dtype):
    for iterations in (1, 7, 30, 1000):
        result = solver(lambda v: A.to(dtype) @ v, B.to(dtype), tolerance=1e-5, max_iterations=iterations)
        assert result.residual == pytest.approx(residual(result.x), rel=0.05, abs=1e-6)
        assert result.status.converged == (result.residual <= 1e-5)


@pytest.mark.parametrize("solver", [cg, minres])
def test_an_operator_that_changes_under_way_cannot_fake_convergence(solver):
    """After ten products the operator lies by a factor: recurrences then drift from the truth, b − A x does not."""
    calls = []

    def lying(v):
        calls.append(1)
        return (1.5 if len(calls) % 10 == 7 else 1.0) * (A @ v)

    result = solver(lying, B, tolerance=1e-8, max_iterations=500)
    assert result.status.converged == (result.residual <= 1e-8)
    assert not result.status.converged or residual(result.x) <= 1e-7


def test_eigenvalue_residuals_are_the_true_ones_and_the_budget_is_counted():
    counted = []

    def apply(v):
        counted.append(len(v))
        return v @ A

    found = block_krylov(apply, (N,), 4, products=24, tolerance=1e-12)
    true = torch.linalg.vector_norm(found.vectors @ A - found.values[:, None] * found.vectors, dim=1)
    assert torch.allclose(found.residuals, true, atol=1e-13)
    assert sum(counted) == found.products == 24
    assert found.status.converged == bool(true.max() <= 1e-12 * found.values[0])
    assert not found.status.converged
