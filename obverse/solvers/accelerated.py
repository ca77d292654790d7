"""Accelerated gradients for smooth, strongly convex functions, with a certificate of the distance to the minimiser.

    x⁺ = y − ∇h(y)/L,   y⁺ = x⁺ + (t − 1)/t⁺ (x⁺ − x),   t⁺ = (1 + √(1 + 4t²))/2
    m-strong convexity:  ‖y − x̂‖ ≤ ‖∇h(y)‖/m                                                        (the certificate)

The momentum is dropped whenever it points uphill, which adapts to the curvature that is really met. Leading batch axes
are independent problems, each with its own momentum and certificate. The point returned is one whose gradient was
computed, so the certificate costs nothing.

References: Nesterov, "Introductory lectures on convex optimization", 2004. O'Donoghue, Candès, "Adaptive restart for
accelerated gradient schemes", Found. Comput. Math. 2015.
"""

import math

import torch
from torch import Tensor

from ..errors import InputError
from .algebra import Callback, Map, check_limits, check_vector, guard, norm, real_inner, resolution
from .result import Result, Status

__all__ = ["accelerated_gradient"]

_PATIENCE = 200  # iterations without a better certificate before rounding is blamed


def accelerated_gradient(
    gradient: Map,
    x0: Tensor,
    *,
    lipschitz: float,
    convexity: float,
    accuracy: float | Tensor = 1e-6,
    batch_dims: int = 0,
    max_iterations: int = 5000,
    callback: Callback | None = None,
) -> Result:
    """Minimise smooth, strongly convex functions to a certified accuracy.

    Args:
        gradient: x ↦ ∇h(x) on tensors of x0's shape.
        x0: starting points; the first `batch_dims` axes are independent problems.
        lipschitz: L of ∇h, for every problem of the batch.
        convexity: m > 0.
        accuracy: largest ‖x − x̂‖ accepted, a number or one for each problem, of the batch's shape.
        batch_dims: number of leading batch axes.
        max_iterations: limit.
        callback: called as callback(iteration, limit, largest certified distance).

    Returns:
        Result whose `residual` is the largest certified distance ‖∇h(x)‖/m.

    Raises:
        InputError: x0 is not finite, or not 0 < m ≤ L.

    Example:
        >>> a = torch.tensor([4.0, 1.0], dtype=torch.float64)
        >>> result = accelerated_gradient(lambda x: a * x - 1.0, torch.zeros(2, dtype=torch.float64),
        ...                               lipschitz=4.0, convexity=1.0, accuracy=1e-9)
        >>> result.status.converged, result.x.round(decimals=6)
        (True, tensor([0.2500, 1.0000], dtype=torch.float64))
    """
    x = check_vector(x0, "x0", batch_dims)
    if not 0 < convexity <= lipschitz < math.inf:
        raise InputError(f"expected 0 < convexity <= lipschitz, got {convexity:g} and {lipschitz:g}; add a quadratic")
    check_limits(float(torch.as_tensor(accuracy).min()), max_iterations)
    slope = guard(gradient, "gradient", x.shape)
    wanted = torch.as_tensor(accuracy, dtype=x.dtype, device=x.device)
    wanted = wanted.reshape(*wanted.shape, *(1,) * (x.ndim - batch_dims)) if wanted.ndim else wanted
    y, t = x, torch.ones_like(norm(x, batch_dims))
    best_x, best = x, torch.full_like(t, math.inf)
    history: list[float] = []
    idle = 0
    while True:
        g = slope(y)
        bound = norm(g, batch_dims) / convexity
        better = bound < best
        idle = 0 if bool(better.any()) else idle + 1
        best_x, best = torch.where(better, y, best_x), torch.where(better, bound, best)
        history.append(float(best.max()) if best.numel() else 0.0)
        if callback is not None:
            callback(len(history), max_iterations, history[-1])
        if bool((best <= wanted).all()) or len(history) > max_iterations or idle > _PATIENCE:
            break
        if not bool(bound.isfinite().all()):
            break
        new = y - g / lipschitz
        uphill = real_inner(y - new, new - x, batch_dims) > 0
        t_next = torch.where(uphill, 1.0, (1 + (1 + 4 * t * t).sqrt()) / 2)
        y = new + torch.where(uphill, 0.0, (t - 1) / t_next) * (new - x)
        x, t = new, t_next
    return Result(best_x, _status(best, wanted, history, max_iterations), len(history), history[-1], tuple(history))


def _status(best: Tensor, wanted: Tensor, history: list[float], limit: int) -> Status:
    text = f"certified within {history[-1]:.2e} of the minimiser after {len(history)} gradients"
    if bool((best <= wanted).all()):
        return Status(True, "converged", text)
    text += f", above {float(wanted.min()):.2e}"
    if not math.isfinite(history[-1]):
        return Status(False, "diverged", f"{text}: the gradient is not finite; check the Lipschitz constant")
    if len(history) > limit:
        return Status(False, "max-iterations", f"{text}: the iteration limit came first; allow more iterations")
    eps = resolution(best.dtype)
    return Status(False, "stagnation", f"{text}: rounding ({eps:.0e}) decides here; accept it or work in float64")
