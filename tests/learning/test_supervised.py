"""Supervised training on simulated data: the same items however they are grouped, and a loss that falls."""

import math

import numpy as np
import pytest
import torch

import obverse as ob
from obverse.errors import InputError, NumericsError
from obverse.learning.blurs import gaussian_kernel, motion_kernel, stretched
from obverse.learning.data import Crops, places
from obverse.learning.objectives import make_objective
from obverse.learning.simulation import Simulation
from obverse.noise.base import stream

BLUR = {"kind": "Blur", "motion": [0.5, 1.0], "gaussian": [0.5, 1.0], "size": 7}
NOISE = {"kind": "Gaussian", "sigma": [0.02, 0.04]}
CPU = torch.device("cpu")


def width(kernel):
    axis = torch.arange(len(kernel), dtype=torch.float64)
    centres = [(kernel.sum(1 - i) * axis).sum() for i in (0, 1)]
    return math.sqrt(sum(float((kernel.sum(1 - i) * (axis - c) ** 2).sum()) for i, c in enumerate(centres)) / 2)


def network(stages=2, gain=1.0, final=1.0):
    torch.manual_seed(0)
    unet = {"kind": "UNet", "inputs": 3, "outputs": 1, "widths": [4, 6], "blocks": 1}
    one = {"kind": "Preconditioned", "network": unet}
    return ob.networks.build(
        {"kind": "Stages", "stages": stages, "gain": gain, "final": final, "network": one} if stages else one
    )


def images():
    generator = torch.Generator().manual_seed(0)
    return Crops([torch.rand(1, 20, 24, generator=generator).cumsum(-1) / 24 for _ in range(4)], 16)


def objective(kind="Unrolled", **settings):
    return make_objective({"kind": "Supervised", "method": {"kind": kind}, "operator": BLUR, "noise": NOISE} | settings)


def test_kernels_have_the_width_asked_for_and_sum_to_one():
    for kernel, expected in (
        (gaussian_kernel(1.5, 21), 1.5),
        (motion_kernel(3.0, 31, stream(0, 0)), math.sqrt(3.0**2 / 2 + 0.6**2)),
    ):
        assert float(kernel.sum()) == pytest.approx(1.0, abs=1e-5) and float(kernel.min()) >= 0
        assert width(kernel) == pytest.approx(expected, rel=0.05)
    assert width(motion_kernel(2.0, 31, stream(0, 0))) < 0.8 * width(motion_kernel(3.0, 31, stream(0, 0)))


@pytest.mark.parametrize("factor", [0.8, 1.0, 1.2])
def test_a_stretched_kernel_is_wider_by_its_factor(factor):
    kernel = gaussian_kernel(2.0, 21)
    found = stretched(kernel, factor)
    assert float(found.sum()) == pytest.approx(1.0, abs=1e-5) and len(found) % 2 == 1
    assert width(found) == pytest.approx(2.0 * factor, rel=0.05)
    spike = torch.zeros(5, 5)
    spike[1, 4] = 1.0  # one row above the middle and two columns beyond: where it goes is the stretch of that
    found, middle = stretched(spike, factor), len(stretched(spike, factor)) // 2
    axis = torch.arange(len(found)) - middle
    assert float((found.sum(1) * axis).sum()) == pytest.approx(-factor, abs=1e-3)
    assert float((found.sum(0) * axis).sum()) == pytest.approx(2 * factor, abs=1e-3)


def test_what_is_drawn_follows_from_the_stream_alone():
    simulation = Simulation(BLUR, NOISE)
    first, again, other = (simulation.draw((1, 16, 16), stream(5, i)) for i in (0, 0, 1))
    x = torch.rand(1, 16, 16)
    assert torch.equal(first.operator(x), again.operator(x)) and first.noise == again.noise
    assert not torch.allclose(first.operator(x), other.operator(x)) and first.noise != other.noise
    assert 0.02 <= float(first.noise.variance(torch.zeros(1))) ** 0.5 <= 0.04


def test_operators_and_arrays_come_out_of_the_recipe(tmp_path, monkeypatch):
    monkeypatch.setenv("OBVERSE_DATA", str(tmp_path))
    np.savez(tmp_path / "kernels.npz", a=np.eye(3) / 3, b=np.ones((3, 3)) / 9)
    np.save(tmp_path / "mask.npy", np.eye(8)[None])
    blur = Simulation({"kind": "Blur", "kernels": "kernels.npz"}, NOISE)
    spike = torch.zeros(1, 8, 8)
    spike[0, 4, 4] = 1.0
    seen = {round(float(blur.draw((1, 8, 8), stream(0, i)).operator(spike).max()), 3) for i in range(12)}
    assert seen == {0.333, 0.111}
    mask = Simulation({"kind": "Mask", "mask": {"file": "mask.npy"}}, NOISE).draw((1, 8, 8), stream(0, 0))
    assert float(mask.operator(torch.ones(1, 8, 8)).sum()) == 8
    down = Simulation({"kind": "Downsample", "factor": 2}, {"kind": "Poisson", "gain": 0.1})
    assert down.draw((1, 8, 8), stream(0, 0)).operator.data_shape == (1, 4, 4)
    for operator, noise, message in (
        ({"kind": "Lens"}, NOISE, "Lens"),
        (BLUR, {"kind": "Pink"}, "Pink"),
        ({"kind": "Blur"}, NOISE, "motion"),
        ({"kind": "Blur", "kernels": "none.npz"}, NOISE, "none.npz"),
    ):
        with pytest.raises(InputError, match=message):
            Simulation(operator, noise)


@pytest.mark.parametrize("kind", ["Unrolled", "Network", "Equilibrium"])
def test_loss_of_a_batch_is_the_mean_over_its_shares(kind):
    stages = {"Unrolled": 2, "Network": 0, "Equilibrium": 1}[kind]
    method = {"kind": kind} | ({"tolerance": 1e-5} if kind == "Equilibrium" else {})
    one, net = objective(method=method), network(stages)
    with torch.no_grad():
        whole = one.loss(net, images(), places(4, 8, 4, 0), CPU)
        halves = [one.loss(net, images(), places(4, first, 2, 0), CPU) for first in (8, 10)]
        other = one.loss(net, images(), places(4, 12, 4, 0), CPU)
    assert float(whole) == pytest.approx(float(sum(halves)) / 2, rel=1e-4)
    assert float(whole) != pytest.approx(float(other), rel=1e-4)


def test_training_lowers_the_error_and_the_file_becomes_a_method(tmp_path, monkeypatch):
    from PIL import Image

    from obverse.learning import Recipe, train

    rng = np.random.default_rng(0)
    for folder in ("train", "val"):
        (tmp_path / folder).mkdir()
        for i in range(3):
            steps = np.cumsum(rng.random((24, 24)) < 0.1, axis=1) * 16
            Image.fromarray(steps.clip(0, 255).astype(np.uint8)).save(tmp_path / folder / f"{i}.png")
    monkeypatch.setenv("OBVERSE_DATA", str(tmp_path))
    unet = {"kind": "UNet", "inputs": 3, "outputs": 1, "widths": [4], "blocks": 1}
    settings = {
        "name": "tiny",
        "network": {"kind": "Stages", "stages": 2, "network": {"kind": "Preconditioned", "network": unet}},
        "objective": {"kind": "Supervised", "method": {"kind": "Unrolled", "scheme": "modl"}, "operator": BLUR}
        | {"noise": NOISE},
        "data": {"train": "train", "validation": "val", "crop": 16, "validation_crop": 16, "licence": "none"},
        "batch": 2,
        "steps": 60,
        "rate": 5.0e-3,
        "warmup": 2,
        "average": 0.5,
        "precision": "float32",
    }
    path = train(Recipe(**settings), tmp_path / "out")
    method = ob.methods.Unrolled.load(path)
    assert method.scheme == "modl" and method.card["name"] == "tiny"
    one = make_objective(settings["objective"])
    torch.manual_seed(0)
    data = Crops([torch.from_numpy(np.array(Image.open(tmp_path / "val" / f"{i}.png")))[None] for i in range(3)], 16)
    with torch.no_grad():
        before = one.validate(ob.networks.build(settings["network"]), data, CPU)["psnr"]
        after = one.validate(method.network, data, CPU)["psnr"]
    assert after > before + 1
    with pytest.raises(InputError, match="Unrolled"):
        ob.methods.Network.load(path)


def test_a_jacobian_penalty_adds_to_the_loss():
    method = {"kind": "Equilibrium", "tolerance": 1e-4}
    with torch.no_grad():
        plain = objective(method=method).loss(network(1, 0.1, 8.0), images(), places(4, 0, 2, 0), CPU)
    with_penalty = objective(method=method, jacobian=10.0).loss(network(1, 0.1, 8.0), images(), places(4, 0, 2, 0), CPU)
    assert with_penalty.item() > float(plain)
    with_penalty.backward()
    with pytest.raises(NumericsError, match="adjoint"):  # a stage of large weights has no fixed point to train at
        objective(method=method).loss(network(1, 30.0, 8.0), images(), places(4, 0, 2, 0), CPU).backward()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": {"kind": "MAP"}}, "MAP"),
        ({"method": {"kind": "Unrolled", "depth": 3}}, "depth"),
        ({"loss": "huber"}, "huber"),
        ({"jacobian": 1.0}, "Jacobian"),
    ],
)
def test_what_makes_no_sense_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        objective(**settings)
