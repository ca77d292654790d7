"""Accelerated proximal gradient for a smooth term plus one with a proximal operator.

    minimise f(x) + g(x):   x⁺ = prox_{s g}(y − s ∇f(y)),   y⁺ = x⁺ + (t − 1)/t⁺ (x⁺ − x),   t⁺ = (1 + √(1 + 4t²))/2

The momentum is dropped whenever it points uphill (adaptive restart), which gives a linear rate on strongly convex
problems without knowing their constants. Criterion: the gradient mapping G(x) = (x − prox_{s g}(x − s ∇f(x)))/s, zero
exactly at a minimiser, relative to the gradients that it is made of:

    ‖G(x)‖ ≤ tolerance · max(‖∇f(x)‖, ‖∇f(x₀)‖)

It is divided by the step, so that a small step cannot pass for convergence, and is computed afresh at the point
returned.

References:
    Beck, Teboulle, "A fast iterative shrinkage-thresholding algorithm for linear inverse problems", SIIMS 2009.
    O'Donoghue, Candès, "Adaptive restart for accelerated gradient schemes", Found. Comput. Math. 2015.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import InputError
from .algebra import Callback, Map, check_limits, check_vector, guard, real_inner, resolution
from .coupling import Prox
from .result import Result, Status

__all__ = ["fista"]


def fista(
    gradient: Map,
    prox: Prox | None,
    x0: Tensor,
    step: float,
    *,
    objective: Callable[[Tensor], Tensor | float] | None = None,
    smooth: Callable[[Tensor], Tensor | float] | None = None,
    restart: bool = True,
    tolerance: float = 1e-6,
    max_iterations: int = 1000,
    callback: Callback | None = None,
) -> Result:
    """Minimise f(x) + g(x).

    Args:
        gradient: x ↦ ∇f(x).
        prox: (v, s) ↦ prox_{s g}(v); None for g = 0.
        x0: starting point, any shape; a batch is one problem with one step and one criterion.
        step: s, positive, at most 1/L for an L-Lipschitz ∇f; a first guess if `smooth` is given.
        objective: x ↦ f(x) + g(x); then momentum is also dropped when it rises, and the status states its value.
        smooth: x ↦ f(x); then the step is halved until the quadratic bound at y holds (backtracking).
        restart: drop the momentum when it points uphill.
        tolerance: largest relative gradient mapping accepted.
        max_iterations: limit.
        callback: called as callback(iteration, limit, relative gradient mapping).

    Returns:
        Result whose `residual` is the relative gradient mapping, computed afresh at `x`.

    Raises:
        InputError: the step is not positive, or x0 is not finite.

    Example:
        >>> b = torch.tensor([3.0, 0.5], dtype=torch.float64)
        >>> shrink = lambda v, s: v.sign() * (v.abs() - s).clamp_min(0)
        >>> fista(lambda x: x - b, shrink, torch.zeros(2, dtype=torch.float64), 1.0).x
        tensor([2., 0.], dtype=torch.float64)
    """
    x = check_vector(x0, "x0")
    check_limits(tolerance, max_iterations)
    if not (math.isfinite(step) and step > 0):
        raise InputError(f"step must be a positive number, got {step}; use 1/L with L the Lipschitz constant of ∇f")
    slope = guard(gradient, "gradient", x.shape)
    shrink = (lambda v, s: v) if prox is None else (lambda v, s: prox(v, s).detach())
    floor = float(torch.linalg.vector_norm(slope(x)))  # size of the gradient where we start

    def mapping(v: Tensor, s: float) -> float:
        g = slope(v)
        size = max(float(torch.linalg.vector_norm(g)), floor)
        moved = float(torch.linalg.vector_norm(v - shrink(v - s * g, s)))
        return moved / (s * size) if size > 0 else moved / s

    y, t, history, reason = x, 1.0, [], "max-iterations"
    value = math.inf if objective is None else float(objective(x))
    while len(history) < max_iterations:
        g = slope(y)
        new, step = _forward(y, g, step, shrink, smooth)
        size = max(float(torch.linalg.vector_norm(g)), floor)
        moved = float(torch.linalg.vector_norm(new - y))
        history.append(moved / (step * size) if size > 0 else moved / step)
        if callback is not None:
            callback(len(history), max_iterations, history[-1])
        if not math.isfinite(history[-1]) or history[-1] > 1e8 * max(history[0], 1.0):
            reason = "diverged"
            break
        uphill = restart and float(real_inner(y - new, new - x).sum()) > 0
        if objective is not None:
            previous, value = value, float(objective(new))
            uphill = uphill or (restart and value > previous)
        t_next = 1.0 if uphill else (1 + math.sqrt(1 + 4 * t * t)) / 2
        y = new if uphill else new + ((t - 1) / t_next) * (new - x)
        x, t = new, t_next
        if history[-1] <= tolerance and mapping(x, step) <= tolerance:
            reason = "converged"
            break
        # Steps this small are rounding noise in x, and the criterion cannot fall below them.
        if moved <= 2 * resolution(x.dtype) * float(torch.linalg.vector_norm(x)) and mapping(x, step) > tolerance:
            reason = "stagnation"
            break
    residual = mapping(x, step)
    if reason == "max-iterations" and residual <= tolerance:
        reason = "converged"
    return Result(x, _status(reason, residual, tolerance, value, len(history)), len(history), residual, tuple(history))


def _forward(
    y: Tensor, g: Tensor, step: float, shrink: Prox, smooth: Callable[[Tensor], Tensor | float] | None
) -> tuple[Tensor, float]:
    """One proximal gradient step, with the step halved while f exceeds its quadratic bound."""
    new = shrink(y - step * g, step)
    if smooth is None:
        return new, step
    here = float(smooth(y))
    for _ in range(60):
        move = new - y
        bound = here + float(real_inner(g, move).sum()) + float(real_inner(move, move).sum()) / (2 * step)
        # Near the minimum the values differ by rounding only, and the bound says nothing: the step found before stays.
        if float(smooth(new)) <= bound + 1e3 * resolution(y.dtype) * abs(here):
            break
        step = step / 2
        new = shrink(y - step * g, step)
    return new, step


def _status(reason: str, residual: float, tolerance: float, value: float, iterations: int) -> Status:
    reached = f"relative gradient mapping {residual:.2e} after {iterations} iterations"
    if math.isfinite(value):
        reached += f", objective {value:.6g}"
    if reason == "converged":
        return Status(True, reason, f"{reached}, recomputed and within {tolerance:.2e}")
    why = {
        "max-iterations": "the iteration limit came first; allow more iterations or a larger step",
        "stagnation": "steps have reached rounding; accept it or work in float64",
        "diverged": "the iterates grow without bound; use a smaller step, or give `smooth` so that it is found",
    }[reason]
    return Status(False, reason, f"{reached}, above {tolerance:.2e}: {why}")
