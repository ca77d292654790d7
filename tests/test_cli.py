"""The command line, on real commands and real files: what it writes, prints and returns."""

import json

import numpy as np
import pytest
import tifffile

import obverse as ob
from tests.conftest import cells


def test_reconstruct_writes_what_it_says(obverse, files, tmp_path):
    out = tmp_path / "out"
    camera = ("--set", "gain=1", "--set", "read_noise=3")
    done = obverse("reconstruct", files["2d"], "--psf", files["psf2d"], "-o", out, "--json", "--rank", 5, *camera)
    assert done.code == 0, done.stderr
    names = {p.name for p in out.iterdir()}
    assert names == {
        "image.ome.tif",
        "std.ome.tif",
        "posterior.safetensors",
        "measurement.safetensors",
        "report.html",
        "run.json",
    }
    posterior = ob.Posterior.load(out / "posterior.safetensors")
    image, std = tifffile.imread(out / "image.ome.tif"), tifffile.imread(out / "std.ome.tif")
    np.testing.assert_allclose(image, posterior.mean[0].numpy(), rtol=1e-5)
    np.testing.assert_allclose(std, posterior.std[0].numpy(), rtol=1e-4)
    assert posterior.covariance.factors()[0].shape == (32 * 40, 5)
    record = json.loads((out / "run.json").read_text())
    assert record["seed"] == 0 and record["settings"]["rank"] == 5
    assert {item["role"] for item in record["inputs"]} == {"data", "psf"}
    assert done.answer["chi2"] == record["figures"]["chi2"]
    assert 0.5 < done.answer["chi2"] < 1.5
    assert done.answer["evaluations"] > 0 and done.answer["seconds"] > 0


def test_the_image_is_closer_to_the_truth_than_the_data(obverse, files, tmp_path):
    done = obverse("reconstruct", files["2d"], "--psf", files["psf2d"], "-o", tmp_path / "out")
    assert done.code == 0, done.stderr
    data, image = tifffile.imread(files["2d"]), tifffile.imread(tmp_path / "out" / "image.ome.tif")
    missed = [1 - np.corrcoef(picture.ravel(), cells().ravel())[0, 1] for picture in (data, image)]
    assert missed[1] < 0.85 * missed[0]


def test_three_dimensions(obverse, files, tmp_path):
    done = obverse("reconstruct", files["3d"], "--psf", files["psf3d"], "-o", tmp_path / "out", "--json")
    assert done.code == 0, done.stderr
    assert tifffile.imread(tmp_path / "out" / "std.ome.tif").shape == (12, 24, 28)
    assert json.loads((tmp_path / "out" / "run.json").read_text())["spacing"] == [None, 0.3, 0.1, 0.1]


@pytest.mark.parametrize("method", ["map", "richardson-lucy"])
def test_an_estimate_has_no_standard_deviation(obverse, files, tmp_path, method):
    done = obverse("reconstruct", files["2d"], "--psf", files["psf2d"], "-o", tmp_path / "out", "--method", method)
    assert done.code in (0, 4), done.stderr
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert "estimate.safetensors" in names and "std.ome.tif" not in names


def test_a_run_that_does_not_converge_says_so_and_ends_with_four(obverse, files, tmp_path):
    command = ("reconstruct", files["2d"], "--psf", files["psf2d"], "-o", tmp_path / "out")
    done = obverse(*command, "--method", "map", "--set", "iterations=2", "--set", "weight=0.01", "--json")
    assert done.code == 4 and done.answer["converged"] is False
    assert "not" in (tmp_path / "out" / "report.html").read_text()


def test_dry_run_writes_nothing(obverse, files, tmp_path):
    done = obverse("reconstruct", files["2d"], "--psf", files["psf2d"], "-o", tmp_path / "out", "--dry-run", "--json")
    assert done.code == 0 and done.answer["tiles"] == 1
    assert not (tmp_path / "out").exists()


def test_a_reference_gives_figures(obverse, files, tmp_path):
    done = obverse(
        "reconstruct", files["2d"], "--psf", files["psf2d"], "-o", tmp_path / "o", "--reference", files["2d"], "--json"
    )
    assert done.code == 0, done.stderr
    assert done.answer["correlation_before"] == pytest.approx(1.0)
    assert done.answer["correlation"] < 1.0


def test_config_reads_back(obverse, files, tmp_path):
    printed = obverse("config", "microscopy", "--set", "rank=9")
    assert printed.code == 0
    (tmp_path / "s.yaml").write_text(printed.stdout)
    done = obverse(
        "reconstruct", files["2d"], "--psf", files["psf2d"], "-o", tmp_path / "o", "--config", tmp_path / "s.yaml"
    )
    assert done.code == 0, done.stderr
    assert json.loads((tmp_path / "o" / "run.json").read_text())["settings"]["rank"] == 9


def test_check_says_what_was_understood(obverse, files):
    done = obverse("check", files["3d"], "--psf", files["psf3d"], "--json")
    assert done.code == 0, done.stderr
    item = done.answer["items"][0]
    assert item["axes"] == "ZYX" and item["spacing"] == [0.3, 0.1, 0.1]
    assert {"background", "gain", "read_noise"} <= set(item["facts"])


def test_check_prints_a_short_readable_list(obverse, files):
    command = ("check", files["3d"], "--psf", files["psf3d"])
    dry = ("reconstruct", files["3d"], "--psf", files["psf3d"], "-o", "unused", "--dry-run")
    for printed in (obverse(*command), obverse(*dry)):
        assert printed.code == 0 and "spectrum" not in printed.stdout
        lines = printed.stdout.splitlines()
        figures = [line for line in lines if not line.startswith("  warning: ")]
        assert len(figures) < 15 and max(map(len, figures)) < 140
        for word in ("axes", "voxel size", "PSF", "background", "gain", "read noise", "rank", "tiles", "memory"):
            assert sum(line.strip().startswith(word) for line in lines) == 1, word
    assert "spectrum" in obverse(*command, "--json").answer["items"][0]["facts"]["prior"]


def test_check_takes_a_folder_of_files(obverse, files, tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.tif").write_bytes(files["2d"].read_bytes())
    done = obverse("check", tmp_path, "--psf", files["psf2d"], "--json")
    assert done.code == 0
    assert [item["input"].rsplit("/", 1)[-1] for item in done.answer["items"]] == ["a.tif", "b.tif"]
    (tmp_path / "c.tif").write_bytes(b"II")
    bad = obverse("check", tmp_path, "--psf", files["psf2d"], "--json")
    assert bad.code == 2 and [("error" in item) for item in bad.answer["items"]] == [False, False, True]
    (tmp_path / "empty").mkdir()
    assert obverse("check", tmp_path / "empty").code == 2


def test_check_verifies_a_finished_run(obverse, files, tmp_path):
    out = tmp_path / "out"
    assert obverse("reconstruct", files["2d"], "--psf", files["psf2d"], "-o", out).code == 0
    assert obverse("check", out).code == 0
    assert obverse("report", out).code == 0
    image = (out / "image.ome.tif").read_bytes()
    (out / "image.ome.tif").write_bytes(image[:-1] + bytes([image[-1] ^ 1]))
    assert obverse("check", out).code == 2
    refused = obverse("report", out)
    assert refused.code == 2 and "image.ome.tif" in refused.stderr


def test_doctor_finds_this_installation_healthy(obverse):
    done = obverse("doctor", "--json")
    assert done.code == 0, done.stdout
    assert set(done.answer["tests"].values()) == {"passed"}


def test_doctor_reports_a_sick_one(obverse, monkeypatch):
    def broken(*_, **__):
        raise ArithmeticError("adjoint is off by 3")

    monkeypatch.setattr("obverse.operators.check", broken)
    done = obverse("doctor", "--json")
    assert done.code == 2 and "off by 3" in done.answer["tests"]["adjoint"]


def test_tiles_give_what_the_whole_gives(obverse, files, tmp_path):
    command = ("reconstruct", files["2d"], "--psf", files["psf2d"], "--json")
    whole = obverse(*command, "-o", tmp_path / "whole")
    budget = tiled_budget(obverse, files)
    tiled = obverse(*command, "-o", tmp_path / "tiled", "--memory", budget)
    assert whole.code == tiled.code == 0, tiled.stderr
    assert any("tiles" in warning for warning in tiled.answer["warnings"])
    for name, tolerance in (("image", 0.05), ("std", 0.1)):
        a = tifffile.imread(tmp_path / "whole" / f"{name}.ome.tif")
        b = tifffile.imread(tmp_path / "tiled" / f"{name}.ome.tif")
        assert np.linalg.norm(a - b) <= tolerance * np.linalg.norm(a), name
    posterior = ob.Posterior.load(tmp_path / "tiled" / "posterior.safetensors")
    np.testing.assert_allclose(posterior.std[0].numpy(), b, rtol=1e-4)


def test_an_interrupted_run_resumes_to_the_same_result(obverse, files, tmp_path, monkeypatch):
    from obverse.run import engine

    budget = tiled_budget(obverse, files)
    command = ("reconstruct", files["2d"], "--psf", files["psf2d"], "--memory", budget)
    assert obverse(*command, "-o", tmp_path / "straight").code == 0
    original, calls = engine._tile, []

    def interrupted(run, tile, *more):
        calls.append(tile.index)
        if tile.index == 1:
            raise KeyboardInterrupt
        return original(run, tile, *more)

    monkeypatch.setattr(engine, "_tile", interrupted)
    stopped = obverse(*command, "-o", tmp_path / "resumed")
    assert stopped.code == 130 and "--resume" in stopped.stderr
    assert {p.name for p in (tmp_path / "resumed").iterdir()} == {".work"}
    monkeypatch.setattr(engine, "_tile", original)
    computed = []
    monkeypatch.setattr(engine, "load_instrument", counting(engine.load_instrument, computed))
    assert obverse(*command, "-o", tmp_path / "resumed", "--resume").code == 0
    assert computed and 0 not in computed
    for name in ("image.ome.tif", "std.ome.tif", "measurement.safetensors"):
        assert (tmp_path / "straight" / name).read_bytes() == (tmp_path / "resumed" / name).read_bytes()


def counting(load, computed):
    """An instrument that notes the seed (here the tile's index) of every method it makes."""

    class Counted:
        def __init__(self, module):
            self.module = module

        def __getattr__(self, name):
            return getattr(self.module, name)

        def method(self, measurement, settings, seed):
            computed.append(seed)
            return self.module.method(measurement, settings, seed)

    return lambda name: Counted(load(name))


def tiled_budget(obverse, files):
    """A memory budget that just does not hold the 2-D micrograph."""
    plan = obverse("reconstruct", files["2d"], "--psf", files["psf2d"], "-o", "unused", "--dry-run", "--json").answer
    return f"{plan['expected memory'] - 1000}B"
