"""Alternating direction method of multipliers for a sum of terms seen through linear operators.

    minimise  f(x) + Σ_i f_i(K_i x),    split as z_i = K_i x with penalties ρ_i,    f quadratic (possibly zero)

    v_i = α K_i x + (1 − α) z_i,   z_i = prox_{f_i/ρ_i}(v_i + u_i),   u_i ← u_i + v_i − z_i
    x = argmin f(x) + Σ ρ_i/2 ‖K_i x − z_i + u_i‖²                               (the caller's solve)

A quadratic data term may be a coupling like any other: then f = 0, and with ρ_i = ρ w_i the linear system depends on
the fixed weights w_i only, so that ρ may be balanced during the iteration at no cost. Kept as f it makes the steps
longer where the system is cheap to solve anew for other penalties (in Fourier); each ρ_i is then balanced on its own.
With the multipliers λ_i = ρ_i u_i, which lie in ∂f_i(z_i) by construction, optimality is K_i x = z_i and
∇f(x) + Σ K_iᴴ λ_i = 0; the criterion is the caller's gap, or else the larger of the two relative residuals

    ‖K x − z‖ / max(‖K x‖, ‖z‖)      and      ‖∇f(x) + Σ K_iᴴ λ_i‖ / √(‖∇f(x)‖² + Σ ‖K_iᴴ λ_i‖²)

both computed from the point reached, so that an inexact or wrong solve cannot hide.

References:
    Boyd, Parikh, Chu, Peleato, Eckstein, "Distributed optimization and statistical learning via ADMM", 2011, §3.3–3.4.
    Wohlberg, "ADMM penalty parameter selection by residual balancing", arXiv:1704.06209, 2017.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from .algebra import Callback, Map, check_limits, check_vector, guard, resolution
from .coupling import Coupling, Gap, adjoint_error, length
from .result import Result, Status

__all__ = ["System", "admm"]

_BALANCE_EVERY = 10
_BALANCE_UNTIL = 200  # penalties are held fixed afterwards, so that the convergence proof applies
_RANGE = 1e3  # a penalty may move by this factor from where it started


@dataclass(frozen=True)
class System:
    """The x-step where it depends on the penalties.

    Args:
        solve: (ρ_1, …) ↦ the map b ↦ argmin_x f(x) + Σ ρ_i/2 ‖K_i x‖² − Re⟨b, x⟩.
        gradient: x ↦ ∇f(x); None for f = 0.
    """

    solve: Callable[[tuple[float, ...]], Map]
    gradient: Map | None = None


def admm(
    couplings: Sequence[Coupling],
    solve: Map | System,
    x0: Tensor,
    *,
    weights: Sequence[float] | None = None,
    rho: float = 1.0,
    adaptive: bool = True,
    relaxation: float = 1.6,
    gap: Gap | None = None,
    check_every: int = 1,
    tolerance: float = 1e-5,
    max_iterations: int = 1000,
    callback: Callback | None = None,
) -> Result:
    """Minimise f(x) + Σ f_i(K_i x).

    Args:
        couplings: the terms f_i(K_i x).
        solve: b ↦ (Σ w_i K_iᴴK_i)⁻¹ b on tensors of x0's shape, for f = 0; or a `System` that takes the penalties.
        x0: starting point, any shape; a batch is one problem.
        weights: w_i, positive; all one if None.
        rho: ρ at the start, positive: ρ_i = ρ w_i.
        adaptive: balance primal and dual residuals: ρ, or with a `System` each ρ_i on its own.
        relaxation: α, in (0, 2); 1.5 to 1.8 is usually fastest.
        gap: (x, (z_1, …), (λ_1, …)) with λ_i ∈ ∂f_i(z_i) ↦ a bound of the distance to optimality; replaces the
            criterion.
        check_every: iterations from one look at the criterion to the next.
        tolerance: largest criterion accepted.
        max_iterations: limit.
        callback: called as callback(iteration, limit, criterion).

    Returns:
        Result whose `residual` is the criterion at `x`. Constraints among the f_i are met within it and not exactly.

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
        >>> whole = System(lambda rho: lambda v: (v + b) / (1 + sum(rho)), lambda x: x - b)
        >>> admm([sparse], whole, torch.zeros_like(b), tolerance=1e-9).x.round(decimals=6).abs().tolist()
        [2.0, 0.0]
    """
    x = check_vector(x0, "x0")
    check_limits(tolerance, max_iterations)
    w = [1.0] * len(couplings) if weights is None else [float(v) for v in weights]
    if not couplings or len(w) != len(couplings) or any(not (math.isfinite(v) and v > 0) for v in w):
        raise InputError(f"expected couplings and one positive weight for each, got {len(couplings)} and weights {w}")
    if not (math.isfinite(rho) and rho > 0 and 0 < relaxation < 2):
        raise InputError(f"rho must be positive and relaxation lie in (0, 2), got {rho} and {relaxation}")
    if isinstance(solve, System):
        system = solve
    else:
        # With f = 0 a common factor of the penalties only divides the solution.
        system = System(lambda penalties: lambda b: solve(b * (w[0] / penalties[0])))
    splits = [_Split(coupling, x, rho * v) for coupling, v in zip(couplings, w)]
    state = _State(x, splits, system, [[split] for split in splits] if system is solve else [splits], relaxation)
    history: list[float] = []
    reason, residual, iteration = "max-iterations", math.inf, 0
    while iteration < max_iterations:
        iteration += 1
        checking = iteration % check_every == 0 or iteration == max_iterations
        balancing = (
            adaptive and iteration % _BALANCE_EVERY == 0 and iteration <= min(_BALANCE_UNTIL, max_iterations // 2)
        )
        before = tuple((s.z.clone(), s.u.clone()) for s in state.splits) if checking or balancing else ()
        right = state.renew()
        if checking:
            residual = state.criterion() if gap is None else float(gap(state.x, state.z, state.multipliers))
            history.append(residual)
            if callback is not None:
                callback(iteration, max_iterations, residual)
            if math.isnan(residual) or not math.isfinite(float(state.x.abs().sum())):
                reason = "diverged"
                break
            if residual <= tolerance:
                exact = state.mismatch() <= max(resolution(x.dtype) ** 0.5, tolerance)
                reason = "converged" if exact else "wrong-adjoint"
                break
            if state.moved([u for _, u in before]) <= 2 * resolution(x.dtype):
                reason = "stagnation"
                break
            if iteration == max_iterations:
                break
        if balancing and state.balance([z for z, _ in before]):
            right = state.right()
        state.advance(right)
    error = 0.0 if reason in ("converged", "wrong-adjoint") else state.solve_error()
    name = "larger relative residual" if gap is None else "gap"
    status = _status(reason, name, residual, tolerance, iteration, error, resolution(x.dtype))
    return Result(state.x, status, iteration, residual, tuple(history))


class _Split:
    """z and u of one coupling, and its penalty."""

    def __init__(self, coupling: Coupling, x: Tensor, penalty: float):
        self.coupling, self.first, self.penalty = coupling, penalty, penalty
        self.z = coupling.apply(x).detach().clone()
        self.u = torch.zeros_like(self.z)

    def renew(self, x: Tensor, relaxation: float) -> Tensor:
        """New z and u; Kᴴ(z − u)."""
        if self.coupling.step is not None:
            return self.coupling.step(x, self.z, self.u, 1 / self.penalty, relaxation)
        q = relaxation * self.coupling.apply(x).detach() + (1 - relaxation) * self.z + self.u
        self.z = self.coupling.prox(q, 1 / self.penalty).detach()
        self.u = q - self.z
        return self.back(self.z - self.u)

    def back(self, v: Tensor) -> Tensor:
        return self.coupling.adjoint(v).detach()

    def image(self, x: Tensor) -> Tensor:
        return self.coupling.apply(x).detach()

    def retune(self, factor: float) -> None:
        """Change the penalty; the multiplier ρ u stays what it is."""
        self.penalty, self.u = self.penalty * factor, self.u / factor


class _State:
    """The point x, the splits with the solve that belongs to their penalties, and the groups balanced together."""

    def __init__(self, x: Tensor, splits: list[_Split], system: System, groups: list[list[_Split]], relaxation: float):
        self.x, self.splits, self.system, self.groups, self.relaxation = x, splits, system, groups, relaxation
        self.previous: Tensor | None = None
        self.floor = self.force = 0.0
        self._factorise()

    @property
    def z(self) -> tuple[Tensor, ...]:
        return tuple(split.z for split in self.splits)

    @property
    def multipliers(self) -> tuple[Tensor, ...]:
        """λ_i = ρ_i u_i."""
        return tuple(split.penalty * split.u for split in self.splits)

    def renew(self) -> Tensor:
        """New z_i and u_i at x; Σ ρ_i K_iᴴ(z_i − u_i)."""
        return self._weighted([split.renew(self.x, self.relaxation) for split in self.splits])

    def right(self) -> Tensor:
        """Σ ρ_i K_iᴴ(z_i − u_i)."""
        return self._weighted([split.back(split.z - split.u) for split in self.splits])

    def advance(self, right: Tensor) -> None:
        """The new x."""
        self.previous, self.x = self.x, self.solve(right)

    def criterion(self) -> float:
        """The larger of the relative primal and dual residuals."""
        kx, z = tuple(split.image(self.x) for split in self.splits), self.z
        self.floor = self.floor or max(length(kx), length(z))
        primal = length(tuple(a - b for a, b in zip(kx, z))) / (max(length(kx), length(z), self.floor) or 1.0)
        parts = [split.back(v) for split, v in zip(self.splits, self.multipliers)]
        if self.system.gradient is not None:
            parts.append(self.system.gradient(self.x).detach())
        # Multipliers may vanish at the solution: their size at the start then sets the scale.
        self.force = self.force or length(tuple(parts))
        dual = float(torch.stack(parts).sum(0).norm()) / (max(length(tuple(parts)), self.force) or 1.0)
        return max(primal, dual)

    def moved(self, before: list[Tensor]) -> float:
        """Relative size of the last step, of x or of the u_i, which were `before`."""
        if self.previous is None:
            return math.inf
        step = float((self.x - self.previous).norm()) / (float(self.x.norm()) or 1.0)
        u = tuple(split.u for split in self.splits)
        return max(step, length(tuple(a - b for a, b in zip(u, before))) / (length(u) or 1.0))

    def balance(self, before: list[Tensor]) -> bool:
        """Move penalties towards equal relative primal and dual residuals; whether one moved.

        `before` are the last z_i. The dual residuals are relative to the force of all couplings: a constraint that is
        not active has none of its own.
        """
        force = sum(split.penalty * float(split.back(split.u).norm()) for split in self.splits)
        old = {id(split): z for split, z in zip(self.splits, before)}
        changed = False
        for group in self.groups:
            images = tuple(split.image(self.x) for split in group)
            size = max(length(images), length(tuple(split.z for split in group)), 1e-30)
            primal = length(tuple(image - split.z for image, split in zip(images, group))) / size
            pushes = [split.penalty * split.back(split.z - old[id(split)]) for split in group]
            dual = float(torch.stack(pushes).sum(0).norm()) / max(force, 1e-30)
            ratio = math.sqrt(primal / max(dual, 1e-30))
            if not math.isfinite(ratio) or 0.5 < ratio < 2.0:
                continue
            first, now = group[0].first, group[0].penalty
            factor = min(max(now * min(max(ratio, 0.2), 5.0), first / _RANGE), first * _RANGE) / now
            changed = changed or factor != 1.0
            for split in group:
                split.retune(factor)
        if changed:
            self._factorise()
        return changed

    def mismatch(self) -> float:
        """How far the adjoints given are from right, at x and u."""
        u = tuple(split.u for split in self.splits)
        kx = tuple(split.image(self.x) for split in self.splits)
        return adjoint_error(self.x, kx, u, tuple(split.back(v) for split, v in zip(self.splits, u)))

    def solve_error(self) -> float:
        """Relative error of the caller's solve on a fixed random vector, to say whether it is to blame."""
        generator = torch.Generator(device=self.x.device).manual_seed(0)
        v = torch.randn(self.x.shape, generator=generator, dtype=self.x.dtype, device=self.x.device)
        right = self._weighted([split.back(split.image(v)) for split in self.splits])
        if self.system.gradient is not None:
            right = right + self.system.gradient(v).detach()
        return float((self.solve(right) - v).norm()) / (float(v.norm()) or 1.0)

    def _weighted(self, parts: list[Tensor]) -> Tensor:
        total = self.splits[0].penalty * parts[0]
        for split, part in zip(self.splits[1:], parts[1:]):
            total.add_(part, alpha=split.penalty)
        return total

    def _factorise(self) -> None:
        self.solve = guard(self.system.solve(tuple(split.penalty for split in self.splits)), "solve", self.x.shape)


def _status(
    reason: str, name: str, residual: float, tolerance: float, iterations: int, error: float, eps: float
) -> Status:
    reached = f"{name} {residual:.2e} after {iterations} iterations"
    if reason == "converged":
        return Status(True, reason, f"{reached}, recomputed and within {tolerance:.2e}")
    if not error <= max(eps**0.5, tolerance):
        why = f"the solve given inverts the system only to {error:.1e}; make it that inverse, with the same penalties"
        return Status(False, "wrong-solve", f"{reached}, above {tolerance:.2e}: {why}")
    why = {
        "max-iterations": "the iteration limit came first; allow more iterations or try another rho",
        "stagnation": "steps have reached rounding; accept it or work in float64",
        "wrong-adjoint": "⟨K x, u⟩ and ⟨x, Kᴴu⟩ differ, so an adjoint is not that of its operator; correct it",
        "diverged": "the iterates are no longer finite; check the proximal operators",
    }[reason]
    return Status(False, reason, f"{reached}, above {tolerance:.2e}: {why}")
