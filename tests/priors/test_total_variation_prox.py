"""The two backends of the total-variation prox agree; batches, warm starts, complex images and autograd."""

import os
import subprocess
import sys

import pytest
import torch

from obverse.errors import InputError
from obverse.priors import TotalVariation
from obverse.priors.tv_prox import total_variation_prox


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("isotropic", [True, False])
@pytest.mark.parametrize(
    ("shape", "spacing"), [((2, 1, 17, 23), (1.0, 1.0)), ((1, 1, 30), (1.0, 1.0)), ((1, 5, 9, 11), (3.0, 1.0, 0.7))]
)
def test_kernels_equal_torch(shape, spacing, isotropic, dtype):
    pytest.importorskip("numba")
    d = len(spacing)
    x = 5 + 2 * randn(*shape, dtype=dtype)
    bound = torch.rand(shape[-d:], dtype=dtype, generator=torch.Generator().manual_seed(1))
    start = randn(*shape[: -d - 1], d, *shape[-d - 1 :], dtype=dtype)
    results = [
        total_variation_prox(
            x,
            bound,
            dimensions=d,
            isotropic=isotropic,
            spacing=spacing,
            dual=start,
            tolerance=1e-30,
            max_iterations=37,
            backend=b,
        )
        for b in ("numba", "torch")
    ]
    tolerance = 1e-10 if dtype == torch.float64 else 1e-4
    assert torch.allclose(results[0].x, results[1].x, atol=tolerance)
    assert torch.allclose(results[0].gap * torch.ones(1), results[1].gap * torch.ones(1), rtol=1e-2)
    edge = results[0].dual.select(-d - 2, d - 1).select(-1, -1)
    assert bool((edge == 0).all())


def test_threads_do_not_change_the_result(monkeypatch):
    kernels = pytest.importorskip("obverse.priors.tv_kernels")
    x = randn(1, 40, 50)
    volume = randn(1, 6, 9, 10)
    fused = total_variation_prox(x, 0.5, backend="numba").x
    monkeypatch.setattr(kernels, "_THREADS_FROM", 1)
    results = []
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        image = total_variation_prox(x, 0.5, backend="numba").x
        results.append((image, total_variation_prox(volume, 0.5, dimensions=3, backend="numba").x))
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])
    assert torch.allclose(results[0][0], fused, atol=1e-4)


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_batch_equals_items_and_warm_start_saves_iterations(backend):
    if backend == "numba":
        pytest.importorskip("numba")
    x = torch.stack([randn(1, 20, 20), 5 * randn(1, 20, 20, seed=1)])
    whole = total_variation_prox(x, 0.8, backend=backend)
    items = torch.stack([total_variation_prox(item, 0.8, backend=backend).x for item in x])
    assert torch.allclose(whole.x, items, atol=1e-12)
    again = total_variation_prox(x, 0.8, backend=backend, dual=whole.dual)
    assert again.iterations == 0 and whole.iterations > 0 and torch.allclose(again.x, whole.x)


def test_complex_images_couple_their_parts():
    x = randn(1, 12, 12)
    phase = torch.exp(torch.tensor(0.7j, dtype=torch.complex128))
    turned = total_variation_prox(x * phase, 0.4, tolerance=1e-10).x
    assert torch.allclose(turned, phase * total_variation_prox(x, 0.4, tolerance=1e-10).x, atol=1e-4)
    assert torch.allclose(TotalVariation().value(x * phase), TotalVariation().value(x))


def test_autograd_goes_through_the_iterations():
    x = randn(1, 5, 5).requires_grad_(True)
    bound = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    u = total_variation_prox(x, bound, tolerance=1e-10).x
    direction = randn(1, 5, 5, seed=2)
    to_x, to_bound = torch.autograd.grad((u * direction).sum(), (x, bound))
    with torch.no_grad():
        h = 1e-5
        along = randn(1, 5, 5, seed=3)
        plus, minus = (total_variation_prox(x + s * h * along, 0.3, tolerance=1e-13).x for s in (1, -1))
        assert float((to_x * along).sum()) == pytest.approx(
            float(((plus - minus) * direction).sum() / (2 * h)), rel=1e-2
        )
        plus, minus = (total_variation_prox(x, 0.3 + s * h, tolerance=1e-13).x for s in (1, -1))
        assert float(to_bound) == pytest.approx(float(((plus - minus) * direction).sum() / (2 * h)), rel=1e-2)


def test_extremes():
    x = randn(1, 8, 8)
    assert torch.equal(total_variation_prox(x, 0.0).x.round(decimals=12), x.round(decimals=12))
    flat = total_variation_prox(x, 1e3, tolerance=1e-9).x
    assert torch.allclose(flat, x.mean().expand_as(x), atol=1e-3)
    same = total_variation_prox(torch.full((1, 8, 8), 1e6), 1.0)
    assert same.status.converged and torch.equal(same.x, torch.full((1, 8, 8), 1e6))
    for bad in (
        lambda: total_variation_prox(x, -1.0),
        lambda: total_variation_prox(x, 1.0, dual=torch.zeros(3)),
        lambda: total_variation_prox(x, 1.0, backend="fortran"),
        lambda: total_variation_prox(x[0], 1.0, dimensions=2),
    ):
        with pytest.raises(InputError):
            bad()


def test_works_where_nothing_can_be_written(tmp_path):
    """With every cache folder out of reach, and without numba at all, the prox still runs."""
    pytest.importorskip("numba")
    script = (
        "import sys, torch\n"
        "if {hide}: sys.modules['numba'] = None\n"
        "else:\n"
        "    from numba.core import caching\n"
        "    caching.CacheImpl._locator_classes = []\n"
        "from obverse.priors.tv_prox import total_variation_prox as prox\n"
        "print(float(prox(torch.eye(4)[None], 0.1).x.sum()))\n"
    )
    quick = {**os.environ, "NUMBA_OPT": "0"}
    for hide in (True, False):
        run = subprocess.run(
            [sys.executable, "-c", script.format(hide=hide)], capture_output=True, text=True, timeout=200, env=quick
        )
        assert run.returncode == 0, run.stderr
        assert float(run.stdout) == pytest.approx(4.0, abs=1e-4)
