"""What every explicit prior can do, and how priors add up.

    value(x) = −log p(x) + constant
    prox(x, s) = argmin_u  value(u) + ‖u − x‖²/(2s)                   (for complex images with |·|², as everywhere)
    terms:  value(x) = Σ_i f_i(K_i x),  with f_i simple and K_i linear     (what PDHG and ADMM split on)
    a + b adds energies (multiplies densities); 2.0 * a raises a density to a power

A prior is an immutable value. Its images have `dimensions` spatial axes after one channel axis; leading axes are a
batch.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..errors import InputError
from ..operators.base import LinearOperator

__all__ = ["Functional", "Hessian", "Lifted", "Prior", "Scaled", "Sum", "Term", "Whole", "identity"]


class Functional:
    """A simple convex function f of `K x`: its value and its proximal operators.

    Args:
        axes: number of trailing axes that make up one item.
    """

    def __init__(self, axes: int):
        self.axes = axes

    def value(self, z: Tensor) -> Tensor:
        """f(z) of each item: batch shape."""
        raise NotImplementedError(f"{type(self).__name__} must define value")

    def prox(self, z: Tensor, step: float) -> Tensor:
        """argmin_u f(u) + ‖u − z‖²/(2 step)."""
        raise NotImplementedError(f"{type(self).__name__} must define prox")

    def prox_conjugate(self, z: Tensor, step: float) -> Tensor:
        """Proximal operator of the conjugate f*, by Moreau's identity."""
        return z - step * self.prox(z / step, 1.0 / step)

    def total(self, values: Tensor) -> Tensor:
        """Sum over one item's axes."""
        return values.sum(dim=tuple(range(-self.axes, 0)))


@dataclasses.dataclass(frozen=True)
class Term:
    """One part f(K x) of a prior."""

    operator: LinearOperator
    functional: Functional


@dataclasses.dataclass(frozen=True)
class Lifted:
    """A prior as the least sum of simple terms over auxiliary images: value(x) = min_v Σ_i f_i(K_i (x, v)).

    Args:
        extra: number k of auxiliary images.
        terms: their operators act on the stack (x, v_1, …, v_k), of shape `(1 + k, *image_shape)`.
        start: x ↦ a reasonable (x, v).
    """

    extra: int
    terms: list[Term]
    start: Callable[[Tensor], Tensor]


@dataclasses.dataclass(frozen=True)
class Hessian:
    """Second derivative H of an energy at one image.

    Args:
        matvec: v ↦ H v for `v` of shape `(*batch, *image_shape)`.
        perturbation: generator ↦ one draw from N(0, H), of the image's shape.
        modes: eigenvalues on the Fourier modes in `rfftn` layout, `(C or 1, *grid)`, if H is a circular convolution.
    """

    matvec: Callable[[Tensor], Tensor]
    perturbation: Callable[[torch.Generator], Tensor]
    modes: Tensor | None = None

    def spectrum(self) -> Tensor | None:
        """Eigenvalues on the Fourier modes in `rfftn` layout, or None."""
        return self.modes


class Prior:
    """Base of explicit priors: an energy, and whichever of gradient, prox, Hessian and terms it has."""

    dimensions: int = 2
    """Number of spatial axes: 2 for `(C, H, W)`, 3 for `(C, D, H, W)`."""
    image_shape: tuple[int, ...] | None = None
    """The one image shape the prior is for, or None."""

    @property
    def smooth(self) -> bool:
        """Whether the energy has a gradient and a Hessian everywhere."""
        return False

    @property
    def proximable(self) -> bool:
        """Whether `prox` exists."""
        return True

    @property
    def valued(self) -> bool:
        """Whether `value` exists."""
        return True

    def value(self, x: Tensor) -> Tensor:
        """The energy of each image: batch shape."""
        raise NotImplementedError(f"{type(self).__name__} must define value")

    def gradient(self, x: Tensor) -> Tensor:
        """Derivative of the energy, in the image's shape."""
        raise InputError(f"{self} has no gradient; use prox or terms, or a smoothed prior")

    def prox(self, x: Tensor, step: float) -> Tensor:
        """argmin_u value(u) + ‖u − x‖²/(2 step)."""
        raise InputError(f"{self} has no proximal operator; use its gradient, or a method that splits on its terms")

    def hessian(self, x: Tensor) -> Hessian:
        """Second derivative at one image `x`, without batch axes."""
        raise InputError(f"{self} has no Hessian; use a smoothed prior, such as TotalVariation(smoothing=0.01)")

    def terms(self, image_shape: Sequence[int] | None = None, dtype: torch.dtype = torch.float32) -> list[Term]:
        """Operators and functionals whose sum this is; `image_shape` is needed unless the prior has one."""
        raise InputError(f"{self} is not a sum of simple terms; use its gradient or prox")

    def lifted(self, image_shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Lifted | None:
        """The prior over the image and auxiliary images at once, if it is the least sum of simple terms over these."""
        return None

    def bind(self, image_shape: Sequence[int]) -> "Prior":
        """This prior for images of a given shape, which sets the number of spatial axes.

        Raises:
            InputError: the prior is for another shape.
        """
        shape = tuple(image_shape)
        if self.image_shape is not None and self.image_shape != shape:
            raise InputError(f"{self} is for images {self.image_shape}, got {shape}; build it for this shape")
        if self.image_shape is None and self.dimensions != len(shape) - 1:
            return dataclasses.replace(self, dimensions=len(shape) - 1)  # type: ignore[type-var]
        return self

    def __add__(self, other: "Prior") -> "Sum":
        return Sum((self, other))

    def __mul__(self, factor: float) -> "Prior":
        return Scaled(self, factor)

    __rmul__ = __mul__

    def _shape(self, image_shape: Sequence[int] | None) -> tuple[int, ...]:
        shape = self.image_shape if image_shape is None else tuple(image_shape)
        if shape is None:
            raise InputError(f"{self}.terms expects an image_shape such as (1, 64, 64), got none")
        self.bind(shape)
        return shape


@dataclasses.dataclass(frozen=True, eq=False)
class Sum(Prior):
    """a + b + …: the product of the densities."""

    priors: tuple[Prior, ...]

    def __post_init__(self):
        flat: list[Prior] = []
        for prior in self.priors:
            if not isinstance(prior, Prior):
                raise InputError(f"priors add to priors, got {type(prior).__name__}; scale with * and add with +")
            flat.extend(prior.priors if isinstance(prior, Sum) else (prior,))
        shapes = {prior.image_shape for prior in flat if prior.image_shape is not None}
        if len(shapes) > 1:
            raise InputError(f"a + b needs priors for one image shape, got {sorted(shapes)}; build them for the same")
        shape = next(iter(shapes), None)
        dimensions = {prior.dimensions for prior in flat} if shape is None else {len(shape) - 1}
        if len(dimensions) > 1:
            raise InputError(f"a + b needs priors for as many spatial axes, got {sorted(dimensions)}; set dimensions")
        bound = flat if shape is None else [prior.bind(shape) for prior in flat]
        object.__setattr__(self, "priors", tuple(bound))
        object.__setattr__(self, "image_shape", shape)
        object.__setattr__(self, "dimensions", dimensions.pop())

    @property
    def smooth(self) -> bool:
        return all(prior.smooth for prior in self.priors)

    @property
    def proximable(self) -> bool:
        return len(self.priors) == 1 and self.priors[0].proximable

    @property
    def valued(self) -> bool:
        return all(prior.valued for prior in self.priors)

    def value(self, x: Tensor) -> Tensor:
        return torch.stack([prior.value(x) for prior in self.priors]).sum(0)

    def gradient(self, x: Tensor) -> Tensor:
        return torch.stack([prior.gradient(x) for prior in self.priors]).sum(0)

    def prox(self, x: Tensor, step: float) -> Tensor:
        if not self.proximable:
            raise InputError("a sum of priors has no proximal operator of its own; use a method that splits on terms")
        return self.priors[0].prox(x, step)

    def hessian(self, x: Tensor) -> Hessian:
        parts = [prior.hessian(x) for prior in self.priors]
        spectra = [part.spectrum() for part in parts]
        known = [spectrum for spectrum in spectra if spectrum is not None]
        return Hessian(
            matvec=lambda v: torch.stack([part.matvec(v) for part in parts]).sum(0),
            perturbation=lambda generator: torch.stack([part.perturbation(generator) for part in parts]).sum(0),
            modes=sum(known[1:], known[0]) if len(known) == len(parts) else None,
        )

    def terms(self, image_shape: Sequence[int] | None = None, dtype: torch.dtype = torch.float32) -> list[Term]:
        shape = self._shape(image_shape)
        return [term for prior in self.priors for term in prior.bind(shape).terms(shape, dtype)]

    def bind(self, image_shape: Sequence[int]) -> "Sum":
        return Sum(tuple(prior.bind(image_shape) for prior in self.priors))


@dataclasses.dataclass(frozen=True, eq=False)
class Scaled(Prior):
    """c · a with c > 0."""

    prior: Prior
    factor: float

    def __post_init__(self):
        if isinstance(self.factor, bool) or not isinstance(self.factor, int | float) or not math.isfinite(self.factor):
            raise InputError(f"a prior is scaled by a finite number, got {self.factor!r}; add priors with +")
        if self.factor <= 0:
            raise InputError(
                f"a prior is scaled by a number above zero, got {self.factor}; leave the prior out instead"
            )
        if isinstance(self.prior, Scaled):
            object.__setattr__(self, "factor", self.factor * self.prior.factor)
            object.__setattr__(self, "prior", self.prior.prior)
        object.__setattr__(self, "image_shape", self.prior.image_shape)
        object.__setattr__(self, "dimensions", self.prior.dimensions)

    @property
    def smooth(self) -> bool:
        return self.prior.smooth

    @property
    def proximable(self) -> bool:
        return self.prior.proximable

    @property
    def valued(self) -> bool:
        return self.prior.valued

    def value(self, x: Tensor) -> Tensor:
        return self.factor * self.prior.value(x)

    def gradient(self, x: Tensor) -> Tensor:
        return self.factor * self.prior.gradient(x)

    def prox(self, x: Tensor, step: float) -> Tensor:
        return self.prior.prox(x, self.factor * step)

    def hessian(self, x: Tensor) -> Hessian:
        part, factor = self.prior.hessian(x), self.factor
        return Hessian(
            matvec=lambda v: factor * part.matvec(v),
            perturbation=lambda generator: math.sqrt(factor) * part.perturbation(generator),
            modes=None if part.modes is None else factor * part.modes,
        )

    def terms(self, image_shape: Sequence[int] | None = None, dtype: torch.dtype = torch.float32) -> list[Term]:
        return [
            Term(term.operator, _ScaledFunctional(term.functional, self.factor))
            for term in self.prior.terms(image_shape, dtype)
        ]

    def bind(self, image_shape: Sequence[int]) -> "Scaled":
        return Scaled(self.prior.bind(image_shape), self.factor)


class Whole(Functional):
    """A prior as a function of the image itself, known by its value and its prox."""

    def __init__(self, prior: Prior, axes: int):
        super().__init__(axes)
        self.prior = prior

    def value(self, z: Tensor) -> Tensor:
        return self.prior.value(z)

    def prox(self, z: Tensor, step: float) -> Tensor:
        return self.prior.prox(z, step)


class _ScaledFunctional(Functional):
    def __init__(self, functional: Functional, factor: float):
        super().__init__(functional.axes)
        self.functional, self.factor = functional, factor

    def value(self, z: Tensor) -> Tensor:
        return self.factor * self.functional.value(z)

    def prox(self, z: Tensor, step: float) -> Tensor:
        return self.functional.prox(z, self.factor * step)


def identity(shape: tuple[int, ...], dtype: torch.dtype) -> LinearOperator:
    """The identity on images of one shape."""
    from ..operators.elementary import Identity

    return Identity(shape, dtype=dtype)


def check_step(step: float, owner: str) -> float:
    """A positive finite step."""
    value = float(step)
    if not (value > 0 and math.isfinite(value)):
        raise InputError(f"{owner}.prox expects a positive step, got {value:g}; pass a number above zero")
    return value


def batch_sum(values: Tensor, axes: int, owner: str) -> Tensor:
    """Sum over the last `axes` axes, those of one image."""
    if values.ndim < axes:
        raise InputError(
            f"{owner} expects images with {axes} axes, channel first, got {tuple(values.shape)}; add a channel axis"
        )
    return values.sum(dim=tuple(range(-axes, 0)))
