"""The error law of a linear estimator is known: noise that passes, and what the transforms move.

x̂ = R y:   e = (T⁻¹ R A T − I) x̂ + T⁻¹ R n,      E e eᵀ = E_g b_g bᵀ_g + s² E_g T⁻¹ R Rᵀ T,   over all shifts g.
"""

import pytest
import torch

import obverse as ob
from obverse.errors import InputError
from obverse.posterior import Estimate
from obverse.solvers.result import Status
from tests.posterior.cases import normal

SHAPE, N, SIGMA = (1, 4, 4), 16, 0.3
DONE = Status(True, "completed", "One product.")


class Linear:
    """x̂ = R y with a given matrix."""

    def __init__(self, matrix):
        self.matrix = matrix

    def __call__(self, y, problem):
        return Estimate((self.matrix @ y.reshape(-1)).reshape(SHAPE), DONE)


def shifts():
    """Every circular shift as a permutation matrix."""
    eye = torch.eye(N, dtype=torch.float64).reshape(N, *SHAPE)
    return [eye.roll((i, j), (-2, -1)).reshape(N, N).mT for i in range(4) for j in range(4)]


def closed_form(R, A, image, group):
    total = torch.zeros(N, N, dtype=torch.float64)
    for T in group:
        b = (T.mT @ R @ A @ T - torch.eye(N).double()) @ image
        total += torch.outer(b, b) + SIGMA**2 * T.mT @ R @ R.mT @ T
    return total / len(group)


def inpainting():
    kept = (torch.arange(N).reshape(SHAPE) % 3 > 0).double()
    return ob.operators.Mask(kept), kept.reshape(-1).diag()


def blurring():
    kernel = torch.tensor([[0.0, 0.1, 0.0], [0.1, 0.5, 0.2], [0.0, 0.1, 0.0]]).double()
    operator = ob.operators.Convolution(kernel, SHAPE)
    eye = torch.eye(N, dtype=torch.float64)
    return operator, operator(eye.reshape(N, *SHAPE)).reshape(N, N).mT


@pytest.mark.parametrize("case", [inpainting, blurring])
@pytest.mark.parametrize("transforms", [(), ob.transforms.Shift()])
def test_a_linear_estimators_error_law_is_the_closed_form(case, transforms):
    operator, A = case()
    S = 0.2 + 0.8 * torch.eye(N).double()
    R = S @ A.mT @ torch.linalg.inv(A @ S @ A.mT + SIGMA**2 * torch.eye(N).double())
    problem, y = ob.Problem(operator, ob.noise.Gaussian(SIGMA)), 1.0 + normal(*SHAPE)
    found = ob.methods.EquivariantBootstrap(Linear(R), transforms, draws=1000)(y, problem)
    group = shifts() if transforms else [torch.eye(N).double()]
    expected = closed_form(R, A, R @ y.reshape(-1), group)
    assert found.target == "estimator-error"
    assert torch.allclose(found.mean.reshape(-1), R @ y.reshape(-1))
    assert float((found.covariance.dense() - expected).norm() / expected.norm()) < 0.1
    mse, error = found.diagnostics["mse"], found.diagnostics["mse_standard_error"]
    assert abs(mse - float(expected.trace()) / N) < 4 * error < 0.15 * mse
    # Without the bias, or without the noise, the formula is another.
    for wrong in (closed_form(R, A, 0 * y.reshape(-1), group), expected - SIGMA**2 * R @ R.mT):
        assert abs(mse - float(wrong.trace()) / N) > 5 * error


def test_only_transforms_show_the_error_in_what_the_operator_hides():
    operator, A = inpainting()
    problem, y = ob.Problem(operator, ob.noise.Gaussian(SIGMA)), 1.0 + normal(*SHAPE)
    method = Linear(A)  # leaves what is masked at zero
    hidden = A.diagonal().reshape(SHAPE) == 0
    blind = ob.methods.EquivariantBootstrap(method, draws=50)(y, problem)
    assert float(blind.std[hidden].max()) < 1e-12  # and the truth there is about one
    moved = ob.methods.EquivariantBootstrap(method, ob.transforms.Shift(), draws=50)(y, problem)
    low = float(moved.std[~hidden].mean())
    assert low > float(blind.std[~hidden].mean())


def test_an_equivariant_estimator_errs_alike_with_and_without_transforms():
    operator, A = blurring()
    R = A.mT @ torch.linalg.inv(A @ A.mT + 0.1 * torch.eye(N).double())
    image = R @ normal(N)
    alone, moved = closed_form(R, A, image, shifts()[:1]), closed_form(R, A, image, shifts())
    assert torch.allclose(alone, moved, rtol=0, atol=1e-12)
    operator, A = inpainting()
    assert not torch.allclose(closed_form(A, A, image, shifts()[:1]), closed_form(A, A, image, shifts()), atol=1e-2)


def test_intervals_are_pivotal_and_calls_are_counted():
    class Biased:
        def __call__(self, y, problem):
            return Estimate(y + 1.0, DONE, (), {"evaluations": 5})

    problem = ob.Problem(ob.operators.Identity(SHAPE), ob.noise.Gaussian(0.1))
    found = ob.methods.EquivariantBootstrap(Biased(), draws=200)(torch.zeros(SHAPE).double(), problem)
    low, high = found.interval(level=0.9)
    assert float(high.max()) < 0.5 and float(low.min()) > -0.5  # around the truth, 0, though the image is at 1
    assert found.diagnostics["bias_share"] > 0.95
    assert found.diagnostics["calls"] == 201 and found.diagnostics["evaluations"] == 1005
    assert found.covariance.rank == N and len(found.history) == 200


def test_transforms_in_a_row_are_undone_in_reverse():
    class Same:
        def __call__(self, y, problem):
            return Estimate(y, DONE)

    problem = ob.Problem(ob.operators.Identity(SHAPE), ob.noise.Gaussian(1e-9))
    several = [ob.transforms.Shift(), ob.transforms.Rotate90(), ob.transforms.Flip()]
    found = ob.methods.EquivariantBootstrap(Same(), several, draws=10)(normal(*SHAPE), problem)
    assert found.diagnostics["mse"] < 1e-16


def test_a_run_can_be_repeated_and_wrong_arguments_are_refused():
    operator, A = inpainting()
    problem, y = ob.Problem(operator, ob.noise.Gaussian(SIGMA)), normal(*SHAPE)
    method = ob.methods.EquivariantBootstrap(Linear(A), ob.transforms.Shift(), draws=5)
    assert torch.equal(method(y, problem).draws, method(y, problem).draws)
    longer = ob.methods.EquivariantBootstrap(Linear(A), ob.transforms.Shift(), draws=8)(y, problem)
    assert torch.equal(longer.draws[:5], method(y, problem).draws)
    with pytest.raises(InputError, match="two draws"):
        ob.methods.EquivariantBootstrap(Linear(A), draws=1)
