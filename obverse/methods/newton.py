"""Newton's method with conjugate gradients inside and a line search outside, for smooth convex energies.

    H(x) p = −∇f(x)  by CG to ‖r‖ ≤ min(½, √ρ)·‖∇f‖,     x ← x + t p,   t = 1, ½, ¼, …  until f decreases enough

H may be the exact Hessian or a positive definite majorant (Fisher weights for counting noise, Gauss–Newton for
non-linear operators). ρ is ‖∇f‖ relative to the larger of its first value and of the norms of the parts that cancel in
it at the minimum; convergence is claimed only when ρ, computed afresh, is below the tolerance.

References: Nocedal, Wright, "Numerical Optimization", 2nd ed. 2006, chapter 7.
"""

__all__ = ["newton"]

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..solvers.result import Result, Status

Products = Callable[[Tensor], Tensor]


def newton(
    objective: Callable[[Tensor], Tensor],
    gradients: Callable[[Tensor], tuple[Tensor, ...]],
    curvature: Callable[[Tensor], tuple[Products, Products | None]],
    x0: Tensor,
    *,
    tolerance: float = 1e-6,
    max_iterations: int = 50,
    inner_iterations: int = 200,
    callback: Callable[[int, int | None, float], None] | None = None,
) -> Result:
    """Minimise a smooth convex energy.

    Args:
        objective: f, a scalar tensor.
        gradients: the parts of ∇f (their sum is ∇f), for example of likelihood and prior.
        curvature: x ↦ (product with H(x), preconditioner or None).
        x0: starting point.
        tolerance: on the relative gradient norm ρ.
        max_iterations: Newton steps.
        inner_iterations: conjugate gradient iterations per step.
        callback: told (iteration, total, ρ).

    Returns:
        The point, with a status that says whether ρ reached the tolerance.
    """
    x, value = x0, objective(x0)
    parts = gradients(x)
    first = float(sum(parts).norm())  # type: ignore[union-attr]
    history: list[float] = []
    for iteration in range(max_iterations + 1):
        gradient: Tensor = sum(parts)  # type: ignore[assignment]
        residual = _relative(gradient, parts, first)
        history.append(residual)
        if callback is not None:
            callback(iteration, max_iterations, residual)
        if not math.isfinite(residual) or not bool(torch.isfinite(value)):
            status = Status(
                False,
                "breakdown",
                "Newton's method met a value that is not finite; check the units of the data and of the prior",
            )
            return Result(x, status, iteration, residual, tuple(history))
        if residual <= tolerance:
            status = Status(
                True, "converged", f"the gradient fell to {residual:.1e} of its scale in {iteration} Newton steps"
            )
            return Result(x, status, iteration, residual, tuple(history))
        if iteration == max_iterations:
            break
        product, preconditioner = curvature(x)
        wanted = min(0.5, max(0.1 * math.sqrt(residual), 0.1 * tolerance / residual))
        direction = _truncated(product, preconditioner, -gradient, wanted, inner_iterations)
        found = _search(objective, x, value, direction, gradient)
        if found is None:
            message = (
                f"no step along the Newton direction lowered the energy, at a relative gradient of {residual:.1e}: "
                "rounding decides here; use float64 or a larger tolerance"
            )
            return Result(x, Status(False, "stagnation", message), iteration, residual, tuple(history))
        x, value = found
        parts = gradients(x)
    message = (
        f"{max_iterations} Newton steps left a relative gradient of {history[-1]:.1e}, above {tolerance:.1e}; allow "
        "more iterations, or smooth the prior more"
    )
    return Result(x, Status(False, "max-iterations", message), max_iterations, history[-1], tuple(history))


def _truncated(product: Products, precondition: Products | None, b: Tensor, tolerance: float, limit: int) -> Tensor:
    """Conjugate gradients cut short. The last point is a descent direction however early the end comes, since the
    quadratic model falls in every iteration; the point of least residual, which a solver would return, may be zero."""
    x, r = torch.zeros_like(b), b
    z = r if precondition is None else precondition(r)
    p, rz, goal = z, _inner(r, z), tolerance * float(b.norm())
    for _ in range(limit):
        q = product(p)
        curvature = _inner(p, q)
        if not curvature > 0:
            return x if bool(x.any()) else z
        x, r = x + (rz / curvature) * p, r - (rz / curvature) * q
        if float(r.norm()) <= goal:
            break
        z = r if precondition is None else precondition(r)
        previous, rz = rz, _inner(r, z)
        if not rz > 0:
            break
        p = z + (rz / previous) * p
    return x


def _inner(a: Tensor, b: Tensor) -> float:
    return float((a * b).sum())


def _search(
    objective: Callable[[Tensor], Tensor], x: Tensor, value: Tensor, direction: Tensor, gradient: Tensor
) -> tuple[Tensor, Tensor] | None:
    """Armijo backtracking that goes on while halving still lowers f: where bends are sharp, a full step can pass the
    test and yet land across the valley. Near the minimum, where f no longer resolves the decrease, a full step that
    does not raise f beyond rounding is taken."""
    slope = _inner(gradient, direction)
    if not slope < 0:
        return None
    slack = 8 * torch.finfo(value.dtype).eps * (abs(float(value)) + 1.0)
    length, best = 1.0, None
    for _ in range(30):
        candidate = x + length * direction
        new = objective(candidate)
        if best is not None and not float(new) < float(best[1]) - slack:
            break
        if float(new) <= float(value) + 1e-4 * length * slope + slack:
            best = (candidate, new)
        length *= 0.5
    return best


def _relative(gradient: Tensor, parts: tuple[Tensor, ...], first: float) -> float:
    scale = max(first, sum(float(part.norm()) for part in parts))
    return float(gradient.norm()) / scale if scale > 0 else 0.0
