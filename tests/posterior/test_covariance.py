"""Every covariance against its dense twin: one class, all kinds."""

import importlib
import inspect
import pkgutil

import pytest
import torch

import obverse.posterior
from obverse.errors import InputError, NumericsError
from obverse.posterior import ProductCovariance, StationaryCovariance
from obverse.posterior.covariance import Covariance
from tests.posterior.cases import cases, normal, seeded, spectrum

CASES = cases()


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float) -> None:
    assert a.shape == b.shape
    assert float((a - b).norm()) <= tolerance * float(b.norm())


def test_every_kind_is_registered():
    names = [module.name for module in pkgutil.iter_modules(obverse.posterior.__path__, "obverse.posterior.")]
    kinds = {
        kind
        for name in names
        for kind in vars(importlib.import_module(name)).values()
        if inspect.isclass(kind) and issubclass(kind, Covariance) and not inspect.isabstract(kind)
    }
    assert kinds == {type(covariance) for covariance, _ in CASES.values()}
    assert len(kinds) == 10


@pytest.mark.parametrize("name", CASES)
class TestAgainstDense:
    def test_products_in_both_layouts(self, name):
        covariance, dense = CASES[name]
        n = covariance.size
        v = normal(3, 2, n, seed=3)
        before = v.clone()
        expected = v @ dense
        close(covariance.matvec(v), expected, 1e-8)
        images = v.reshape(3, 2, *covariance.image_shape)
        close(covariance.matvec(images), expected.reshape(images.shape), 1e-8)
        close(covariance.matvec(v[0, 0]), expected[0, 0], 1e-8)
        assert torch.equal(v, before)

    def test_solve_inverts(self, name):
        covariance, dense = CASES[name]
        v = normal(4, covariance.size, seed=4)
        close(covariance.solve(v), torch.linalg.solve(dense, v.mT).mT, 1e-6)
        images = v.reshape(4, *covariance.image_shape)
        close(covariance.solve(covariance.matvec(images)), images, 1e-6)

    def test_diagonal_trace_and_determinant(self, name):
        covariance, dense = CASES[name]
        close(covariance.diagonal(), dense.diagonal().reshape(covariance.image_shape), 1e-9)
        assert covariance.trace() == pytest.approx(float(dense.trace()), rel=1e-9)
        assert covariance.logdet() == pytest.approx(float(torch.logdet(dense)), rel=1e-8, abs=1e-6)
        close(covariance.dense(), dense, 1e-8)

    def test_components_are_the_leading_eigenpairs(self, name):
        covariance, dense = CASES[name]
        found = covariance.components(4)
        values = torch.linalg.eigvalsh(dense).flip(0)[:4]
        close(found.variances, values, 1e-8)
        directions = found.directions.reshape(4, -1)
        close(directions @ directions.mT, torch.eye(4, dtype=torch.float64), 1e-9)
        residuals = (directions @ dense - values[:, None] * directions).norm(dim=1)
        assert float(residuals.max()) < 1e-4 * float(values[0])
        assert float((found.residuals - residuals).abs().max()) < 1e-6 * float(values[0])

    def test_factors_keep_the_marginal_variances(self, name):
        covariance, dense = CASES[name]
        for rank in (0, 3, covariance.size):
            U, eigenvalues, diagonal = covariance.factors(rank)
            assert U.shape == (covariance.size, rank) and float(diagonal.min()) >= 0
            close((U.square() @ eigenvalues) + diagonal, dense.diagonal(), 1e-8)
        close((U * eigenvalues) @ U.mT + diagonal.diag(), dense, 1e-6)

    def test_draws_have_this_covariance(self, name):
        covariance, dense = CASES[name]
        if isinstance(covariance, ProductCovariance):
            assert covariance.sample(2, seeded(11)) is None
            covariance = covariance.compact(covariance.size)
        count = 4000
        draws = covariance.sample(count, seeded(11)).reshape(count, -1)
        weights = normal(8, covariance.size, seed=12)
        ratio = (draws @ weights.mT).var(0) / ((weights @ dense) * weights).sum(1)
        # A variance estimated from N Gaussian draws has a relative standard error of √(2/N).
        allowed = 4.5 * (2 / count) ** 0.5
        assert float((ratio - 1).abs().max()) < allowed
        assert float((2 * ratio - 1).abs().max()) > allowed, "the check must notice a doubled covariance"

    def test_first_draws_do_not_depend_on_how_many_follow(self, name):
        covariance, _ = CASES[name]
        if isinstance(covariance, ProductCovariance):
            covariance = covariance.compact(4)
        close(covariance.sample(2, seeded(5)), covariance.sample(6, seeded(5))[:2], 1e-8)

    def test_scaling_and_cropping(self, name):
        covariance, dense = CASES[name]
        scaled = covariance.scaled(4.0)
        close(scaled.dense(), 4 * dense, 1e-8)
        slices = (slice(None), *[slice(1, 3)] * (len(covariance.image_shape) - 1))
        kept = torch.arange(covariance.size).reshape(covariance.image_shape)[slices]
        part = scaled.restricted(slices)
        assert part.image_shape == tuple(kept.shape)
        close(part.dense(), 4 * dense[kept.reshape(-1)][:, kept.reshape(-1)], 1e-8)
        with pytest.raises(InputError):
            covariance.scaled(-1.0)
        with pytest.raises(InputError):
            covariance.restricted(slices[1:])
        with pytest.raises(InputError):
            covariance.restricted([slice(2, 2)] * len(slices))

    def test_a_map_of_scales_keeps_correlations(self, name):
        covariance, dense = CASES[name]
        scale = 0.5 + torch.rand(covariance.image_shape, generator=seeded(3), dtype=torch.float64)
        other = covariance.modulated(scale)
        flat = scale.reshape(-1)
        close(other.dense(), flat[:, None] * dense * flat, 1e-8)
        close(other.diagonal(), scale.square() * covariance.diagonal(), 1e-8)
        close(other.modulated(1 / scale).dense(), dense, 1e-8)
        for wrong in (scale[:1, :1], 0 * scale, -scale, scale / 0):
            with pytest.raises(InputError, match="positive map"):
                covariance.modulated(wrong)

    def test_single_precision(self, name):
        covariance, dense = cases(torch.float32)[name]
        v = normal(2, covariance.size, dtype=torch.float32)
        product = covariance.matvec(v)
        assert product.dtype == torch.float32
        close(product.double(), v.double() @ dense, 3e-4)
        assert covariance.diagonal().dtype == torch.float32
        close(covariance.diagonal().double(), dense.diagonal().reshape(covariance.image_shape), 1e-4)
        assert covariance.components(2).directions.dtype == torch.float32

    def test_wrong_shapes_are_refused(self, name):
        covariance, _ = CASES[name]
        for wrong in (torch.zeros(3), torch.zeros(*covariance.image_shape, 1), torch.zeros(covariance.size).int()):
            with pytest.raises(InputError):
                covariance.matvec(wrong)
        with pytest.raises(InputError):
            covariance.components(0)
        with pytest.raises(InputError):
            covariance.components(covariance.size + 1)


def test_stationary_spectra_are_checked():
    with pytest.raises(InputError, match=r"S\(-f\)"):
        StationaryCovariance(torch.fft.fftshift(spectrum(5, 4)), (1, 5, 4))
    with pytest.raises(InputError, match="shape"):
        StationaryCovariance(spectrum(5, 4)[:, :3], (1, 5, 4))
    with pytest.raises(InputError, match="≥ 0"):
        StationaryCovariance(-spectrum(5, 4), (1, 5, 4))
    singular = StationaryCovariance(torch.zeros(5, 4), (1, 5, 4))
    with pytest.raises(NumericsError):
        singular.solve(torch.ones(20))
    with pytest.raises(NumericsError):
        singular.logdet()


def test_stationary_components_are_exact_on_an_odd_and_an_even_grid():
    for grid in ((7, 9), (8, 6)):
        covariance = StationaryCovariance(spectrum(*grid), (1, *grid))
        found = covariance.components(20)
        directions = found.directions.reshape(20, -1)
        assert float((directions @ directions.mT - torch.eye(20)).abs().max()) < 1e-12
        assert float(found.residuals.max()) < 1e-12 * float(found.variances[0])
        assert torch.equal(found.variances, covariance.spectrum.reshape(-1).sort(descending=True).values[:20])


def test_dense_forms_are_refused_for_large_images():
    large = StationaryCovariance(torch.ones(80, 80), (1, 80, 80))
    with pytest.raises(InputError, match="4096"):
        large.dense()
    with pytest.raises(InputError, match="draws"):
        large.sample(0, seeded(0))
