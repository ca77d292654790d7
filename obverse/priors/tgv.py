"""Total generalised variation of second order: like total variation, without its stairs on slopes.

    TGV(x) = min_v  α₁ Σ_i |(∇x − v)_i| + α₀ Σ_i |(E v)_i|,      E v = (∇v + ∇vᵀ)/2

Both `value` and `prox` run the primal–dual hybrid gradient on (u, v) and stop on a certified gap. With multipliers p of
∇u − v and q of E v, every q that satisfies |q| ≤ α₀ and |Eᴴq| ≤ α₁ gives the lower bound

    prox:   ½‖x‖² − ½‖x − ∇ᴴEᴴq‖²           value:   ⟨Eᴴq, ∇x⟩

of the energy; the iterate is scaled down into that set, which costs nothing in the limit. Only real images.

References: Bredies, Kunisch, Pock, "Total generalized variation", SIAM J. Imaging Sci. 2010. Chambolle, Pock, "A
first-order primal-dual algorithm for convex problems with applications to imaging", JMIV 2011.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError, NumericsError
from ..operators.base import LinearOperator
from ..solvers.result import Status
from .base import Functional, Lifted, Prior, Term, Whole, check_step, identity
from .differences import checked_spacing, gradient, gradient_adjoint, squared_norm_bound

__all__ = ["TotalGeneralizedVariation", "TotalGeneralizedVariationProx"]

_CHECK_EVERY = 25


@dataclass(frozen=True)
class TotalGeneralizedVariationProx:
    """What the iteration reached.

    Args:
        x: the image.
        slope: v, `(*batch, axes, C, *grid)`.
        energy: of each plane at (x, v), flattened.
        gap: largest relative gap over the planes.
        status: whether the gap was reached.
    """

    x: Tensor
    slope: Tensor
    energy: Tensor
    gap: float
    iterations: int
    status: Status


@dataclass(frozen=True)
class TotalGeneralizedVariation(Prior):
    """min_v first·Σ|∇x − v| + second·Σ|E v|, each channel on its own.

    Args:
        first: α₁, weight of the jumps.
        second: α₀, weight of the bends, in units of length times that of `first`; about twice it for photographs.
        dimensions: number of spatial axes.
        spacing: pixel size along each spatial axis; 1 by default.
        tolerance: relative gap at which `value` and `prox` stop.
        max_iterations: of either.

    Example:
        >>> import torch
        >>> ramp = torch.arange(8.0).expand(1, 8, 8)
        >>> bool(TotalGeneralizedVariation().value(ramp) < 20.0)      # total variation gives 56
        True
    """

    first: float = 1.0
    second: float = 2.0
    dimensions: int = 2
    spacing: Sequence[float] | None = None
    tolerance: float = 1e-3
    max_iterations: int = 20_000

    def __post_init__(self):
        for name in ("first", "second", "tolerance"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"TotalGeneralizedVariation expects a positive {name}, got {value}")
        if self.spacing is not None:
            checked = checked_spacing(self.spacing, self.dimensions, "TotalGeneralizedVariation")
            object.__setattr__(self, "spacing", checked)

    def value(self, x: Tensor) -> Tensor:
        """The energy of each image: batch shape, to a relative gap of `tolerance`."""
        result = self._solve(x, 1.0, free=False)
        if not result.status.converged:
            raise NumericsError(f"TotalGeneralizedVariation.value: {result.status.message}")
        batch = x.shape[: x.ndim - self.dimensions - 1]
        return result.energy.reshape(*batch, x.shape[-self.dimensions - 1]).sum(-1)

    def prox(self, x: Tensor, step: float) -> Tensor:
        result = self.prox_result(x, step)
        if not result.status.converged:
            raise NumericsError(f"TotalGeneralizedVariation.prox: {result.status.message}")
        return result.x

    def prox_result(self, x: Tensor, step: float) -> TotalGeneralizedVariationProx:
        """The prox with its certificate and status."""
        return self._solve(x, check_step(step, "TotalGeneralizedVariation"), free=True)

    def terms(self, image_shape: Sequence[int] | None = None, dtype: torch.dtype = torch.float32) -> list[Term]:
        shape = self._shape(image_shape)
        return [Term(identity(shape, dtype), Whole(self.bind(shape), len(shape)))]

    def lifted(self, image_shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Lifted:
        """Over (x, v): a term of the jumps ∇x − v and one of the bends E v."""
        shape = self._shape(image_shape)
        if dtype.is_complex:
            raise InputError("TotalGeneralizedVariation expects real images, got complex ones; use TotalVariation")
        bound = self.bind(shape)
        d, spacing = len(shape) - 1, checked_spacing(self.spacing, bound.dimensions, "TotalGeneralizedVariation")
        jumps = Term(_Jumps(shape, spacing, dtype), _Lengths(self.first, 1, d + 2))
        bends = Term(_Bends(shape, spacing, dtype), _Lengths(self.second, 2, d + 3))
        return Lifted(d, [jumps, bends], lambda x: torch.cat([x[None], 0.5 * gradient(x, spacing)]))

    @torch.no_grad()
    def _solve(self, x: Tensor, scale: float, free: bool) -> TotalGeneralizedVariationProx:
        """Minimise over v, and over u as well if `free`; otherwise u stays at x."""
        d = self.dimensions
        if x.ndim < d + 1 or not x.is_floating_point() or not bool(x.isfinite().all()):
            raise InputError(
                f"TotalGeneralizedVariation expects finite real images with {d + 1} axes, channel first, got "
                f"{tuple(x.shape)} {x.dtype}; add a channel axis or convert"
            )
        spacing = checked_spacing(self.spacing, d, "TotalGeneralizedVariation")
        jumps, bends = scale * self.first, scale * self.second
        shape = tuple(x.shape)
        x = x.reshape(-1, 1, *shape[-d:])
        mean = x.mean(dim=tuple(range(1, x.ndim)), keepdim=True)
        x = x - mean
        square = squared_norm_bound(spacing)
        # ‖[∇ −1; 0 E]‖² is at most the larger eigenvalue of [[‖∇‖², ‖∇‖], [‖∇‖, 1 + ‖∇‖²]]
        step = 0.999 / math.sqrt(square + 0.5 + math.sqrt(square + 0.25))
        u = u_bar = x
        v = v_bar = torch.zeros_like(gradient(x, spacing)) if free else gradient(x, spacing)
        p, q = torch.zeros_like(v), torch.zeros_like(_symmetric(v, spacing))
        # images move on the scale of their differences, duals on that of the bounds; 0.05 served best
        ratio = 0.05 * float(gradient(x, spacing).abs().mean().clamp_min(1e-12)) / jumps
        ratio = min(max(ratio, 1e-4), 1e2)
        tau, sigma = step * ratio, step / ratio
        iteration = 0
        while True:
            if iteration % _CHECK_EVERY == 0 or iteration == self.max_iterations:
                energy, relative = self._certificate(x, u, v, q, spacing, jumps, bends, free)
                gap = float(relative.max())
                if gap <= self.tolerance or iteration >= self.max_iterations:
                    break
            p = _project(p + sigma * (gradient(u_bar, spacing) - v_bar), jumps, (1,))
            q = _project(q + sigma * _symmetric(v_bar, spacing), bends, (1, 2))
            if free:
                new = (u - tau * gradient_adjoint(p, spacing) + tau * x) / (1.0 + tau)
                u, u_bar = new, 2.0 * new - u
            new = v + tau * (p - _symmetric_adjoint(q, spacing))
            v, v_bar = new, 2.0 * new - v
            iteration += 1
        slope = v[:, :, 0].reshape(*shape[:-d], d, *shape[-d:]).movedim(-d - 1, -d - 2)
        return TotalGeneralizedVariationProx(
            (u + mean).reshape(shape), slope, energy, gap, iteration, _status(gap, self.tolerance, iteration)
        )

    def _certificate(self, x, u, v, q, spacing, jumps, bends, free) -> tuple[Tensor, Tensor]:
        """Energy of each plane, and its distance to a lower bound relative to it."""
        lift = _symmetric_adjoint(q, spacing)
        largest = _size(lift, (1,)).flatten(1).amax(1)
        shrink = (jumps / largest.clamp_min(1e-30)).clamp_max(1.0).reshape(-1, *(1,) * (x.ndim - 1))
        energy = jumps * _total(_size(gradient(u, spacing) - v, (1,)))
        energy = energy + bends * _total(_size(_symmetric(v, spacing), (1, 2)))
        back = shrink * gradient_adjoint(lift, spacing)
        if free:
            energy = energy + 0.5 * _total((u - x).square())
            bound = _total(x * back) - 0.5 * _total(back.square())
        else:
            bound = _total(x * back)
        floor = 1e-12 * (1.0 + _total(x.square()))
        return energy, (energy - bound).clamp_min(0.0) / energy.clamp_min(floor)


class _Jumps(LinearOperator):
    """(x, v) ↦ ∇x − v."""

    def __init__(self, shape: tuple[int, ...], spacing: tuple[float, ...], dtype: torch.dtype):
        super().__init__((1 + len(spacing), *shape), (len(spacing), *shape), dtype)
        self.spacing = spacing

    def _apply(self, x: Tensor) -> Tensor:
        axis = x.ndim - len(self.image_shape)
        image, slope = x.split([1, len(self.spacing)], axis)
        return gradient(image.squeeze(axis), self.spacing) - slope

    def _adjoint(self, y: Tensor) -> Tensor:
        axis = y.ndim - len(self.data_shape)
        return torch.cat([gradient_adjoint(y, self.spacing).unsqueeze(axis), -y], axis)

    def norm(self, iterations: int = 200, tolerance: float = 1e-6, seed: int = 0) -> float:
        return math.sqrt(1.0 + squared_norm_bound(self.spacing))


class _Bends(LinearOperator):
    """(x, v) ↦ E v, of shape `(axes, axes, *image_shape)`."""

    def __init__(self, shape: tuple[int, ...], spacing: tuple[float, ...], dtype: torch.dtype):
        super().__init__((1 + len(spacing), *shape), (len(spacing), len(spacing), *shape), dtype)
        self.spacing = spacing

    def _apply(self, x: Tensor) -> Tensor:
        axis = x.ndim - len(self.image_shape)
        jacobian = gradient(x.narrow(axis, 1, len(self.spacing)), self.spacing).movedim(-len(self.spacing) - 2, axis)
        return 0.5 * (jacobian + jacobian.transpose(axis, axis + 1))

    def _adjoint(self, y: Tensor) -> Tensor:
        axis = y.ndim - len(self.data_shape)
        even = 0.5 * (y + y.transpose(axis, axis + 1))
        slope = gradient_adjoint(even.movedim(axis, -len(self.spacing) - 2), self.spacing)
        return torch.cat([torch.zeros_like(slope.narrow(axis, 0, 1)), slope], axis)

    def norm(self, iterations: int = 200, tolerance: float = 1e-6, seed: int = 0) -> float:
        return math.sqrt(squared_norm_bound(self.spacing))


class _Lengths(Functional):
    """w Σ_i |z_i|, with |·| the Euclidean norm over the `group` leading axes of an item."""

    def __init__(self, weight: float, group: int, axes: int):
        super().__init__(axes)
        self.weight, self.group = weight, tuple(range(-axes, group - axes))

    def value(self, z: Tensor) -> Tensor:
        return self.weight * self.total(z.square().sum(self.group, keepdim=True).sqrt())

    def prox(self, z: Tensor, step: float) -> Tensor:
        size = z.square().sum(self.group, keepdim=True).sqrt()
        return z * (1.0 - step * self.weight / size.clamp_min(torch.finfo(z.dtype).tiny)).clamp_min(0.0)


def _symmetric(v: Tensor, spacing: Sequence[float]) -> Tensor:
    """E v: `(n, axes, 1, *grid)` → `(n, axes, axes, 1, *grid)`."""
    jacobian = gradient(v, spacing)
    jacobian = jacobian.movedim(-len(spacing) - 2, 1)
    return 0.5 * (jacobian + jacobian.transpose(1, 2))


def _symmetric_adjoint(q: Tensor, spacing: Sequence[float]) -> Tensor:
    even = 0.5 * (q + q.transpose(1, 2))
    return gradient_adjoint(even.movedim(1, -len(spacing) - 2), spacing)


def _size(z: Tensor, dim: tuple[int, ...]) -> Tensor:
    return z.square().sum(dim, keepdim=True).sqrt()


def _project(z: Tensor, bound: float, dim: tuple[int, ...]) -> Tensor:
    return z / (_size(z, dim) / bound).clamp_min(1.0)


def _total(z: Tensor) -> Tensor:
    return z.double().flatten(1).sum(1)


def _status(gap: float, tolerance: float, iterations: int) -> Status:
    if gap <= tolerance:
        return Status(True, "converged", f"relative gap {gap:.1e} after {iterations} iterations")
    return Status(
        False,
        "max-iterations",
        f"relative gap {gap:.1e} after {iterations} iterations, above the tolerance {tolerance:.1e}; allow more "
        "iterations, use float64, or a larger tolerance",
    )
