"""The built page: its parts, its size, its numbers, and what it does with damaged or hostile input."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from obverse import report
from obverse.errors import FormatError, InputError, NumericsError
from obverse.io.safe import read_safetensors, write_safetensors
from obverse.posterior import Posterior
from obverse.report import builder
from obverse.report.packing import dequantise
from tests.report.example import make

VOID = {"meta", "input", "br", "link", "img", "hr"}


class Page(HTMLParser):
    """Elements, attributes and visible text of a page; unbalanced elements are an error."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.open, self.ids = [], [], [], []
        self.text, self.scripts = "", []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *attribute) for attribute in attrs]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif not self.open or self.open[-1] != "style":
            self.text += data


def build(folder, **options):
    path = report.write(make(folder, **options))
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make(tmp_path_factory.mktemp("run") / "out", share=True)


@pytest.fixture(scope="module")
def text(folder):
    return report.write(folder).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_the_page_has_its_parts(page):
    for part in ("pictures", "components", "questions", "share", "residual", "details", "rerun", "warnings"):
        assert part in page.ids
    panels = [value for tag, name, value in page.attributes if name == "data-panel"]
    draws = ["draw", *(f"draw{k}" for k in range(6))]
    assert panels == [
        *("data", "mean", "std", "reference", *draws, "moved", "component", "correlation", "data_share", "residual")
    ]
    for words in (
        "Converged",
        "Posterior uncertainty",
        "χ² per data value",
        "obverse reconstruct cells.ome.tif",
        "counts",
    ):
        assert words in page.text
    assert len(page.ids) == len(set(page.ids))


def test_the_page_fetches_nothing(text, page):
    assert not re.search(r"https?://|//\w+\.\w+|url\(|@import|\bfetch\(|XMLHttpRequest|WebSocket|\bimport\(", text)
    assert not [a for a in page.attributes if a[1] in ("src", "srcset", "style", "onclick", "onload")]
    links = [value for _, name, value in page.attributes if name == "href"]
    assert links and all(value.startswith("#") for value in links)


def test_the_policy_admits_this_style_and_script_alone(text, page):
    (policy,) = [
        value for tag, name, value in page.attributes if tag == "meta" and name == "content" and "src" in value
    ]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'" and rules["img-src"] == "data:"
    style = re.search(r"<style>(.*?)</style>", text, re.S)[1]
    for rule, source in (("script-src", page.scripts[1]), ("style-src", style)):
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
        changed = base64.b64encode(hashlib.sha256((source + " ").encode()).digest()).decode()
        assert rules[rule] != f"'sha256-{changed}'"


def test_equal_folders_give_equal_bytes(folder, text):
    assert report.write(folder).read_text(encoding="utf-8") == text


def test_numbers_are_those_of_the_stored_arrays(folder, page):
    arrays = read_safetensors(folder / "measurement.safetensors")[0]
    posterior = Posterior.load(folder / "posterior.safetensors")
    chi2 = np.mean(((arrays["data"].astype(float) - arrays["prediction"]) / arrays["noise_std"]) ** 2)
    assert f"{chi2:.4g}" in page.text
    assert f"{float(posterior.std.double().mean()):.3g} counts" in page.text
    payload = json.loads(page.scripts[0])
    for name, expected in (
        ("mean", posterior.mean),
        ("std", posterior.std),
        ("data", torch.from_numpy(arrays["data"])),
    ):
        packed = payload["arrays"][name]
        assert np.abs(dequantise(packed) - expected.numpy()).max() <= packed["step"] / 2 + 1e-4
        assert packed["step"] < 2e-5 * float(expected.max())


def test_the_heading_names_the_data_and_the_table_all_inputs(page, tmp_path):
    assert page.text.count("truth.ome.tif") == 1 and "truth.ome.tifreference" in page.text
    assert page.text.count("cells.ome.tif") == 4, "title, heading, table of inputs, command"
    bare = build(tmp_path, inputs=[{"name": "a.tif"}, {"name": "b.tif"}])
    assert "a.tif, b.tif" in bare.text


def test_figures_against_a_reference_are_in_the_headline_only_if_stored(tmp_path):
    page = build(tmp_path)
    figures = json.loads((tmp_path / "run.json").read_text())["figures"]
    assert f"PSNR{figures['psnr']:.4g} dBwith the reference; data {figures['psnr_before']:.4g} dB" in page.text
    assert f"correlation{figures['correlation']:.3g}with the reference; data" in page.text
    bare = build(tmp_path / "bare", figures={"chi2": figures["chi2"]})
    assert "PSNR" not in bare.text and "with the reference" not in bare.text
    stated = build(tmp_path / "stated", reference=False, figures={"psnr": 31.25})
    assert "PSNR31.25 dBwith the reference; stated" in stated.text


@pytest.mark.parametrize("shape", [(1, 2048, 2048), (1, 20, 400, 360)])
def test_large_pictures_fit_into_ten_megabytes_and_say_how(tmp_path, shape):
    random = np.random.default_rng(0)
    mean = random.normal(200, 30, shape).astype(np.float32)
    from obverse.posterior.low_rank import LowRankDiagonal
    from obverse.solvers.result import Status

    u = torch.from_numpy(random.standard_normal((mean.size, 2), dtype=np.float32))
    covariance = LowRankDiagonal(u, torch.tensor([3.0, 2.0]), torch.full((mean.size,), 4.0), shape)
    make(tmp_path, measured=False)
    Posterior(torch.from_numpy(mean), Status(True, "", ""), covariance=covariance).save(
        tmp_path / "posterior.safetensors", overwrite=True
    )
    write_safetensors(
        tmp_path / "measurement.safetensors",
        {"data": mean, "prediction": mean + 1, "noise_std": np.ones_like(mean)},
        overwrite=True,
    )
    path = report.write(tmp_path)
    page = Page(path.read_text(encoding="utf-8"))
    assert path.stat().st_size <= builder.MAX_BYTES == 10_000_000
    assert "Reduced to fit into this file" in page.text
    factors = json.loads(page.scripts[0])["factors"]
    assert f"{factors['x']} × {factors['y']}" in page.text and factors["x"] > 1


def test_small_pictures_are_not_reduced_and_tighter_limits_are_kept(folder, text, monkeypatch):
    assert "Reduced to fit" not in text
    monkeypatch.setattr(builder, "MAX_BYTES", 445_000)
    tight = report.write(folder)
    assert tight.stat().st_size <= 445_000 and "Reduced to fit" in tight.read_text(encoding="utf-8")
    monkeypatch.setattr(builder, "MAX_BYTES", 1000)
    with pytest.raises(NumericsError):
        report.write(folder)
    assert "Reduced to fit" in (folder / "report.html").read_text(encoding="utf-8"), "the older report is still there"
    monkeypatch.undo()
    report.write(folder)


def test_long_settings_are_cut_and_the_cut_is_said(tmp_path):
    huge = "<" * 3_000_000
    page = build(
        tmp_path / "all",
        inputs=[{"name": huge, "sha256": huge, "bytes": huge}],
        instrument=huge,
        method={"name": huge, huge: huge},
        status={"converged": False, "message": huge},
        command=[huge],
        target=huge,
        intensity_unit=huge,
        spacing_unit=huge,
        started=huge,
        figures={"chi2": huge, "frc_after": huge},
        versions={huge: huge},
        warnings=[huge],
    )
    assert (tmp_path / "all" / "report.html").stat().st_size < 1_500_000 and "Did not converge" in page.text
    page = build(
        tmp_path, settings={"note": "x" * 20_000_000, **{f"k{i}": i for i in range(1000)}}, warnings=["w"] * 500
    )
    assert "19998000 more characters in run.json" in page.text
    assert "701 further entries" in page.text and "further warnings are in run.json" in page.text


def test_an_estimate_without_uncertainty_says_so(tmp_path):
    page = build(tmp_path, estimate=True)
    assert "No uncertainty was computed" in page.text and "This run computed no uncertainty" in page.text
    assert "components" not in page.ids and "questions" not in page.ids
    assert "standard deviation of" not in page.text


def test_without_a_measurement_the_page_says_what_it_cannot_check(tmp_path):
    page = build(tmp_path, measured=False)
    assert "No measurement.safetensors is stored" in page.text and "cannot be checked" in page.text


def test_stacks_and_channels_get_their_controls(tmp_path):
    page = build(tmp_path, shape=(2, 6, 24, 30), rank=4)
    assert {"plane", "projection", "channel"} <= set(page.ids)
    payload = json.loads(page.scripts[0])
    assert payload["shape"] == [2, 6, 24, 30] and payload["pixel"]["unit"] == "µm"
    assert not {"plane", "projection", "channel"} & set(build(tmp_path / "flat").ids)


def test_arrays_that_do_not_fit_or_are_not_finite_are_named(tmp_path):
    make(tmp_path)
    arrays = read_safetensors(tmp_path / "measurement.safetensors")[0]
    arrays["reference"] = np.zeros((1, 3, 3), np.float32)
    arrays["data"][0, 0, :5] = np.nan
    write_safetensors(tmp_path / "measurement.safetensors", arrays, overwrite=True)
    page = Page(report.write(tmp_path).read_text(encoding="utf-8"))
    assert "The stored array reference has shape (1, 3, 3)" in page.text
    assert "The stored data holds 5 values that are not finite" in page.text
    assert "is not the one that the run wrote" in page.text


def test_resolution_is_shown_where_it_is_stored(tmp_path):
    assert "resolution" not in build(tmp_path / "none").ids
    make(tmp_path, figures={"frc_before": 312.4, "frc_after": 187.6})
    page = Page(report.write(tmp_path).read_text(encoding="utf-8"))
    assert "resolution188 nmby Fourier ring correlation; data 312 nm; stated" in page.text, "in the headline"
    assert "data312 nm" in page.text and "reconstruction188 nm" in page.text and "stated by the run" in page.text
    arrays = read_safetensors(tmp_path / "measurement.safetensors")[0]
    frequency = np.linspace(0, 0.5, 20)
    arrays |= {"frc_frequency": frequency, "frc_before": 1 - 2 * frequency, "frc_after": 1 - frequency}
    write_safetensors(tmp_path / "measurement.safetensors", arrays, overwrite=True)
    page = Page(report.write(tmp_path).read_text(encoding="utf-8"))
    assert "Fourier ring correlation before and after" in page.text


def test_a_damaged_posterior_gives_no_report(tmp_path):
    make(tmp_path)
    path = tmp_path / "posterior.safetensors"
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)
    with pytest.raises(FormatError):
        report.write(tmp_path)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("content", ["", "[1]", '{"a": ', "[" * 100_000])
def test_a_damaged_run_json_gives_one_sentence(tmp_path, content):
    make(tmp_path)
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(FormatError, match="run.json"):
        report.write(tmp_path)


@pytest.mark.parametrize("missing", ["run.json", "posterior.safetensors"])
def test_a_folder_without_a_run_is_refused(tmp_path, missing):
    make(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(InputError):
        report.write(tmp_path)


def test_a_sparse_or_odd_run_json_still_gives_a_page(tmp_path):
    make(tmp_path)
    odd = {
        "figures": [],
        "inputs": ["text"],
        "status": None,
        "warnings": "one",
        "spacing": [None, float("inf"), 0.1],
        "method": 3,
    }
    (tmp_path / "run.json").write_text(json.dumps(odd))
    page = Page(report.write(tmp_path).read_text(encoding="utf-8"))
    assert "Status unknown" in page.text and json.loads(page.scripts[0])["pixel"]["unit"] == "px"
