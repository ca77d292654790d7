"""One conformance class, run on every registered operator, and a test that none is missing."""

import inspect
import pickle

import numpy as np
import pytest
import torch

from obverse import operators as ops
from obverse.errors import InputError
from obverse.operators import LinearOperator, check
from obverse.operators.check import _distance, _same
from tests.operators.cases import CASES, Case, random

# abstract, or covered by the non-linear operators in test_check.py
_EXEMPT = {"LinearOperator", "Jacobian", "OrthonormalTransform"}


def unregistered(classes, cases: dict[str, Case]) -> set[str]:
    """Names of the linear operators of this package that no case makes."""
    made = {type(case.make(torch.float64)).__name__ for case in cases.values()}
    return {c.__name__ for c in classes if c.__module__.startswith("obverse.operators")} - made - _EXEMPT


def descendants(cls):
    for child in cls.__subclasses__():
        yield child
        yield from descendants(child)


def test_every_operator_is_registered():
    assert unregistered(descendants(LinearOperator), CASES) == set()
    exported = [getattr(ops, name) for name in ops.__all__]
    assert unregistered([c for c in exported if isinstance(c, type) and issubclass(c, LinearOperator)], CASES) == set()


def test_an_unregistered_operator_would_be_noticed():
    cases = {name: case for name, case in CASES.items() if not name.startswith("wavelet")}
    assert unregistered(descendants(LinearOperator), cases) == {"Wavelet"}


@pytest.fixture(params=[torch.float64, torch.float32], ids=["float64", "float32"], scope="class")
def precision(request):
    return request.param


@pytest.mark.parametrize("name", CASES)
class TestConformance:
    @pytest.fixture
    def A(self, name, precision):
        return CASES[name].make(precision)

    @pytest.fixture
    def matrix(self, name):
        return torch.as_tensor(CASES[name].dense())

    def image(self, A, *batch):
        values = torch.randn((*batch, *A.image_shape), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        if A.dtype.is_complex:
            values = torch.complex(values, values.flip(-1))
        return values.to(A.dtype)

    def test_passes_the_public_suite(self, A, matrix):
        assert max(check(A, dense=matrix).figures.values()) < 1e-4

    def test_another_twin_is_refused(self, A, matrix):
        with pytest.raises(ArithmeticError, match="dense twin"):
            check(A, dense=matrix + 1e-4 * matrix.abs().max())

    def test_norm_is_the_largest_singular_value(self, A, matrix):
        largest = np.linalg.norm(matrix.numpy(), 2)
        assert A.norm() == pytest.approx(largest, rel=1e-3)

    def test_gram_is_adjoint_times_forward(self, A):
        x, weight = self.image(A, 2), random(*A.data_shape, seed=5).to(A.real_dtype)
        assert _distance(A.gram(x, weight), A.adjoint(weight * A(x))) < 1e-5
        assert _distance(A.gram(x), A.adjoint(A(x))) < 1e-5

    def test_spectra_are_eigenvalues(self, A):
        x = self.image(A).real
        for spectrum, function in ((A.spectrum(), A), (A.gram_spectrum(), A.gram)):
            if spectrum is not None:
                axes = tuple(range(-len(A.image_shape) + 1, 0))
                expected = torch.fft.irfftn(spectrum * torch.fft.rfftn(x, dim=axes), s=x.shape[1:], dim=axes)
                result = function(x.to(A.dtype))
                assert _distance(result, expected.to(result)) < 1e-5

    def test_pickle_round_trip(self, A):
        twin = pickle.loads(pickle.dumps(A))  # noqa: S301 — made in this very line
        x = self.image(A)
        assert _same(A.__dict__, twin.__dict__) and torch.equal(A(x), twin(x))
        with pytest.raises(AttributeError, match="immutable"):
            twin.image_shape = (1, 1, 1)

    def test_converts_precision(self, A):
        double = A.to(dtype=torch.float64)
        assert double.real_dtype == torch.float64 and double.dtype.is_complex == A.dtype.is_complex
        x = self.image(A).to(double.dtype)
        assert _distance(double(x), A(x)) < 1e-6

    def test_refuses_other_shapes_and_types(self, A):
        x = self.image(A)
        for wrong in (x[..., 1:], x[0], x.real.long()):
            with pytest.raises(InputError, match="expects an image"):
                A(wrong)
        with pytest.raises(InputError, match="expects data"):
            A.adjoint(torch.zeros(*A.data_shape, 17, dtype=A.dtype))
        for damping in (0.0, -1.0, float("nan")):
            with pytest.raises(InputError, match="positive damping"):
                A.solve(x, damping)

    def test_unknown_keyword_is_an_error(self, A):
        kinds = {parameter.kind for parameter in inspect.signature(type(A).__init__).parameters.values()}
        assert not kinds & {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL}
        with pytest.raises(TypeError, match="unexpected keyword"):
            A.solve(self.image(A), 1.0, unknown=1)


@pytest.mark.parametrize(
    "name",
    [
        "identity",
        "dense",
        "mask",
        "convolution circular fft",
        "convolution zero direct",
        "downsample",
        "fourier",
        "wavelet haar",
    ],
)
def test_solve_is_differentiable(name):
    A = CASES[name].make(torch.float64)
    b = torch.randn(2, *A.image_shape, dtype=A.dtype, generator=torch.Generator().manual_seed(0)).requires_grad_()
    damping = torch.tensor(5.0, dtype=torch.float64, requires_grad=True)
    scalar = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    weight = random(*A.data_shape, seed=7).requires_grad_()
    for w in (scalar, weight):
        assert torch.autograd.gradcheck(A.solve, (b, damping, w), fast_mode=True, rtol=1e-4)
    assert torch.autograd.gradgradcheck(A.solve, (b, damping, scalar), fast_mode=True, rtol=1e-4)
