"""Components in the page: their densities, the place where they lie, the path through it, what they do in words."""

import json
import re

import numpy as np
import pytest
import torch
from scipy import ndimage

from obverse import report
from obverse.posterior import DirectionalMoments, Posterior
from obverse.report.windows import find_window, looks
from tests.report.example import make
from tests.report.test_report import Page

GRID = np.stack(np.meshgrid(np.arange(40), np.arange(40), indexing="ij"), -1).astype(float)


def again(folder, **changes):
    """Store the posterior once more with other fields, and build the page."""
    from dataclasses import replace

    path = folder / "posterior.safetensors"
    replace(Posterior.load(path), **changes).save(path, overwrite=True)
    run = json.loads((folder / "run.json").read_text())
    run["outputs"] = {}
    (folder / "run.json").write_text(json.dumps(run))
    return Page(report.write(folder).read_text(encoding="utf-8"))


def curves(folder):
    """(x, y) of each density in the page, from its SVG."""
    text = (folder / "report.html").read_text(encoding="utf-8")
    points = re.findall(r'class="plot density".*?<polygon class="first" points="([^"]+)"', text)
    return [np.array([[float(n) for n in pair.split(",")] for pair in line.split()])[1:-1] for line in points]


def test_each_slider_has_its_density_and_says_which(tmp_path):
    folder = make(tmp_path)
    page = Page(report.write(folder).read_text(encoding="utf-8"))
    assert page.text.count("normal density, mean and covariance") == 8
    plain = curves(folder)
    first = plain[0]
    assert len(plain) == 8
    z = np.linspace(-3, 3, 121)
    up = first[:, 1].max() - first[:, 1]
    drawn = up / up.max()
    expected = np.exp(-(z**2) / 2) - np.exp(-4.5)
    assert np.abs(drawn - expected / expected.max()).max() < 0.02
    stored = Posterior.load(folder / "posterior.safetensors")
    draws = stored.sample(300, seed=1)
    assert "kernel density of kept draws, from 300 draws" in again(folder, draws=draws).text
    u = stored.covariance.factors()[0].mT.reshape(-1, *stored.mean.shape)
    order = (-stored.covariance.factors()[1] * u.flatten(1).square().sum(1)).argsort(stable=True)
    length = u.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
    moments = DirectionalMoments((u / length)[order[:1]], torch.tensor([0.9]), torch.tensor([3.5]))
    skewed = again(folder, draws=None, moments=moments)
    assert skewed.text.count("maximum-entropy density, from four moments (skewness 0.9, kurtosis 3.5)") == 1
    lean = curves(folder)[0]
    assert lean[:, 1].argmin() < 55, "the peak of a law that leans to the right lies left of its mean"
    assert first[:, 1].argmin() == 60, "negative control"


def test_the_first_components_have_a_path_where_they_lie(tmp_path):
    folder = make(tmp_path)
    page = Page(report.write(folder).read_text(encoding="utf-8"))
    payload = json.loads(page.scripts[0])
    assert len(payload["windows"]) == 4 and page.text.count("+3 std") == 4
    for window in payload["windows"]:
        assert 0 <= window["x"] and window["x"] + window["width"] <= 96
        assert f"x {window['x']}–{window['x'] + window['width'] - 1}" in page.text
    assert len(re.findall(r"Component \d\. ", page.text)) >= 4
    bare = Page(report.write(make(tmp_path / "none", estimate=True)).read_text(encoding="utf-8"))
    assert "The path along" not in bare.text


def test_the_window_is_where_the_component_lies():
    u = np.zeros((2, 3, 90, 120))
    u[1, 2, 60:70, 20:30] = 1.0
    u += 0.001
    found = find_window(u)
    assert (found.c, found.z, found.width) == (1, 2, 24)
    assert found.x <= 20 and found.x + 24 >= 30 and found.y <= 60 and found.y + 24 >= 70
    spread = find_window(np.random.default_rng(0).standard_normal((1, 1, 90, 120)))
    assert (spread.width, spread.height) == (120, 90), "what lies everywhere is shown whole"
    assert find_window(np.ones((1, 1, 5, 7))).cut(np.ones((1, 1, 5, 7))).shape == (5, 7)


@pytest.mark.parametrize(
    "name, word",
    [
        ("blob", "brightness"),
        ("shift", "left and right"),
        ("contrast", "Contrast"),
        ("ripple", "ripple"),
        ("noise", "Fine grain"),
        ("cloud", "No"),
    ],
)
def test_words_say_what_a_component_does(name, word):
    disc = 1 / (1 + np.exp(np.hypot(*(GRID - 19.3).T).T - 9))
    texture = np.random.default_rng(1).standard_normal((40, 40))
    mean = {"contrast": texture}.get(name, disc)
    u = {
        "blob": np.exp(-((GRID - 20) ** 2).sum(-1) / 60),
        "shift": np.gradient(disc)[1],
        "contrast": texture,
        "ripple": np.cos(2 * np.pi * GRID[..., 1] / 8) * np.exp(-((GRID - 20) ** 2).sum(-1) / 400),
        "cloud": ndimage.gaussian_filter(np.random.default_rng(3).standard_normal((40, 40)), 2.5),
        "noise": np.random.default_rng(2).standard_normal((40, 40)),
    }[name]
    assert word in looks(u, mean), looks(u, mean)
    if name == "ripple":
        assert "8.0 pixels and upright" in looks(u, mean) and "and level" in looks(u.T, mean.T)
    if name == "shift":
        assert "up and down" in looks(u.T, mean.T)
