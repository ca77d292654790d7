"""CG, MINRES and LSQR against dense solves; their statuses against problems made to fail."""

import pytest
import torch

from obverse.errors import InputError
from obverse.solvers import cg, lsqr, minres

D, C = torch.float64, torch.complex128


def randn(*shape, seed=0, dtype=D):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def spd(n=40, seed=0, dtype=D, condition=100.0):
    """Hermitian, with eigenvalues spread evenly in the logarithm over the condition number."""
    q = torch.linalg.qr(randn(n, n, seed=seed, dtype=dtype)).Q
    values = torch.logspace(0, torch.tensor(condition).log10().item(), n, dtype=D).to(dtype)
    a = (q * values) @ q.mH
    return (a + a.mH) / 2


def rows(a):
    """v ↦ A v on rows, so that leading axes are a batch."""
    return lambda v: v @ a.mT


def relative(a, b, x):
    return (torch.linalg.vector_norm(b - x @ a.mT, dim=-1) / torch.linalg.vector_norm(b, dim=-1)).max().item()


@pytest.mark.parametrize("solver", [cg, minres])
@pytest.mark.parametrize("dtype", [D, C])
def test_hermitian_solvers_agree_with_a_dense_solve(solver, dtype):
    a, b = spd(dtype=dtype), randn(3, 40, seed=1, dtype=dtype)
    result = solver(rows(a), b, tolerance=1e-11, batch_dims=1)
    assert result.status.converged and result.status.reason == "converged"
    assert relative(a, b, result.x) <= 1.01e-11
    assert result.residual == pytest.approx(relative(a, b, result.x), rel=1e-3)
    assert torch.allclose(result.x, torch.linalg.solve(a, b.mT).mT, atol=1e-10)
    assert len(result.history) == result.iterations


def test_minres_solves_an_indefinite_system_that_cg_refuses():
    a = spd() - 30 * torch.eye(40, dtype=D)
    b = randn(40, seed=1)
    result = minres(rows(a), b, tolerance=1e-10)
    assert result.status.converged and relative(a, b, result.x) <= 1.01e-10
    refused = cg(rows(a), b, tolerance=1e-10)
    assert not refused.status.converged and refused.status.reason == "indefinite"
    assert "minres" in refused.status.message
    assert refused.residual == pytest.approx(relative(a, b, refused.x), rel=1e-6)


@pytest.mark.parametrize("solver", [cg, minres])
def test_a_batch_equals_its_items_one_by_one(solver):
    scale = torch.tensor([1.0, 1e-4, 1e6, 0.0], dtype=D)[:, None]
    matrices = torch.stack([spd(seed=s, condition=10.0 ** (s + 1)) for s in range(4)])
    b = randn(4, 40, seed=9) * scale
    together = solver(lambda v: (matrices @ v[..., None])[..., 0], b, tolerance=1e-10, batch_dims=1)
    assert together.status.converged
    for i in range(4):
        alone = solver(lambda v, i=i: matrices[i] @ v, b[i], tolerance=1e-10)
        assert torch.allclose(together.x[i], alone.x, rtol=1e-6, atol=1e-8 * float(scale[i]))
    assert (together.x[3] == 0).all()


def test_lsqr_agrees_with_normal_equations_and_pseudo_inverse():
    a, b = randn(60, 40), randn(2, 60, seed=1)
    for damping in (0.0, 0.7):
        result = lsqr(rows(a), lambda u: u @ a, b, damping, tolerance=1e-12, batch_dims=1)
        exact = torch.linalg.solve(a.T @ a + damping * torch.eye(40, dtype=D), (b @ a).T).T
        assert result.status.converged and torch.allclose(result.x, exact, atol=1e-10)
    wide, data = a.T.contiguous(), randn(40, seed=2)
    least = lsqr(rows(wide), lambda u: u @ wide, data, tolerance=1e-12)
    assert torch.allclose(least.x, torch.linalg.pinv(wide) @ data, atol=1e-10)


def test_lsqr_complex_with_images_of_another_shape():
    a, b = randn(30, 20, dtype=C), randn(5, 6, seed=1, dtype=C)
    result = lsqr(
        lambda x: (a @ x.reshape(20)).reshape(5, 6),
        lambda y: (a.mH @ y.reshape(30)).reshape(4, 5),
        b,
        0.3,
        x0=randn(4, 5, seed=2, dtype=C),
        tolerance=1e-12,
    )
    exact = torch.linalg.solve(a.mH @ a + 0.3 * torch.eye(20, dtype=C), a.mH @ b.reshape(30))
    assert result.status.converged and torch.allclose(result.x.reshape(20), exact, atol=1e-10)


@pytest.mark.parametrize("wrong", [lambda a, u: 2 * u @ a, lambda a, u: u @ a.flip(0), lambda a, u: -u @ a])
def test_lsqr_notices_an_adjoint_that_is_none(wrong):
    a, b = randn(60, 40), randn(60, seed=1)
    result = lsqr(rows(a), lambda u: wrong(a, u), b, tolerance=1e-8)
    assert not result.status.converged and result.status.reason == "wrong-adjoint"


@pytest.mark.parametrize("solver", [cg, minres])
def test_an_operator_that_is_not_hermitian_is_named(solver):
    a = spd() + 3 * torch.triu(randn(40, 40, seed=3), 1)
    result = solver(rows(a), randn(40, seed=1), tolerance=1e-10, max_iterations=60)
    assert not result.status.converged and result.status.reason in ("not-hermitian", "indefinite")


@pytest.mark.parametrize("limit, products", [(1, 4), (2, 3), (5, 6)])
def test_cg_tests_symmetry_with_the_products_of_its_own_steps(limit, products):
    right, b, calls = spd(), randn(2, 40, seed=1), []
    wrong = right + 0.5 * torch.triu(randn(40, 40, seed=3), 1)
    for a, reason in ((right, "max-iterations"), (wrong, "not-hermitian")):
        calls.clear()
        result = cg(lambda v, a=a: calls.append(1) or rows(a)(v), b, max_iterations=limit, batch_dims=1)
        assert result.status.reason == reason and len(calls) == products


def test_cg_names_a_skew_part_of_a_complex_operator():
    a = spd(dtype=C) + 1j * torch.eye(40, dtype=C)
    assert cg(rows(a), randn(40, seed=1, dtype=C)).status.reason == "not-hermitian"


@pytest.mark.parametrize("solver", [cg, minres])
def test_float32_says_which_residual_it_can_reach(solver):
    a = spd(condition=1e3).float()
    b = randn(40, seed=1).float()
    result = solver(rows(a), b, tolerance=1e-9)
    assert not result.status.converged and result.status.reason == "stagnation"
    assert f"{result.residual:.2e}" in result.status.message and "float32" in result.status.message
    assert result.residual == pytest.approx(relative(a, b, result.x), rel=1e-2)


@pytest.mark.parametrize("solver", [cg, minres])
def test_too_few_iterations_are_admitted(solver):
    a, b = spd(condition=1e4), randn(40, seed=1)
    result = solver(rows(a), b, tolerance=1e-10, max_iterations=5)
    assert not result.status.converged and result.status.reason == "max-iterations"
    assert result.iterations == 5 and result.residual == pytest.approx(relative(a, b, result.x), rel=1e-6)


def test_singular_and_inconsistent_systems():
    a = torch.diag(torch.cat([torch.zeros(1, dtype=D), torch.linspace(1, 5, 39, dtype=D)]))
    b = torch.ones(40, dtype=D)
    assert cg(rows(a), b).status.converged is False
    result = minres(rows(a), b)
    assert not result.status.converged and result.status.reason == "inconsistent"
    assert torch.allclose(result.x[1:], (torch.linalg.pinv(a) @ b)[1:], atol=1e-6)
    consistent = b.clone()
    consistent[0] = 0
    assert cg(rows(a), consistent).status.converged and minres(rows(a), consistent).status.converged


def test_preconditioning_saves_iterations_and_a_bad_one_is_named():
    values = torch.logspace(0, 6, 40, dtype=D)
    a, b = torch.diag(values), randn(40, seed=1)
    plain = cg(rows(a), b, tolerance=1e-10)
    helped = cg(rows(a), b, tolerance=1e-10, preconditioner=lambda v: v / values)
    assert helped.status.converged and helped.iterations < 5 < plain.iterations
    assert cg(rows(a), b, preconditioner=lambda v: -v).status.reason == "preconditioner"


@pytest.mark.parametrize("solver", [cg, minres])
def test_start_inputs_callback_and_interrupt(solver):
    a, b = spd(), randn(40, seed=1)
    before, seen = b.clone(), []
    exact = torch.linalg.solve(a, b)
    assert solver(rows(a), b, x0=exact, tolerance=1e-8).iterations == 0
    solver(rows(a), b, callback=lambda i, total, value: seen.append((i, total, value)))
    assert [i for i, _, _ in seen] == list(range(1, len(seen) + 1)) and seen[0][1] == 400
    assert torch.equal(b, before)

    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        solver(rows(a), b, callback=interrupt)
    with pytest.raises(InputError, match="finite"):
        solver(rows(a), b * float("nan"))
    with pytest.raises(InputError, match="shape"):
        solver(lambda v: v[:3], b)


def test_nan_from_an_operator_is_reported():
    result = cg(lambda v: v * float("nan"), randn(10))
    assert not result.status.converged and result.status.reason == "not-finite"
    assert not minres(lambda v: v * float("nan"), randn(10)).status.converged


def test_lsqr_admits_too_few_iterations_and_rounding():
    q, p = torch.linalg.qr(randn(60, 60)).Q[:, :40], torch.linalg.qr(randn(40, 40, seed=1)).Q
    a = (q * torch.logspace(-1, 0, 40, dtype=D)) @ p
    b = randn(60, seed=2)
    short = lsqr(rows(a), lambda u: u @ a, b, tolerance=1e-10, max_iterations=4)
    assert not short.status.converged and short.status.reason == "max-iterations" and short.iterations == 4
    normal = float((a.T @ (b - a @ short.x)).norm() / (a.T @ b).norm())
    assert short.residual == pytest.approx(normal, rel=1e-6)
    single = a.float()
    rounded = lsqr(rows(single), lambda u: u @ single, b.float(), tolerance=1e-10)
    assert not rounded.status.converged and rounded.status.reason == "stagnation"


@pytest.mark.parametrize("solver", [cg, minres])
def test_an_empty_batch_gives_an_empty_answer(solver):
    assert solver(rows(spd()), torch.zeros(0, 40, dtype=D), batch_dims=1).x.shape == (0, 40)
