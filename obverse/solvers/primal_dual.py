"""Primal–dual hybrid gradient for a sum of terms seen through linear operators.

    minimise  g(x) + h(x) + Σ_i f_i(K_i x)          g, f_i with proximal operators, h with an L-Lipschitz gradient

    x̂ = prox_{τ g}(x − τ(∇h(x) + Σ K_iᴴ u_i)),     û_i = prox_{σ f_i*}(u_i + σ K_i(2x̂ − x)),
    (x, u) ← (x, u) + ρ ((x̂, û) − (x, u)),           1/τ = L + σ‖K‖²

(Chambolle–Pock for h = 0, Condat–Vũ otherwise, over-relaxed by ρ). The balance σ/τ adapts while the two residuals
differ, by amounts whose sum is finite, so that convergence is kept. Criterion: the caller's gap, or else how far (x̂,
û) is from satisfying the optimality conditions, 0 ∈ ∂g(x̂) + ∇h(x̂) + Kᴴû and K x̂ ∈ ∂f*(û), which the steps
themselves certify:

    ‖(x − x̂)/τ − Kᴴ(u − û) − ∇h(x) + ∇h(x̂)‖  and  ‖(u − û)/σ − K(x − x̂)‖,   relative to the vectors they are made of.

References:
    Chambolle, Pock, "A first-order primal-dual algorithm for convex problems", JMIV 2011.
    Condat, "A primal–dual splitting method for convex optimization", JOTA 2013.
    Goldstein, Li, Yuan, "Adaptive primal-dual splitting methods for statistical learning and image
        processing", NIPS 2015.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InputError
from .algebra import Callback, Map, check_limits, check_vector, resolution
from .coupling import Coupling, Gap, Prox, adjoint_error, length
from .result import Result, Status

__all__ = ["pdhg"]


def pdhg(
    couplings: Sequence[Coupling],
    x0: Tensor,
    norm: float,
    *,
    prox: Prox | None = None,
    gradient: Map | None = None,
    lipschitz: float = 0.0,
    gap: Gap | None = None,
    check_every: int = 1,
    ratio: float = 1.0,
    adaptive: bool = True,
    relaxation: float | None = None,
    tolerance: float = 1e-6,
    max_iterations: int = 1000,
    callback: Callback | None = None,
) -> Result:
    """Minimise g(x) + h(x) + Σ f_i(K_i x).

    Args:
        couplings: the terms f_i(K_i x).
        x0: starting point, any shape; a batch is one problem.
        norm: upper bound of ‖K‖, the norm of all K_i stacked: √(Σ ‖K_i‖²) will do.
        prox: (v, s) ↦ prox_{s g}(v); None for g = 0.
        gradient: x ↦ ∇h(x); None for h = 0.
        lipschitz: L, Lipschitz constant of ∇h.
        gap: (x, (z_1, …), (u_1, …)) with u_i ∈ ∂f_i(z_i) ↦ a bound of the distance to optimality, such as a duality
            gap; replaces the criterion.
        check_every: iterations from one look at the criterion, with the balance adapted to it, to the next.
        ratio: σ‖K‖ at the start: larger takes larger dual steps and smaller primal ones.
        adaptive: let the ratio follow the residuals.
        relaxation: ρ, in (0, 2) if h = 0 and in (0, 1.5) otherwise; by default 1.9 and 1.4.
        tolerance: largest criterion accepted.
        max_iterations: limit.
        callback: called as callback(iteration, limit, criterion).

    Returns:
        Result whose `residual` is the criterion at `x`, with every product computed afresh.

    Raises:
        InputError: a number is out of its range, or x0 is not finite.

    Example:
        >>> b = torch.tensor([1.0, 1.0, 5.0], dtype=torch.float64)          # fit two steps of a signal, TV weight 1
        >>> clip = lambda u, s: u.clamp(-1, 1)
        >>> back = lambda u: torch.cat([-u[:1], u[:-1] - u[1:], u[-1:]])
        >>> tv = Coupling(torch.diff, back, lambda v, s: v - v.clamp(-s, s), clip)
        >>> found = pdhg([tv], b, 2.0, prox=lambda v, s: (v + s * b) / (1 + s), tolerance=1e-10)
        >>> found.x.round(decimals=6).tolist(), found.status.converged
        ([1.5, 1.5, 4.0], True)
    """
    x = check_vector(x0, "x0")
    check_limits(tolerance, max_iterations)
    limit = 2.0 if gradient is None else 1.5
    relaxation = (1.9 if gradient is None else 1.4) if relaxation is None else relaxation
    _check(couplings, norm, lipschitz if gradient is not None else 0.0, ratio, relaxation, limit)
    state = _State(couplings, x, norm, prox, gradient, lipschitz, ratio)
    history: list[float] = []
    reason, change, iteration = "max-iterations", 0.5, 0
    while iteration < max_iterations:
        iteration += 1
        state.advance()
        if iteration % check_every == 0 or iteration == max_iterations:
            primal, dual, moved = state.measure()
            history.append(float(gap(state.x_hat, state.z_hat, state.u_hat)) if gap is not None else max(primal, dual))
            if callback is not None:
                callback(iteration, max_iterations, history[-1])
            if state.excess > 1 + 1e-3:
                reason = "norm-too-small"
                break
            if math.isnan(history[-1]) or not math.isfinite(primal + dual):
                reason = "diverged"
                break
            if history[-1] <= tolerance and (gap is not None or state.criterion() <= tolerance):
                exact = state.mismatch() <= max(resolution(x.dtype) ** 0.5, tolerance)
                reason = "converged" if exact else "wrong-adjoint"
                break
            if moved <= 2 * resolution(x.dtype):
                reason = "stagnation"
                break
            if adaptive and change > 1e-3 and max(primal, dual) > 2 * min(primal, dual):
                state.ratio = state.ratio * (1 + change) if dual > primal else state.ratio / (1 + change)
                change *= 0.95
        if iteration < max_iterations:
            state.relax(relaxation)
    if history:
        residual = float(gap(state.x_hat, state.z_hat, state.u_hat)) if gap is not None else state.criterion()
    else:
        residual = math.inf
    if reason == "converged" and not residual <= tolerance:
        reason = "max-iterations"
    name = "gap" if gap is not None else "relative optimality residual"
    status = _status(reason, name, residual, tolerance, iteration, state.excess * norm)
    return Result(state.x_hat, status, iteration, residual, tuple(history))


class _State:
    """The primal and dual points, the products K x and Kᴴu that belong to them, and the candidates x̂, û."""

    def __init__(
        self,
        couplings: Sequence[Coupling],
        x: Tensor,
        norm: float,
        prox: Prox | None,
        gradient: Map | None,
        lipschitz: float,
        ratio: float,
    ):
        self.couplings, self.norm, self.prox, self.gradient = couplings, norm, prox, gradient
        self.lipschitz = lipschitz if gradient is not None else 0.0
        self.ratio, self.excess = ratio, 0.0
        self.x = self.x_hat = x
        self.kx = tuple(c.apply(x).detach() for c in couplings)
        self.u = self.u_hat = self.z_hat = tuple(torch.zeros_like(v) for v in self.kx)
        self.back = self._adjoint(self.u)
        self.floors: tuple[float, float] | None = None

    def advance(self) -> None:
        """Candidates from the current point."""
        self.sigma = self.ratio / self.norm
        # One per cent above the bound keeps the step strictly inside the region of convergence.
        self.tau = 1 / (self.lipschitz + 1.01 * self.sigma * self.norm**2)
        self.slope = torch.zeros_like(self.x) if self.gradient is None else self.gradient(self.x).detach()
        forward = self.x - self.tau * (self.slope + self.back)
        self.x_hat = forward if self.prox is None else self.prox(forward, self.tau).detach()
        self.kx_hat = tuple(c.apply(self.x_hat).detach() for c in self.couplings)
        pairs = [
            c.conjugate(u + self.sigma * (2 * new - old), self.sigma)
            for c, u, new, old in zip(self.couplings, self.u, self.kx_hat, self.kx)
        ]
        self.u_hat, self.z_hat = tuple(u for u, _ in pairs), tuple(z for _, z in pairs)
        self.back_hat = self._adjoint(self.u_hat)

    def measure(self) -> tuple[float, float, float]:
        """Primal and dual residuals of the candidates and the relative size of the move."""
        step = float((self.x - self.x_hat).norm())
        if step > 1e3 * resolution(self.x.dtype) * float(self.x_hat.norm()):
            self.excess = max(self.excess, length(_minus(self.kx, self.kx_hat)) / (step * self.norm))
        # Without another gradient, its change is bounded by the Lipschitz constant.
        primal = float(((self.x - self.x_hat) / self.tau - self.back + self.back_hat).norm()) + self.lipschitz * step
        dual = self._dual(self.kx_hat)
        scales = self._scales()
        self.floors = scales if self.floors is None else self.floors
        size = math.hypot(float(self.x_hat.norm()), length(self.u_hat) / self.norm)
        move = math.hypot(step, length(_minus(self.u, self.u_hat)) / self.norm)
        return primal / max(scales[0], self.floors[0]), dual / max(scales[1], self.floors[1]), move / (size or 1.0)

    def relax(self, relaxation: float) -> None:
        """Move to the candidates and beyond; products follow by linearity."""
        self.x = self.x + relaxation * (self.x_hat - self.x)
        self.back = self.back + relaxation * (self.back_hat - self.back)
        self.u = tuple(a + relaxation * (b - a) for a, b in zip(self.u, self.u_hat))
        self.kx = tuple(a + relaxation * (b - a) for a, b in zip(self.kx, self.kx_hat))

    def criterion(self) -> float:
        """The optimality residual of (x̂, û) with K x, Kᴴu and ∇h computed anew."""
        # The subgradients that the steps certify belong to the carried products; the fresh ones are set against them,
        # so that any drift is charged to the residual.
        primal = (self.x - self.x_hat) / self.tau - self.back + self._adjoint(self.u_hat)
        if self.gradient is not None:
            primal = primal - self.slope + self.gradient(self.x_hat).detach()
        dual = self._dual(tuple(c.apply(self.x_hat).detach() for c in self.couplings))
        scales = self._scales()
        floors = self.floors or scales
        # Should the iteration go on, it does so from fresh products.
        self.kx = tuple(c.apply(self.x).detach() for c in self.couplings)
        self.back = self._adjoint(self.u)
        return max(float(primal.norm()) / max(scales[0], floors[0]), dual / max(scales[1], floors[1]))

    def mismatch(self) -> float:
        """How far the adjoints given are from right, at (x̂, û)."""
        pulled = tuple(c.adjoint(u).detach() for c, u in zip(self.couplings, self.u_hat))
        return adjoint_error(self.x_hat, self.kx_hat, self.u_hat, pulled)

    def _dual(self, product: tuple[Tensor, ...]) -> float:
        """Distance of K x̂ = `product` from the element of ∂f*(û) that the dual step produced."""
        parts = zip(self.u, self.u_hat, self.kx, self.kx_hat, product)
        return length(tuple((u - new) / self.sigma + (2 * hat - old) - k for u, new, old, hat, k in parts))

    def _scales(self) -> tuple[float, float]:
        subgradient = (self.x - self.x_hat) / self.tau - self.back - self.slope
        primal = max(float(self.back_hat.norm()), float(self.slope.norm()), float(subgradient.norm()))
        return primal or 1.0, length(self.kx_hat) or 1.0

    def _adjoint(self, u: tuple[Tensor, ...]) -> Tensor:
        total = torch.zeros_like(self.x)
        for coupling, part in zip(self.couplings, u):
            total = total + coupling.adjoint(part).detach()
        return total


def _minus(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(p - q for p, q in zip(a, b))


def _check(
    couplings: Sequence[Coupling], norm: float, lipschitz: float, ratio: float, relaxation: float, limit: float
) -> None:
    if not couplings:
        raise InputError("pdhg expects at least one coupling f(K x), got none; use fista for g + h alone")
    if not (math.isfinite(norm) and norm > 0 and math.isfinite(ratio) and ratio > 0):
        raise InputError(f"norm and ratio must be positive numbers, got {norm} and {ratio}")
    if not (math.isfinite(lipschitz) and lipschitz >= 0):
        raise InputError(f"lipschitz must be a finite number of at least 0, got {lipschitz}")
    if not 0 < relaxation < limit:
        raise InputError(f"relaxation must lie in (0, {limit}), got {relaxation}; leave it out for a safe choice")


def _status(reason: str, name: str, residual: float, tolerance: float, iterations: int, seen: float) -> Status:
    reached = f"{name} {residual:.2e} after {iterations} iterations"
    if reason == "converged":
        return Status(True, reason, f"{reached}, recomputed and within {tolerance:.2e}")
    why = {
        "max-iterations": "the iteration limit came first; allow more iterations",
        "stagnation": "steps have reached rounding; accept it or work in float64",
        "wrong-adjoint": "⟨K x, u⟩ and ⟨x, Kᴴu⟩ differ, so an adjoint is not that of its operator; correct it",
        "diverged": "the iterates are no longer finite; check the norm and the Lipschitz constant given",
        "norm-too-small": f"the operators stretched a vector by {seen:.4g}, above the norm given; give a true bound",
    }[reason]
    return Status(False, reason, f"{reached}, above {tolerance:.2e}: {why}")
