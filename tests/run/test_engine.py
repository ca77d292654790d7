"""One run: what it keeps when the uncertainty fails, and how its results return to counts."""

import json

import numpy as np
import pytest
import tifffile

from obverse.errors import NumericsError
from obverse.io.safe import read_safetensors
from obverse.posterior import Posterior
from obverse.posterior.precision import PrecisionCovariance

CAMERA = ("--set", "gain=1", "--set", "read_noise=3")


def broken(*_, **__):
    raise NumericsError("the product did not reach its tolerance; allow more")


@pytest.mark.parametrize(("method", "stage"), [("laplace", "diagonal_report"), ("gaussian", "_matvec")])
def test_an_image_outlives_its_uncertainty(obverse, files, tmp_path, monkeypatch, method, stage):
    command = ("reconstruct", files["2d"], "--psf", files["psf2d"], *CAMERA, "--method", method, "--json")
    whole = obverse(*command, "-o", tmp_path / "whole")
    assert whole.code == 0, whole.stderr
    monkeypatch.setattr(PrecisionCovariance, stage, broken)
    done = obverse(*command, "-o", tmp_path / "out")
    assert done.code == 4, done.stderr
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == {"image.ome.tif", "estimate.safetensors", "measurement.safetensors", "report.html", "run.json"}
    images = [tifffile.imread(tmp_path / folder / "image.ome.tif") for folder in ("whole", "out")]
    np.testing.assert_allclose(*images, rtol=1e-4)
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["target"] is None and record["status"]["reason"] == "no-covariance"
    assert any("did not reach its tolerance" in sentence for sentence in record["warnings"])
    assert "did not reach its tolerance" in (tmp_path / "out" / "report.html").read_text()


def test_a_posterior_returns_to_counts_by_one_crop_and_one_scale(obverse, files, tmp_path, monkeypatch):
    saved, save = [], Posterior.save
    monkeypatch.setattr(
        Posterior, "save", lambda self, *a, **k: (saved.append(self.covariance), save(self, *a, **k))[1]
    )
    command = ("reconstruct", files["2d"], "--psf", files["psf2d"], *CAMERA)
    done = obverse(*command, "--method", "gaussian", "-o", tmp_path / "out")
    assert done.code == 0, done.stderr
    depth, covariance = 0, saved[0]
    while hasattr(covariance, "base"):
        depth, covariance = depth + 1, covariance.base
    assert depth == 2


def test_the_noise_recorded_is_that_of_the_data(obverse, files, tmp_path):
    """Richardson–Lucy works with a counting law in place of constant noise; that law is not what is recorded."""
    law = ("--set", "gain=0", "--set", "read_noise=7", "--method", "richardson-lucy")
    assert obverse("reconstruct", files["2d"], "--psf", files["psf2d"], *law, "-o", tmp_path / "out").code == 0
    arrays, _ = read_safetensors(tmp_path / "out" / "measurement.safetensors")
    np.testing.assert_allclose(arrays["noise_std"], 7.0, rtol=1e-5)


def test_the_record_holds_the_arguments_given(obverse, files, tmp_path):
    command = ("reconstruct", files["2d"], "--psf", files["psf2d"], *CAMERA, "--method", "richardson-lucy")
    assert obverse(*command, "-o", tmp_path / "out").code == 0
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["command"] == ["obverse", *map(str, command), "-o", str(tmp_path / "out")]


def test_stopping_as_asked_is_said(obverse, files, tmp_path):
    command = ("reconstruct", files["2d"], "--psf", files["psf2d"], *CAMERA, "--method", "richardson-lucy")
    done = obverse(*command, "--set", "iterations=7", "-o", tmp_path / "out", "--json")
    assert done.code == 0 and done.answer["converged"]
    assert "7 iterations asked for" in done.answer["status"] and "regularisation" in done.answer["status"]


@pytest.mark.parametrize("method", ["map", "gaussian"])
def test_advice_names_settings_that_there_are(obverse, files, tmp_path, method):
    command = ("reconstruct", files["2d"], "--psf", files["psf2d"], *CAMERA, "--method", method)
    done = obverse(*command, "--set", "iterations=1", "-o", tmp_path / "out", "--json")
    assert done.code == 4, done.stderr
    assert "max_iterations" not in done.answer["status"]


def test_settings_without_effect_are_said_at_once(obverse, files, tmp_path):
    command = ("reconstruct", files["2d"], "--psf", files["psf2d"], *CAMERA, "--method", "richardson-lucy", "--json")
    done = obverse(*command, "--set", "probes=64", "-o", tmp_path / "a")
    assert done.stderr.count("no effect") == 1 and "probes" in done.stderr
    assert sum("no effect" in sentence for sentence in done.answer["warnings"]) == 1
    assert "no effect" not in obverse(*command, "--set", "iterations=9", "-o", tmp_path / "b").stderr
