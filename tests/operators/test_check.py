"""The public suite must refuse what is wrong, and accept a correct non-linear operator."""

import pytest
import torch

from obverse.errors import NumericsError
from obverse.operators import Convolution, LinearOperator, Operator, check

SHAPE = (1, 3, 4)


class Halving(LinearOperator):
    """A correct operator; each class below breaks one thing of it."""

    def __init__(self):
        super().__init__(SHAPE, SHAPE)

    def _apply(self, x):
        return 0.5 * x

    def _adjoint(self, y):
        return 0.5 * y


class WrongAdjoint(Halving):
    def _adjoint(self, y):
        return 0.5 * (1 + 1e-8) * y


class WrongShape(Halving):
    def _apply(self, x):
        return 0.5 * x[..., 1:]


class Affine(Halving):
    def _apply(self, x):
        return 0.5 * x + 1e-6


class ModifiesInput(Halving):
    def _apply(self, x):
        return x.mul_(0.5)


class CountsCalls(Halving):
    def __init__(self):
        super().__init__()
        self.calls = []

    def _apply(self, x):
        self.calls.append(1)
        return 0.5 * x


class AdaptsBuffer(Halving):
    def __init__(self):
        super().__init__()
        self.factor = torch.tensor(0.5, dtype=torch.float64)

    def _adjoint(self, y):
        self.factor.add_(0.0).mul_(1.0 + 1e-3)
        return 0.5 * y


class Random(Halving):
    def _apply(self, x):
        return 0.5 * x + 1e-9 * torch.randn_like(x)


class Mutable(Halving):
    def __setattr__(self, name, value):
        object.__setattr__(self, name, value)


class NotPicklable(Halving):
    def __init__(self):
        super().__init__()
        self.function = lambda x: 0.5 * x


class MixesBatch(Halving):
    def _apply(self, x):
        return 0.5 * x + 1e-3 * x.mean(dim=tuple(range(x.ndim - 3)), keepdim=True) if x.ndim > 3 else 0.5 * x


class LosesPrecision(Halving):
    def _apply(self, x):
        return 0.5 * x.float()


class CutsGraph(Halving):
    def _apply(self, x):
        return 0.5 * x.detach() + 0.0 * x


class WrongNorm(Halving):
    def norm(self, iterations=200, tolerance=1e-6, seed=0):
        return 0.25


class WrongSolve(Halving):
    def _solve(self, b, damping, weight):
        return b / (0.2 + damping)


def test_the_correct_one_passes():
    report = check(Halving())
    assert max(report.figures.values()) < 1e-6
    assert "adjoint float64" in str(report)


@pytest.mark.parametrize(
    ("wrong", "test"),
    [
        (WrongAdjoint, "adjoint"),
        (WrongShape, "shape"),
        (Affine, "linearity"),
        (ModifiesInput, "input unmodified"),
        (CountsCalls, "state"),
        (AdaptsBuffer, "state"),
        (Random, "repeat"),
        (Mutable, "immutable"),
        (NotPicklable, "picklable"),
        (MixesBatch, "batch"),
        (LosesPrecision, "precision"),
        (CutsGraph, "autograd"),
        (WrongNorm, "norm"),
        (WrongSolve, "solve"),
    ],
)
def test_refuses(wrong, test):
    with pytest.raises(NumericsError, match=f"{wrong.__name__} fails the [a-z ]*{test}"):
        check(wrong())


class Square(Operator):
    """Intensity of a blurred amplitude: A(x) = (h ∗ x)², with Jacobian 2 diag(h ∗ x) H."""

    def __init__(self):
        super().__init__(SHAPE, SHAPE)
        self.blur = Convolution(torch.tensor([[0.25, 0.5, 0.25]]), SHAPE)

    def _apply(self, x):
        return self.blur(x).square()


class _WrongDerivative(torch.autograd.Function):
    @staticmethod
    def forward(x):
        return x.square()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, *gradients):
        return 2.0 * ctx.saved_tensors[0] * gradients[0]

    @staticmethod
    def jvp(ctx, *tangents):
        return 2.001 * ctx.saved_tensors[0] * tangents[0]


class WrongJacobian(Square):
    def _apply(self, x):
        return _WrongDerivative.apply(x)


def test_a_non_linear_operator_passes():
    figures = check(Square()).figures
    assert figures["Jacobian"] < 1e-6 and figures["Jacobian adjoint float64"] < 1e-10


def test_a_wrong_jacobian_is_refused():
    with pytest.raises(NumericsError, match="Jacobian"):
        check(WrongJacobian())


def test_jacobian_is_the_closed_form():
    A = Square()
    x, v = torch.rand(SHAPE, dtype=torch.float64), torch.randn(2, *SHAPE, dtype=torch.float64)
    J = A.linearise(x)
    torch.testing.assert_close(J(v), 2 * A.blur(x) * A.blur(v))
    torch.testing.assert_close(J.adjoint(v), A.blur.adjoint(2 * A.blur(x) * v))
    assert J.norm() == pytest.approx(float(torch.linalg.matrix_norm(_matrix(J), 2)), rel=1e-3)


def test_composition_with_a_non_linear_operator():
    A = Square() @ Convolution(torch.tensor([[0.5, 0.5]]), SHAPE)
    check(A)
    assert not isinstance(A, LinearOperator)
    x, v = torch.rand(SHAPE, dtype=torch.float64), torch.randn(SHAPE, dtype=torch.float64)
    difference = (A(x + 1e-6 * v) - A(x - 1e-6 * v)) / 2e-6
    torch.testing.assert_close(A.linearise(x)(v), difference, rtol=1e-6, atol=1e-8)


def _matrix(A):
    return torch.stack([A(e).flatten() for e in torch.eye(12, dtype=torch.float64).reshape(-1, *SHAPE)], dim=1)
