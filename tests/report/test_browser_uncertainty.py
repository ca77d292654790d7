"""In a real browser: draws, and local correlations, whose numbers must be those of the dense covariance in numpy."""

import numpy as np
import pytest

from obverse import report
from obverse.posterior import Posterior
from tests.report.chromium import Chromium, find
from tests.report.example import make, sigma
from tests.report.test_browser import picture

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find() is None, reason="no Chromium: install one or set OBVERSE_CHROMIUM"),
]
Z90 = 1.6448536269514722


@pytest.fixture(scope="module")
def browser():
    with Chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
    folder = make(tmp_path_factory.mktemp("flat"), shape=(2, 30, 36), rank=6, local=True)
    report.write(folder)
    return folder


def stored(folder):
    return Posterior.load(folder / "posterior.safetensors")


def values(browser, name):
    return np.array(browser.run(f"Array.from(window.obverse.panels.{name}.values)"))


def column(matrix, at):
    deviations = np.sqrt(np.diag(matrix))
    return matrix[at] / deviations / deviations[at]


@pytest.mark.parametrize("x, y", [(17, 12), (0, 29)])
def test_the_correlation_map_is_a_column_of_the_dense_covariance(browser, flat, x, y):
    browser.open(flat / "report.html")
    assert browser.complaints() == []
    browser.run(f"window.obverse.pick({{x: {x}, y: {y}}}); 1")
    browser.settle()
    expected = column(sigma(stored(flat)), y * 36 + x)[: 30 * 36]
    shown = values(browser, "correlation")
    assert np.abs(shown - expected).max() < 1e-3
    others = np.delete(expected, y * 36 + x)
    assert np.abs(others).max() > 0.2
    assert browser.run("window.obverse.strongest") == pytest.approx(np.abs(others).max(), abs=2e-3)
    # Negative control: the same page without its kernel.
    browser.run(
        "{const c = window.obverse.covariance; c.half = [0, 0, 0]; c.kernel = {shape: [1, 1, 1], values: [1]};}"
    )
    bare = np.array(browser.run(f"Array.from(window.obverse.covariance.correlation({y * 36 + x}, 0, 1080))"))
    assert np.abs(bare - expected).max() > 0.2


@pytest.mark.parametrize("box", [(5, 28, 4, 25), (0, 35, 0, 29), (7, 7, 3, 20), (9, 10, 9, 10)])
def test_a_region_has_the_interval_of_the_dense_covariance(browser, flat, box):
    x0, x1, y0, y1 = box
    browser.open(flat / "report.html")
    add = f"window.obverse.addRegion({{x0: {x0}, x1: {x1}, y0: {y0}, y1: {y1}, c: 1}})"
    region = browser.run(add)
    posterior = stored(flat)
    weights = np.zeros((2, 30, 36))
    weights[1, y0 : y1 + 1, x0 : x1 + 1] = 1
    w = weights.ravel() / weights.sum()
    exact = float(np.sqrt(w @ sigma(posterior) @ w))
    assert region["std"] == pytest.approx(exact, rel=2e-3)
    assert region["high"] - region["low"] == pytest.approx(2 * Z90 * exact, rel=2e-3)
    assert region["mean"] == pytest.approx(float(w @ posterior.mean.double().numpy().ravel()), rel=1e-5)
    browser.run(
        "{const c = window.obverse.covariance; c.half = [0, 0, 0]; c.kernel = {shape: [1, 1, 1], values: [1]};}"
    )
    assert abs(browser.run(add)["std"] / exact - 1) > 0.02, "negative control: without the kernel"


def test_a_stack_is_correlated_along_z_too(browser, tmp_path):
    browser.open(report.write(make(tmp_path, shape=(1, 6, 14, 18), rank=4, local=True)))
    matrix = sigma(stored(tmp_path))
    browser.run("window.obverse.setPlane(2); window.obverse.pick({x: 9, y: 6}); window.obverse.setPlane(3); 1")
    browser.settle()
    expected = column(matrix, (2 * 14 + 6) * 18 + 9).reshape(6, -1)[3]
    assert np.abs(values(browser, "correlation") - expected).max() < 1e-3 and np.abs(expected).max() > 0.1
    region = browser.run("window.obverse.addRegion({x0: 2, x1: 13, y0: 1, y1: 9, z: 3})")
    weights = np.zeros((6, 14, 18))
    weights[3, 1:10, 2:14] = 1 / 108
    assert region["std"] == pytest.approx(float(np.sqrt(weights.ravel() @ matrix @ weights.ravel())), rel=2e-3)


def test_a_reduced_picture_keeps_local_correlations(browser, tmp_path, monkeypatch):
    monkeypatch.setattr("obverse.report.builder.MAX_BYTES", 445_000)
    browser.open(report.write(make(tmp_path, rank=6, local=True)))
    f = browser.run("window.obverse.data.factors")["x"]
    assert f > 1
    add = "window.obverse.addRegion({x0: 3, x1: 9, y0: 4, y1: 11}).std"
    weights = np.zeros((1, 72, 96), np.float32)
    weights[0, 4 * f : 12 * f, 3 * f : 10 * f] = 1 / (56 * f * f)
    posterior = stored(tmp_path)
    exact = float(posterior.functional(posterior.mean.new_tensor(weights))[1])
    assert browser.run(add) == pytest.approx(exact, rel=0.03)
    browser.run(
        "{const c = window.obverse.covariance; c.half = [0, 0, 0]; c.kernel = {shape: [1, 1, 1], values: [1]};}"
    )
    assert abs(browser.run(add) / exact - 1) > 0.06, "negative control: without the kernel"


def test_draws_are_shown_one_at_a_time_and_flicker(browser, flat):
    browser.open(flat / "report.html")
    posterior = stored(flat)
    draws = posterior.sample(5, seed=0)[:, 0].numpy()
    for k, draw in enumerate(draws):
        shown = values(browser, f"draw{k + 1}").reshape(30, 36)
        assert np.abs((shown - draw) / posterior.std[0].numpy()).max() < 0.04
    assert np.abs(values(browser, "draw0").reshape(30, 36) - posterior.mean[0].numpy()).max() < 0.02
    browser.click(*browser.place("#frames button[data-frame='3']"))
    assert browser.run("document.querySelector('#draw-name').textContent") == "Draw 3"
    assert np.array_equal(values(browser, "draw"), values(browser, "draw3"))
    before = picture(browser, "draw4")
    browser.click(*browser.place("#zoom-in"))
    assert picture(browser, "draw4") != before, "one view for all"
    frames = "new Promise((done) => setTimeout(() => done(window.obverse.frame), 950))"
    assert browser.run(frames) == 3
    browser.click(*browser.place("#flicker"))
    assert browser.run("document.querySelector('#flicker').getAttribute('aria-pressed')") == "true"
    moved = browser.run(frames)
    browser("Input.dispatchKeyEvent", type="keyDown", key="f", text="f")
    still = browser.run("window.obverse.frame")
    assert moved != 3 and browser.run(frames) == still
    assert browser.complaints() == []


def test_colours_leave_out_half_a_percent_at_each_end(browser, flat):
    browser.open(flat / "report.html")
    for name in ("data", "mean", "reference", "std"):
        everything = np.sort(browser.run(f"Array.from(window.obverse.arrays.{name}.subarray(0, 1080))"))
        limits = browser.run(f"window.obverse.panels.{name}.source.look().limits")
        expected = everything[int(0.005 * 1079)], everything[int(np.ceil(0.995 * 1079))]
        assert limits == pytest.approx(expected, rel=1e-5)
        shown = browser.run(
            f"['low', 'high'].map((end) => document.querySelector(`[data-panel={name}] .${{end}}`).textContent)"
        )
        assert [float(text.replace("\u2212", "-")) for text in shown] == pytest.approx(limits, rel=1e-2)
    assert "highest 0.5 % of the values" in browser.run("document.querySelector('#pictures').textContent")
