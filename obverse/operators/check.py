"""The conformance suite: run it on an operator of your own before you trust it.

    check(A)

draws random images and data from a seed and tests, in float64 and float32,

    adjoint       |⟨A x, y⟩ − ⟨x, Aᴴ y⟩| ≤ tol · max(‖A x‖ ‖y‖, ‖x‖ ‖Aᴴ y‖),   tol = 1e-10 and 1e-5
                  (the real part alone if A is linear over the real numbers only)
    linearity     A (a x + b z) = a A x + b A z
    matrix        A's columns, one by one, give the same A x, and Aᴴ's are its conjugate transpose (small operators)
    gram          A.gram(x, W) = AᴴWA x
    norm, solve   ‖A x‖ ≤ ‖A‖ ‖x‖;   (AᴴWA + d I) A.solve(b, d, W) = b
    gradients     autograd through A gives Aᴴ; torch's gradcheck and gradgradcheck (small operators)
    Jacobian      of a non-linear A: against central differences, and its adjoint; at complex images both are those of
                  Re⟨·, ·⟩, in which gradients are defined

and for every operator that a batch gives what single images give, that calls change neither their input nor the
operator, that the operator can be pickled, and that precision and device are kept.
"""

import copy
import pickle
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError, NumericsError
from .base import LinearOperator, Operator, tensors_of

__all__ = ["Report", "check"]

_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
_DENSE = 1024
"""Largest number of pixels or data for which the matrix is written out."""
_GRADCHECK = 128
"""Largest number of pixels or data for torch's numerical gradient tests."""


@dataclass(frozen=True)
class Report:
    """What `check` measured.

    Args:
        operator: the operator, in words.
        figures: relative error of each test, by name; 0 for a test that is passed or not.
    """

    operator: str
    figures: dict[str, float]

    def __str__(self) -> str:
        return "\n".join([self.operator, *(f"  {value:.1e}  {name}" for name, value in self.figures.items())])


def check(A: Operator, seed: int = 0, *, dense: Tensor | None = None, at: Tensor | None = None) -> Report:
    """Test that an operator is what it claims to be.

    Args:
        A: a linear or non-linear operator, on any device.
        seed: of the random images and data.
        dense: a matrix (n_data, n_image), made in another way, that A must equal; for an A that is linear over the real
            numbers only, a real one, in which the imaginary parts of complex images or data follow all the real ones.
        at: image (image_shape) at which a non-linear operator is tested; uniform in [0.25, 1] by default.

    Returns:
        The relative error of each test.

    Raises:
        NumericsError: a test failed; the message names it, with the number that failed.

    Example:
        >>> from obverse.operators import Identity
        >>> check(Identity((1, 2, 2))).figures["adjoint float64"]
        0.0
    """
    if not isinstance(A, Operator):
        raise InputError(f"check expects an Operator, got {type(A).__name__}; subclass obverse.operators.Operator")
    trial = _Trial(A, seed)
    _check_value(trial, at)
    if isinstance(A, LinearOperator):
        _check_linearity(trial, A)
        for precision in (torch.float64, torch.float32):
            _check_adjoint(trial, A, precision)
        _check_matrix(trial, A, dense)
        _check_gram(trial, A)
        _check_norm_and_solve(trial, A)
        _check_gradient(trial, A)
    else:
        _check_jacobian(trial, A, at)
    return Report(repr(A), trial.figures)


class _Trial:
    """Random draws for an operator, and the figures that were measured so far."""

    def __init__(self, operator: Operator, seed: int):
        self.operator = operator
        self.generator = torch.Generator().manual_seed(seed)
        self.device = next((t.device for t in tensors_of(operator)), torch.device("cpu"))
        self.figures: dict[str, float] = {}

    def draw(self, shape: tuple[int, ...], precision: torch.dtype, complex_: bool) -> Tensor:
        dtype = torch.complex(torch.ones((), dtype=precision), torch.ones((), dtype=precision)).dtype
        x = torch.randn(shape, generator=self.generator, dtype=torch.complex128 if complex_ else torch.float64)
        return x.to(dtype=dtype if complex_ else precision, device=self.device)

    def image(self, *batch: int, precision: torch.dtype = torch.float64) -> Tensor:
        return self.draw((*batch, *self.operator.image_shape), precision, self.operator.dtype.is_complex)

    def data(self, like: Tensor, *batch: int) -> Tensor:
        precision = torch.finfo(like.dtype).dtype
        return self.draw((*batch, *self.operator.data_shape), getattr(torch, precision), like.is_complex())

    def require(self, test: str, error: float, tolerance: float, meaning: str):
        """Record the figure, and fail if it is above the tolerance or NaN."""
        self.figures[test] = float(error)
        if not error <= tolerance:
            name = type(self.operator).__name__
            raise NumericsError(
                f"{name} fails the {test} test: expected at most {tolerance:.1e}, got {error:.3e}; {meaning}"
            )


def _check_value(trial: _Trial, at: Tensor | None):
    """Batch transparency, inputs and operator unchanged, precision and device kept, picklable: any operator."""
    A = trial.operator
    linear = isinstance(A, LinearOperator)
    maps = [("", A)] + ([("adjoint ", A.adjoint)] if linear else [])
    before = copy.deepcopy(A.__dict__)
    for precision in (torch.float64, torch.float32):
        name = str(precision).removeprefix("torch.")
        x = trial.image(2, 3, precision=precision)
        if not linear:
            x = _positive(x) if at is None else at.to(x) * torch.ones_like(x)
        inputs = {"": x, "adjoint ": trial.data(A(x), 2, 3) if linear else x}
        for label, function in maps:
            given = inputs[label]
            kept = given.clone()
            result = function(given)
            shape = (2, 3, *(A.image_shape if label else A.data_shape))
            trial.require(
                f"{label}shape {name}", float(tuple(result.shape) != shape), 0, f"it returned {tuple(result.shape)}"
            )
            trial.require(
                f"{label}input unmodified {name}", _distance(given, kept), 0, "do not work in place on the input"
            )
            real = torch.finfo(result.dtype).dtype == name and result.device == given.device
            if not label and A.dtype.is_complex:
                declared = result.is_complex() == A.data_dtype.is_complex
                trial.require(
                    "data_dtype", float(not declared), 0, f"it says {A.data_dtype} and gave {result.dtype}; override it"
                )
            trial.require(
                f"{label}precision, device {name}", float(not real), 0, f"it gave {result.dtype}, {result.device}"
            )
            trial.require(
                f"{label}repeat {name}", _distance(function(given), result), 0, "a second call gave another result"
            )
            single = torch.stack([torch.stack([function(item) for item in row]) for row in given])
            trial.require(
                f"{label}batch {name}", _distance(single, result), _TOLERANCE[precision], "batch items interact"
            )
    trial.require(
        "state", float(not _same(before, A.__dict__)), 0, "a call changed the operator; compute, do not store"
    )
    try:
        A.image_shape = A.image_shape
    except AttributeError:
        frozen = True
    else:
        frozen = False
    trial.require("immutable", float(not frozen), 0, "an attribute could be set; do not override __setattr__")
    _check_picklable(trial)


def _check_picklable(trial: _Trial):
    try:
        pickle.dumps(trial.operator)
        twin = copy.deepcopy(trial.operator)
        same = _same(trial.operator.__dict__, twin.__dict__)
        reason = "the copy differs; keep all state in attributes"
    except Exception as error:  # whatever a class raises when it is pickled, the answer is the same
        same, reason = False, f"{type(error).__name__}: {error}; keep lambdas, locks and open files out of attributes"
    trial.require("picklable", float(not same), 0, reason)


def _check_adjoint(trial: _Trial, A: LinearOperator, precision: torch.dtype):
    x = trial.image(precision=precision)
    Ax = A(x)
    y = trial.data(Ax)
    Ay = A.adjoint(y)
    gap = _inner(Ax, y) - _inner(x, Ay)
    # real images, or pairs of them: the adjoint is that of the real inner product
    gap = abs(gap if x.is_complex() and not A.real_linear else gap.real)
    scale = max(float(Ax.norm() * y.norm()), float(x.norm() * Ay.norm()))
    error = float(gap) / scale if scale else float(gap)
    meaning = "_adjoint is not the conjugate transpose of _apply"
    trial.require(f"adjoint {str(precision).removeprefix('torch.')}", error, _TOLERANCE[precision], meaning)


def _check_linearity(trial: _Trial, A: LinearOperator):
    x, z = trial.image(), trial.image()
    a, b = (0.7 - 0.3j, -1.3 + 0.2j) if x.is_complex() and not A.real_linear else (0.7, -1.3)
    trial.require(
        "linearity", _distance(A(a * x + b * z), a * A(x) + b * A(z)), 1e-10, "subclass Operator if A is non-linear"
    )
    y = trial.data(A(x))
    w = trial.data(A(x))
    combined = a * A.adjoint(y) + b * A.adjoint(w)
    trial.require("adjoint linearity", _distance(A.adjoint(a * y + b * w), combined), 1e-10, "_adjoint is not linear")


def _check_matrix(trial: _Trial, A: LinearOperator, dense: Tensor | None):
    x = trial.image()
    y = A(x)
    if max(x.numel(), y.numel()) > _DENSE:
        if dense is not None:
            product = (dense.to(y) @ x.to(y).flatten()).reshape(y.shape)
            trial.require(
                "dense twin", _distance(y, product), 1e-6 if A.real_dtype == torch.float32 else 1e-10, "A x is not M x"
            )
        return
    pairs = A.real_linear
    matrix = _coordinates(A(_basis(x, A.image_shape, pairs)), len(A.data_shape), pairs).mT
    product = matrix @ _coordinates(x, len(A.image_shape), pairs).to(matrix)
    trial.require(
        "matrix",
        _distance(_coordinates(y, len(A.data_shape), pairs), product),
        1e-10,
        "A is not the sum of its responses to single pixels",
    )
    transpose = _coordinates(A.adjoint(_basis(y, A.data_shape, pairs)), len(A.image_shape), pairs).mT
    expected = matrix.mH if x.is_complex() else matrix.mH.real
    trial.require(
        "matrix adjoint", _distance(transpose, expected), 1e-10, "_adjoint is not the conjugate transpose of _apply"
    )
    if dense is not None:
        tolerance = 1e-6 if A.real_dtype == torch.float32 else 1e-10  # constants are stored in the operator's precision
        trial.require("dense twin", _distance(matrix, dense.to(matrix)), tolerance, "the operator is not this matrix")


def _basis(like: Tensor, shape: tuple[int, ...], pairs: bool) -> Tensor:
    """One image for each pixel, and if `pairs` and complex one for each imaginary part."""
    identity = torch.eye(like.numel(), dtype=like.dtype, device=like.device).reshape(-1, *shape)
    return torch.cat([identity, 1j * identity]) if pairs and like.is_complex() else identity


def _coordinates(z: Tensor, axes: int, pairs: bool) -> Tensor:
    flat = z.flatten(-axes)
    return torch.cat([flat.real, flat.imag], -1) if pairs and flat.is_complex() else flat


def _check_gram(trial: _Trial, A: LinearOperator):
    x = trial.image(2)
    y = A(x)
    tolerance = 1e-5 if A.real_dtype == torch.float32 else 1e-8  # closed forms use constants of that precision
    for name, weight in {"gram": None, "gram weight": _weight(trial, y)}.items():
        product = A.adjoint(y if weight is None else weight * y)
        trial.require(name, _distance(A.gram(x, weight), product), tolerance, "gram is not adjoint after forward")


def _check_norm_and_solve(trial: _Trial, A: LinearOperator):
    x = trial.image()
    norm, ratio = A.norm(), float(A(x).norm() / x.norm())
    trial.require(
        "norm", max(ratio - norm, 0.0) / max(norm, 1e-300), 1e-3, f"norm() gives {norm:g}, yet ‖Ax‖/‖x‖ = {ratio:g}"
    )
    damping = 0.1 * norm**2 + 0.01
    b = trial.image(2)
    for name, weight in {"": None, " scalar weight": 0.5, " weight": _weight(trial, A(x))}.items():
        solution = A.solve(b, damping, weight)
        again = A.gram(solution, weight) + damping * solution
        tolerance = 1e-5 if A.real_dtype == torch.float32 else 1e-8  # closed forms use constants of that precision
        trial.require(f"solve{name}", _distance(again, b), tolerance, "it does not solve (AᴴWA + d I) x = b")


def _check_gradient(trial: _Trial, A: LinearOperator):
    x = trial.image().requires_grad_()
    y = A(x)
    u = trial.data(y)
    (gradient,) = torch.autograd.grad(y, x, u, create_graph=True)
    trial.require("autograd", _distance(gradient.detach(), A.adjoint(u)), 1e-10, "autograd through A is not Aᴴ")
    if max(x.numel(), y.numel()) <= _GRADCHECK:
        _gradcheck(trial, A, (x,))
        _gradcheck(trial, A.adjoint, (u.requires_grad_(),), "adjoint ")


def _check_jacobian(trial: _Trial, A: Operator, at: Tensor | None):
    x = _positive(trial.image()) if at is None else at.to(trial.image())
    v = trial.image()
    J = A.linearise(x)
    step = 1e-5 * float(x.norm()) / float(v.norm())
    difference = (A(x + step * v) - A(x - step * v)) / (2 * step)
    trial.require("Jacobian", _distance(J(v), difference), 1e-6, "A.linearise(x) is not the derivative of A")
    inner = _Trial(J, 0)
    inner.generator = trial.generator
    _check_adjoint(inner, J, torch.float64)
    trial.figures |= {f"Jacobian {name}": value for name, value in inner.figures.items()}
    if max(x.numel(), difference.numel()) <= _GRADCHECK:
        _gradcheck(trial, A, (x.requires_grad_(),))


def _gradcheck(trial: _Trial, function: Any, inputs: tuple[Tensor, ...], label: str = ""):
    for name, test in (("gradcheck", torch.autograd.gradcheck), ("gradgradcheck", torch.autograd.gradgradcheck)):
        try:
            test(function, inputs, fast_mode=True, check_batched_grad=False)
        except (torch.autograd.gradcheck.GradcheckError, RuntimeError) as error:
            trial.require(label + name, float("inf"), 0, str(error).strip().splitlines()[0])
        trial.figures[label + name] = 0.0


def _weight(trial: _Trial, y: Tensor) -> Tensor:
    uniform = torch.rand(trial.operator.data_shape, generator=trial.generator, dtype=torch.float64)
    return (0.5 + uniform).to(y.device)


def _positive(x: Tensor) -> Tensor:
    """An image of the same type with values in [0.25, 1]."""
    magnitude = 0.25 + 0.75 * torch.special.ndtr(x.real if x.is_complex() else x)
    return magnitude.to(x.dtype)


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return torch.sum(a.conj() * b) if a.is_complex() or b.is_complex() else torch.sum(a * b)


def _distance(a: Tensor, b: Tensor) -> float:
    """‖a − b‖ relative to the larger of the two norms; infinite when shape differs."""
    if a.shape != b.shape:
        return float("inf")
    scale = max(float(a.norm()), float(b.norm()))
    return float((a - b).norm()) / scale if scale else 0.0


def _same(a: Any, b: Any) -> bool:
    """Equal in structure and value; unlike ==, it works on tensors."""
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, Operator):
        return _same(a.__dict__, b.__dict__)
    try:
        return bool(a == b) or type(a).__eq__ is object.__eq__
    except (RuntimeError, ValueError):  # an array's == has no single truth value
        return False
