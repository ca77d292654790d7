"""Alternating direction method of multipliers for a sum of terms seen through linear operators.

    minimise  Σ_i f_i(K_i x),    split as z_i = K_i x with penalties ρ w_i

    x = (Σ w_i K_iᴴK_i)⁻¹ Σ w_i K_iᴴ(z_i − u_i)                                  (the caller's solve, whatever ρ is)
    v_i = α K_i x + (1 − α) z_i,   z_i = prox_{f_i/(ρ w_i)}(v_i + u_i),   u_i ← u_i + v_i − z_i

A quadratic data term is a coupling like any other, so the linear system depends on the fixed weights w_i only, and ρ
may be balanced during the iteration at no cost. With the multipliers λ_i = ρ w_i u_i, which lie in ∂f_i(z_i) by
construction, optimality is K_i x = z_i and Σ K_iᴴ λ_i = 0; the criterion is the larger of the two relative residuals

    ‖K x − z‖ / max(‖K x‖, ‖z‖)      and      ‖Σ K_iᴴ λ_i‖ / √(Σ ‖K_iᴴ λ_i‖²)

both computed from the point reached, so that an inexact or wrong solve cannot hide.

References:
    Boyd, Parikh, Chu, Peleato, Eckstein, "Distributed optimization and statistical learning via ADMM", 2011, §3.3–3.4.
    Wohlberg, "ADMM penalty parameter selection by residual balancing", arXiv:1704.06209, 2017.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InputError
from .algebra import Callback, Map, check_limits, check_vector, guard, inner, resolution
from .coupling import Coupling
from .result import Result, Status

__all__ = ["admm"]


def admm(
    couplings: Sequence[Coupling],
    solve: Map,
    x0: Tensor,
    *,
    weights: Sequence[float] | None = None,
    rho: float = 1.0,
    adaptive: bool = True,
    relaxation: float = 1.6,
    tolerance: float = 1e-5,
    max_iterations: int = 1000,
    callback: Callback | None = None,
) -> Result:
    """Minimise Σ f_i(K_i x).

    Args:
        couplings: the terms f_i(K_i x).
        solve: b ↦ (Σ w_i K_iᴴK_i)⁻¹ b, on tensors of x0's shape.
        x0: starting point, any shape; a batch is one problem.
        weights: w_i, positive; all one if None.
        rho: ρ at the start, positive.
        adaptive: balance the two residuals by changing ρ, in the first half of the iterations allowed.
        relaxation: α, in (0, 2); 1.5 to 1.8 is usually fastest.
        tolerance: largest relative residual accepted, primal and dual.
        max_iterations: limit.
        callback: called as callback(iteration, limit, larger of the two residuals).

    Returns:
        Result whose `residual` is the larger of the two relative residuals at `x`. Constraints among the f_i are met
        within it and not exactly.

    Raises:
        InputError: a number is out of its range, or x0 is not finite.

    Example:
        >>> b = torch.tensor([3.0, 0.5], dtype=torch.float64)                        # ½‖x − b‖² + ‖x‖₁
        >>> same = lambda v: v
        >>> data = Coupling(same, same, lambda v, s: (v + s * b) / (1 + s))
        >>> sparse = Coupling(same, same, lambda v, s: v - v.clamp(-s, s))
        >>> found = admm([data, sparse], lambda v: v / 2, torch.zeros_like(b), tolerance=1e-9)
        >>> found.x.round(decimals=6).abs().tolist(), found.status.converged
        ([2.0, 0.0], True)
    """
    x = check_vector(x0, "x0")
    check_limits(tolerance, max_iterations)
    w = [1.0] * len(couplings) if weights is None else [float(v) for v in weights]
    if not couplings or len(w) != len(couplings) or any(not (math.isfinite(v) and v > 0) for v in w):
        raise InputError(f"expected couplings and one positive weight for each, got {len(couplings)} and weights {w}")
    if not (math.isfinite(rho) and rho > 0 and 0 < relaxation < 2):
        raise InputError(f"rho must be positive and relaxation lie in (0, 2), got {rho} and {relaxation}")
    solver = guard(solve, "solve", x.shape)
    z = tuple(c.apply(x).detach() for c in couplings)
    u = tuple(torch.zeros_like(v) for v in z)
    pulled_z = _pull(couplings, z)
    pulled_u = tuple(torch.zeros_like(x) for _ in couplings)
    history: list[float] = []
    reason, residual, floor, force, first = "max-iterations", math.inf, 0.0, 0.0, rho
    while len(history) < max_iterations:
        right = _weighted(w, tuple(a - b for a, b in zip(pulled_z, pulled_u)))
        previous, x = x, solver(right)
        kx = tuple(c.apply(x).detach() for c in couplings)
        mixed = tuple(relaxation * a + (1 - relaxation) * b + d for a, b, d in zip(kx, z, u))
        z = tuple(c.prox(v, 1 / (rho * s)).detach() for c, v, s in zip(couplings, mixed, w))
        last_u, u = u, tuple(a - b for a, b in zip(mixed, z))
        pulled_z, pulled_u = _pull(couplings, z), _pull(couplings, u)
        floor = floor or max(_size(kx), _size(z))
        primal = _size(tuple(a - b for a, b in zip(kx, z))) / (max(_size(kx), _size(z), floor) or 1.0)
        multipliers = tuple(s * v for s, v in zip(w, pulled_u))
        # Multipliers may vanish at the solution: their size at the start then sets the scale.
        force = force or rho * _size(multipliers)
        total = float(sum(multipliers, torch.zeros_like(x)).norm())
        dual = rho * total / (max(rho * _size(multipliers), force) or 1.0)
        residual = max(primal, dual)
        history.append(residual)
        if callback is not None:
            callback(len(history), max_iterations, residual)
        if not math.isfinite(residual):
            reason = "diverged"
            break
        if residual <= tolerance:
            exact = _mismatch(x, kx, u, pulled_u) <= max(resolution(x.dtype) ** 0.5, tolerance)
            reason = "converged" if exact else "wrong-adjoint"
            break
        move = _size(tuple(a - b for a, b in zip(u, last_u))) / (_size(u) or 1.0)
        if max(float((x - previous).norm()) / (float(x.norm()) or 1.0), move) <= 2 * resolution(x.dtype):
            reason = "stagnation"
            break
        if adaptive and 2 * len(history) <= max_iterations and len(history) % 5 == 0:
            factor = 2.0 if primal > 5 * dual else 0.5 if dual > 5 * primal else 1.0
            factor = factor if 1e-6 <= rho * factor / first <= 1e6 else 1.0
            # The multipliers ρ w u stay what they are when ρ changes.
            rho, u = rho * factor, tuple(v / factor for v in u)
            pulled_u = tuple(v / factor for v in pulled_u)
    error = 0.0 if reason in ("converged", "wrong-adjoint") else _solve_error(couplings, w, solver, x0)
    status = _status(reason, residual, tolerance, len(history), error, resolution(x.dtype))
    return Result(x, status, len(history), residual, tuple(history))


def _pull(couplings: Sequence[Coupling], parts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(c.adjoint(v).detach() for c, v in zip(couplings, parts))


def _mismatch(x: Tensor, kx: tuple[Tensor, ...], u: tuple[Tensor, ...], pulled: tuple[Tensor, ...]) -> float:
    """Largest |⟨K_i x, u_i⟩ − ⟨x, K_iᴴu_i⟩| relative to the vectors' sizes: zero if the adjoints given are right."""
    worst = 0.0
    for k, v, p in zip(kx, u, pulled):
        gap = abs(complex(inner(k, v).sum()) - complex(inner(x, p).sum()))
        worst = max(worst, gap / (float(k.norm() * v.norm() + x.norm() * p.norm()) or 1.0))
    return worst


def _weighted(weights: list[float], parts: tuple[Tensor, ...]) -> Tensor:
    total = weights[0] * parts[0]
    for weight, part in zip(weights[1:], parts[1:]):
        total = total + weight * part
    return total


def _size(parts: tuple[Tensor, ...]) -> float:
    return math.sqrt(sum(float(p.norm()) ** 2 for p in parts))


def _solve_error(couplings: Sequence[Coupling], weights: list[float], solve: Map, like: Tensor) -> float:
    """Relative error of the caller's solve on a fixed random vector, to say whether it is to blame."""
    generator = torch.Generator(device=like.device).manual_seed(0)
    v = torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)
    forth = _weighted(weights, tuple(c.adjoint(c.apply(v)).detach() for c in couplings))
    return float((solve(forth) - v).norm()) / (float(v.norm()) or 1.0)


def _status(reason: str, residual: float, tolerance: float, iterations: int, error: float, eps: float) -> Status:
    reached = f"larger relative residual {residual:.2e} after {iterations} iterations"
    if reason == "converged":
        return Status(True, reason, f"{reached}, both within {tolerance:.2e}")
    if not error <= max(eps**0.5, tolerance):
        why = f"the solve given inverts Σ w KᴴK only to {error:.1e}; make it that inverse, with the same weights"
        return Status(False, "wrong-solve", f"{reached}, above {tolerance:.2e}: {why}")
    why = {
        "max-iterations": "the iteration limit came first; allow more iterations or try another rho",
        "stagnation": "steps have reached rounding; accept it or work in float64",
        "wrong-adjoint": "⟨K x, u⟩ and ⟨x, Kᴴu⟩ differ, so an adjoint is not that of its operator; correct it",
        "diverged": "the iterates are no longer finite; check the proximal operators",
    }[reason]
    return Status(False, reason, f"{reached}, above {tolerance:.2e}: {why}")
