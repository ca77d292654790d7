"""A micrograph reconstructed with a denoiser, from the command line to the report; the network is a small one."""

import json

import numpy as np
import pytest
import tifffile

from obverse.errors import InputError
from obverse.instruments import micrograph_methods, microscopy
from obverse.networks import build, save

from ..conftest import cells

CAMERA = ("--set", "gain=1", "--set", "read_noise=3")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A network that shrinks a little by the noise level: f = 0 leaves D(x, σ) = m + (x − m)/(1 + (σ/4s)⁴)."""
    description = {"kind": "Preconditioned", "network": {"kind": "UNet", "inputs": 3, "outputs": 1, "widths": [2, 2]}}
    network = build(description)
    network.network.tail.weight.data.zero_()
    path = tmp_path_factory.mktemp("weights") / "shrink.safetensors"
    save(path, network, {"name": "shrink", "network": description, "channels": 1})
    return path


def test_from_file_to_report(obverse, files, weights, tmp_path):
    command = ("reconstruct", files["2d"], "--psf", files["psf2d"], *CAMERA, "--method", "plug-and-play")
    done = obverse(*command, "--set", f"prior={weights}", "--set", "iterations=4", "-o", tmp_path / "out", "--json")
    assert done.code == 0, done.stderr
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    low, high = record["facts"]["prior"]["range"]
    assert record["method"]["name"] == "PlugAndPlay" and low <= 0 and high >= 1
    assert record["method"]["denoiser"].startswith(f"shrink, for intensities from {low:.4g} to {high:.4g}")
    assert {entry["role"] for entry in record["inputs"]} >= {"data", "psf", "prior"}
    assert "schedule" in record["status"]["message"] and record["target"] is None
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert "estimate.safetensors" in names and "std.ome.tif" not in names
    # counts come back, on the data's background
    data, image = tifffile.imread(files["2d"]).astype(float), tifffile.imread(tmp_path / "out" / "image.ome.tif")
    assert image.mean() == pytest.approx(data.mean(), rel=0.1)
    assert 0.5 < record["figures"]["chi2"] < 2


def test_the_shipped_prior_brings_the_image_closer_to_the_truth(obverse, files, tmp_path):
    command = ("reconstruct", files["2d"], "--psf", files["psf2d"], *CAMERA, "--method", "plug-and-play")
    done = obverse(*command, "-o", tmp_path / "out", "--json")
    assert done.code == 0, done.stderr
    data, image = tifffile.imread(files["2d"]), tifffile.imread(tmp_path / "out" / "image.ome.tif")
    missed = [1 - np.corrcoef(picture.ravel(), cells().ravel())[0, 1] for picture in (data, image)]
    assert missed[1] < 0.9 * missed[0]


def test_a_stack_is_denoised_plane_by_plane_and_the_user_is_told(obverse, files, weights, tmp_path):
    command = ("reconstruct", files["3d"], "--psf", files["psf3d"], *CAMERA, "--method", "plug-and-play")
    done = obverse(*command, "--set", f"prior={weights}", "--set", "iterations=2", "-o", tmp_path / "out", "--json")
    assert done.code == 0, done.stderr
    assert any("planes, not volumes" in sentence for sentence in done.answer["warnings"])
    flat = obverse("check", files["2d"], "--psf", files["psf2d"], "--set", "method=plug-and-play", "--json")
    assert not any("planes" in sentence for item in flat.answer["items"] for sentence in item["warnings"])


def test_the_weight_is_the_tuned_one_unless_given(obverse, files, weights):
    settings = microscopy.Settings(psf=files["psf2d"], method="plug-and-play", prior=str(weights), gain=1, read_noise=3)
    measurement = microscopy.measure(microscopy.read(files["2d"], settings), settings)
    assert microscopy.method(measurement, settings).weight == 0.6
    given = settings.model_copy(update={"weight": 0.5, "iterations": 3})
    assert (microscopy.method(measurement, given).weight, microscopy.method(measurement, given).iterations) == (0.5, 3)


def test_priors_that_will_not_do_are_refused(obverse, files, weights, tmp_path):
    command = ("reconstruct", files["2d"], "--psf", files["psf2d"], "--method", "plug-and-play", "-o", tmp_path / "out")
    none = obverse(*command, "--set", "prior=unheard-of")
    assert none.code == 2 and "expected a prior out of" in none.stderr
    missing = obverse(*command, "--set", "prior=nowhere.safetensors")
    assert missing.code == 2 and "nowhere.safetensors" in missing.stderr
    description = {"kind": "Preconditioned", "network": {"kind": "UNet", "inputs": 5, "outputs": 3, "widths": [2, 2]}}
    colour = tmp_path / "colour.safetensors"
    save(colour, build(description), {"network": description, "channels": 3})
    with pytest.raises(InputError, match="one channel"):
        micrograph_methods._denoiser(str(colour))
