"""Vector algebra shared by the iterative solvers: batches of independent systems and calls that are checked.

A tensor `(*batch, *shape)` with `batch_dims` leading axes holds one vector per batch index. Inner products and norms
are taken per vector and keep their axes, so that they broadcast against the vectors they came from:

    ⟨a, b⟩ = Σ conj(a) b,   shape (*batch, 1, …, 1)

Solvers detach what comes in and what a callable returns: they never build a graph over their iterations.
"""

import math
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ..errors import InputError

__all__ = [
    "Callback",
    "Map",
    "check_limits",
    "check_vector",
    "guard",
    "inner",
    "mismatch",
    "norm",
    "real_inner",
    "resolution",
    "squared",
]

Map = Callable[[Tensor], Tensor]


@runtime_checkable
class Callback(Protocol):
    """Progress of an iteration: number done, number allowed (None if unknown), criterion reached."""

    def __call__(self, iteration: int, total: int | None, value: float, /) -> object: ...


def inner(a: Tensor, b: Tensor, batch_dims: int = 0) -> Tensor:
    """Σ conj(a) b over all but the leading `batch_dims` axes, which are kept with size one."""
    if batch_dims == 0 and a.is_complex() and b.dtype == a.dtype:
        # several times as fast as the product and its sum
        return torch.vdot(a.reshape(-1), b.reshape(-1)).reshape((1,) * a.ndim)
    product = a.conj() * b if a.is_complex() else a * b
    axes = tuple(range(batch_dims, a.ndim))
    return product.sum(dim=axes, keepdim=True) if axes else product


def real_inner(a: Tensor, b: Tensor, batch_dims: int = 0) -> Tensor:
    """The real part of `inner`."""
    if a.is_complex() and b.is_complex() and batch_dims < a.ndim:
        product = torch.view_as_real(a.resolve_conj()) * torch.view_as_real(b.resolve_conj())
        return product.sum(dim=tuple(range(batch_dims, product.ndim)), keepdim=True).squeeze(-1)
    product = inner(a, b, batch_dims)
    return product.real if product.is_complex() else product


def norm(a: Tensor, batch_dims: int = 0) -> Tensor:
    """Euclidean norm per vector, real, with the axes kept."""
    axes = tuple(range(batch_dims, a.ndim))
    if not axes:
        return a.abs()
    if a.is_complex():
        # over the two parts, which torch does 75 times as fast as over complex numbers
        parts = torch.view_as_real(a.resolve_conj())
        return torch.linalg.vector_norm(parts, dim=(*axes, a.ndim), keepdim=True).squeeze(-1)
    return torch.linalg.vector_norm(a, dim=axes, keepdim=True)


def mismatch(apply: Map, adjoint: Map, b: Tensor, batch_dims: int = 0) -> Tensor:
    """How far `adjoint` is from Aᴴ on the data at hand, as a flat tensor with one number per system, zero when right.

        |⟨A Aᴴb, b⟩ − ‖Aᴴb‖²| / (‖A Aᴴb‖ ‖b‖ + ‖Aᴴb‖²)

    Where Aᴴb is no more than rounding noise the probe says nothing, and zero is returned.
    """
    back = adjoint(b)
    forth = apply(back)
    length, image, data = (norm(v, batch_dims).flatten() for v in (b, back, forth))
    gap = (inner(forth, b, batch_dims).flatten() - image.square()).abs()
    size = data * length + image.square()
    telling = image.square() > resolution(b.dtype) ** 0.5 * data * length
    return torch.where(telling | ~torch.isfinite(gap), gap / torch.where(size > 0, size, 1.0), 0.0)


def squared(a: Tensor) -> Tensor:
    """|a|² elementwise, real, without the root that `abs` takes of complex numbers."""
    return a.real.square() + a.imag.square() if a.is_complex() else a.square()


def resolution(dtype: torch.dtype) -> float:
    """Relative spacing of numbers of this type: about 1e-7 in float32 and 2e-16 in float64."""
    return torch.finfo(dtype).eps


def guard(function: Map, name: str, shape: torch.Size | tuple[int, ...] | None = None) -> Map:
    """The callable with its result detached and, where `shape` is given, checked."""

    def call(x: Tensor) -> Tensor:
        y = function(x).detach()
        if shape is not None and y.shape != shape:
            raise InputError(
                f"{name} must return a tensor of shape {tuple(shape)}, got {tuple(y.shape)} from {tuple(x.shape)}; "
                "make it map the solver's vectors to vectors of the same space"
            )
        return y

    return call


def check_vector(b: Tensor, name: str, batch_dims: int = 0) -> Tensor:
    """`b` detached, after checking that it is floating-point, finite and has the batch axes."""
    if not (b.is_floating_point() or b.is_complex()):
        raise InputError(
            f"{name} must be a floating-point tensor, got {b.dtype}; convert it with .double() or .float()"
        )
    if not 0 <= batch_dims <= b.ndim:
        raise InputError(f"batch_dims must lie between 0 and {b.ndim}, the number of axes of {name}; got {batch_dims}")
    if not bool(torch.isfinite(b).all()):
        raise InputError(f"{name} must be finite, got NaN or infinity in it; mask or repair those entries first")
    return b.detach()


def check_limits(tolerance: float, max_iterations: int | None) -> None:
    """Refuse a tolerance or an iteration limit that makes no sense."""
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise InputError(f"tolerance must be a finite number of at least 0, got {tolerance}; 1e-6 is a usual choice")
    if max_iterations is not None and max_iterations < 0:
        raise InputError(f"max_iterations must be at least 0, got {max_iterations}")
