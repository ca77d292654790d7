"""Minimum residuals for Hermitian systems that may be indefinite.

    A x = b,   A = Aᴴ;      x_k minimises ‖b − A x‖ over the Krylov space;   criterion  ‖b − A x‖ / ‖b‖ ≤ tolerance

The Lanczos recurrence is run in sweeps. A sweep ends when its own estimate claims the goal; then b − A x is computed
afresh, and while that is above the goal and still halves, another sweep solves for the correction. A singular system
whose right-hand side is not in the range ends at a least-squares solution and is reported as inconsistent.

References: Paige, Saunders, "Solution of sparse indefinite systems of linear equations", SIAM J. Numer. Anal. 1975.
"""

import torch
from torch import Tensor

from ..errors import InputError
from .algebra import Callback, Map, check_limits, check_vector, guard, mismatch, norm, real_inner, resolution
from .result import Result, Status

__all__ = ["minres"]


def minres(
    apply: Map,
    b: Tensor,
    *,
    x0: Tensor | None = None,
    tolerance: float = 1e-6,
    max_iterations: int | None = None,
    batch_dims: int = 0,
    callback: Callback | None = None,
) -> Result:
    """Solve A x = b for a Hermitian A, definite or not.

    Args:
        apply: v ↦ A v on tensors of b's shape.
        b: right-hand sides, real or complex; the first `batch_dims` axes are independent systems.
        x0: starting point of b's shape; zero if None.
        tolerance: largest ‖b − A x‖/‖b‖ accepted, for every system.
        max_iterations: limit; by default ten times the number of unknowns of a system, at most 10,000.
        batch_dims: number of leading batch axes.
        callback: called as callback(iteration, limit, residual) with the largest relative residual.

    Returns:
        Result whose `residual` is the largest ‖b − A x‖/‖b‖, computed afresh at `x`.

    Raises:
        InputError: b is not finite, or a shape or limit is wrong.

    Example:
        >>> a = torch.tensor([[1.0, 2.0], [2.0, -1.0]], dtype=torch.float64)
        >>> minres(lambda v: a @ v, torch.tensor([5.0, 0.0], dtype=torch.float64)).x
        tensor([1., 2.], dtype=torch.float64)
    """
    b = check_vector(b, "b", batch_dims)
    check_limits(tolerance, max_iterations)
    if x0 is not None and x0.shape != b.shape:
        raise InputError(f"x0 must have the shape of b, {tuple(b.shape)}; got {tuple(x0.shape)}")
    matvec = guard(apply, "apply", b.shape)
    total = min(10 * max(b.shape[batch_dims:].numel(), 1), 10_000) if max_iterations is None else max_iterations
    size = norm(b, batch_dims)
    scale = torch.where(size > 0, size, 1.0)
    x = torch.zeros_like(b) if x0 is None else torch.where(size > 0, x0.detach().to(b), 0)
    best_x, best = x, torch.full_like(size, float("inf"))
    active = torch.ones_like(size, dtype=torch.bool)
    history: list[float] = []
    limited = total == 0
    operator_norm = torch.zeros_like(size)
    while True:
        r = b - matvec(x)
        true = norm(r, batch_dims) / scale
        active = active & (true > tolerance) & (true < 0.5 * best)
        improved = true < best
        best_x, best = torch.where(improved, x, best_x), torch.where(improved, true, best)
        if not bool(active.any()) or len(history) >= total:
            break
        sweep = _Sweep(matvec, torch.where(active, r, 0), tolerance * scale, batch_dims)
        while sweep.running() and len(history) < total:
            sweep.advance()
            history.append(float(torch.where(active, sweep.estimate / scale, best).max()))
            if callback is not None:
                callback(len(history), total, history[-1])
        x, limited = x + sweep.x, sweep.running()
        operator_norm = torch.maximum(operator_norm, sweep.operator_norm())
    residual = float(best.max()) if best.numel() else 0.0
    if not (best > tolerance).any() and torch.isfinite(best).all():
        text = f"relative residual {residual:.2e} ≤ {tolerance:.2e} after {len(history)} iterations, recomputed"
        status = Status(True, "converged", text)
    else:
        status = _failure(matvec, b, best_x, operator_norm, limited, residual, tolerance, len(history), batch_dims)
    return Result(best_x, status, len(history), residual, tuple(history))


def _flat(eps: float) -> float:
    """‖A r‖ / (‖A‖ ‖r‖) below which r counts as outside the range: rounding keeps it from falling much further."""
    return eps**0.3


class _Sweep:
    """One run of the Lanczos recurrence from the residual r, building a correction x to the solution."""

    def __init__(self, matvec: Map, r: Tensor, goal: Tensor, dims: int):
        self.matvec, self.goal, self.dims = matvec, goal, dims
        self.beta = norm(r, dims)
        self.estimate = self.beta
        zero = torch.zeros_like(self.beta)
        self.older, self.newer = torch.zeros_like(r), r
        self.w, self.w_old, self.x = torch.zeros_like(r), torch.zeros_like(r), torch.zeros_like(r)
        self.previous_beta, self.dbar, self.epsilon = zero + 1, zero, zero
        self.cosine, self.sine, self.square = zero - 1, zero, zero
        self.alive = self.beta > 0

    def running(self) -> bool:
        return bool(self.alive.any())

    def operator_norm(self) -> Tensor:
        return self.square.sqrt()

    def advance(self) -> None:
        alive, eps = self.alive, resolution(self.x.dtype)
        beta = torch.where(alive, self.beta, 1.0)
        v = self.newer / beta
        y = self.matvec(v) - (beta / self.previous_beta) * self.older
        alpha = real_inner(v, y, self.dims)
        y = y - (alpha / beta) * self.newer
        beta_next = norm(y, self.dims)
        epsilon_old, delta = self.epsilon, self.cosine * self.dbar + self.sine * alpha
        gbar = self.sine * self.dbar - self.cosine * alpha
        root = torch.hypot(gbar, self.cosine * beta_next)  # ‖A r‖/‖r‖ at the previous point
        gamma = torch.hypot(gbar, beta_next)
        square = self.square + alpha.square() + beta_next.square()
        alive = alive & torch.isfinite(gamma) & (gamma > eps * square.sqrt())
        # Where A r ≈ 0 although r ≠ 0 and steps no longer lower the residual, x solves in least squares. Going on would
        # only add to x along the null space, without bound.
        flat = (root <= _flat(eps) * square.sqrt()) & (gbar.abs() <= _flat(eps) * gamma)
        alive = alive & ~flat
        gamma = torch.where(alive, gamma, 1.0)
        w = (v - epsilon_old * self.w_old - delta * self.w) / gamma
        phi = torch.where(alive, gbar / gamma * self.estimate, 0.0)
        self.x = self.x + phi * torch.where(alive, w, 0)
        self.epsilon, self.dbar = self.sine * beta_next, -self.cosine * beta_next
        self.cosine, self.sine = gbar / gamma, beta_next / gamma
        self.estimate = torch.where(alive, self.sine * self.estimate, self.estimate)
        self.square = torch.where(alive, square, self.square)
        self.w, self.w_old, self.older, self.newer = w, self.w, self.newer, y
        self.previous_beta, self.beta = beta, beta_next
        # A Krylov space that A maps to itself holds the solution, if there is one.
        self.alive = alive & (self.estimate > self.goal) & (beta_next > eps * square.sqrt())
        self.newer = torch.where(self.alive, self.newer, 0)
        self.older = torch.where(self.alive, self.older, 0)


def _failure(
    matvec: Map,
    b: Tensor,
    x: Tensor,
    operator_norm: Tensor,
    limited: bool,
    residual: float,
    tolerance: float,
    iterations: int,
    dims: int,
) -> Status:
    """Why the goal was missed: a probe tells an unsymmetric or inconsistent system from rounding and the limit."""
    r = b - matvec(x)
    ar = matvec(r)
    root_eps = resolution(b.dtype) ** 0.5
    orthogonal = norm(ar, dims) <= _flat(resolution(b.dtype)) * operator_norm * norm(r, dims)
    missed = norm(r, dims) > tolerance * norm(b, dims)
    # A residual of the size of rounding always leans to the small eigenvalues; that alone does not make A singular.
    orthogonal = orthogonal & (norm(r, dims) > 10 * root_eps * norm(b, dims))
    if not bool(torch.isfinite(norm(r, dims)).all() and torch.isfinite(norm(ar, dims)).all()):
        reason, why = "not-finite", "the operator returned NaN or infinity; check it and the scale of the data"
    elif bool((missed.flatten() & (mismatch(matvec, matvec, b, dims) > root_eps)).any()):
        reason, why = "not-hermitian", "⟨u, A v⟩ and ⟨A u, v⟩ differ; check the operator's adjoint, or use lsqr"
    elif limited:
        reason, why = "max-iterations", "the iteration limit came first; allow more iterations"
    elif bool((missed & orthogonal).any()):
        reason, why = (
            "inconsistent",
            ("A is singular to rounding and b not in its range: x fits in least squares; use lsqr or damping"),
        )
    else:
        reason, why = (
            "stagnation",
            ("rounding errors no longer let the residual fall; accept the residual reached or work in float64"),
        )
    count, failed = missed.numel(), int(missed.sum())
    which = f"{failed} of {count} systems" if count > 1 else "minimum residuals"
    kind = str(b.dtype).removeprefix("torch.")
    text = (
        f"{which} did not reach {tolerance:.2e}: after {iterations} iterations in {kind} the largest relative residual "
        f"is {residual:.2e} because {why}"
    )
    return Status(False, reason, text)
