"""Low rank plus diagonal: what is special to it; its algebra is tested with all covariances."""

import pytest
import torch

from obverse.errors import InputError, NumericsError
from obverse.posterior import LowRankDiagonal
from tests.posterior.cases import SHAPE, normal, positive


def test_marginals_are_kept_and_the_clipped_mass_is_reported():
    dense = positive(40)
    values, vectors = torch.linalg.eigh(dense)
    U, eigenvalues = vectors[:, -5:], values[-5:]
    kept = LowRankDiagonal.from_marginals(U, eigenvalues, dense.diagonal(), SHAPE)
    assert torch.allclose(kept.diagonal().reshape(-1), dense.diagonal(), rtol=1e-12)
    assert kept.clipped == pytest.approx(0, abs=1e-12)
    greedy = LowRankDiagonal.from_marginals(U, 4 * eigenvalues, dense.diagonal(), SHAPE)
    excess = (4 * U.square() @ eigenvalues - dense.diagonal() + 1e-6 * dense.diagonal().mean()).clamp_min(0).sum()
    assert greedy.clipped == pytest.approx(float(excess / dense.trace()), rel=1e-9)
    assert greedy.clipped > 0.1


def test_a_truncation_moves_variance_to_the_diagonal():
    U = torch.linalg.qr(normal(40, 6))[0]
    eigenvalues = torch.tensor([1.0, 5.0, 2.0, 4.0, 3.0, 0.5], dtype=torch.float64)
    whole = LowRankDiagonal(U, eigenvalues, torch.ones(40).double(), SHAPE)
    kept, values, diagonal = whole.factors(2)
    assert values.tolist() == [5.0, 4.0]
    assert torch.equal(kept, U[:, [1, 3]])
    assert torch.allclose(kept.square() @ values + diagonal, whole.diagonal().reshape(-1))
    assert [part.shape for part in whole.factors()] == [(40, 6), (6,), (40,)]


def test_exact_components_where_the_diagonal_is_constant():
    U = torch.linalg.qr(normal(40, 6))[0]
    eigenvalues = torch.arange(1.0, 7.0, dtype=torch.float64)
    found = LowRankDiagonal(U, eigenvalues, 0.5 * torch.ones(40).double(), SHAPE).components(3)
    assert torch.allclose(found.variances, torch.tensor([6.5, 5.5, 4.5], dtype=torch.float64))
    assert float(found.residuals.max()) < 1e-12


def test_single_precision_solves_survive_a_large_ratio():
    U = torch.linalg.qr(normal(40, 3))[0].float()
    ill = LowRankDiagonal(U, torch.tensor([1e5, 1e4, 1e3]), 1e-3 * torch.ones(40), SHAPE)
    v = normal(40, dtype=torch.float32)
    dense = (U.double() * torch.tensor([1e5, 1e4, 1e3]).double()) @ U.double().mT + ill.d.double().diag()
    expected = torch.linalg.solve(dense, v.double())
    assert float((ill.solve(v).double() - expected).norm() / expected.norm()) < 1e-5


def test_crop_commutes_with_its_dense_twin_though_columns_are_no_longer_orthonormal():
    U = torch.linalg.qr(normal(40, 4))[0]
    whole = LowRankDiagonal(U, torch.ones(4).double() * 3, torch.ones(40).double() / 2, SHAPE)
    part = whole.restricted((slice(0, 1), slice(0, 2), slice(0, 3)))
    assert part.image_shape == (1, 2, 3)
    assert float((part.U.mT @ part.U - torch.eye(4)).abs().max()) > 0.1
    largest = torch.linalg.eigvalsh(part.dense()).flip(0)[:2]
    assert torch.allclose(part.components(2).variances, largest, rtol=1e-8)
    assert float((part.eigenvalues[:2] - largest).abs().max()) > 0.1, (
        "cropped components are not components of the crop"
    )


def test_bad_parts_are_refused():
    U, eigenvalues, d = normal(40, 2), torch.ones(2).double(), torch.ones(40).double()
    for parts in ((U[:30], eigenvalues, d), (U, eigenvalues[:1], d), (U, eigenvalues, d[:3])):
        with pytest.raises(InputError):
            LowRankDiagonal(*parts, SHAPE)
    for parts in ((U, -eigenvalues, d), (U, eigenvalues, -d), (U, eigenvalues * torch.nan, d)):
        with pytest.raises(InputError, match="≥ 0"):
            LowRankDiagonal(*parts, SHAPE)
    flat = LowRankDiagonal(U, eigenvalues, 0 * d, SHAPE)
    with pytest.raises(NumericsError, match="positive diagonal"):
        flat.logdet()
