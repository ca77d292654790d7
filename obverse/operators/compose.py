"""The algebra of operators: A @ B, A + B, c·A and stacks.

(A B)ᴴ = Bᴴ Aᴴ,   (A + B)ᴴ = Aᴴ + Bᴴ,   (c A)ᴴ = c̄ Aᴴ,   [A₁; A₂]ᴴ (y₁, y₂) = A₁ᴴ y₁ + A₂ᴴ y₂
"""

from collections.abc import Sequence
from functools import reduce
from math import isfinite
from numbers import Number, Real

import torch
from torch import Tensor

from ..errors import InputError
from .base import LinearOperator, Operator

__all__ = ["Composition", "LinearComposition", "Scaled", "Stack", "Sum", "compose", "stack"]


def compose(outer: Operator, inner: Operator) -> Operator:
    """outer ∘ inner; linear when both are."""
    _require_operators("A @ B", outer, inner)
    if outer.image_shape != inner.data_shape:
        raise InputError(
            f"A @ B needs B's data to be A's image: B gives {inner.data_shape}, A expects {outer.image_shape}; "
            "build one of them for the other's shape"
        )
    if isinstance(outer, LinearOperator) and isinstance(inner, LinearOperator):
        return LinearComposition(outer, inner)
    return Composition(outer, inner)


def stack(operators: Sequence[LinearOperator]) -> "Stack":
    """Measure one image with several operators; their data are concatenated along the first data axis."""
    return Stack(tuple(operators))


class Composition(Operator):
    """outer ∘ inner where at least one of them is non-linear."""

    def __init__(self, outer: Operator, inner: Operator):
        super().__init__(inner.image_shape, outer.data_shape, inner.dtype)
        self.outer = outer
        self.inner = inner

    @property
    def data_dtype(self) -> torch.dtype:
        return _composed_dtype(self.outer, self.inner)

    def _apply(self, x: Tensor) -> Tensor:
        return self.outer._apply(self.inner._apply(x))

    def linearise(self, x: Tensor) -> LinearOperator:
        return LinearComposition(self.outer.linearise(self.inner(x)), self.inner.linearise(x))


class LinearComposition(LinearOperator):
    """outer ∘ inner, both linear."""

    def __init__(self, outer: LinearOperator, inner: LinearOperator):
        super().__init__(inner.image_shape, outer.data_shape, inner.dtype)
        self.outer = outer
        self.inner = inner

    @property
    def data_dtype(self) -> torch.dtype:
        return _composed_dtype(self.outer, self.inner)

    @property
    def real_linear(self) -> bool:
        return self.dtype.is_complex and (self.outer.real_linear or self.inner.real_linear)

    def _apply(self, x: Tensor) -> Tensor:
        return self.outer._apply(self.inner._apply(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.inner._adjoint(self.outer._adjoint(y))

    def _gram(self, x: Tensor, weight: Tensor | float | None) -> Tensor:
        return self.inner._gram_behind(self.outer, x, weight)

    def spectrum(self) -> Tensor | None:
        outer, inner = self.outer.spectrum(), self.inner.spectrum()
        return None if outer is None or inner is None else outer * inner.to(outer.device)

    def gram_spectrum(self) -> Tensor | None:
        outer, inner = self.outer.gram_spectrum(), self.inner.spectrum()
        return None if outer is None or inner is None else outer * inner.abs().square().to(outer.device)


class Sum(LinearOperator):
    """A + B."""

    def __init__(self, first: LinearOperator, second: LinearOperator):
        _require_operators("A + B", first, second)
        for name in ("image_shape", "data_shape"):
            if getattr(first, name) != getattr(second, name):
                raise InputError(f"A + B needs equal {name}, got {getattr(first, name)} and {getattr(second, name)}")
        super().__init__(first.image_shape, first.data_shape, torch.promote_types(first.dtype, second.dtype))
        self.first = first
        self.second = second

    @property
    def data_dtype(self) -> torch.dtype:
        return torch.promote_types(self.first.data_dtype, self.second.data_dtype)

    @property
    def real_linear(self) -> bool:
        return self.first.real_linear or self.second.real_linear

    def _apply(self, x: Tensor) -> Tensor:
        return self.first._apply(x) + self.second._apply(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.first._adjoint(y) + self.second._adjoint(y)

    def spectrum(self) -> Tensor | None:
        first, second = self.first.spectrum(), self.second.spectrum()
        return None if first is None or second is None else first + second.to(first.device)


class Scaled(LinearOperator):
    """c·A with a number c."""

    def __init__(self, operator: LinearOperator, factor: float | complex):
        if isinstance(factor, bool) or not isinstance(factor, Number):
            raise InputError(
                f"an operator is scaled by a number, got {type(factor).__name__}; use float(...), or @ for operators"
            )
        factor = float(factor) if isinstance(factor, Real) else complex(factor)  # type: ignore[arg-type]
        if not isfinite(abs(factor)):
            raise InputError(f"an operator is scaled by a finite number, got {factor}")
        if isinstance(factor, complex) and not operator.dtype.is_complex:
            raise InputError(f"an operator on real images is scaled by a real number, got {factor}")
        if isinstance(factor, complex) and operator.real_linear:
            raise InputError(f"an operator that is linear over real numbers is scaled by one of them, got {factor}")
        super().__init__(operator.image_shape, operator.data_shape, operator.dtype)
        self.operator = operator
        self.factor = factor

    @property
    def data_dtype(self) -> torch.dtype:
        return self.operator.data_dtype

    @property
    def real_linear(self) -> bool:
        return self.operator.real_linear

    def _apply(self, x: Tensor) -> Tensor:
        return self.factor * self.operator._apply(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return (
            complex(self.factor).conjugate() * self.operator._adjoint(y)
            if isinstance(self.factor, complex)
            else (self.factor * self.operator._adjoint(y))
        )

    def spectrum(self) -> Tensor | None:
        spectrum = self.operator.spectrum()
        return None if spectrum is None or isinstance(self.factor, complex) else self.factor * spectrum

    def gram_spectrum(self) -> Tensor | None:
        spectrum = self.operator.gram_spectrum()
        return None if spectrum is None else abs(self.factor) ** 2 * spectrum

    def _solve(self, b: Tensor, damping: Tensor, weight: Tensor | None) -> Tensor | None:
        power = abs(self.factor) ** 2
        return self.operator._solve(b, damping, torch.full_like(damping, power) if weight is None else power * weight)

    def norm(self, iterations: int = 200, tolerance: float = 1e-6, seed: int = 0) -> float:
        return abs(self.factor) * self.operator.norm(iterations, tolerance, seed)


class Stack(LinearOperator):
    """[A₁; A₂; …] with data concatenated along the first data axis."""

    def __init__(self, operators: tuple[LinearOperator, ...]):
        if not operators:
            raise InputError("stack expects at least one operator, got none")
        _require_operators("stack", *operators)
        first = operators[0]
        for operator in operators[1:]:
            if operator.image_shape != first.image_shape or operator.data_shape[1:] != first.data_shape[1:]:
                raise InputError(
                    "stack expects operators on one image shape whose data agree in all axes but the first, "
                    f"got {first} and {operator}; reshape their data"
                )
        rows = sum(operator.data_shape[0] for operator in operators)
        super().__init__(first.image_shape, (rows, *first.data_shape[1:]), first.dtype)
        self.operators = operators

    @property
    def data_dtype(self) -> torch.dtype:
        return reduce(torch.promote_types, (operator.data_dtype for operator in self.operators))

    @property
    def real_linear(self) -> bool:
        return any(operator.real_linear for operator in self.operators)

    def _apply(self, x: Tensor) -> Tensor:
        return torch.cat([operator._apply(x) for operator in self.operators], dim=-len(self.data_shape))

    def _adjoint(self, y: Tensor) -> Tensor:
        parts = y.split([operator.data_shape[0] for operator in self.operators], dim=-len(self.data_shape))
        images = [operator._adjoint(part) for operator, part in zip(self.operators, parts, strict=True)]
        return torch.stack(images).sum(0)

    def gram_spectrum(self) -> Tensor | None:
        total = None
        for operator in self.operators:
            spectrum = operator.gram_spectrum()
            if spectrum is None:
                return None
            total = spectrum if total is None else total + spectrum.to(total.device)
        return total


def _require_operators(where: str, *operators: object) -> None:
    for operator in operators:
        if not isinstance(operator, Operator):
            raise InputError(
                f"{where} combines operators, got {type(operator).__name__}; apply an operator to an image as A(x), "
                "and use Dense for a matrix"
            )


def _composed_dtype(outer: Operator, inner: Operator) -> torch.dtype:
    """A complex field stays complex through an operator that was built for real images, such as a blur."""
    if outer.dtype.is_complex or outer.data_dtype.is_complex or not inner.data_dtype.is_complex:
        return outer.data_dtype
    return inner.data_dtype
