"""Forward models: what the instrument does to an image.

    y = A(x),   ⟨A x, y⟩ = ⟨x, Aᴴ y⟩   when A is linear

An operator is an immutable value. It maps images `(*batch, *image_shape)` to ideal data `(*batch, *data_shape)`, keeps
the precision and device of what it is given, and is differentiable by autograd. A subclass writes `_apply` and, when it
is linear, `_adjoint`; where its structure gives a closed form it also overrides `spectrum`, `norm` or `_solve`.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from numbers import Integral
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..errors import InputError
from ..solvers.algebra import norm, real_inner
from .inverse import divide_spectrum, require_weight, solve_normal

__all__ = ["Adjoint", "Jacobian", "LinearOperator", "Operator", "constant_like", "require_finite", "tensors_of"]

_Self = TypeVar("_Self", bound="Operator")  # typing.Self cannot be checked by beartype outside its class
_COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}
_REAL = {torch.complex64: torch.float32, torch.complex128: torch.float64}


class _Immutable(type):
    """Freezes an object once its whole chain of constructors has run."""

    def __call__(cls, *args: Any, **keywords: Any) -> Any:
        instance = super().__call__(*args, **keywords)
        object.__setattr__(instance, "_frozen", True)
        return instance


class Operator(metaclass=_Immutable):
    """A differentiable map from images to ideal data.

    Args:
        image_shape: shape of one image, `(C, H, W)` or `(C, D, H, W)`, without batch axes.
        data_shape: shape of one measurement, without batch axes.
        dtype: precision the operator was built for: a real type for real images, a complex type for complex ones.
    """

    image_shape: tuple[int, ...]
    data_shape: tuple[int, ...]
    dtype: torch.dtype

    def __init__(self, image_shape: Sequence[int], data_shape: Sequence[int], dtype: torch.dtype = torch.float32):
        self.image_shape = _as_shape(image_shape, "image_shape")
        self.data_shape = _as_shape(data_shape, "data_shape")
        if not (dtype.is_floating_point or dtype.is_complex):
            raise InputError(f"an operator works in a floating-point type, got {dtype}; use torch.float32 or float64")
        self.dtype = dtype

    def __setattr__(self, name: str, value: Any):
        if getattr(self, "_frozen", False):
            raise AttributeError(
                f"{type(self).__name__} is immutable: build a new operator instead of setting {name!r}"
            )
        object.__setattr__(self, name, value)

    @property
    def data_dtype(self) -> torch.dtype:
        """Type of the data of images of type `dtype`: the same, unless the operator makes complex images real."""
        return self.dtype

    def __call__(self, x: Tensor) -> Tensor:
        """Ideal data of the image `x`, shape `(*batch, *image_shape)` → `(*batch, *data_shape)`."""
        _check(x, self.image_shape, f"{type(self).__name__} expects an image", self.dtype)
        return self._apply(x)

    def _apply(self, x: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must define _apply")

    def linearise(self, x: Tensor) -> "LinearOperator":
        """The Jacobian of the operator at the image `x` (one image, no batch axes), as a linear operator."""
        _check(x, self.image_shape, f"{type(self).__name__}.linearise expects an image", self.dtype, batched=False)
        return Jacobian(self, x)

    @property
    def real_dtype(self) -> torch.dtype:
        """The real type of the operator's precision: float32 for complex64."""
        return _matching(self.dtype, False)

    def to(self: _Self, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> _Self:
        """A copy whose constants have another precision and live on another device.

        A real `dtype` also sets the matching complex precision of complex constants, and the other way round.
        """
        if dtype is not None and not (dtype.is_floating_point or dtype.is_complex):
            raise InputError(f"an operator is converted to a floating-point type, got {dtype}; use torch.float64")
        copy = object.__new__(type(self))
        for name, value in self.__dict__.items():
            object.__setattr__(copy, name, _converted(value, dtype, device))
        if dtype is not None:
            object.__setattr__(copy, "dtype", _matching(dtype, self.dtype.is_complex))
        return copy

    def __matmul__(self, other: "Operator") -> "Operator":
        from .compose import compose

        return compose(self, other)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(image {self.image_shape} → data {self.data_shape}, {self.dtype})"


class LinearOperator(Operator):
    """An operator with an exact adjoint: ⟨A x, y⟩ = ⟨x, Aᴴ y⟩ to rounding, with ⟨a, b⟩ = Σ conj(a) b."""

    channelwise: bool = False
    """Whether `_gram` treats the channels apart and alike, so that it may be given some of them."""

    @property
    def real_linear(self) -> bool:
        """Whether A is linear over the real numbers only, as the derivative of |x|² at a complex x is. Complex images
        then count as pairs of real ones, and ⟨a, b⟩ is Re Σ conj(a) b: the product in which gradients are defined."""
        return self.dtype.is_complex and not self.data_dtype.is_complex

    def _adjoint(self, y: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must define _adjoint")

    def adjoint(self, y: Tensor) -> Tensor:
        """Aᴴ y, shape `(*batch, *data_shape)` → `(*batch, *image_shape)`."""
        _check(y, self.data_shape, f"{type(self).__name__}.adjoint expects data", self.data_dtype)
        return self._adjoint(y)

    @property
    def H(self) -> "LinearOperator":
        """The adjoint as an operator, from data to images."""
        return Adjoint(self)

    def gram(self, x: Tensor, weight: Tensor | float | None = None) -> Tensor:
        """Aᴴ W A x, with W = `weight` the inverse noise variance (identity when None)."""
        _check(x, self.image_shape, f"{type(self).__name__}.gram expects an image", self.dtype)
        return self._gram(x, weight)

    def _gram(self, x: Tensor, weight: Tensor | float | None) -> Tensor:
        y = self._apply(x)
        return self._adjoint(y if weight is None else weight * y)

    def _gram_behind(self, outer: "LinearOperator", x: Tensor, weight: Tensor | float | None) -> Tensor:
        """Aᴴ (BᴴWB) A x with B = `outer`, which may know a shorter way to its own Gram operator."""
        return self._adjoint(outer._gram(self._apply(x), weight))

    def spectrum(self) -> Tensor | None:
        """Eigenvalues on the image's Fourier modes, `(C or 1, *grid)` in `rfftn` layout, if A is a real circular
        convolution; None otherwise. This is how solvers and methods find a Fourier closed form."""
        return None

    def gram_spectrum(self) -> Tensor | None:
        """Eigenvalues of AᴴA on the image's Fourier modes, laid out as in `spectrum`, if AᴴA is a circular convolution;
        None otherwise. It exists wherever `spectrum` does, and for a circular gradient too."""
        spectrum = self.spectrum()
        return None if spectrum is None else spectrum.abs().square()

    def norm(self, iterations: int = 200, tolerance: float = 1e-6, seed: int = 0) -> float:
        """Largest singular value, by power iteration on AᴴA unless a closed form is known.

        The estimate approaches from below; it stops once it changes by less than `tolerance`, relatively.
        """
        spectrum = self.gram_spectrum()
        if spectrum is not None:
            return float(spectrum.max().sqrt())
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(self.image_shape, generator=generator, dtype=_matching(torch.float64, self.dtype.is_complex))
        x = x.to(dtype=self.dtype, device=self._device())
        value = 0.0
        for _ in range(iterations):
            x = x / norm(x)
            y = self._gram(x, None)
            previous, value = value, math.sqrt(max(float(real_inner(x, y)), 0.0))  # ‖A x‖
            if value == 0.0 or abs(value - previous) <= tolerance * value:
                break
            x = y
        return value

    def solve(
        self,
        b: Tensor,
        damping: float | Tensor,
        weight: Tensor | float | None = None,
        *,
        tolerance: float | None = None,
        max_iterations: int = 1000,
    ) -> Tensor:
        """(Aᴴ W A + damping·I)⁻¹ b.

        In closed form where the operator's structure gives one, else by conjugate gradients; differentiable in `b`,
        `damping` and `weight` by the implicit function theorem, whatever the route.

        Args:
            b: images `(*batch, *image_shape)`.
            damping: positive number, or a scalar tensor if its gradient is wanted.
            weight: W, inverse noise variances: a scalar or a tensor that broadcasts to `data_shape`.
            tolerance: relative residual for conjugate gradients; by default 1e-6 in float32 and 1e-12 in float64.

        Raises:
            InputError: damping is not positive, a weight is negative or not finite, or a shape is wrong.
            NumericsError: conjugate gradients did not reach the tolerance.
        """
        _check(b, self.image_shape, f"{type(self).__name__}.solve expects an image", self.dtype)
        value = float(damping.detach()) if isinstance(damping, Tensor) else float(damping)
        if not (value > 0 and math.isfinite(value)):
            raise InputError(f"solve expects a positive damping, got {value:g}; pass a number above zero")
        real = _matching(b.dtype, False)
        damping_tensor = torch.as_tensor(damping, dtype=real, device=b.device)
        weight_tensor = None if weight is None else torch.as_tensor(weight, dtype=real, device=b.device)
        if weight_tensor is not None:
            require_weight(weight_tensor, self.data_shape, f"{type(self).__name__}.solve")
        if tolerance is None:
            tolerance = 1e-6 if real == torch.float32 else 1e-12
        return solve_normal(self, b, damping_tensor, weight_tensor, tolerance, max_iterations)

    def _solve(self, b: Tensor, damping: Tensor, weight: Tensor | None) -> Tensor | None:
        """The closed form of `solve`, or None where there is none; no gradient is needed here."""
        spectrum = self.gram_spectrum()
        if spectrum is None or (weight is not None and weight.numel() != 1):
            return None
        scale = 1.0 if weight is None else weight.reshape(())
        return divide_spectrum(b, scale * constant_like(spectrum, damping) + damping, len(self.image_shape) - 1)

    def preconditioner(self, damping: Tensor, weight: Tensor | None) -> Callable[[Tensor], Tensor] | None:
        """v ↦ M⁻¹ v with M near AᴴWA + damping, Hermitian positive-definite, or None where none is known.

        `solve` gives it to conjugate gradients. It changes how many iterations they take, not what they converge to.
        """
        return None

    def __add__(self, other: "LinearOperator") -> "LinearOperator":
        from .compose import Sum

        return Sum(self, other)

    def __mul__(self, factor: float | complex) -> "LinearOperator":
        from .compose import Scaled

        return Scaled(self, factor)

    __rmul__ = __mul__

    def __neg__(self) -> "LinearOperator":
        return -1.0 * self

    def __sub__(self, other: "LinearOperator") -> "LinearOperator":
        return self + (-1.0) * other

    def linearise(self, x: Tensor) -> "LinearOperator":
        """A linear operator is its own Jacobian."""
        return self

    def _device(self) -> torch.device:
        return next((tensor.device for tensor in tensors_of(self)), torch.device("cpu"))


class Adjoint(LinearOperator):
    """Aᴴ as an operator; the adjoint of the adjoint is the original."""

    def __init__(self, operator: LinearOperator):
        super().__init__(operator.data_shape, operator.image_shape, operator.data_dtype)
        self.operator = operator

    @property
    def data_dtype(self) -> torch.dtype:
        return self.operator.dtype

    @property
    def real_linear(self) -> bool:
        return self.dtype.is_complex and self.operator.real_linear

    def _apply(self, x: Tensor) -> Tensor:
        return self.operator._adjoint(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.operator._apply(y)

    @property
    def H(self) -> LinearOperator:
        return self.operator

    def spectrum(self) -> Tensor | None:
        spectrum = self.operator.spectrum()
        return None if spectrum is None else spectrum.conj().resolve_conj()

    def norm(self, iterations: int = 200, tolerance: float = 1e-6, seed: int = 0) -> float:
        return self.operator.norm(iterations, tolerance, seed)


class Jacobian(LinearOperator):
    """Derivative of an operator at one image: forward mode for J v, reverse mode for Jᴴ u.

    At a complex image it is linear over the real numbers, and its adjoint that of Re⟨·, ·⟩.
    """

    def __init__(self, operator: Operator, x: Tensor):
        super().__init__(operator.image_shape, operator.data_shape, operator.dtype)
        self.operator = operator
        self.x = x.detach()

    @property
    def data_dtype(self) -> torch.dtype:
        return self.operator.data_dtype

    @property
    def real_linear(self) -> bool:
        return self.dtype.is_complex  # whether the operator is holomorphic is not known

    def _apply(self, x: Tensor) -> Tensor:
        point = self.x.to(x.dtype)
        flat = x.reshape(-1, *self.image_shape)
        columns = [torch.func.jvp(self.operator._apply, (point,), (v,))[1] for v in flat]
        return torch.stack(columns).reshape(*x.shape[: x.ndim - len(self.image_shape)], *self.data_shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        point = self.x.to(_matching(y.dtype, self.x.is_complex()))
        pull = torch.func.vjp(self.operator._apply, point)[1]
        flat = y.reshape(-1, *self.data_shape)
        rows = [pull(u)[0] for u in flat]
        return torch.stack(rows).reshape(*y.shape[: y.ndim - len(self.data_shape)], *self.image_shape)


def _as_shape(shape: Sequence[int], name: str) -> tuple[int, ...]:
    sizes = tuple(shape)
    if not sizes or not all(isinstance(n, Integral) and not isinstance(n, bool) and n > 0 for n in sizes):
        raise InputError(f"{name} expects positive sizes, whole numbers such as (1, 64, 64), got {shape!r}")
    return tuple(int(n) for n in sizes)


def tensors_of(value: Any) -> Iterator[Tensor]:
    """The constants of an operator and of the operators that it is made of."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Operator | tuple):
        for member in value.__dict__.values() if isinstance(value, Operator) else value:
            yield from tensors_of(member)


def constant_like(constant: Tensor, x: Tensor) -> Tensor:
    """An operator's constant in the precision and on the device of `x`; a complex constant stays complex."""
    return constant.to(dtype=_matching(_matching(x.dtype, False), constant.is_complex()), device=x.device)


def require_finite(constant: Tensor, what: str) -> Tensor:
    """`constant` if it is a floating-point tensor without NaN or infinity; an InputError otherwise."""
    if not isinstance(constant, Tensor) or not (constant.is_floating_point() or constant.is_complex()):
        got = constant.dtype if isinstance(constant, Tensor) else type(constant).__name__
        raise InputError(f"{what} as a floating-point tensor, got {got}; convert it with torch.as_tensor(...).float()")
    bad = int((~torch.isfinite(constant)).sum())
    if bad:
        raise InputError(f"{what} of finite values, got {bad} NaN or infinite ones; replace them or mask them")
    return constant


def _check(x: Tensor, shape: tuple[int, ...], what: str, dtype: torch.dtype, batched: bool = True) -> None:
    if not isinstance(x, Tensor):
        raise InputError(f"{what} as a torch tensor, got {type(x).__name__}; convert it with torch.as_tensor")
    given = tuple(x.shape)
    if not (x.is_floating_point() or x.is_complex()):
        raise InputError(f"{what} of a floating-point type, got {x.dtype}; convert it with .float() or .double()")
    if dtype.is_complex and not x.is_complex():
        raise InputError(f"{what} of a complex type, got {x.dtype}; convert it with .to({_matching(x.dtype, True)})")
    fits = given[len(given) - len(shape) :] == shape and len(given) >= len(shape)
    if not fits or (not batched and given != shape):
        batch = "(*batch, " if batched else "("
        raise InputError(f"{what} of shape {batch}{', '.join(map(str, shape))}), got {given}; reshape or crop it")


def _matching(dtype: torch.dtype, complex_: bool) -> torch.dtype:
    if complex_:
        return _COMPLEX.get(dtype, dtype)
    return _REAL.get(dtype, dtype)


def _converted(value: Any, dtype: torch.dtype | None, device: torch.device | str | None) -> Any:
    if isinstance(value, Operator):
        return value.to(dtype=dtype, device=device)
    if isinstance(value, tuple) and any(isinstance(v, Operator | Tensor) for v in value):
        return tuple(_converted(v, dtype, device) for v in value)
    if isinstance(value, Tensor):
        floating = value.is_floating_point() or value.is_complex()
        target = _matching(dtype, value.is_complex()) if dtype is not None and floating else value.dtype
        return value.to(dtype=target, device=device)
    return value
