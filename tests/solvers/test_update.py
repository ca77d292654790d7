"""(B⁻¹ + M)⁻¹ from products, against dense inverses, for information of any sign and covariances that are none."""

import pytest
import torch

from obverse.errors import InputError, NumericsError
from obverse.solvers.update import updated_eigenpairs, updated_solve

N = 40


def parts(seed=0, lowest=-3.0):
    """B with eigenvalues over three decades, and M = D − 0.3 with D ≥ 0 of half rank, so that B⁻¹ + M is positive."""
    generator = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(N, N, dtype=torch.float64, generator=generator)).Q
    B = (q * torch.logspace(lowest, 0, N, dtype=torch.float64)) @ q.mT
    M = torch.diag((torch.arange(N) % 2).double() * 25.0) - 0.3 * torch.eye(N, dtype=torch.float64)
    return B, M


def by(matrix):
    return lambda v: v @ matrix.mT


def test_a_product_is_that_of_the_inverse():
    B, M = parts()
    v = torch.randn(3, N, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    result, truncated = updated_solve(by(B), by(M), v, tolerance=1e-11)
    assert result.status.converged and truncated == 0 and result.residual < 1e-10
    torch.testing.assert_close(result.x, v @ torch.linalg.inv(torch.linalg.inv(B) + M), rtol=0, atol=1e-10)


def test_b_may_be_singular():
    B, M = parts()
    B = B @ torch.diag((torch.arange(N) < 30).double()) @ B.mT
    v = torch.randn(2, N, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    result, truncated = updated_solve(by(B), by(M), v, tolerance=1e-11)
    expected = B @ torch.linalg.inv(torch.eye(N, dtype=torch.float64) + M @ B) @ v.mT
    assert truncated == 0
    torch.testing.assert_close(result.x, expected.mT, rtol=0, atol=1e-9)


def test_each_vector_stops_by_itself():
    B, M = parts()
    v = torch.randn(2, N, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    v[1] = 0
    together = updated_solve(by(B), by(M), v, tolerance=1e-9)[0].x
    assert not together[1].any()
    alone = updated_solve(by(B), by(M), v[:1], tolerance=1e-9)[0].x
    torch.testing.assert_close(together[:1], alone, rtol=0, atol=1e-8)


def test_eigenpairs_are_the_leading_ones():
    B, M = parts()
    found = updated_eigenpairs(by(B), by(M), (N,), 4, products=N, tolerance=1e-9)
    values, vectors = torch.linalg.eigh(torch.linalg.inv(torch.linalg.inv(B) + M))
    assert found.status.converged and found.products <= N and found.left_out == 0
    torch.testing.assert_close(found.values, values.flip(0)[:4], rtol=1e-8, atol=0)
    overlap = (found.vectors @ vectors.flip(1)[:, :4]).abs()
    torch.testing.assert_close(overlap, torch.eye(4, dtype=torch.float64), rtol=0, atol=1e-6)


def test_residuals_are_true():
    B, M = parts()
    found = updated_eigenpairs(by(B), by(M), (N,), 4, products=16, tolerance=1e-9)
    assert not found.status.converged and "16 products" in found.status.message
    sigma = torch.linalg.inv(torch.linalg.inv(B) + M)
    true = (found.vectors @ sigma - found.values[:, None] * found.vectors).norm(dim=1)
    assert (true < 2 * found.residuals + 1e-9).all() and (true > 0.1 * found.residuals).all()


def test_what_is_no_covariance_is_left_out_and_counted():
    """B with two negative eigenvalues, and a direction from which M takes more than B⁻¹ has."""
    B, M = parts()
    values, vectors = torch.linalg.eigh(B)
    values[:2] = -0.2
    B = (vectors * values) @ vectors.mT
    M = M - 60.0 * vectors[:, -1:] @ vectors[:, -1:].mT
    found = updated_eigenpairs(by(B), by(M), (N,), 3, products=N, tolerance=1e-6)
    assert found.left_out >= 3 and (found.values > 0).all() and found.values.isfinite().all()
    v = torch.randn(4, N, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    result, truncated = updated_solve(by(B), by(M), v)
    assert truncated == 4 and result.x.isfinite().all()


def test_a_covariance_of_low_rank_has_as_many_components():
    B = torch.zeros(N, N, dtype=torch.float64)
    for rank in (0, 2):
        B[:rank, :rank] = torch.eye(rank, dtype=torch.float64)
        found = updated_eigenpairs(by(B), by(torch.zeros_like(B)), (N,), 4, products=N)
        torch.testing.assert_close(found.values, torch.tensor([1.0] * rank + [0.0] * (4 - rank)).double())
        gram = found.vectors @ found.vectors.mT
        torch.testing.assert_close(gram, torch.eye(4, dtype=torch.float64), rtol=0, atol=1e-9)
        torch.testing.assert_close(found.residuals, torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.mark.parametrize("block", [1, 2])
def test_a_small_block_finds_them_all(block):
    B, M = parts()
    found = updated_eigenpairs(by(B), by(M), (N,), 4, block=block, products=N, tolerance=1e-6)
    expected = torch.linalg.eigvalsh(torch.linalg.inv(torch.linalg.inv(B) + M)).flip(0)[:4]
    torch.testing.assert_close(found.values, expected, rtol=1e-4, atol=0)


def test_single_precision_and_small_units():
    B, M = parts(lowest=-2.0)
    v = torch.randn(3, N, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    expected = v @ torch.linalg.inv(torch.linalg.inv(B) + M)
    found = updated_solve(by(1e-24 * B.float()), by(1e24 * M.float()), 1e-12 * v.float(), tolerance=1e-4)[0]
    assert found.status.converged
    torch.testing.assert_close(1e36 * found.x.double(), expected, rtol=0, atol=1e-3)


def test_a_vector_without_a_solution_does_not_excuse_the_others():
    B, M = torch.eye(N, dtype=torch.float64), torch.diag(torch.logspace(0, 4, N, dtype=torch.float64))
    M[0, 0] = -5.0
    v = torch.ones(2, N, dtype=torch.float64)
    v[0, 1:] = 0
    v[1, 0] = 0
    result, truncated = updated_solve(by(B), by(M), v, max_iterations=3)
    assert truncated == 1 and not result.status.converged and result.residual > 1e-3
    assert updated_solve(by(B), by(M), v, tolerance=1e-6)[0].status.converged


def test_products_that_are_no_numbers_end_in_one_sentence():
    def broken(v):
        return v * float("nan")

    with pytest.raises(NumericsError):
        updated_solve(broken, by(parts()[1]), torch.ones(1, N, dtype=torch.float64))
    with pytest.raises(NumericsError):
        updated_eigenpairs(broken, by(parts()[1]), (N,), 2)


def test_limits_that_make_no_sense_are_refused():
    B, M = parts()
    with pytest.raises(InputError):
        updated_eigenpairs(by(B), by(M), (N,), N + 1)
    with pytest.raises(InputError):
        updated_eigenpairs(by(B), by(M), (N,), 2, block=0)
