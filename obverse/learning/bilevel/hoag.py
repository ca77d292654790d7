"""HOAG: descent along approximate hypergradients whose errors are summable.

    θ⁺ = θ − α z_k,      lower level and adjoint solved to ε_k = ε₀ γᵏ,  γ < 1, from where they stopped last

Since Σ ε_k is finite the iterates converge as if the gradients were exact, for a step below 1/L. L is not known, so α
comes from an acceptance test: a step is undone and halved if the loss certainly did not fall by ½α‖z‖², that is if
low F(θ⁺) > high F(θ) − ½α‖z‖²; otherwise α grows a little.

Reference: Pedregosa, "Hyperparameter optimization with approximate gradient", ICML 2016.
"""

import math

from torch import Tensor

from ...errors import InputError
from ...solvers.algebra import Callback, resolution
from .implicit import Bilevel
from .record import Counter, Learned, check_start

__all__ = ["hoag"]

_SHORTER, _LONGER = 0.5, 1.05


def hoag(
    problem: Bilevel,
    theta: Tensor,
    *,
    step: float = 1.0,
    accuracy: float | None = None,
    decay: float = 0.9,
    tolerance: float = 1e-4,
    max_iterations: int = 100,
    callback: Callback | None = None,
) -> Learned:
    """Minimise F(θ) with errors that shrink at a rate fixed beforehand.

    Args:
        theta: where to start.
        step: first step length α, in units of θ²/F.
        accuracy: ε₀, certified distance ‖x̃ − x̂‖ at the start; by default a hundredth of ‖start‖.
        decay: γ, 0 < γ < 1.
        tolerance: largest ‖∇F‖ called converged: ‖z‖ plus the bound of its error, where there is one.
        max_iterations: most steps tried.
        callback: called as callback(iteration, limit, loss).

    Returns:
        The parameters; the loss may rise between iterates by as much as its bounds allow.

    Raises:
        InputError: a setting is out of range, or the lower level does not depend on θ.
    """
    if not 0 < decay < 1:
        raise InputError(f"hoag expects 0 < decay < 1, got {decay}; 0.9 is usual")
    size = float(problem.start.norm())
    epsilon = (0.01 * size if size > 0 else 0.01) if accuracy is None else float(accuracy)
    theta = check_start(theta, "hoag", step=step, accuracy=epsilon, tolerance=tolerance)
    floor = 4 * resolution(problem.start.dtype) * max(size, 1.0)
    work, alpha = Counter(), float(step)
    solved = work.solved(problem.solve(theta, epsilon))
    slope = work.differentiated(problem.hypergradient(theta, solved, problem.upper_lipschitz * epsilon))
    work.note(theta, solved, slope, 0.0)
    for iteration in range(max_iterations):
        length = float(slope.gradient.norm())
        if length + (slope.error if math.isfinite(slope.error) else 0.0) <= tolerance:
            return work.finish(theta, solved, True, "converged", f"the gradient is within {tolerance:.1e}")
        epsilon = max(decay * epsilon, floor)
        candidate = theta - alpha * slope.gradient
        trial = work.solved(problem.solve(candidate, epsilon, solved.x))
        if trial.low > solved.high - 0.5 * alpha * length**2:
            alpha *= _SHORTER
            continue
        theta, solved = candidate, trial
        slope = work.differentiated(problem.hypergradient(theta, solved, problem.upper_lipschitz * epsilon))
        work.note(theta, solved, slope, alpha)
        alpha *= _LONGER
        if callback is not None:
            callback(iteration + 1, max_iterations, solved.value)
    return work.finish(theta, solved, False, "max-iterations", "allow more iterations, or a larger first step")
