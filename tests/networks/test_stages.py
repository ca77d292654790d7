"""Stages: the schedule starts where plug-and-play methods have it, follows the noise, and stays positive."""

import pytest
import torch

import obverse as ob
from obverse.errors import InputError
from obverse.networks import Stages


def description(**settings):
    unet = {"kind": "UNet", "inputs": 3, "outputs": 1, "widths": [3], "blocks": 1}
    return {"kind": "Stages", "network": {"kind": "Preconditioned", "network": unet}} | settings


def test_levels_fall_from_the_top_to_the_noise():
    stages = ob.networks.build(description(stages=5, top=0.2, final=2.0))
    sigma = torch.tensor([0.01, 0.05])
    levels = torch.stack([stages.schedule(k, sigma)[1] for k in range(5)])
    assert torch.allclose(levels[0], torch.tensor(0.2)) and torch.allclose(levels[-1], 2 * sigma)
    assert bool((levels.diff(dim=0) < 0).all())
    assert [stages.schedule(k, sigma)[0].item() for k in range(5)] == [1.0] * 5


@pytest.mark.parametrize("drift", [-30.0, 3.0])
def test_steps_and_levels_stay_positive_wherever_training_goes(drift):
    stages = ob.networks.build(description(stages=2))
    with torch.no_grad():
        for parameter in (stages.slope, stages.offset, stages.log_step):
            parameter.add_(drift)
    step, level = stages.schedule(1, torch.tensor([1e-9, 0.1]))
    assert step.item() > 0 and level.min().item() > 0


def test_own_weights_differ_and_shared_ones_are_one():
    own = ob.networks.build(description(stages=3, shared=False))
    shared = ob.networks.build(description(stages=3, shared=True))
    count = sum(p.numel() for p in shared.networks.parameters())
    assert sum(p.numel() for p in own.networks.parameters()) == 3 * count
    heads = [network.network.head.weight for network in own.networks]
    assert not torch.equal(heads[0], heads[1]) and not torch.equal(heads[1], heads[2])
    x, level = torch.rand(1, 1, 8, 8), torch.tensor([0.1])
    assert not torch.equal(own(0, x, level), own(1, x, level))
    assert torch.equal(shared(0, x, level), shared(1, x, level))


def test_a_small_gain_leaves_only_the_skip():
    x, level = torch.rand(1, 1, 8, 8), torch.tensor([0.25])
    shrunk = 0.5 + (x - 0.5) / (1 + 1 / 4**4)  # Preconditioned's skip at a level equal to the images' deviation
    assert torch.allclose(ob.networks.build(description(gain=1e-7))(0, x, level), shrunk, atol=1e-5)
    assert not torch.allclose(ob.networks.build(description())(0, x, level), shrunk, atol=1e-3)


def test_survives_a_file(tmp_path):
    made = description(stages=3, shared=False)
    stages = ob.networks.build(made)
    ob.networks.save(tmp_path / "a.safetensors", stages, {"network": made})
    again, _ = ob.networks.load(tmp_path / "a.safetensors")
    x, level = torch.rand(1, 1, 8, 8), torch.tensor([0.1])
    assert torch.equal(again(2, x, level), stages(2, x, level))


def test_what_makes_no_sense_is_refused():
    network = ob.networks.build(description()["network"])
    with pytest.raises(InputError, match="one stage"):
        Stages(network, stages=0)
    with pytest.raises(InputError, match="positive levels"):
        Stages(network, top=0.0)
