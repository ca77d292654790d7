"""The objective for random weights: its share of the divergence, its noise, and that a training runs and resumes."""

import pytest
import torch

from obverse.errors import InputError
from obverse.learning.data import places
from obverse.learning.objectives import Denoising, make_objective
from obverse.networks import build, load
from obverse.networks.stochastic import divergence, drawn
from tests.learning.conftest import curve, trained

CPU = torch.device("cpu")
INNER = {"kind": "Denoising", "sigma": [0.0, 0.22], "high": None, "share": 0.0}


class Flat:
    """Images of one grey each."""

    def __len__(self):
        return 6

    def item(self, index, generator):
        return torch.full((1, 8, 8), index / 6) + 0 * torch.rand(1, generator=generator)


def network(kind):
    torch.manual_seed(0)
    unet = {"kind": "UNet", "inputs": 3, "outputs": 1, "widths": [4], "blocks": 1}
    return build({"kind": kind, "network": {"kind": "Preconditioned", "network": unet}})


@pytest.mark.parametrize("kind", ["GaussianWeights", "Dropout"])
def test_the_loss_is_the_noisy_error_and_the_divergences_share(kind):
    net = network(kind)
    some = [
        make_objective({"kind": "WeightInference", "objective": INNER, "error": error, "count": 1000})
        for error in (0.1, 0.2)
    ]
    losses = [float(one.loss(net, Flat(), places(6, 0, 4, 0), CPU)) for one in some]
    share = 2 * (0.2**2 - 0.1**2) / 1000 * float(divergence(net))
    assert losses[1] - losses[0] == pytest.approx(share, rel=1e-3)
    plain = float(Denoising(sigma=(0.0, 0.22), high=None, share=0.0).loss(net, Flat(), places(6, 0, 4, 0), CPU))
    noisy = losses[0] - 2 * 0.1**2 / 1000 * float(divergence(net))
    assert noisy != pytest.approx(plain, rel=1e-3)
    again = float(some[0].loss(net, Flat(), places(6, 0, 4, 0), CPU))
    assert again == losses[0]  # all noise comes from the places


def test_a_training_moves_the_deviations_and_resumes_along_the_same_curve(recipe, tmp_path):
    recipe["network"] = {"kind": "GaussianWeights", "network": recipe["network"], "deviation": 0.1}
    recipe["objective"] = {"kind": "WeightInference", "objective": recipe["objective"], "error": 0.05, "count": 1e4}
    path = trained(recipe, tmp_path / "one")
    net, card = load(path)
    assert card["sigma_range"] == [1e-4, 4.0]
    rows = [p for name, p in net.named_parameters() if "paced_log" in name]
    assert rows and any(float((row - row[0]).abs().max()) > 1e-5 for row in rows)
    x, sigma = torch.rand(1, 1, 8, 8), torch.tensor([0.1])
    one, other = (drawn(net, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert not torch.equal(one(x, sigma), other(x, sigma))
    assert curve(tmp_path / "one") == curve(trained(recipe, tmp_path / "two").parent)


def test_what_is_no_squared_error_is_refused():
    for bad in ({"kind": "VariationalDenoising"}, {"kind": "Paired"}, {}):
        with pytest.raises(InputError, match="kind"):
            make_objective({"kind": "WeightInference", "objective": bad, "error": 0.1, "count": 10})
    absolute = {
        "kind": "Supervised",
        "method": {"kind": "Network"},
        "operator": {"kind": "Identity"},
        "noise": {"kind": "Gaussian", "sigma": 0.1},
    }
    with pytest.raises(InputError, match="squared"):
        make_objective({"kind": "WeightInference", "objective": absolute, "error": 0.1, "count": 10})
    with pytest.raises(InputError, match="positive error"):
        make_objective({"kind": "WeightInference", "objective": INNER, "error": 0.0, "count": 10})
    with pytest.raises(InputError, match="random weights"):
        objective = make_objective({"kind": "WeightInference", "objective": INNER, "error": 0.1, "count": 10})
        objective.loss(build({"kind": "DnCNN", "inputs": 1, "outputs": 1, "width": 4, "depth": 2}), Flat(), [], CPU)
