"""A survey of regularisers: its members are the MAP images that it says, and its spread is called what it is."""

import time

import pytest
import torch

import obverse as ob
from obverse.errors import InputError
from obverse.posterior.spread import spread_covariance
from tests.posterior.cases import normal

SHAPE = (1, 4, 5)
PROBLEM = ob.Problem(ob.operators.Identity(SHAPE), ob.noise.Gaussian(0.5))


def test_members_are_the_closed_form_images_of_the_recorded_draws():
    """Denoising by ½w‖x‖² is y/(1 + w s²): every draw can be written down."""
    y = normal(*SHAPE)
    method = ob.methods.RegulariserSampling([(ob.priors.Tikhonov(), 0.5, 50.0)], draws=12, tolerance=1e-10)
    found = method(y, PROBLEM)
    record = found.diagnostics["drawn"]
    images = torch.stack([y / (1 + one["weight"] * 0.25) for one in record])
    assert torch.allclose(found.mean, images.mean(0), atol=1e-8)
    assert torch.allclose(found.covariance.dense(), spread_covariance(images).dense(), atol=1e-8)
    assert found.target == "epistemic" and found.covariance.rank == 1  # all lie on one line
    logs = torch.tensor([one["weight"] for one in record]).log()
    assert float(logs.min()) >= -0.7 and float(logs.max()) <= 3.92 and float(logs.std()) > 0.5


def test_types_are_drawn_too():
    some = [(ob.priors.Tikhonov(), 1.0, 2.0), (ob.priors.L1(), 0.5, 1.0)]
    found = ob.methods.RegulariserSampling(some, draws=10)(normal(*SHAPE), PROBLEM)
    assert {one["prior"] for one in found.diagnostics["drawn"]} == {"Tikhonov", "L1"}
    assert found.covariance.rank > 1


def test_images_that_do_not_explain_the_data_are_left_out():
    y, wide = 3.0 + normal(*SHAPE), [(ob.priors.Tikhonov(), 0.01, 1000.0)]
    everything = ob.methods.RegulariserSampling(wide, draws=12)(y, PROBLEM)
    fitting = ob.methods.RegulariserSampling(wide, draws=12, largest_chi2=1.5)(y, PROBLEM)
    kept = [one for one in fitting.diagnostics["drawn"] if one["kept"]]
    assert 2 <= len(kept) == fitting.diagnostics["members"] < 12
    assert all(one["chi2"] <= 1.5 for one in kept)
    assert float(fitting.std.mean()) < 0.5 * float(everything.std.mean())
    assert fitting.diagnostics["evaluations"] == 12, "those left out were made too"
    with pytest.raises(InputError, match="χ²"):
        ob.methods.RegulariserSampling([(ob.priors.Tikhonov(), 900.0, 1000.0)], draws=3, largest_chi2=1.0)(y, PROBLEM)


def test_its_time_is_that_of_all_images():
    method, pause = ob.methods.RegulariserSampling([(ob.priors.Tikhonov(), 0.5, 1.0)], draws=4), 0.02
    found = method(normal(*SHAPE), PROBLEM, callback=lambda *_: time.sleep(pause))
    assert found.diagnostics["seconds"] >= 4 * pause


def test_its_spread_is_blind_to_the_noise():
    """With one weight there is nothing to draw: no spread, though the image is as noisy as ever. It is no posterior."""
    one = ob.methods.RegulariserSampling([(ob.priors.Tikhonov(), 1.0, 1.0)], draws=3)
    assert float(one(normal(*SHAPE), PROBLEM).std.max()) == 0.0


def test_wrong_arguments_are_refused():
    for bad in ([], [(ob.priors.L1(), 2.0, 1.0)], [(ob.priors.L1(), 0.0, 2.0)]):
        with pytest.raises(InputError):
            ob.methods.RegulariserSampling(bad)
    with pytest.raises(InputError, match="two draws"):
        ob.methods.RegulariserSampling([(ob.priors.L1(), 1.0, 2.0)], draws=1)
