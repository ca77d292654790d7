"""The training loop: its schedule, its stops, and what it does when the numbers go wrong."""

import json
import math

import pytest
import torch

from obverse.errors import InputError, NumericsError
from obverse.io.safe import read_safetensors, sha256
from obverse.learning import Recipe
from obverse.learning.loop import learning_rate
from obverse.learning.muon import Muon
from obverse.learning.objectives import OBJECTIVES, Denoising, Objective
from obverse.networks import build, load
from tests.learning.conftest import curve, trained


def test_the_rate_rises_to_its_highest_and_falls_to_zero(recipe):
    plan = Recipe(**recipe | {"steps": 50, "warmup": 10, "rate": 0.2})
    rates = [learning_rate(plan, step) for step in range(50)]
    assert rates[:10] == pytest.approx([0.02 * (k + 1) for k in range(10)])
    assert rates[10] == 0.2 and rates[30] == pytest.approx(0.1)
    assert all(a > b for a, b in zip(rates[10:], rates[11:])) and 0 < rates[-1] < 0.001
    assert learning_rate(plan, 50) == pytest.approx(0, abs=1e-12)


def test_the_rate_of_a_step_is_the_optimisers(recipe, tmp_path, monkeypatch):
    used, original = [], Muon.step

    def noted(self, *arguments):
        used.append(self.param_groups[0]["lr"])
        return original(self, *arguments)

    monkeypatch.setattr(Muon, "step", noted)
    trained(recipe, tmp_path)
    assert used == [learning_rate(Recipe(**recipe), step) for step in range(12)]


def test_the_gradient_is_clipped(recipe, tmp_path, monkeypatch):
    norms, original = [], Muon.step

    def noted(self, *arguments):
        gradients = [p.grad for group in self.param_groups for p in group["params"]]
        norms.append(float(torch.stack([g.norm() for g in gradients]).norm()))
        return original(self, *arguments)

    monkeypatch.setattr(Muon, "step", noted)
    trained(recipe | {"clip": 0.01}, tmp_path)
    assert max(norms) <= 0.01 * (1 + 1e-4)
    assert max(curve(tmp_path, "gradient")) > 0.01, "nothing had to be clipped, so the test shows nothing"


def test_the_weights_are_the_running_mean(recipe, tmp_path):
    """Followed by hand from the network's own path, with a decay that grows from 1/10."""
    path, original = [], Muon.step

    def noted(self, *arguments):
        found = original(self, *arguments)
        path.append(self.param_groups[0]["params"][0].detach().clone())
        return found

    torch.manual_seed(0)
    mean = next(build(recipe["network"]).parameters()).detach().clone()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Muon, "step", noted)
        weights = trained(recipe | {"average": 0.4}, tmp_path)
    for step, now in enumerate(path):
        decay = min(0.4, (1 + step) / (10 + step))
        mean = decay * mean + (1 - decay) * now
    torch.testing.assert_close(next(load(weights)[0].parameters()), mean)
    assert not torch.allclose(mean, path[-1])


def test_training_restores_better(recipe, tmp_path):
    trained(recipe | {"steps": 40, "rate": 1e-2, "average": 0.8, "validate_every": 1}, tmp_path)
    decibels = curve(tmp_path, "psnr_50")
    assert decibels[-1] > decibels[0] + 2


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_same_recipe_gives_the_same_weights(recipe, tmp_path, precision):
    recipe |= {"precision": precision, "steps": 4}
    first, second = trained(recipe, tmp_path / "a"), trained(recipe, tmp_path / "b")
    other = trained(recipe | {"seed": 1}, tmp_path / "c")
    a, b, c = (
        {name: array.tobytes() for name, array in read_safetensors(p)[0].items()} for p in (first, second, other)
    )
    assert a == b and a != c


class Falling(Denoising):
    """Denoising whose validation is as the class says."""

    figures: list[float] = []

    def validate(self, network, data, device):
        weight = float(next(network.parameters()).flatten()[0])
        return {"psnr_25": self.figures.pop(0) if self.figures else -math.inf, "weight": weight}


def test_it_stops_early_and_keeps_the_best_weights(recipe, tmp_path, monkeypatch):
    monkeypatch.setitem(OBJECTIVES, "Falling", Falling)
    monkeypatch.setattr(Falling, "figures", [20.0, 25.0, 24.0, 23.0, 22.0, 21.0])
    weights = trained(
        recipe | {"objective": {"kind": "Falling"}, "steps": 40, "validate_every": 2, "patience": 3}, tmp_path
    )
    assert len(curve(tmp_path)) == 10, "best at step 4, then three validations without progress"
    network, card = load(weights)
    assert card["steps"] == 10
    assert (
        float(next(network.parameters()).flatten()[0]) == curve(tmp_path, "weight")[1] != curve(tmp_path, "weight")[4]
    )


def test_without_patience_it_goes_on_to_the_end(recipe, tmp_path, monkeypatch):
    monkeypatch.setitem(OBJECTIVES, "Falling", Falling)
    monkeypatch.setattr(Falling, "figures", [20.0 - k for k in range(6)])
    weights = trained(recipe | {"objective": {"kind": "Falling"}, "validate_every": 2}, tmp_path)
    assert len(curve(tmp_path)) == 12
    assert float(next(load(weights)[0].parameters()).flatten()[0]) == curve(tmp_path, "weight")[-1]


class Exploding(Denoising):
    """Denoising that comes to no number at the fifth step."""

    steps = 0

    def loss(self, network, data, batch, device):
        Exploding.steps += 1
        return super().loss(network, data, batch, device) * (math.nan if Exploding.steps == 5 else 1.0)


def test_a_loss_that_is_no_number_ends_with_the_last_checkpoint_intact(recipe, tmp_path, monkeypatch):
    monkeypatch.setitem(OBJECTIVES, "Exploding", Exploding)
    monkeypatch.setattr(Exploding, "steps", 0)
    recipe |= {"objective": {"kind": "Exploding"}, "checkpoint_seconds": 0.0}
    with pytest.raises(NumericsError, match=r"^expected a finite gradient, got nan at step 4; lower the rate or clip$"):
        trained(recipe, tmp_path / "a")
    arrays, metadata = read_safetensors(tmp_path / "a" / "checkpoint.safetensors")
    assert json.loads(metadata["state"])["step"] == 4
    assert all(bool(torch.from_numpy(array).isfinite().all()) for array in arrays.values())
    trained(recipe, tmp_path / "a", resume=True)
    monkeypatch.setattr(Exploding, "steps", 100)
    trained(recipe, tmp_path / "straight")
    assert curve(tmp_path / "a") == curve(tmp_path / "straight")


def test_it_starts_from_weights_that_fit(recipe, tmp_path):
    first = trained(recipe | {"average": 0.0}, tmp_path / "a")
    start = {"start": str(first), "steps": 1, "rate": 1e-30, "warmup": 0, "average": 0.0}
    again = trained(recipe | start, tmp_path / "b")
    assert load(first)[1]["start"] is None
    assert load(again)[1]["start"] == {"name": first.name, "sha256": sha256(first)}
    for one, two in zip(load(first)[0].parameters(), load(again)[0].parameters(), strict=True):
        torch.testing.assert_close(one, two)
    other = {
        "kind": "Preconditioned",
        "network": {"kind": "UNet", "inputs": 3, "outputs": 1, "widths": [4], "blocks": 1},
    }
    with pytest.raises(InputError, match="start"):
        trained(recipe | start | {"network": other}, tmp_path / "c")


def test_objectives_fit_the_protocol():
    assert isinstance(Denoising(), Objective)
    assert not isinstance(object(), Objective)
