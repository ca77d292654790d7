"""Conjugate gradients for Hermitian positive-definite systems, many right-hand sides at once.

    A x = b,   A = Aᴴ > 0;      criterion  ‖b − A x‖ / ‖b‖ ≤ tolerance

Leading batch axes are independent systems with step sizes of their own; one that is finished no longer moves. The
residual that the recurrence carries drifts from the true one in finite precision, so convergence is believed only
after b − A x has been computed afresh. Where the two disagree the iteration restarts from the true residual, and
where that no longer helps the status says which figure can be reached in this precision.

References:
    Hestenes, Stiefel, "Methods of conjugate gradients for solving linear systems", J. Res. NBS 49, 1952.
    van der Vorst, Ye, "Residual replacement strategies for Krylov subspace iterative methods for the convergence of
        true residuals", SIAM J. Sci. Comput. 2000.
"""

import torch
from torch import Tensor

from ..errors import InputError
from .algebra import Callback, Map, check_limits, check_vector, guard, inner, mismatch, norm, real_inner, resolution
from .result import Result, Status

__all__ = ["cg"]

# How a system ended; the larger number is the one reported when the systems of a batch ended differently.
_ACTIVE, _CONVERGED, _LIMIT, _STAGNATED, _SINGULAR, _PRECONDITIONER, _INDEFINITE, _SKEW, _NOT_FINITE = range(9)
_ENDINGS = {
    _LIMIT: ("max-iterations", "the iteration limit came first", "allow more iterations or precondition the system"),
    _STAGNATED: (
        "stagnation",
        "rounding errors no longer let the residual fall",
        "accept the residual reached, work in float64, or improve the conditioning",
    ),
    _SINGULAR: (
        "breakdown",
        "the operator vanishes along a search direction (it is singular and the right-hand side not in its range)",
        "add damping, or use lsqr",
    ),
    _PRECONDITIONER: (
        "preconditioner",
        "the preconditioner is not Hermitian positive-definite",
        "repair it or leave it out",
    ),
    _INDEFINITE: (
        "indefinite",
        "the operator has negative curvature, so it is not positive-definite",
        "use minres, or check the operator's sign and damping",
    ),
    _SKEW: (
        "not-hermitian",
        "⟨u, A v⟩ and ⟨A u, v⟩ differ, so the operator is not Hermitian",
        "check its adjoint, or use lsqr",
    ),
    _NOT_FINITE: (
        "not-finite",
        "the operator returned NaN or infinity",
        "check the operator and the scale of the data",
    ),
}


def cg(
    apply: Map,
    b: Tensor,
    *,
    x0: Tensor | None = None,
    preconditioner: Map | None = None,
    tolerance: float = 1e-6,
    max_iterations: int | None = None,
    batch_dims: int = 0,
    callback: Callback | None = None,
) -> Result:
    """Solve A x = b for a Hermitian positive-definite A.

    Args:
        apply: v ↦ A v on tensors of b's shape.
        b: right-hand sides, real or complex; the first `batch_dims` axes are independent systems.
        x0: starting point of b's shape; zero if None.
        preconditioner: v ↦ M⁻¹ v, Hermitian positive-definite.
        tolerance: largest ‖b − A x‖/‖b‖ accepted, for every system.
        max_iterations: limit; by default ten times the number of unknowns of a system, at most 10,000.
        batch_dims: number of leading batch axes.
        callback: called as callback(iteration, limit, residual) with the largest relative residual.

    Returns:
        Result whose `residual` is the largest ‖b − A x‖/‖b‖, computed afresh at `x`.

    Raises:
        InputError: b is not finite, or a shape or limit is wrong.

    Example:
        >>> a = torch.tensor([[4.0, 1.0], [1.0, 3.0]], dtype=torch.float64)
        >>> result = cg(lambda v: a @ v, torch.tensor([1.0, 2.0], dtype=torch.float64), tolerance=1e-12)
        >>> result.status.converged, result.iterations
        (True, 2)
    """
    b = check_vector(b, "b", batch_dims)
    check_limits(tolerance, max_iterations)
    if x0 is not None and x0.shape != b.shape:
        raise InputError(f"x0 must have the shape of b, {tuple(b.shape)}; got {tuple(x0.shape)}")
    matvec = guard(apply, "apply", b.shape)
    precondition = None if preconditioner is None else guard(preconditioner, "preconditioner", b.shape)
    total = min(10 * max(b.shape[batch_dims:].numel(), 1), 10_000) if max_iterations is None else max_iterations
    state = _Systems(matvec, precondition, b, x0, tolerance, batch_dims)
    history: list[float] = []
    while state.running() and len(history) < total:
        history.append(state.advance())
        if callback is not None:
            callback(len(history), total, history[-1])
    return state.finish(history)


class _Systems:
    """The batch of systems: points, residuals, search directions and how each one ended."""

    def __init__(
        self, matvec: Map, precondition: Map | None, b: Tensor, x0: Tensor | None, tolerance: float, dims: int
    ):
        self.matvec, self.precondition, self.b = matvec, precondition, b
        self.tolerance, self.dims = tolerance, dims
        size = norm(b, dims)
        self.scale = torch.where(size > 0, size, 1.0)
        # A zero right-hand side has the solution zero, whatever the starting point.
        self.x = torch.zeros_like(b) if x0 is None else torch.where(size > 0, x0.detach().to(b), 0)
        self.r = b if x0 is None else b - matvec(self.x)
        self.code = torch.full(size.shape, _ACTIVE, device=b.device)
        self.best_x, self.best = self.x, norm(self.r, dims) / self.scale
        self.checked = torch.full_like(size, float("inf"))  # residual found at the last check
        self.first: tuple[Tensor, Tensor] | None = None  # the first direction and its product
        self.asymmetry: Tensor | None = None
        self.code = torch.where(self.best <= tolerance, _CONVERGED, self.code)
        self.code = torch.where(torch.isfinite(self.best), self.code, _NOT_FINITE)
        self._set_direction(self.code == _ACTIVE)

    def running(self) -> bool:
        return bool((self.code == _ACTIVE).any())

    def advance(self) -> float:
        """One step of every running system; the largest relative residual after it."""
        ap = self.matvec(self.p)
        self._compare(ap)
        alpha = self._step_size(ap)
        active = self.code == _ACTIVE
        self.x = torch.addcmul(self.x, alpha.to(self.x.dtype), self.p)
        self.r = torch.addcmul(self.r, alpha.to(self.r.dtype), ap, value=-1)
        relative = norm(self.r, self.dims) / self.scale
        claims = active & (relative <= self.tolerance)
        if bool(claims.any()):
            relative, restart = self._check(claims, relative)
        else:
            restart = torch.zeros_like(claims)
        self._next_direction(restart)
        return float(relative.max()) if relative.numel() else 0.0

    def finish(self, history: list[float]) -> Result:
        """The best point of each system, with its true residual and what became of it."""
        self.code = torch.where(self.code == _ACTIVE, _LIMIT, self.code)
        x, true = self.x, self.best
        if bool((self.code != _CONVERGED).any()):
            last = norm(self.b - self.matvec(self.x), self.dims) / self.scale
            better = (last <= self.best) & (self.code != _CONVERGED)
            # A system that converged stands where it did when its residual was checked.
            x = torch.where(better | (self.code == _CONVERGED), self.x, self.best_x)
            true = torch.where(better, last, self.best)
        # The limit can fall on the very iteration that reached the goal, or a breakdown on the exact solution.
        self.code = torch.where(true <= self.tolerance, _CONVERGED, self.code)
        self._look_for_asymmetry()
        residual = float(true.max()) if true.numel() else 0.0
        return Result(x, self._status(residual, len(history)), len(history), residual, tuple(history))

    def _step_size(self, ap: Tensor) -> Tensor:
        curvature = inner(self.p, ap, self.dims)
        size = norm(self.p, self.dims) * norm(ap, self.dims)
        eps = resolution(self.b.dtype)
        self._end(~torch.isfinite(size), _NOT_FINITE)
        if curvature.is_complex():
            # An imaginary part of this size is no rounding error: it comes from an operator that is not Hermitian.
            self._end(curvature.imag.abs() > eps**0.5 * size, _SKEW)
            curvature = curvature.real
        self._end(curvature < -16 * eps * size, _INDEFINITE)
        self._end(curvature <= 0, _SINGULAR)
        active = self.code == _ACTIVE
        return torch.where(active, self.rz / torch.where(active, curvature, 1.0), 0.0)

    def _end(self, where: Tensor, code: int) -> None:
        self.code = torch.where((self.code == _ACTIVE) & where, code, self.code)

    def _check(self, claims: Tensor, relative: Tensor) -> tuple[Tensor, Tensor]:
        """True residuals of the systems that claim convergence, and which of them must start again."""
        fresh = self.b - self.matvec(self.x)
        true = norm(fresh, self.dims) / self.scale
        improved = claims & (true < self.best)
        self.best_x, self.best = torch.where(improved, self.x, self.best_x), torch.where(improved, true, self.best)
        self._end(claims & (true <= self.tolerance), _CONVERGED)
        self._end(claims & ~(true < 0.5 * self.checked), _STAGNATED)
        self.checked = torch.where(claims, true, self.checked)
        self.r = torch.where(claims, fresh, self.r)
        return torch.where(claims, true, relative), claims & (self.code == _ACTIVE)

    def _next_direction(self, restart: Tensor) -> None:
        active = self.code == _ACTIVE
        z = self.r if self.precondition is None else self.precondition(self.r)
        rz = real_inner(self.r, z, self.dims)
        self._end(~(rz > 0), _PRECONDITIONER if self.precondition is not None else _NOT_FINITE)
        beta = torch.where(active & ~restart, rz / torch.where(self.rz > 0, self.rz, 1.0), 0.0)
        self.p = torch.addcmul(z, beta.to(z.dtype), self.p)
        if not bool(active.all()):
            # Finished systems keep a zero direction, so that nothing they hold can overflow.
            self.p = torch.where(active, self.p, 0)
        self.rz = rz

    def _set_direction(self, active: Tensor) -> None:
        z = self.r if self.precondition is None else self.precondition(self.r)
        self.rz = real_inner(self.r, z, self.dims)
        self._end(~(self.rz > 0), _PRECONDITIONER)
        self.p = torch.where(active, z, 0)

    def _compare(self, ap: Tensor) -> None:
        """On the second step, how far ⟨p₀, A p₁⟩ is from ⟨A p₀, p₁⟩: a test of symmetry that takes no product."""
        if self.asymmetry is not None:
            return
        if self.first is None:
            self.first = self.p, ap
            return
        p, image = self.first
        size = norm(p, self.dims) * norm(ap, self.dims) + norm(image, self.dims) * norm(self.p, self.dims)
        gap = (inner(p, ap, self.dims) - inner(image, self.p, self.dims)).abs()
        self.asymmetry, self.first = gap / torch.where(size > 0, size, 1.0), None

    def _look_for_asymmetry(self) -> None:
        """Where the goal was missed, test that A is Hermitian before blaming rounding or the limit."""
        failed = (self.code == _LIMIT) | (self.code == _STAGNATED)
        if bool(failed.any()):
            if self.asymmetry is None:
                self.asymmetry = mismatch(self.matvec, self.matvec, self.b, self.dims).reshape(failed.shape)
            self.code = torch.where(failed & (self.asymmetry > resolution(self.b.dtype) ** 0.5), _SKEW, self.code)

    def _status(self, residual: float, iterations: int) -> Status:
        count, worst = self.code.numel(), int(self.code.max()) if self.code.numel() else _CONVERGED
        if worst == _CONVERGED:
            text = f"relative residual {residual:.2e} ≤ {self.tolerance:.2e} after {iterations} iterations, recomputed"
            return Status(True, "converged", text)
        reason, why, remedy = _ENDINGS[worst]
        missed = int((self.code != _CONVERGED).sum())
        which = f"{missed} of {count} systems" if count > 1 else "conjugate gradients"
        kind = str(self.b.dtype).removeprefix("torch.")
        text = (
            f"{which} did not reach {self.tolerance:.2e}: after {iterations} iterations in {kind} the largest relative "
            f"residual is {residual:.2e} because {why}; {remedy}"
        )
        return Status(False, reason, text)
