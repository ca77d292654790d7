"""The penalty on a Jacobian's spectrum, against linear denoisers whose eigenvalues are known."""

import pytest
import torch
from torch import nn

from obverse.errors import InputError
from obverse.learning.objectives.denoising import Denoising
from obverse.learning.objectives.spectrum import spectrum_excess


class Pixelwise(nn.Module):
    """D(x) = d·x: the Jacobian's eigenvalues are d."""

    def __init__(self, eigenvalues: torch.Tensor):
        super().__init__()
        self.eigenvalues = nn.Parameter(eigenvalues)

    def forward(self, x, sigma):
        return x * self.eigenvalues


def spread(low: float, high: float) -> Pixelwise:
    return Pixelwise(torch.linspace(low, high, 64, dtype=torch.float64).reshape(1, 8, 8))


def excess(network: nn.Module) -> torch.Tensor:
    return spectrum_excess(network, torch.zeros(3, 1, 8, 8, dtype=torch.float64), torch.full((3,), 0.1), seed=0)


def test_a_covariance_in_a_prior_costs_nothing():
    assert float(excess(spread(0.0, 1.0)).detach()) == 0


@pytest.mark.parametrize("ends", [(-0.5, 0.5), (0.5, 1.5)])
def test_what_lies_outside_costs_the_square_of_its_excess(ends):
    # ‖2J − 1‖ is 2 at the worst; five steps of the power iteration come near it from below.
    cost = float(excess(spread(*ends)).detach())
    assert 0.5 < cost <= 1.0


def test_its_gradient_brings_the_worst_eigenvalues_back():
    network = spread(-0.5, 0.5)
    excess(network).backward()
    slope = network.eigenvalues.grad.flatten()
    assert slope[0] < 0 and slope[-16:].abs().max() < 1e-3 * slope[0].abs()


def test_a_negative_weight_is_refused():
    with pytest.raises(InputError, match="at least 0"):
        Denoising(spectrum=-1.0)
