"""Gradient-step plug and play: proximal gradient on a true energy, which falls at every step.

A gradient-step denoiser is D_σ = 1 − ∇g_σ with an energy g_σ that can be evaluated. Then

    F(x) = f(x) + (λ/σ²) g_σ(x),        x⁺ = prox_{τf}(x − τ (λ/σ²) ∇g_σ(x))

is minimised, with τ halved until

    F(x⁺) ≤ F(x) − (γ/τ) ‖x⁺ − x‖²,     γ = 0.1,       and F(x⁺) < F(x)

as evaluated: a step that does not pass is never taken. The first τ is σ²/λ, at which the gradient step is the denoiser
itself; it never grows again, and once it is below about 1/(λ/σ² · Lip ∇g) every step passes. The iterates' limits are
critical points of F. Criterion: ‖∇f(x) + (λ/σ²) ∇g(x)‖ ≤ tolerance · max(‖∇f(x)‖, (λ/σ²) ‖∇g(x)‖).

With counting noise and non-linear operators the same holds, the energy being checked whatever made the step.

References: Hurault, Leclaire, Papadakis, "Gradient step denoiser for convergent plug-and-play", ICLR 2022. Cohen,
Blau, Freedman, Rivlin, "It has potential: gradient-driven denoisers for convergent solutions to inverse problems",
NeurIPS 2021.
"""

__all__ = ["descend"]

import math

import torch
from torch import Tensor

from ..solvers.result import Result, Status
from .base import Callback
from .plug_and_play_data import DataTerm
from .plug_and_play_prior import CountedEnergy

_DECREASE = 0.1  # γ
_HALVINGS = 30


def descend(
    data: DataTerm,
    prior: CountedEnergy,
    start: Tensor,
    sigma: float,
    weight: float,
    tolerance: float,
    iterations: int,
    callback: Callback,
) -> Result:
    """A critical point of F; `history` holds F at the start and after each step."""
    pull = weight / sigma**2

    def energy(v: Tensor) -> float:
        return data.value(v) + pull * prior.value(v, sigma)

    x, step, reason, residual = start, 1.0 / pull, "max-iterations", math.inf
    history = [energy(x)]
    while True:
        slope = pull * prior.gradient(x, sigma)
        residual = _balance(data.gradient(x), slope)
        if residual <= tolerance:
            reason = "converged"
        if reason != "max-iterations" or len(history) > iterations:
            break
        found = _step(data, energy, x, slope, step, history[-1])
        if found is None:
            reason = "stagnation"
            break
        x, step, value = found
        history.append(value)
        callback(len(history) - 1, iterations, value)
    return Result(x, _status(reason, residual, tolerance, history, step), len(history) - 1, residual, tuple(history))


def _step(
    data: DataTerm, energy, x: Tensor, slope: Tensor, step: float, value: float
) -> tuple[Tensor, float, float] | None:
    """The next image, the step that passed and the energy there; None where no step lowers the energy."""
    for _ in range(_HALVINGS):
        following = data.prox(x - step * slope, 1.0 / step)
        moved = float(torch.linalg.vector_norm(following - x)) ** 2
        reached = energy(following)
        if reached < value and reached <= value - _DECREASE / step * moved:
            return following, step, reached
        step /= 2
    return None


def _balance(first: Tensor, second: Tensor) -> float:
    """‖a + b‖ / max(‖a‖, ‖b‖)."""
    total, *sizes = (float(torch.linalg.vector_norm(v)) for v in (first + second, first, second))
    return total / max(sizes) if total > 0 else 0.0


def _status(reason: str, residual: float, tolerance: float, history: list[float], step: float) -> Status:
    reached = f"energy {history[-1]:.6g}, lower at each of {len(history) - 1} steps, relative gradient {residual:.1e}"
    if reason == "converged":
        return Status(True, reason, f"{reached}, within {tolerance:.1e}")
    why = {
        "max-iterations": "the limit came first; allow more iterations",
        "stagnation": f"no step, down to {step:.1e}, lowers it further; accept it or work in float64",
    }[reason]
    return Status(False, reason, f"{reached}, above {tolerance:.1e}: {why}")
