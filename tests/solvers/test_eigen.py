"""Block Krylov: exact eigenpairs, honest residuals, and the gates on posterior covariances."""

import importlib.util
import statistics
from pathlib import Path

import pytest
import torch

from obverse.errors import InputError, NumericsError
from obverse.solvers import block_krylov

D = torch.float64
_PATH = Path(__file__).parents[2] / "benchmarks" / "block_krylov_needs_sixty_products.py"


@pytest.fixture(scope="module")
def benchmark():
    specification = importlib.util.spec_from_file_location("sixty_products", _PATH)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def hermitian(values, dtype=D, seed=0):
    n = len(values)
    q = torch.linalg.qr(torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=dtype)).Q
    return (q * values.to(dtype)) @ q.mH


def spectrum(n=120):
    top = torch.tensor([10.0, 10, 10, 10, 9], dtype=D)
    return torch.cat([top, torch.linspace(7, 0, n - 5, dtype=D)])


def medians(benchmark, sigma, products, **keywords):
    exact = torch.linalg.eigvalsh(sigma).flip(0)
    runs = []
    for seed in benchmark.SEEDS:
        values, vectors, spent = benchmark.krylov(sigma, products, seed, **keywords)
        assert spent <= products
        runs.append(benchmark.errors(sigma, exact, values, vectors))
    return tuple(statistics.median(column) for column in zip(*runs))


@pytest.mark.parametrize("name", ["denoising", "inpainting", "box", "deblurring"])
def test_sixty_products_give_five_components(benchmark, name):
    missed, error = medians(benchmark, benchmark.covariance(name), 60)
    assert missed <= 5e-3 and error <= 1e-2


def test_a_hundred_products_on_the_larger_stationary_posterior(benchmark):
    missed, error = medians(benchmark, benchmark.covariance("denoising", 32), 100)
    assert missed <= 5e-3 and error <= 1e-2


def test_the_gates_reject_weaker_estimators(benchmark):
    sigma = benchmark.covariance("denoising")
    exact = torch.linalg.eigvalsh(sigma).flip(0)
    values, vectors, _ = benchmark.subspace(sigma, 60, 0)
    missed, error = benchmark.errors(sigma, exact, values, vectors)
    assert missed > 5e-3 and error > 1e-2
    missed, error = medians(benchmark, sigma, 60, block=1)
    assert missed > 5e-3 and error > 1e-2


@pytest.mark.parametrize("dtype", [D, torch.complex128, torch.float32])
@pytest.mark.parametrize("limits", [{"products": 120}, {"products": 61, "block": 7}, {"products": 400, "basis": 40}])
def test_values_vectors_and_residuals(dtype, limits):
    a = hermitian(spectrum(), dtype)
    calls = []

    def apply(v):
        calls.append(len(v))
        return v @ a.mT

    found = block_krylov(apply, (120,), 5, dtype=dtype, **limits)
    eps = 1e-4 if dtype == torch.float32 else 1e-11
    assert sum(calls) == found.products <= limits["products"]
    overlap = found.vectors.conj() @ found.vectors.mT
    assert torch.allclose(overlap, torch.eye(5, dtype=dtype), atol=eps)
    true = torch.linalg.vector_norm(found.vectors @ a.mT - found.values[:, None] * found.vectors, dim=1)
    assert torch.allclose(true, found.residuals, atol=eps)
    assert (found.values <= spectrum()[:5].to(found.values) + eps).all()
    if limits["products"] != 61:
        assert torch.allclose(found.values.to(D), spectrum()[:5], atol=1e-3)


def test_one_vector_misses_repeated_eigenvalues_and_a_block_does_not():
    values = torch.cat([torch.full((4,), 10.0, dtype=D), torch.linspace(5, 0, 96, dtype=D)])
    a = hermitian(values)
    single = block_krylov(lambda v: v @ a.mT, (100,), 4, products=20, block=1)
    block = block_krylov(lambda v: v @ a.mT, (100,), 4, products=60)
    assert single.values[1] < 6 and block.values[3] > 9.999


def test_tolerance_stops_early_and_the_budget_is_admitted():
    a = hermitian(spectrum())
    early = block_krylov(lambda v: v @ a.mT, (120,), 5, products=120, tolerance=1e-2)
    assert early.status.converged and early.products < 120
    true = torch.linalg.vector_norm(early.vectors @ a.mT - early.values[:, None] * early.vectors, dim=1)
    assert true.max() <= 1e-2 * early.values[0] * 1.001
    short = block_krylov(lambda v: v @ a.mT, (120,), 5, products=20, tolerance=1e-6)
    assert not short.status.converged and short.status.reason == "max-products" and short.products == 20


def test_low_rank_zero_and_tiny_operators():
    low = torch.randn(60, 3, generator=torch.Generator().manual_seed(0), dtype=D)
    low = low @ low.T
    found = block_krylov(lambda v: v @ low, (60,), 5)
    assert found.status.converged and found.products < 60
    assert torch.allclose(found.values, torch.linalg.eigvalsh(low).flip(0)[:5], atol=1e-10)
    assert (block_krylov(torch.zeros_like, (3, 4), 5).values == 0).all()
    full = block_krylov(lambda v: 2 * v, (2, 3), 6, products=100)
    assert full.status.converged and full.products == 6 and torch.allclose(full.values, torch.full((6,), 2.0, dtype=D))


@pytest.mark.parametrize("block", [1, None])
def test_an_operator_that_is_not_hermitian_is_named(block):
    a = torch.randn(100, 100, generator=torch.Generator().manual_seed(0), dtype=D)
    wrong = block_krylov(lambda v: v @ a, (100,), 3, block=block, tolerance=1e-3)
    assert not wrong.status.converged and wrong.status.reason == "not-hermitian"
    right = block_krylov(lambda v: v @ (a + a.T), (100,), 3, block=block, products=100, tolerance=1e-3)
    assert right.status.reason != "not-hermitian" and "not positive semi-definite" in right.status.message


def test_same_seed_same_answer_and_inputs_checked():
    a = hermitian(spectrum())
    first, second = (block_krylov(lambda v: v @ a.mT, (120,), 2, products=30) for _ in range(2))
    assert torch.equal(first.vectors, second.vectors)
    for wrong in ({"k": 0}, {"k": 121}, {"k": 5, "products": 4}, {"k": 5, "block": 0}, {"k": 5, "basis": 6}):
        with pytest.raises(InputError):
            block_krylov(lambda v: v @ a.mT, (120,), **wrong)
    with pytest.raises(NumericsError):
        block_krylov(lambda v: v * float("nan"), (120,), 2)
    with pytest.raises(InputError, match="shape"):
        block_krylov(lambda v: v[:, :5], (120,), 2)
