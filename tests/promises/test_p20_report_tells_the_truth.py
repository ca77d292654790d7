"""P20: the report tells the truth.

Its numbers are derived again from the stored arrays, failures show as failures, names and metadata are escaped, it
needs nothing but itself. (That it opens offline in a browser is in tests/report/test_browser.py.)
"""

import json

import numpy as np
import pytest

from obverse import report
from obverse.io.safe import read_safetensors, write_safetensors
from tests.report.example import make
from tests.report.test_report import Page


def page_of(folder):
    return Page(report.write(folder).read_text(encoding="utf-8"))


def edit(folder, **changes):
    run = json.loads((folder / "run.json").read_text())
    run.update(changes)
    (folder / "run.json").write_text(json.dumps(run))
    return run


def test_an_honest_run_brings_no_warning(tmp_path):
    page = page_of(make(tmp_path, rank=300, shape=(1, 40, 40)))
    assert "No warnings." in page.text and "trust neither" not in page.text


@pytest.mark.parametrize("figure", ["chi2", "psnr", "mean_std"])
def test_a_figure_that_the_arrays_do_not_give_is_exposed(tmp_path, figure):
    make(tmp_path)
    figures = json.loads((tmp_path / "run.json").read_text())["figures"]
    edit(tmp_path, figures={**figures, figure: figures[figure] * 1.05})
    assert f"run.json states {figure} = " in page_of(tmp_path).text
    edit(tmp_path, figures=figures)
    assert f"run.json states {figure} = " not in page_of(tmp_path).text


def test_arrays_changed_after_the_run_are_exposed(tmp_path):
    make(tmp_path)
    arrays = read_safetensors(tmp_path / "measurement.safetensors")[0]
    arrays["prediction"] = arrays["data"].copy()
    write_safetensors(tmp_path / "measurement.safetensors", arrays, overwrite=True)
    page = page_of(tmp_path)
    assert "measurement.safetensors is not the one that the run wrote" in page.text
    assert "run.json states chi2" in page.text and "far below 1" in page.text


def test_what_the_page_says_of_local_correlations_is_what_is_stored(tmp_path):
    """With a kernel there is nothing to warn of; without it the same posterior brings the warning."""
    page = page_of(make(tmp_path, local=True))
    assert "No warnings." in page.text and "The rest is local" in page.text
    assert json.loads(page.scripts[0])["kernel"]["shape"] == [1, 9, 13]
    arrays, metadata = read_safetensors(tmp_path / "posterior.safetensors")
    del arrays["correlation"]
    write_safetensors(tmp_path / "posterior.safetensors", arrays, {"obverse": metadata["obverse"]}, overwrite=True)
    bare = page_of(tmp_path)
    assert "kernel" not in json.loads(bare.scripts[0]) and "The rest is local" not in bare.text
    assert "components here hold" in bare.text and "treated as independent" in bare.text


def test_another_target_than_stated_is_exposed(tmp_path):
    assert "the stored posterior is of the kind 'posterior'" in page_of(make(tmp_path, target="epistemic")).text


def test_failures_show_as_failures(tmp_path):
    message = "Stopped after 50 iterations."
    page = page_of(make(tmp_path, status={"converged": False, "reason": "iterations", "message": message}))
    assert "NOT CONVERGED" in page.text and "Did not converge" in page.text and message in page.text
    assert "unfinished computation" in page.text
    assert ("div", "class", "status bad") in page.attributes
    good = page_of(make(tmp_path / "good"))
    assert "NOT CONVERGED" not in good.text and ("div", "class", "status bad") not in good.attributes


def test_a_wrong_model_shows_in_words(tmp_path):
    make(tmp_path)
    arrays = read_safetensors(tmp_path / "measurement.safetensors")[0]
    arrays["prediction"] = arrays["prediction"] + 20 * np.sin(np.arange(96) / 5).astype(np.float32)
    write_safetensors(tmp_path / "measurement.safetensors", arrays, overwrite=True)
    page = page_of(tmp_path)
    assert page.text.count("Clear structure is left") == 2, "at the top, among the warnings, and beside the residual"
    assert page.text.count("far above 1") == 2


HOSTILE = [
    "<script>alert(1)</script>.tif",
    "</script><!--<script>",
    "\"'><img src=x onerror=alert(1)>",
    "{{script}} ]]> &lt; \u2028",
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_names_and_metadata_are_shown_literally(tmp_path, hostile):
    changes = {
        "inputs": [{"name": hostile, "sha256": hostile, "bytes": 1}],
        "instrument": hostile,
        "method": {"name": hostile, hostile: hostile},
        "settings": {hostile: {hostile: [hostile]}},
        "status": {"converged": False, "message": hostile},
        "warnings": [hostile],
        "command": ["obverse", hostile],
        "intensity_unit": hostile,
        "spacing_unit": hostile,
        "target": hostile,
        "started": hostile,
        "figures": {"chi2": hostile, "frc_before": hostile, hostile: hostile},
        "versions": {hostile: hostile},
        "outputs": {hostile: hostile, "image.ome.tif": hostile},
    }
    page = page_of(make(tmp_path, **changes))
    plain = page_of(make(tmp_path / "plain", status={"converged": False}))
    assert page.tags.count("script") == plain.tags.count("script") == 2
    assert page.tags.count("img") == 0
    assert not [a for a in page.attributes if a[1].startswith("on")]
    assert page.text.count(hostile) >= 8
    json.loads(page.scripts[0])


def test_the_parser_of_this_test_would_see_an_injection(tmp_path):
    path = report.write(make(tmp_path))
    text = path.read_text(encoding="utf-8").replace("<h1>cells.ome.tif", "<h1><script>alert(1)</script>.tif")
    assert Page(text).tags.count("script") == 3
