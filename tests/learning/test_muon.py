"""The optimiser, against the singular value decomposition, torch's Adam, and a problem that Adam finds hard."""

import pytest
import torch
from torch import nn

from obverse.learning.muon import Muon, orthogonalised


@pytest.mark.parametrize("shape", [(8, 8), (12, 40), (90, 16)])
def test_singular_values_become_alike(shape):
    matrix = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    found = left.T @ orthogonalised(1e3 * matrix) @ right.T
    assert values.max() / values.min() > 2, "the values were alike before, so the test shows nothing"
    assert 0.65 < found.diagonal().min() and found.diagonal().max() < 1.25
    torch.testing.assert_close(found - torch.diag(found.diagonal()), torch.zeros_like(found), atol=1e-12, rtol=0)


def test_the_gram_matrix_loses_nothing():
    """Singular values over four decades: the iterations on the matrix itself give the same to single precision."""
    matrix = torch.randn(24, 96, generator=torch.Generator().manual_seed(1)) * torch.logspace(0, -4, 24)[:, None]
    direct = matrix.double() / matrix.double().norm()
    for _ in range(5):
        gram = direct @ direct.T
        direct = 3.4445 * direct - 4.7750 * gram @ direct + 2.0315 * gram @ gram @ direct
    torch.testing.assert_close(orthogonalised(matrix).double(), direct, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("shape", [(5,), (7, 30), (30, 7, 3, 3), ()])
def test_what_is_no_matrix_goes_by_adam(shape):
    generator = torch.Generator().manual_seed(2)
    ours = nn.Parameter(torch.randn(shape, generator=generator))
    theirs = nn.Parameter(ours.detach().clone())
    optimisers = Muon([ours], 1e-2), torch.optim.Adam([theirs], 1e-2, betas=(0.9, 0.99))
    for _ in range(5):
        gradient = torch.randn(shape, generator=generator)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        for optimiser in optimisers:
            optimiser.step()
    torch.testing.assert_close(ours, theirs)


def test_a_kernel_moves_by_the_rate_in_every_direction():
    kernel = nn.Parameter(torch.zeros(16, 8, 3, 3))
    kernel.grad = torch.randn(kernel.shape, generator=torch.Generator().manual_seed(3))
    Muon([kernel], 1e-3).step()
    values = torch.linalg.svdvals(kernel.detach().flatten(1))
    assert 0.65e-2 < values.min() and values.max() < 1.25e-2


def test_gradients_that_vanish_leave_weights_finite():
    """A layer that dies: its momentum decays below what single precision can square."""
    kernel = nn.Parameter(torch.zeros(8, 8))
    optimiser = Muon([kernel], 1e-3)
    kernel.grad = torch.full_like(kernel, 1e-3)
    optimiser.step()
    kernel.grad = torch.zeros_like(kernel)
    for _ in range(1200):
        optimiser.step()
    assert kernel.isfinite().all()
    assert not orthogonalised(torch.full((8, 8), 1e-30)).any()


def test_directions_of_little_curvature_are_found_sooner():
    """A linear map fitted through data whose directions differ by a factor of 100 in scale."""
    generator = torch.Generator().manual_seed(4)
    inputs = torch.randn(256, 32, generator=generator) * torch.logspace(0, -2, 32)
    turn = torch.linalg.qr(torch.randn(32, 32, generator=generator)).Q
    inputs, target = inputs @ turn, torch.randn(16, 32, generator=generator)

    def loss_by(make) -> float:
        weight = nn.Parameter(torch.zeros(16, 32))
        optimiser = make([weight])
        for step in range(200):
            for group in optimiser.param_groups:
                group["lr"] = 0.03 * (1 - step / 200)
            loss = ((inputs @ (weight - target).T) / torch.logspace(0, -2, 16)).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        return float(loss.detach())

    assert loss_by(lambda p: Muon(p, 0.03)) < 0.5 * loss_by(lambda p: torch.optim.Adam(p, 0.03, betas=(0.9, 0.99)))
