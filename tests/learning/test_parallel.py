"""Several processes take the steps that one would take."""

import json
import os
import subprocess
import sys
import time

import pytest
import torch
import yaml

from obverse.errors import InputError
from obverse.io.safe import read_safetensors
from obverse.learning.data import places
from obverse.learning.parallel import Processes
from tests.learning.conftest import curve, trained

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="this PyTorch has no distributed package")


def torchrun(recipe, folder):
    """Training by the command line in two processes."""
    (folder.parent / "parallel.yaml").write_text(yaml.safe_dump(recipe))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "obverse"]
    command += ["train", str(folder.parent / "parallel.yaml"), "-o", str(folder), "--json"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def assert_equal_trainings(one, two, figures=("loss", "gradient", "psnr_25")):
    for name in figures:
        assert curve(two, name) == pytest.approx(curve(one, name), rel=1e-5), name
    a, b = (read_safetensors(folder / "tiny.safetensors")[0] for folder in (one, two))
    for name in a:
        torch.testing.assert_close(torch.from_numpy(b[name]), torch.from_numpy(a[name]), rtol=1e-4, atol=1e-5)


def test_two_ranks_equal_one(recipe, tmp_path):
    recipe |= {"steps": 6, "validate_every": 3}
    with torchrun(recipe, tmp_path / "two") as running:
        answer, errors = running.communicate(timeout=240)
    assert running.returncode == 0, errors
    assert json.loads(answer)["steps"] == 6, "one process answers, once"
    trained(recipe, tmp_path / "one")
    assert_equal_trainings(tmp_path / "one", tmp_path / "two")
    # The same tolerance notices ranks that share their batch wrongly: here both would have taken the first half.
    trained(recipe | {"batch": 1}, tmp_path / "half")
    with pytest.raises(AssertionError):
        assert_equal_trainings(tmp_path / "one", tmp_path / "half")


def test_two_sharded_ranks_are_stopped_and_one_goes_on_alone(recipe, tmp_path):
    """Weights in parts on two ranks, a checkpoint that is whole: FSDP equals one process, before and after."""
    recipe |= {"steps": 30, "validate_every": 2, "shard": True}
    log = tmp_path / "two" / "metrics.jsonl"
    with torchrun(recipe | {"checkpoint_seconds": 0.0}, tmp_path / "two") as running:
        _wait_for(log, 4)
        running.terminate()
        errors = running.communicate(timeout=240)[1]
    assert running.returncode != 0
    state = json.loads(read_safetensors(tmp_path / "two" / "checkpoint.safetensors")[1]["state"])
    assert 4 <= state["step"] == len(curve(tmp_path / "two")) < 30, errors
    trained(recipe | {"checkpoint_seconds": 0.0}, tmp_path / "two", resume=True)
    trained(recipe | {"checkpoint_seconds": 1e9}, tmp_path / "one")
    assert_equal_trainings(tmp_path / "one", tmp_path / "two", ("loss", "psnr_25"))


def test_shares_make_up_the_batch():
    whole = places(7, 24, 8, seed=3)
    for count in (1, 2, 4, 8):
        parts = []
        for rank in range(count):
            offset, size = Processes(rank, count, torch.device("cpu")).share(8)
            parts += places(7, 24 + offset, size, seed=3)
        assert [p.index for p in parts] == [p.index for p in whole]
        assert [p.generator.initial_seed() for p in parts] == [p.generator.initial_seed() for p in whole]


def test_a_batch_that_cannot_be_shared_evenly_is_refused():
    with pytest.raises(InputError, match=r"^expected a batch that 3 processes can share evenly, got 8; change it$"):
        Processes(0, 3, torch.device("cpu")).share(8)


def _wait_for(log, lines):
    for _ in range(20_000):
        if log.exists() and len(log.read_text().splitlines()) >= lines:
            return
        time.sleep(0.01)
    raise AssertionError("training did not get on")
