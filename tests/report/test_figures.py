"""Derived numbers, packing and plots against brute force."""

import re
from pathlib import Path

import numpy as np
import pytest

from obverse import report
from obverse.errors import NumericsError
from obverse.report.figures import compare, derive, whiteness
from obverse.report.packing import block_mean, block_sizes, dequantise, make_plan, quantise
from obverse.report.plots import autocorrelation_plot, histogram_plot
from obverse.report.words import alarms, chi2_words, claims, status_words, whiteness_words

RANDOM = np.random.default_rng(0)


def test_autocorrelation_equals_brute_force():
    residual = RANDOM.standard_normal((2, 9, 11))
    white = whiteness(residual, lags=3)
    r = residual - residual.mean()
    for dy in range(-3, 4):
        for dx in range(-3, 4):
            a = r[:, max(0, dy) : 9 + min(0, dy), max(0, dx) : 11 + min(0, dx)]
            b = r[:, max(0, -dy) : 9 + min(0, -dy), max(0, -dx) : 11 + min(0, -dx)]
            assert white.correlation[dy + 3, dx + 3] == pytest.approx(np.mean(a * b) / np.mean(r**2), abs=1e-12)
    assert white.profiles["x"] == pytest.approx(white.correlation[3, 3:])
    assert white.profiles["y"] == pytest.approx(white.correlation[3:, 3])


def test_white_noise_passes_and_structure_is_found():
    noise = RANDOM.standard_normal((1, 6, 60, 60))
    white = whiteness(noise)
    assert 0.93 < white.inside < 0.97 and "practically white" in whiteness_words(white)
    smooth = noise + np.roll(noise, 1, -1)
    found = whiteness(smooth)
    assert found.largest == pytest.approx(0.5, abs=0.03) and "Clear structure" in whiteness_words(found)
    followed = whiteness(noise - np.roll(noise, 1, -1))
    assert followed.largest == pytest.approx(-0.5, abs=0.03)
    assert "follows part of the noise" in whiteness_words(followed, chi2=0.8)
    assert "Clear structure" in whiteness_words(followed, chi2=1.3), (
        "following noise lowers chi²: this is something else"
    )
    assert alarms({"chi2": 0.9}, white) == [] and len(alarms({"chi2": 1.5}, found)) == 2


def test_figures_are_those_of_numpy():
    data, prediction = RANDOM.normal(10, 2, (2, 1, 20, 20))
    noise_std, std = RANDOM.uniform(1, 3, (2, 1, 20, 20))
    values = derive(prediction, std, data, prediction, noise_std, reference=3 * data + 1).values
    assert values["chi2"] == pytest.approx(np.mean(((data - prediction) / noise_std) ** 2))
    assert values["mean_std"] == pytest.approx(std.mean()) and values["max_std"] == std.max()
    assert values["correlation"] == pytest.approx(np.corrcoef(data.ravel(), prediction.ravel())[0, 1])
    assert "coverage" not in values, "the reference counts in other units"
    truth = prediction + std * RANDOM.standard_normal(std.shape) * 0.5
    values = derive(prediction, std, reference=truth).values
    assert values["coverage"] == pytest.approx(np.mean(np.abs(prediction - truth) <= 1.6448536 * std))
    slope, offset = np.polyfit(prediction.ravel(), truth.ravel(), 1)
    error = np.mean((slope * prediction + offset - truth) ** 2)
    assert values["psnr"] == pytest.approx(10 * np.log10(np.ptp(truth) ** 2 / error))


@pytest.mark.parametrize(
    "claim, complains", [(1.5, False), (1.5 * 1.0015, False), (1.5 * 1.003, True), ("1.5", True), (None, True)]
)
def test_a_stated_figure_must_agree_with_the_derived_one(claim, complains):
    assert bool(compare({"chi2": claim}, {"chi2": 1.5})) == complains


@pytest.mark.parametrize("bits", [8, 16])
def test_quantised_values_are_right_to_half_a_step(bits):
    values = RANDOM.normal(100, 30, (3, 7, 5))
    values[0, 0, 0] = np.nan
    packed = quantise(values, bits)
    back = dequantise(packed)
    assert np.isnan(back[0, 0, 0])
    assert np.nanmax(np.abs(back - values)) <= packed["step"] / 2 * (1 + 1e-9)
    assert packed["step"] == pytest.approx(np.nanmax(values) / (2**bits - 2) - np.nanmin(values) / (2**bits - 2))
    constant = quantise(np.full((2, 2), 7.5), bits)
    assert np.all(dequantise(constant) == 7.5)


def test_block_means_carry_the_covariance_exactly():
    shape, factors = (1, 7, 10), (3, 4)
    u, d, variances = RANDOM.standard_normal((2, *shape)), RANDOM.uniform(1, 2, shape), np.array([3.0, 1.0])
    covariance = np.einsum("k,ki,kj->ij", variances, u.reshape(2, -1), u.reshape(2, -1)) + np.diag(d.ravel())
    dense = np.stack([block_mean(e.reshape(shape), factors).ravel() for e in np.eye(70)], 1)
    small_u = np.stack([block_mean(one, factors).ravel() for one in u])
    small_d = (block_mean(d, factors) / block_sizes(shape[1:], factors)).ravel()
    ours = np.einsum("k,ki,kj->ij", variances, small_u, small_u) + np.diag(small_d)
    assert np.allclose(ours, dense @ covariance @ dense.T)


def test_a_plan_keeps_its_budget_and_says_when_it_cannot():
    for shape, components in (((1, 256, 256), 8), ((1, 2048, 2048), 64), ((1, 64, 512, 512), 32), ((3, 40, 9000), 4)):
        plan = make_plan(shape, components, 9, 7_000_000)
        pixels = shape[0] * np.prod([-(-n // f) for n, f in zip(shape[1:], plan.factors)])
        assert pixels * (9 + 2 * plan.reduced + plan.components * plan.bits // 8) <= 7_000_000
        assert plan.components >= min(components, 6)
    with pytest.raises(NumericsError, match="raise the limit"):
        make_plan((1, 64, 64), 4, 9, 10)


def test_plots_hold_what_they_were_given():
    white = whiteness(RANDOM.standard_normal((1, 5, 30, 30)))
    text = autocorrelation_plot(white)
    assert text.count("<polyline") == 3 and "along z" in text
    density, edges = np.histogram(RANDOM.standard_normal(1000), bins=50, range=(-5, 5), density=True)
    assert histogram_plot(edges, density).count("<polygon") == 1


def test_colour_maps_are_even_in_lightness():
    """Lightness in CIELAB rises steadily; in the diverging map it falls alike on both sides of a neutral middle."""
    color = pytest.importorskip("skimage.color")
    source = (Path(report.__path__[0]) / "assets" / "colour.js").read_text(encoding="utf-8")
    maps = dict(re.findall(r"(\w+): \[([^\]]*)\]", source))
    light = {}
    for name, points in maps.items():
        rgb = [[int(point[i : i + 2], 16) / 255 for i in (1, 3, 5)] for point in re.findall(r"#\w{6}", points)]
        assert len(rgb) == 11
        light[name] = color.rgb2lab(np.array(rgb)[None])[0]
    for name in ("grey", "viridis", "magma"):
        steps = np.diff(light[name][:, 0])
        assert steps.min() > 0.55 * steps.mean() and steps.max() < 1.6 * steps.mean(), name
    diverging = light["diverging"]
    assert np.abs(diverging[:, 0] - diverging[::-1, 0]).max() < 1.5
    assert np.hypot(*diverging[5, 1:]) < 1 and np.diff(diverging[:6, 0]).min() > 8
    assert (
        np.diff(
            color.rgb2lab(np.array([[[0, 0, 0.5], [0, 0, 1.0], [0, 1.0, 1.0], [1.0, 1.0, 0], [0.5, 0, 0]]]))[0, :, 0]
        ).min()
        < 0
    )


@pytest.mark.parametrize(
    "chi2, words",
    [(0.2, "far below"), (0.7, "little below"), (1.0, "close to 1"), (1.5, "above 1"), (9.0, "far above")],
)
def test_chi2_in_words(chi2, words):
    assert words in chi2_words(chi2)


def test_words_for_every_target_and_status():
    texts = {claims(target)[1] for target in ("posterior", "tempered", "estimator-error", "epistemic", None, "new")}
    assert len(texts) == 6
    assert [status_words(s)[0] for s in ({"converged": True}, {"converged": False}, {}, {"converged": "yes"})] == [
        "good",
        "bad",
        "unknown",
        "unknown",
    ]


def test_a_learned_prior_is_named_before_the_claim():
    heading, text = claims(None, "my-cells: cells of mine")
    assert heading == claims(None)[0] and text.endswith(claims(None)[1])
    assert "(my-cells: cells of mine)" in text and "learnt from other pictures" not in claims(None)[1]
