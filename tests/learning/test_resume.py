"""Training that is killed goes on along the same curve, to the same weights, bit for bit."""

import random
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml

from obverse.errors import FormatError, InputError
from obverse.io.safe import read_safetensors, write_safetensors
from obverse.learning import Recipe
from obverse.learning.checkpoint import load_checkpoint
from tests.learning.conftest import curve, trained

STEPS = 30

# Trains with a checkpoint a step, as often as it is told to on standard input: one import of torch for all trainings.
PROGRAM = """
import os, sys
from pathlib import Path
import torch, torch._dynamo  # what the optimiser would otherwise import at its first step, in every child
from obverse.learning import read_recipe, train
torch.set_num_threads(1)
recipe = read_recipe(Path(sys.argv[1]))
for line in sys.stdin:
    if os.fork() == 0:
        print(os.getpid(), flush=True)
        train(recipe, Path(line.strip()), resume=True)
        os._exit(0)
    print(os.wait()[1], flush=True)
"""


@pytest.fixture
def program(recipe, tmp_path):
    recipe |= {"checkpoint_seconds": 0.0, "steps": STEPS}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "tiny.yaml")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        yield running
        running.stdin.close()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system knows no SIGKILL")
def test_five_kills_change_neither_the_curve_nor_the_weights(program, tmp_path):
    import os

    straight, killed = tmp_path / "straight", tmp_path / "killed"
    log, moments, reached = killed / "metrics.jsonl", random.Random(0), []
    for kill in (None, 0, 1, 2, 3, 4, None):
        program.stdin.write(f"{killed if kill is not None or reached else straight}\n")
        program.stdin.flush()
        child = int(program.stdout.readline())
        if kill is not None:
            _wait_for(log, 3 * kill + 2)
            time.sleep(moments.uniform(0.0, 0.01))  # anywhere in a step, or in the writing of a checkpoint
            os.kill(child, signal.SIGKILL)
            reached.append(_lines(log))
        assert int(program.stdout.readline()) == (0 if kill is None else signal.SIGKILL)
    assert len(reached) == 5 and 0 < reached[0] and reached[-1] < STEPS, "a kill before the first step, or after all"
    assert len(curve(killed)) == STEPS and curve(killed) == curve(straight)
    assert curve(killed, "psnr_25") == curve(straight, "psnr_25")
    assert _weights(killed) == _weights(straight)
    assert {path.name for path in killed.iterdir()} == {path.name for path in straight.iterdir()}


def test_without_the_moments_the_curve_would_change(recipe, tmp_path, monkeypatch):
    """Negative control: the comparison above notices a resumption that forgets something."""
    whole = _interrupted(recipe, tmp_path / "whole", 6)
    bare = _interrupted(recipe, tmp_path / "bare", 6)
    arrays, metadata = read_safetensors(bare / "checkpoint.safetensors")
    kept = {name: value for name, value in arrays.items() if not name.startswith("optimiser/")}
    assert len(kept) < len(arrays)
    write_safetensors(bare / "checkpoint.safetensors", kept, metadata, overwrite=True)
    for folder in (whole, bare, tmp_path / "straight"):
        trained(recipe, folder, resume=True)
    assert curve(whole) == curve(tmp_path / "straight")
    assert curve(bare)[:8] == curve(whole)[:8] and curve(bare) != curve(whole)


def test_steps_beyond_the_checkpoint_are_cut_from_the_record(recipe, tmp_path):
    trained(recipe, tmp_path / "straight")
    folder = _interrupted(recipe, tmp_path / "cut", 6)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "loss": 1e9}\n{"step": 9, "lo')
    trained(recipe, folder, resume=True)
    assert curve(folder) == curve(tmp_path / "straight")


def test_what_a_killed_write_left_behind_is_cleared_away(recipe, tmp_path):
    folder = _interrupted(recipe, tmp_path / "a", 3)
    (folder / ".checkpoint.safetensors.0123456789ab.part").write_bytes(b"half a check")
    trained(recipe, folder, resume=True)
    assert {path.name for path in folder.iterdir()} == {"checkpoint.safetensors", "metrics.jsonl", "tiny.safetensors"}


def test_a_checkpoint_is_as_the_recipe_and_whole_or_refused(recipe, tmp_path):
    folder = _interrupted(recipe, tmp_path / "a", 3)
    before = (folder / "checkpoint.safetensors").read_bytes()
    with pytest.raises(InputError, match="seed"):
        trained(recipe | {"seed": 1}, folder, resume=True)
    with pytest.raises(InputError, match="--resume"):
        trained(recipe, folder)
    assert (folder / "checkpoint.safetensors").read_bytes() == before
    for at in (9, 200, len(before) // 2, len(before) - 1):
        (folder / "checkpoint.safetensors").write_bytes(before[:at] + bytes([before[at] ^ 1]) + before[at + 1 :])
        with pytest.raises(FormatError):
            trained(recipe, folder, resume=True)
    write_safetensors(folder / "checkpoint.safetensors", {}, {"state": "[]"}, overwrite=True)
    with pytest.raises(FormatError, match="state"):
        trained(recipe, folder, resume=True)


def test_a_setting_that_a_newer_version_adds_counts_with_its_default(recipe, tmp_path):
    import json

    folder = _interrupted(recipe, tmp_path / "a", 3)
    arrays, metadata = read_safetensors(folder / "checkpoint.safetensors")
    state = json.loads(metadata["state"])
    del state["recipe"]["shard"], state["recipe"]["patience"]
    write_safetensors(folder / "checkpoint.safetensors", arrays, {"state": json.dumps(state)}, overwrite=True)
    trained(recipe, folder, resume=True)
    trained(recipe, tmp_path / "straight")
    assert curve(folder) == curve(tmp_path / "straight")


def test_loading_needs_every_weight(recipe, tmp_path):
    from obverse.learning.loop import _begin
    from obverse.learning.parallel import Processes

    folder, alone = _interrupted(recipe, tmp_path / "a", 3), Processes(0, 1, torch.device("cpu"))
    path = folder / "checkpoint.safetensors"
    arrays, metadata = read_safetensors(path)
    del arrays["network/network.head.weight"]
    write_safetensors(path, arrays, metadata, overwrite=True)
    with pytest.raises(FormatError, match="head"):
        load_checkpoint(path, _begin(Recipe(**recipe), alone), Recipe(**recipe), alone)


def _interrupted(recipe, folder, step):
    """A folder in which training was interrupted after the step that follows a step."""

    def stop(now, steps, loss):
        if now == step:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt, match="--resume"):
        trained(recipe, folder, callback=stop)
    return folder


def _wait_for(log, lines):
    for _ in range(30_000):
        if _lines(log) >= lines:
            return
        time.sleep(0.002)
    raise AssertionError("training did not get on within a minute")


def _lines(log):
    return len(log.read_text().splitlines()) if log.exists() else 0


def _weights(folder):
    return {name: array.tobytes() for name, array in read_safetensors(folder / "tiny.safetensors")[0].items()}
