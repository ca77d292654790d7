"""`obverse train` on real files: what it writes, prints and returns."""

import json
import signal

import pytest

from obverse.networks import load
from tests.learning.conftest import curve


def test_train_writes_weights_with_a_card(obverse, recipe_file, tmp_path):
    out = tmp_path / "out"
    done = obverse("train", recipe_file, "-o", out, "--json")
    assert done.code == 0, done.stderr
    assert {path.name for path in out.iterdir()} == {"tiny.safetensors", "metrics.jsonl", "checkpoint.safetensors"}
    network, card = load(done.answer["weights"])
    assert card["steps"] == done.answer["steps"] == 12 and card["metrics"]["psnr_25"] == done.answer["psnr_25"]
    assert done.answer["parameters"] == card["parameters"] == sum(p.numel() for p in network.parameters())
    assert card["data"]["licence"] == "made for this test" and card["recipe"]["seed"] == 0
    assert len(curve(out)) == 12 and len(curve(out, "psnr_25")) == 3


def test_set_reaches_inside_the_recipe(obverse, recipe_file, tmp_path):
    command = ("train", recipe_file, "--json", "--set", "steps=2", "--set", "network.network.widths=[3]")
    done = obverse(*command, "-o", tmp_path / "out")
    assert done.code == 0, done.stderr
    assert load(done.answer["weights"])[1]["network"]["network"]["widths"] == [3]
    refused = obverse(*command, "-o", tmp_path / "new", "--set", "steps.x=1")
    assert refused.code == 2 and "steps" in refused.stderr


def test_dry_run_writes_nothing(obverse, recipe_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = obverse("train", recipe_file, "--dry-run", "--json")
    assert done.code == 0 and done.answer["training items"] == 7 and done.answer["steps"] == 12
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.yaml"}


@pytest.mark.parametrize(
    "start, told", [("natural-grey", "expected a prior out of"), ("natural-gray", "weights of the recipe's network")]
)
def test_dry_run_tells_of_a_start_that_training_could_not_take(obverse, recipe_file, start, told):
    done = obverse("train", recipe_file, "--dry-run", "--set", f"start={start}")
    assert done.code == 2 and told in done.stderr


def test_a_setting_of_unknown_name_is_answered_with_the_names(obverse, recipe_file):
    done = obverse("train", recipe_file, "--dry-run", "--set", "stepz=10")
    assert done.code == 2 and "out of name, description" in done.stderr and "got 'stepz'" in done.stderr


def test_an_earlier_training_is_neither_replaced_nor_mixed_up(obverse, recipe_file, tmp_path):
    command = ("train", recipe_file, "-o", tmp_path / "out")
    assert obverse(*command).code == 0
    before = curve(tmp_path / "out")
    refused = obverse(*command)
    assert refused.code == 2 and "--resume" in refused.stderr and "--overwrite" in refused.stderr
    other = obverse(*command, "--resume", "--set", "rate=0.1")
    assert other.code == 2 and "rate" in other.stderr
    assert obverse(*command, "--resume", "--overwrite").code == 2
    assert curve(tmp_path / "out") == before
    assert obverse(*command, "--overwrite", "--set", "steps=5").code == 0
    assert len(curve(tmp_path / "out")) == 5


@pytest.mark.parametrize(
    "setting, told",
    [
        ("steps=0", "steps"),
        ("data.train=/nowhere", "nowhere"),
        ("data.crop=64", "64"),
        ("objective.kind=Guessing", "Guessing"),
        ("objective.sigmas=3", "sigmas"),
        ("network.kind=Net", "Net"),
        ("network.network.depth=3", "depth"),
        ("unheard=1", "unheard"),
    ],
)
def test_a_bad_recipe_is_one_sentence_and_exit_code_two(obverse, recipe_file, tmp_path, setting, told):
    done = obverse("train", recipe_file, "-o", tmp_path / "out", "--set", setting, "--json")
    assert done.code == 2 and told in done.stderr and done.answer["exit_code"] == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_training_keeps_its_step_and_says_how_to_go_on(
    obverse, recipe_file, tmp_path, monkeypatch, number
):
    from obverse.run import progress

    class Stopping:
        def __init__(self, label):
            pass

        def __enter__(self):
            return lambda step, steps, loss: signal.raise_signal(number) if step == 5 else None  # the next is the last

        def __exit__(self, *_):
            pass

    command = ("train", recipe_file, "-o", tmp_path / "out")
    assert obverse("train", recipe_file, "-o", tmp_path / "straight").code == 0
    with monkeypatch.context() as patch:
        patch.setattr(progress, "progress", Stopping)
        stopped = obverse(*command, "--json")
    assert stopped.code == 130 and "--resume" in stopped.stderr and json.loads(stopped.stdout)["exit_code"] == 130
    assert len(curve(tmp_path / "out")) == 6 and not (tmp_path / "out" / "tiny.safetensors").exists()
    assert signal.getsignal(number) is not None and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert obverse(*command, "--resume").code == 0
    assert curve(tmp_path / "out") == curve(tmp_path / "straight")
