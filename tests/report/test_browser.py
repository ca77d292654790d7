"""The page in a real browser: it opens offline, complains of nothing, asks for nothing, and answers a reader.

Chromium is found through OBVERSE_CHROMIUM or PATH; without one these tests are skipped and say so.
"""

import hashlib

import numpy as np
import pytest
import torch

from obverse import report
from obverse.posterior import Posterior
from tests.report.chromium import Chromium, find
from tests.report.example import make

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find() is None, reason="no Chromium: install one or set OBVERSE_CHROMIUM"),
]


@pytest.fixture(scope="module")
def browser():
    with Chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
    folder = make(tmp_path_factory.mktemp("flat"), share=True)
    report.write(folder)
    return folder


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    folder = make(tmp_path_factory.mktemp("stack"), shape=(1, 10, 36, 48), rank=8)
    report.write(folder)
    return folder


def picture(browser, name):
    """Hash of what a picture shows now."""
    data = browser.run(f"document.querySelector('[data-panel={name}] canvas.picture').toDataURL()")
    return hashlib.sha256(data.encode()).hexdigest()


def stored(folder):
    return Posterior.load(folder / "posterior.safetensors")


@pytest.mark.parametrize("width, dark", [(1400, False), (1400, True), (400, False)])
def test_it_opens_offline_without_complaint_or_request(browser, flat, width, dark):
    browser.resize(width, 900, dark)
    browser.open(flat / "report.html")
    assert browser.complaints() == []
    assert browser.requests() == [(flat / "report.html").as_uri()]
    assert browser.run("document.documentElement.scrollWidth <= window.innerWidth"), "nothing sticks out sideways"
    pictures = browser.run("[...document.querySelectorAll('canvas.picture')].map((c) => c.width * c.height > 5e3)")
    assert len(pictures) == 16 and all(pictures)
    browser.resize(1400, 900)


def test_complaints_and_requests_would_be_seen(browser, flat, tmp_path):
    """Negative control: an error, a refused image, and a request from a page without our policy."""
    browser.open(flat / "report.html")
    browser.run("console.error('seen'); new Image().src = 'http://127.0.0.1:9/x.png'; 1")
    browser.settle()
    complaints = " ".join(browser.complaints())
    assert "seen" in complaints and "Content Security Policy" in complaints
    address = "http://127.0.0.1:9/none.png"
    open_page = tmp_path / "open.html"
    open_page.write_text(f"<img src='{address}'>")
    browser.open(open_page)
    assert address in browser.requests()


def test_a_changed_script_is_refused(browser, flat, tmp_path):
    text = (flat / "report.html").read_text(encoding="utf-8")
    changed = tmp_path / "changed.html"
    changed.write_text(
        text.replace("window.obverse = app;", "window.obverse = app; window.more = 1;"), encoding="utf-8"
    )
    browser.open(changed)
    assert browser.run("typeof window.obverse") == "undefined"
    assert "Content Security Policy" in " ".join(browser.complaints())


def test_a_slider_moves_the_picture_along_its_component(browser, flat):
    browser.open(flat / "report.html")
    before, still = picture(browser, "moved"), picture(browser, "mean")
    x, y = browser.place(".component:nth-child(2) input", 0.9)
    browser.click(x, y)
    amount = browser.run("window.obverse.t[1]")
    assert amount > 2 and picture(browser, "moved") != before and picture(browser, "mean") == still
    assert browser.run("document.querySelector('#component-name').textContent").startswith("Component 2")
    values = np.array(browser.run("Array.from(window.obverse.panels.moved.values)")).reshape(72, 96)
    posterior = stored(flat)
    U, variances, _ = posterior.covariance.factors()
    power = variances * U.square().sum(0)
    k = int(power.argsort(descending=True, stable=True)[1])
    expected = posterior.mean[0] + amount * variances[k].sqrt() * U[:, k].reshape(72, 96)
    assert np.abs(values - expected.numpy()).max() < 0.05
    browser.click(*browser.place("#components-reset"))
    assert picture(browser, "moved") == before


def test_a_click_shows_what_a_pixel_is_correlated_with(browser, flat):
    browser.open(flat / "report.html")
    before = picture(browser, "correlation")
    browser.click(*browser.place("[data-panel=std] canvas.picture", 30.5 / 96, 40.5 / 72))
    assert browser.run("window.obverse.pixel") == {"c": 0, "z": 0, "y": 40, "x": 30}
    assert picture(browser, "correlation") != before
    values = np.array(browser.run("Array.from(window.obverse.panels.correlation.values)"))
    posterior = stored(flat)
    unit = torch.zeros(72 * 96)
    unit[40 * 96 + 30] = 1
    std = posterior.std.reshape(-1)
    expected = posterior.covariance.matvec(unit) / std / std[40 * 96 + 30]
    assert np.abs(values - expected.numpy()).max() < 2e-3
    assert values[40 * 96 + 30] == pytest.approx(1, abs=1e-4)
    assert "x 30, y 40" in browser.run("document.querySelector('#picked').textContent")


def test_a_drawn_rectangle_gets_its_mean_and_interval(browser, flat):
    browser.open(flat / "report.html")
    browser.click(*browser.place("input[name=mode][value=region]"))
    left, top = browser.place("[data-panel=mean] canvas.picture", 0, 0)
    right, bottom = browser.run(
        "(() => { const b = document.querySelector('[data-panel=mean] canvas.picture').getBoundingClientRect();"
        "return [b.right, b.bottom]; })()"
    )
    px, py = (right - left) / 96, (bottom - top) / 72
    browser.drag((left + 20.5 * px, top + 10.5 * py), (left + 49.5 * px, top + 29.5 * py))
    (region,) = browser.run("window.obverse.regions")
    assert [region[key] for key in ("x0", "x1", "y0", "y1")] == [20, 49, 10, 29]
    posterior = stored(flat)
    weights = torch.zeros(posterior.mean.shape)
    weights[0, 10:30, 20:50] = 1 / 600
    low, high = (float(end) for end in posterior.interval(weights))
    assert region["mean"] == pytest.approx((low + high) / 2, rel=1e-5)
    assert region["high"] - region["low"] == pytest.approx(high - low, rel=2e-3)
    row = browser.run("document.querySelector('#regions tbody tr').textContent")
    assert "x 20–49, y 10–29" in row
    wrong = 2 * 1.6448536 * float((posterior.std[0, 10:30, 20:50].square().sum() / 600**2).sqrt())
    assert 2 * 1.6448536 * region["independent"] == pytest.approx(wrong, rel=1e-3)
    assert abs(region["high"] - region["low"] - wrong) > 0.1 * wrong, "as if pixels were independent: must differ"
    browser.click(*browser.place("#regions tbody button"))
    assert browser.run("window.obverse.regions.length") == 0


def test_a_reduced_picture_answers_for_the_original_pixels(browser, tmp_path, monkeypatch):
    """Shown as block means, a region of whole blocks still has the interval of the stored posterior."""
    monkeypatch.setattr("obverse.report.builder.MAX_BYTES", 445_000)
    browser.open(report.write(make(tmp_path, rank=6)))
    f = browser.run("window.obverse.data.factors")["x"]
    assert f > 1
    region = browser.run("window.obverse.addRegion({x0: 3, x1: 9, y0: 4, y1: 11})")
    posterior = stored(tmp_path)
    weights = torch.zeros(posterior.mean.shape)
    rows, columns = slice(4 * f, 12 * f), slice(3 * f, 10 * f)
    count = 8 * 7 * f * f
    weights[0, rows, columns] = 1 / count
    low, high = (float(end) for end in posterior.interval(weights))
    assert region["mean"] == pytest.approx((low + high) / 2, rel=1e-5)
    assert region["high"] - region["low"] == pytest.approx(high - low, rel=5e-3)
    alone = float(posterior.std[0, rows, columns].square().sum().sqrt()) / count
    assert region["independent"] == pytest.approx(alone, rel=1e-3)


def test_pictures_zoom_and_move_together(browser, flat):
    browser.open(flat / "report.html")
    names = ("data", "mean", "std", "residual", "moved")
    before = [picture(browser, name) for name in names]
    browser.click(*browser.place("#zoom-in"))
    zoomed = [picture(browser, name) for name in names]
    assert all(a != b for a, b in zip(before, zoomed)) and browser.run("window.obverse.view.zoom") == 1.5
    x, y = browser.place("[data-panel=data] canvas.picture")
    browser.drag((x, y), (x + 40, y))
    assert all(a != b for a, b in zip(zoomed, [picture(browser, name) for name in names]))
    browser.run("document.querySelector('[data-panel=std] canvas.picture').focus()")
    browser("Input.dispatchKeyEvent", type="keyDown", key="0", text="0")
    browser.settle()
    assert browser.run("window.obverse.view.zoom") == 1


def test_pointing_reads_the_values(browser, flat):
    browser.open(flat / "report.html")
    browser.mouse("mouseMoved", *browser.place("[data-panel=mean] canvas.picture", 50.5 / 96, 20.5 / 72))
    browser.settle()
    text = browser.run("document.querySelector('#readout').textContent")
    assert "x 50, y 20" in text and f"std {float(stored(flat).std[0, 20, 50]):.3g} counts" in text


def test_a_stack_has_planes_and_a_projection(browser, stack):
    browser.open(stack / "report.html")
    mean = stored(stack).mean[0].numpy()
    browser.run(
        "(() => { const s = document.querySelector('#plane'); s.value = 3; s.dispatchEvent(new Event('input')); })()"
    )
    browser.settle()
    values = np.array(browser.run("Array.from(window.obverse.panels.mean.values)")).reshape(36, 48)
    assert np.abs(values - mean[3]).max() < 0.02
    browser.click(*browser.place("#projection"))
    values = np.array(browser.run("Array.from(window.obverse.panels.mean.values)")).reshape(36, 48)
    assert np.abs(values - mean.max(0)).max() < 0.02 and np.abs(values - mean[3]).max() > 1
    browser.click(*browser.place("[data-panel=mean] canvas.picture", 20.5 / 48, 10.5 / 36))
    assert browser.run("window.obverse.pixel.z") == int(mean[:, 10, 20].argmax())
    assert browser.complaints() == []


def test_an_estimate_opens_too(browser, tmp_path):
    report.write(make(tmp_path, estimate=True))
    browser.open(tmp_path / "report.html")
    assert browser.complaints() == [] and browser.run("Object.keys(window.obverse.panels)") == [
        "data",
        "mean",
        "reference",
        "residual",
    ]


def test_a_hostile_name_is_text(browser, tmp_path):
    name = "<script>document.title='owned'</script>.tif"
    report.write(make(tmp_path, inputs=[{"name": name, "sha256": "0", "bytes": 1}], warnings=["</script><b>" + name]))
    browser.open(tmp_path / "report.html")
    assert browser.run("document.querySelector('h1').textContent") == name
    assert "owned" not in browser.run("document.title").replace(name, "")
    assert browser.complaints() == []
