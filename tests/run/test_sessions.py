"""Interrupted and finished runs: what is stored of them, and that resuming needs nothing but the same command."""

import json
import shutil

import pytest

from obverse.run import engine
from obverse.run.store import Session, Store, interrupted

RUN = {"inputs": ["a"], "seed": 0}
CAMERA = ("--set", "gain=1", "--set", "read_noise=3", "--method", "richardson-lucy")


def test_the_session_is_kept_until_the_run_is_done(tmp_path):
    assert interrupted(tmp_path / "out") is None
    store = Store(tmp_path / "out", RUN)
    store.note(Session("now", 10**9, 2.5))
    assert interrupted(tmp_path / "out") == Session("now", 10**9, 2.5)
    (store.work / "session.json").write_text("[")
    assert interrupted(tmp_path / "out") is None
    store.abandon(Session("now", 10**9, 3.5))
    assert list(tmp_path.iterdir()) == []  # a session alone is nothing to keep
    store = Store(tmp_path / "out", RUN)
    (store.work / "0000.arrays.safetensors").write_bytes(b"tile")
    store.abandon(Session("now", 10**9, 3.5))
    assert interrupted(tmp_path / "out") == Session("now", 10**9, 3.5)


@pytest.fixture
def stopped(obverse, files, tmp_path, monkeypatch):
    """A tiled run that was stopped after its first tile; the command without `--memory`, and its folder."""
    command = ("reconstruct", files["2d"], "--psf", files["psf2d"], *CAMERA)
    plan = obverse(*command, "-o", "unused", "--dry-run", "--json").answer
    original = engine._tile

    def interrupt(run, tile, *more):
        if tile.index == 1:
            raise KeyboardInterrupt
        return original(run, tile, *more)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "_tile", interrupt)
        budget = f"{plan['expected memory'] - 1000}B"
        assert obverse(*command, "-o", tmp_path / "out", "--memory", budget).code == 130
    return command, tmp_path / "out"


def test_resuming_needs_no_memory_and_adds_up_the_time(obverse, stopped):
    command, out = stopped
    session = json.loads((out / ".work" / "session.json").read_text())
    assert session["seconds"] > 0
    (out / ".work" / "session.json").write_text(json.dumps(session | {"seconds": 1000.0, "started": "then"}))
    done = obverse(*command, "-o", out, "--resume", "--json")
    assert done.code == 0, done.stderr
    record = json.loads((out / "run.json").read_text())
    assert record["tiles"] == 2 and record["started"] == "then"
    assert 1000 < record["seconds"] < 2000 and done.answer["seconds"] == record["seconds"]


def test_resuming_with_another_seed_is_still_refused(obverse, stopped):
    command, out = stopped
    refused = obverse(*command, "-o", out, "--resume", "--seed", "5")
    assert refused.code == 2 and "others" in refused.stderr


def test_a_batch_goes_on_after_its_finished_items(obverse, files, tmp_path):
    for name in ("a", "b"):
        shutil.copy(files["2d"], tmp_path / f"{name}.tif")
    command = ("--psf", files["psf2d"], *CAMERA, "-o", tmp_path / "out", "--json")
    assert obverse("reconstruct", tmp_path / "a.tif", tmp_path / "b.tif", *command).code == 0
    shutil.rmtree(tmp_path / "out" / "b")
    (tmp_path / "out" / "a" / "report.html").unlink()
    before = (tmp_path / "out" / "a" / "run.json").read_bytes()
    done = obverse("reconstruct", tmp_path / "a.tif", tmp_path / "b.tif", *command, "--resume")
    assert done.code == 0, done.stderr
    first, second = done.answer["items"]
    assert first["finished before"] and "finished before" not in second and done.answer["failed"] == []
    assert first["converged"] and first["chi2"] == second["chi2"]
    assert (tmp_path / "out" / "a" / "run.json").read_bytes() == before
    assert (tmp_path / "out" / "a" / "report.html").is_file()
    assert "nothing to resume" in done.stderr and "finished before" in done.stderr
    other = obverse("reconstruct", tmp_path / "a.tif", tmp_path / "b.tif", *command, "--resume", "--seed", "1")
    assert other.code == 3 and len(other.answer["failed"]) == 2  # another run is not taken for this one
    image = tmp_path / "out" / "a" / "image.ome.tif"
    image.write_bytes(image.read_bytes() + b"0")
    assert obverse("reconstruct", tmp_path / "a.tif", tmp_path / "b.tif", *command, "--resume").code == 3


def test_resuming_nothing_is_said_and_begins(obverse, files, tmp_path):
    command = ("reconstruct", files["2d"], "--psf", files["psf2d"], *CAMERA)
    done = obverse(*command, "-o", tmp_path / "a", "--resume", "--json")
    assert done.code == 0 and done.stderr.count("nothing to resume") == 1 and done.answer["converged"]
    assert "resume" not in obverse(*command, "-o", tmp_path / "b").stderr
