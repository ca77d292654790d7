"""A micrograph with the uncertainty of a denoiser, from the command line to the report."""

import json

import numpy as np
import pytest
import tifffile
import torch

import obverse as ob
from obverse.instruments import micrograph_settings, microscopy

from .test_plug_and_play import weights  # noqa: F401

# Gaussian noise, so that a denoiser that is linear has a posterior in closed form.
CAMERA = ("--set", "gain=0", "--set", "read_noise=60")


def test_from_file_to_report(obverse, files, weights, tmp_path):  # noqa: F811
    command = ("reconstruct", files["2d"], "--psf", files["psf2d"], *CAMERA, "--method", "local-gaussian")
    command += ("--set", f"prior={weights}", "--set", "probes=8", "--rank", "2")
    done = obverse(*command, "-o", tmp_path / "out", "--json")
    assert done.code == 0, done.stderr
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["method"]["name"] == "LocalGaussian" and record["target"] == "posterior"
    assert record["method"]["denoiser"].startswith("shrink") and record["diagnostics"]["components_products"] > 0
    posterior = ob.Posterior.load(tmp_path / "out" / "posterior.safetensors")
    assert posterior.covariance.rank == 2 and np.array_equal(
        tifffile.imread(tmp_path / "out" / "std.ome.tif"), posterior.std[0].numpy()
    )
    assert "learnt from other pictures" in (tmp_path / "out" / "report.html").read_text()
    # D(x) = m + c (x − m): a white prior of precision (1/c − 1)/σ², so that Σ = (AᵀA/s² + that)⁻¹ is stationary.
    settings = microscopy.Settings(psf=files["psf2d"], gain=0, read_noise=60)
    measurement = microscopy.measure(microscopy.read(files["2d"], settings), settings)
    low, high = measurement.facts["prior"]["range"]
    sigma, scale = record["diagnostics"]["sigma"], measurement.scale
    c = 1 / (1 + (sigma / (high - low)) ** 4)  # the network's s is a quarter of its range
    seen = measurement.problem.operator.spectrum().abs().square().double() / (60 / scale) ** 2
    whole = torch.fft.irfftn(1 / (seen + (1 / c - 1) / sigma**2), s=measurement.y.shape[-2:])
    expected = scale * float(whole[..., 0, 0]) ** 0.5
    assert float(posterior.std.mean()) == pytest.approx(expected, rel=0.05)
    other = torch.fft.irfftn(1 / (seen + (1 / c - 1) / (1.3 * sigma) ** 2), s=measurement.y.shape[-2:])
    assert scale * float(other[..., 0, 0]) ** 0.5 != pytest.approx(expected, rel=0.05), "negative control"


def test_every_method_has_its_own_denoiser_unless_told(files):
    named = {
        method: micrograph_settings.chosen_prior(microscopy.Settings(method=method))
        for method in micrograph_settings.PRIORS
    }
    assert named == {"local-gaussian": "natural-gray-gradient", "plug-and-play": "microscopy"}
    told = microscopy.Settings(method="local-gaussian", prior="natural-gray")
    assert micrograph_settings.chosen_prior(told) == "natural-gray"
    assert microscopy.unused(microscopy.Settings(method="local-gaussian", weight=2.0, iterations=3)) == [
        "weight",
        "iterations",
    ]
    few = microscopy.Settings(psf=files["psf2d"], method="local-gaussian")
    assert microscopy.characterise(microscopy.read(files["2d"], few), few)["probes"] == 16


def test_progress_is_told_while_the_covariance_is_found(weights):  # noqa: F811
    denoiser = ob.priors.load(str(weights))
    problem = ob.Problem(ob.operators.Identity((1, 16, 16)), ob.noise.Gaussian(0.1))
    y, told = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(0)), []
    method = ob.methods.LocalGaussian(denoiser, sigma=0.2, rank=2, probes=8, max_iterations=37)
    posterior = method(y, problem, callback=lambda *step: told.append(step))
    assert {37, 240} <= {total for _, total, _ in told}, "solves and the search for components"
    count = len(told)
    posterior.covariance.matvec(y)
    assert len(told) == count, "later products are not this method's progress"
