"""Accelerated gradients on problems with known minimisers: the certificate holds, and a false constant breaks it."""

import pytest
import torch

from obverse.errors import InputError
from obverse.solvers.accelerated import accelerated_gradient


def problems(seed=0, batch=3, n=12):
    """Quadratics ½xᵀAx − bᵀx with spectrum in [0.1, 20], and their minimisers."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(batch, n, n, generator=generator, dtype=torch.float64))[0]
    values = torch.logspace(-1, 1.3, n, dtype=torch.float64).clamp(max=20.0)
    a = basis * values @ basis.mT
    b = torch.randn(batch, n, generator=generator, dtype=torch.float64)
    return a, b, torch.linalg.solve(a, b)


def gradient(a, b):
    return lambda x: torch.einsum("bij,bj->bi", a, x) - b


def solve(convexity=0.1, accuracy=1e-3, **settings):
    a, b, truth = problems()
    result = accelerated_gradient(
        gradient(a, b), torch.zeros_like(b), lipschitz=20.0, convexity=convexity, accuracy=accuracy, batch_dims=1,
        **settings,
    )  # fmt: skip
    return result, (result.x - truth).norm(dim=1)


@pytest.mark.parametrize("accuracy", [1e-1, 1e-3, 1e-8])
def test_every_item_is_as_near_as_certified(accuracy):
    result, distance = solve(accuracy=accuracy)
    assert result.status.converged and result.residual <= accuracy
    assert float(distance.max()) <= result.residual * (1 + 1e-9)


def test_a_false_modulus_breaks_the_certificate():
    result, distance = solve(convexity=10.0)
    assert result.status.converged and float(distance.max()) > result.residual


def test_an_accuracy_for_each_item():
    wanted = torch.tensor([1e-1, 1e-4, 1e-2], dtype=torch.float64)
    result, distance = solve(accuracy=wanted)
    assert result.status.converged and bool((distance <= wanted).all())


def test_what_was_not_reached_is_said():
    result, distance = solve(accuracy=1e-8, max_iterations=5)
    assert not result.status.converged and result.status.reason == "max-iterations"
    assert float(distance.max()) <= result.residual
    a, b, _ = problems()
    single = accelerated_gradient(
        gradient(a.float(), b.float()), torch.zeros_like(b).float(), lipschitz=20.0, convexity=0.1, accuracy=1e-12,
        batch_dims=1, max_iterations=20_000,
    )  # fmt: skip
    assert single.status.reason == "stagnation"
    steep = accelerated_gradient(lambda x: 100 * x, torch.ones(1), lipschitz=1.0, convexity=1.0)
    assert not steep.status.converged


def test_bad_constants_are_refused():
    for constants in ({"lipschitz": 1.0, "convexity": 0.0}, {"lipschitz": 1.0, "convexity": 2.0}):
        with pytest.raises(InputError):
            accelerated_gradient(lambda x: x, torch.ones(2), **constants)
