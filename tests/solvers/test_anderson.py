"""Anderson acceleration against fixed points known in closed form, and against merely repeating the map."""

import math

import pytest
import torch

from obverse.errors import InputError
from obverse.solvers import anderson

D, C = torch.float64, torch.complex128


def randn(*shape, seed=0, dtype=D):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def affine(eigenvalues, seed=0, dtype=D):
    """z ↦ M z + c on rows, M symmetric with the given eigenvalues, and its fixed point (I − M)⁻¹ c."""
    n = len(eigenvalues)
    q = torch.linalg.qr(randn(n, n, seed=seed, dtype=dtype)).Q
    c = randn(n, seed=seed + 1, dtype=dtype)
    m = (q * torch.as_tensor(eigenvalues, dtype=D).to(dtype)) @ q.mH
    return (lambda z: z @ m.mT + c), torch.linalg.solve(torch.eye(n, dtype=dtype) - m, c)


@pytest.mark.parametrize("dtype", [D, C])
def test_the_fixed_point_of_a_contraction_in_a_tenth_of_the_evaluations(dtype):
    f, exact = affine(torch.linspace(0.0, 0.99, 30, dtype=D), dtype=dtype)
    fast = anderson(f, torch.zeros_like(exact), memory=10, tolerance=1e-11, max_iterations=5000)
    slow = anderson(f, torch.zeros_like(exact), memory=0, tolerance=1e-11, max_iterations=5000)
    assert fast.status.converged and slow.status.converged
    assert 10 * fast.iterations < slow.iterations
    for result, error in ((fast, 2e-9), (slow, 2e-9)):  # 1/(1 − 0.99) times the residual, and a margin
        assert (result.x - exact).norm() <= error * exact.norm()
        again = float((f(result.x) - result.x).norm() / f(result.x).norm())
        assert again <= 1e-11 and again == pytest.approx(result.residual, rel=1e-2)
        assert len(result.history) == result.iterations and result.history[-1] == result.residual


def test_an_affine_map_of_few_eigenvalues_is_solved_as_gmres_solves_it():
    f, exact = affine([-0.9] * 5 + [0.3] * 5 + [0.95] * 5)
    result = anderson(f, torch.zeros_like(exact), memory=5, tolerance=1e-10)
    assert result.status.converged and result.iterations <= 6  # three eigenvalues: three steps, and rounding
    assert torch.allclose(result.x, exact, atol=1e-8)


@pytest.mark.parametrize("eigenvalues", [[-1.0, -1.0, 0.5], [-3.0, 0.5, 1.5]])
def test_a_fixed_point_that_repetition_never_reaches(eigenvalues):
    f, exact = affine(eigenvalues)
    start = exact + randn(3, seed=7)
    result = anderson(f, start, tolerance=1e-10)
    assert result.status.converged and torch.allclose(result.x, exact, atol=1e-8)
    repeated = anderson(f, start, memory=0, tolerance=1e-10)
    assert not repeated.status.converged and repeated.status.reason in ("max-iterations", "diverged")


def test_a_nonlinear_map_and_its_best_point():
    f = lambda z: torch.cos(2.2 * z)  # noqa: E731  repeating it runs into a cycle of two
    start = torch.linspace(0.0, 0.9, 9, dtype=D)[:, None]
    result = anderson(f, start, tolerance=1e-12, batch_dims=1)
    assert result.status.converged and float((f(result.x) - result.x).abs().max()) < 1e-11
    repeated = anderson(f, start, memory=0, tolerance=1e-12, batch_dims=1, max_iterations=300)
    assert repeated.status.reason == "max-iterations" and repeated.residual > 0.01
    assert "9 of 9 items" in repeated.status.message


def test_where_there_is_no_fixed_point_none_is_claimed():
    result = anderson(lambda z: z + 1.0, torch.zeros(4, dtype=D), tolerance=1e-6, max_iterations=60)
    assert not result.status.converged and result.residual > 1e-6
    stuck = anderson(lambda z: z + 1.0 + z.abs(), torch.zeros(1, dtype=D), tolerance=1e-6, max_iterations=100)
    assert not stuck.status.converged
    diverged = anderson(lambda z: 3 * z + 1.0, torch.ones(2, dtype=D), memory=0, max_iterations=500)
    assert not diverged.status.converged
    bad = anderson(lambda z: z / 0, torch.ones(2, dtype=D))
    assert bad.status.reason == "not-finite"


def test_a_step_into_nan_is_taken_back():
    def f(z):
        return torch.where(z > 4.0, math.nan, 0.1 * z**2 + 0.9)

    start = torch.full((1,), 3.9, dtype=D)
    result = anderson(f, start, tolerance=1e-12)
    assert result.status.converged and float((f(result.x) - result.x).abs()) < 1e-11


def test_a_batch_equals_its_items_one_by_one():
    f, exact = affine(torch.linspace(-0.5, 0.98, 20, dtype=D))
    starts = torch.stack([torch.zeros(20, dtype=D), exact, exact + 1e-3 * randn(20), 100 * randn(20, seed=5)])
    together = anderson(f, starts.reshape(2, 2, 20), tolerance=1e-10, batch_dims=2, max_iterations=500)
    assert together.status.converged and together.x.shape == (2, 2, 20)
    for one, start in zip(together.x.reshape(4, 20), starts):
        alone = anderson(f, start, tolerance=1e-10, max_iterations=500)
        assert torch.allclose(one, alone.x, rtol=1e-9, atol=1e-9) and (one - exact).norm() < 1e-6 * exact.norm()
    assert torch.equal(starts[0], torch.zeros(20, dtype=D))
    # as one problem of 80 unknowns: other coefficients, the same fixed point
    merged = anderson(f, starts, tolerance=1e-10, max_iterations=500)
    assert merged.status.converged and not torch.equal(merged.x, together.x.reshape(4, 20))


def test_single_precision_reaches_what_it_can():
    f, exact = affine(torch.linspace(0.0, 0.95, 30, dtype=D))
    single = lambda z: f(z.double()).float()  # noqa: E731
    result = anderson(single, torch.zeros(30), tolerance=1e-5)
    assert result.status.converged and result.x.dtype == torch.float32
    assert (result.x.double() - exact).norm() <= 1e-3 * exact.norm()
    beyond = anderson(single, torch.zeros(30), tolerance=1e-12, max_iterations=100)
    # Whether rounding lets f hit its fixed point exactly depends on the machine; the status must tell either way.
    assert beyond.status.converged == (beyond.residual <= 1e-12) and beyond.residual < 1e-6


def test_progress_and_arguments():
    told = []
    f, exact = affine([0.5, 0.7])
    result = anderson(f, torch.zeros(2, dtype=D), callback=lambda i, total, value: told.append((i, total, value)))
    assert told == [(i + 1, 100, value) for i, value in enumerate(result.history)]
    for bad in ({"memory": -1}, {"tolerance": -1.0}, {"max_iterations": -1}, {"ridge": 0.0}):
        with pytest.raises(InputError):
            anderson(f, torch.zeros(2, dtype=D), **bad)
    with pytest.raises(InputError, match="must return a tensor of shape"):
        anderson(lambda z: z[:1], torch.zeros(2, dtype=D))
    with pytest.raises(InputError, match="finite"):
        anderson(f, torch.full((2,), math.nan, dtype=D))
