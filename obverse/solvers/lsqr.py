"""Damped least squares by Golub–Kahan bidiagonalisation.

    minimise ‖A x − b‖² + damping ‖x‖²,   so   (AᴴA + damping I) x = Aᴴ b;   damping = 0 gives plain least squares

The damping is the one of `LinearOperator.solve`: the square of what LSQR is often given. Criterion: the normal residual

    ‖Aᴴ(b − A x) − damping x‖ / ‖Aᴴ b‖ ≤ tolerance

which vanishes exactly at the solution, consistent or not. The bidiagonalisation acts on the stacked operator
(A; √damping I), so a sweep can start anew from any point; after a sweep claims the goal the normal residual is computed
afresh, and further sweeps solve for the correction while it still halves. That the adjoint given is A's own is checked
with the data: ⟨A Aᴴb, b⟩ = ‖Aᴴb‖².

References: Paige, Saunders, "LSQR: an algorithm for sparse linear equations and sparse least squares", ACM TOMS 1982.
"""

import math

import torch
from torch import Tensor

from ..errors import InputError
from .algebra import Callback, Map, check_limits, check_vector, guard, mismatch, norm, resolution
from .result import Result, Status

__all__ = ["lsqr"]


def lsqr(
    apply: Map,
    adjoint: Map,
    b: Tensor,
    damping: float = 0.0,
    *,
    x0: Tensor | None = None,
    tolerance: float = 1e-6,
    max_iterations: int | None = None,
    batch_dims: int = 0,
    callback: Callback | None = None,
) -> Result:
    """Minimise ‖A x − b‖² + damping ‖x‖².

    Args:
        apply: x ↦ A x.
        adjoint: y ↦ Aᴴ y.
        b: data, real or complex; the first `batch_dims` axes are independent systems.
        damping: number of at least 0.
        x0: starting point of the shape of Aᴴb; zero if None, which gives the solution of least norm.
        tolerance: largest normal residual relative to ‖Aᴴb‖ accepted, for every system.
        max_iterations: limit; by default ten times the smaller side of A, at most 10,000.
        batch_dims: number of leading batch axes.
        callback: called as callback(iteration, limit, residual) with the largest relative normal residual.

    Returns:
        Result whose `residual` is the largest relative normal residual, computed afresh at `x`.

    Raises:
        InputError: b is not finite, damping is negative, or a shape or limit is wrong.

    Example:
        >>> a = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
        >>> fit = lsqr(lambda v: a @ v, lambda u: a.T @ u, torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
        >>> torch.allclose(fit.x, torch.ones(2, dtype=torch.float64)), fit.status.converged
        (True, True)
    """
    b = check_vector(b, "b", batch_dims)
    check_limits(tolerance, max_iterations)
    if not (math.isfinite(damping) and damping >= 0):
        raise InputError(f"damping must be a finite number of at least 0, got {damping}; use 0 for plain least squares")
    to_image = guard(adjoint, "adjoint")
    start = to_image(b)
    to_data = guard(apply, "apply", b.shape)
    if x0 is not None and x0.shape != start.shape:
        raise InputError(f"x0 must have the shape of Aᴴb, {tuple(start.shape)}; got {tuple(x0.shape)}")
    unknowns = min(start.shape[batch_dims:].numel(), b.shape[batch_dims:].numel())
    total = min(10 * max(unknowns, 1), 10_000) if max_iterations is None else max_iterations
    stacked = _Stacked(to_data, to_image, math.sqrt(damping), batch_dims)

    size = norm(start, batch_dims)
    scale = torch.where(size > 0, size, 1.0)
    x = torch.zeros_like(start) if x0 is None else x0.detach().to(start)
    best_x, best, best_product = x, torch.full_like(size, float("inf")), torch.zeros_like(b)
    active = torch.ones_like(size, dtype=torch.bool)
    history: list[float] = []
    limited = total == 0
    while True:
        product = to_data(x)
        r = (b - product, -stacked.root * x)
        true = norm(stacked.adjoint(r), batch_dims) / scale
        active = active & (true > tolerance) & (true < 0.5 * best)
        improved = true < best
        best_x, best = torch.where(improved, x, best_x), torch.where(improved, true, best)
        best_product = torch.where(_like(improved, product, batch_dims), product, best_product)
        if not bool(active.any()) or len(history) >= total:
            break
        sweep = _Sweep(stacked, r, active, tolerance * scale)
        while sweep.running() and len(history) < total:
            sweep.advance()
            history.append(float(torch.where(active, sweep.estimate / scale, best).max()))
            if callback is not None:
                callback(len(history), total, history[-1])
        x, limited = x + sweep.x, sweep.running()
    residual = float(best.max()) if best.numel() else 0.0
    gaps = mismatch(to_data, to_image, b, batch_dims)
    misfit = float(gaps.max()) if gaps.numel() else 0.0
    fit = (
        float((norm(b - best_product, batch_dims) / norm(b, batch_dims).clamp_min(1e-300)).max()) if b.numel() else 0.0
    )
    status = _status(residual, tolerance, misfit, fit, limited, len(history), best, b.dtype)
    return Result(best_x, status, len(history), residual, tuple(history))


class _Stacked:
    """(A; √damping I) on pairs (data, image), with inner products over all but the batch axes."""

    def __init__(self, apply: Map, adjoint: Map, root: float, dims: int):
        self.to_data, self.to_image, self.root, self.dims = apply, adjoint, root, dims

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.to_data(x), self.root * x

    def adjoint(self, u: tuple[Tensor, Tensor]) -> Tensor:
        return self.to_image(u[0]) + self.root * u[1]

    def norm(self, u: tuple[Tensor, Tensor]) -> Tensor:
        """Shaped to broadcast against images."""
        first = _like(norm(u[0], self.dims), u[1], self.dims)
        return torch.hypot(first, norm(u[1], self.dims))

    def combine(self, a: tuple[Tensor, Tensor], factor: Tensor, b: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """a − factor·b."""
        return a[0] - _like(factor, a[0], self.dims) * b[0], a[1] - factor * b[1]

    def divide(self, a: tuple[Tensor, Tensor], divisor: Tensor) -> tuple[Tensor, Tensor]:
        return a[0] / _like(divisor, a[0], self.dims), a[1] / divisor


class _Sweep:
    """One bidiagonalisation from the stacked residual u, building a correction x to the solution."""

    def __init__(self, stacked: _Stacked, u: tuple[Tensor, Tensor], active: Tensor, goal: Tensor):
        self.stacked, self.goal, self.alive = stacked, goal, active
        beta = stacked.norm(u)
        self.alive = self.alive & (beta > 0)
        self.u = stacked.divide(u, torch.where(self.alive, beta, 1.0))
        v = stacked.adjoint(self.u)
        self.alpha = norm(v, stacked.dims)
        self.alive = self.alive & (self.alpha > 0)
        self.v = torch.where(self.alive, v / torch.where(self.alive, self.alpha, 1.0), 0)
        self.w, self.x = self.v, torch.zeros_like(self.v)
        self.phibar, self.rhobar, self.square = beta, self.alpha, torch.zeros_like(beta)
        self.estimate = torch.where(self.alive, self.alpha * beta, 0.0)

    def running(self) -> bool:
        return bool(self.alive.any())

    def advance(self) -> None:
        eps, stacked = resolution(self.x.dtype), self.stacked
        u = stacked.combine(stacked(self.v), self.alpha, self.u)
        beta = stacked.norm(u)
        self.u = stacked.divide(u, torch.where(beta > 0, beta, 1.0))
        v = stacked.adjoint(self.u) - beta * self.v
        alpha = norm(v, stacked.dims)
        rho = torch.hypot(self.rhobar, beta)
        alive = self.alive & torch.isfinite(rho) & (rho > 0) & torch.isfinite(alpha)
        rho = torch.where(alive, rho, 1.0)
        cosine, sine = self.rhobar / rho, beta / rho
        step = torch.where(alive, cosine * self.phibar / rho, 0.0)
        self.x = self.x + step * self.w
        self.phibar = torch.where(alive, sine * self.phibar, self.phibar)
        self.estimate = torch.where(alive, self.phibar * alpha * cosine.abs(), self.estimate)
        self.square = self.square + self.alpha.square() + beta.square()
        limit = eps * self.square.sqrt()
        # A vanishing alpha or beta closes the Krylov space: the exact solution of this sweep has been reached.
        self.alive = alive & (self.estimate > self.goal) & (alpha > limit) & (beta > limit)
        self.v = torch.where(self.alive, v / torch.where(self.alive, alpha, 1.0), 0)
        self.w = torch.where(self.alive, self.v - (sine * alpha / rho) * self.w, 0)
        self.rhobar, self.alpha = -cosine * alpha, alpha


def _like(a: Tensor, target: Tensor, dims: int) -> Tensor:
    """Per-system numbers reshaped to broadcast against `target`, whose vectors may have another number of axes."""
    return a.reshape(*a.shape[:dims], *(1,) * (target.ndim - dims))


def _status(
    residual: float,
    tolerance: float,
    misfit: float,
    fit: float,
    limited: bool,
    iterations: int,
    best: Tensor,
    dtype: torch.dtype,
) -> Status:
    reached = f"relative normal residual {residual:.2e} after {iterations} iterations, with ‖b − A x‖/‖b‖ = {fit:.2e}"
    # An adjoint that is only as exact as the answer asked for does no harm.
    if not misfit <= max(resolution(dtype) ** 0.5, tolerance):
        if not math.isfinite(misfit):
            return Status(False, "not-finite", f"{reached}: the operator returned NaN or infinity; check its scale")
        text = f"⟨A Aᴴb, b⟩ and ‖Aᴴb‖² differ by {misfit:.1e} of their size, so the adjoint is not that of A; {reached}"
        return Status(False, "wrong-adjoint", f"{text}; correct the adjoint")
    if residual <= tolerance:
        return Status(True, "converged", f"{reached}, recomputed and within {tolerance:.2e}")
    missed = int((~(best <= tolerance)).sum())
    which = f"{missed} of {best.numel()} systems did" if best.numel() > 1 else "least squares did"
    if limited:
        why = "because the iteration limit came first; allow more iterations or more damping"
        return Status(False, "max-iterations", f"{which} not reach {tolerance:.2e}: {reached}, {why}")
    kind = str(dtype).removeprefix("torch.")
    why = f"and rounding errors in {kind} let it fall no further; accept it, add damping or work in float64"
    return Status(False, "stagnation", f"{which} not reach {tolerance:.2e}: {reached}, {why}")
