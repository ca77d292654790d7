"""What the page ships of the covariance, and its draws, against the stored posterior and dense matrices."""

import json
import re

import numpy as np
import pytest
import torch
from scipy.signal import fftconvolve

from obverse import report
from obverse.posterior import Posterior
from obverse.posterior.low_rank import LowRankDiagonal
from obverse.report.packing import block_mean, dequantise
from obverse.report.uncertainty import block_kernel, block_variance, reach
from obverse.solvers.result import Status
from tests.report.example import kernel, make, sigma
from tests.report.test_report import Page, build

RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make(tmp_path_factory.mktemp("run") / "out")


@pytest.fixture(scope="module")
def page(folder):
    return Page(report.write(folder).read_text(encoding="utf-8"))


@pytest.mark.parametrize("shape, factors", [((2, 7, 10), (3, 4)), ((1, 4, 6, 8), (1, 2, 3))])
def test_block_means_of_locally_correlated_errors_equal_dense_ones(shape, factors):
    rho, size = kernel(len(shape) - 1), int(np.prod(shape))
    d = RANDOM.uniform(0.5, 2, shape)
    blocks = np.stack([block_mean(e.reshape(shape), factors).ravel() for e in np.eye(size)], 1)

    def dense(diagonal):
        covariance = LowRankDiagonal(torch.zeros(size, 0), torch.zeros(0), torch.from_numpy(diagonal), shape, rho_t)
        posterior = Posterior(torch.zeros(shape), Status(True, "", ""), covariance=covariance)
        return blocks @ sigma(posterior) @ blocks.T

    rho_t = torch.from_numpy(rho)
    exact = np.diag(dense(d))
    assert np.allclose(block_variance(d, rho, factors).ravel(), exact, rtol=1e-5)
    assert not np.allclose(block_variance(d, None, factors).ravel(), exact, rtol=0.05), "the kernel must count"
    even = dense(np.ones(shape))
    small = block_kernel(rho, factors)
    grid = [-(-n // f) for n, f in zip(shape[1:], factors)]
    even = even.reshape(shape[0], *grid, shape[0], *grid)
    origin, half = (0,) * len(grid), [n // 2 for n in small.shape]
    for lag in np.ndindex(*[min(n - 1, h + 1) for n, h in zip(grid, half)]):  # whole blocks
        ours = small[tuple(np.add(half, lag))] if np.all(lag <= np.array(half)) else 0.0
        assert even[(0, *origin, 0, *lag)] / even[(0, *origin, 0, *origin)] == pytest.approx(ours, abs=1e-6)
    assert np.array_equal(block_kernel(rho, [1] * len(factors)), rho)


def test_the_reach_of_a_kernel():
    assert reach(np.array([[0.0, 0.05, 0], [0.2, 1, 0.2], [0, 0.05, 0]])) == 1
    assert reach(np.array([[0.05, 1.0, 0.05]])) == 0


def test_shipped_factors_give_the_intervals_of_the_stored_posterior(folder, page):
    payload = json.loads(page.scripts[0])
    posterior = Posterior.load(folder / "posterior.safetensors")
    weights = torch.zeros(posterior.mean.shape)
    weights[0, 10:30, 20:50] = 1 / 600
    low, high = (float(end) for end in posterior.interval(weights))
    u = np.stack([dequantise(packed) for packed in payload["directions"]]).reshape(len(payload["variances"]), -1)
    variances, w = np.array(payload["variances"]), weights.numpy().ravel()
    diagonal = np.clip(dequantise(payload["arrays"]["std"]).ravel() ** 2 - variances @ u**2, 0, None)
    std = np.sqrt(variances @ (u @ w) ** 2 + diagonal @ w**2)
    assert 2 * 1.6448536 * std == pytest.approx(high - low, rel=2e-3)
    assert w @ dequantise(payload["arrays"]["mean"]).ravel() == pytest.approx((low + high) / 2, rel=1e-5)


def test_the_shipped_kernel_gives_the_interval_of_the_stored_posterior(tmp_path):
    """Against wᵀΣw with Σ from its definition; without the kernel the interval is another one."""
    page = build(tmp_path, shape=(1, 28, 36), rank=6, local=True)
    payload, posterior = json.loads(page.scripts[0]), Posterior.load(tmp_path / "posterior.safetensors")
    assert np.array_equal(dequantise(payload["kernel"])[0], posterior.covariance.correlation.double().numpy())
    weights = np.zeros((1, 28, 36))
    weights[0, 6:20, 5:29] = 1 / (14 * 24)
    w = weights.ravel()
    exact = np.sqrt(w @ sigma(posterior) @ w)
    u = np.stack([dequantise(packed) for packed in payload["directions"]]).reshape(len(payload["variances"]), -1)
    variances = np.array(payload["excess"])
    a = w * np.sqrt(np.clip(dequantise(payload["arrays"]["std"]).ravel() ** 2 - variances @ u**2, 0, None))
    spread = fftconvolve(a.reshape(28, 36), dequantise(payload["kernel"])[0], mode="same").ravel()
    assert np.sqrt(variances @ (u @ w) ** 2 + a @ spread) == pytest.approx(exact, rel=2e-3)
    assert abs(np.sqrt(variances @ (u @ w) ** 2 + a @ a) / exact - 1) > 0.1, "negative control: R = I"
    assert "pixels within" not in page.text and float(re.search(r"within ([\d.]+) % of the one", page.text)[1]) < 0.5


def test_a_kernel_that_the_page_lost_is_noticed(tmp_path, monkeypatch):
    """Negative control of the page's own check: it is made against the stored posterior, kernel and all."""
    monkeypatch.setattr("obverse.report.uncertainty.block_kernel", lambda kernel, factors: np.ones((1, 1)))
    page = build(tmp_path, local=True)
    assert "Region intervals drawn in this page may be off" in page.text
    monkeypatch.undo()
    assert "Region intervals drawn" not in Page(report.write(tmp_path).read_text(encoding="utf-8")).text


def test_draws_are_those_of_the_stored_posterior(folder, page):
    payload, posterior = json.loads(page.scripts[0]), Posterior.load(folder / "posterior.safetensors")
    assert len(payload["draws"]) == 5 and "Posterior.sample(5, seed=0)" in page.text
    for packed, draw in zip(payload["draws"], posterior.sample(5, seed=0)):
        score = ((draw - posterior.mean) / posterior.std).numpy()
        assert np.abs(dequantise(packed) - score).max() <= packed["step"] / 2 + 1e-3 and packed["step"] < 0.07


def test_few_components_are_warned_of(tmp_path):
    page = build(tmp_path, rank=2)
    assert "2 components here hold" in page.text and "independent from pixel to pixel" in page.text
    many = build(tmp_path / "many", rank=300, shape=(1, 40, 40))
    assert "components here hold" not in many.text
    local = build(tmp_path / "local", rank=2, local=True)
    assert "No warnings." in local.text and "The rest is local" in local.text
    assert "independent from pixel to pixel." not in local.text.split("What else")[1].split("Ask about")[0]


def test_no_components_at_all(tmp_path):
    page = build(tmp_path, rank=0)
    assert "No components are stored" in page.text and len(json.loads(page.scripts[0])["draws"]) == 5
    assert "their local correlation alone" in build(tmp_path / "local", rank=0, local=True).text
