"""MAID, adaptive inexact descent: each step is taken only if it provably lowers the loss.

    θ⁺ = θ − α z                       accepted if  high F(θ⁺) ≤ low F(θ) − η α ‖z‖²

`low` and `high` are certified bounds of the loss at lower-level points that are only roughly solved. While no step
length passes, the lower level is solved more exactly (ε and the adjoint's residual halve); after a success both relax
and α grows. So accuracy is paid for only where the descent needs it, and neither a step length nor a sequence of
accuracies has to be chosen beforehand. Where the constants for it are known, z is refined until its error is below
its length, so that −z is a direction of descent.

Reference: Salehi, Mukherjee, Roberts, Ehrhardt, "An adaptively inexact first-order method for bilevel optimization with
application to hyperparameter learning", SIAM J. Mathematics of Data Science 2025.
"""

import math

from torch import Tensor

from ...solvers.algebra import Callback, resolution
from .implicit import Bilevel, Hypergradient, LowerSolution
from .record import Counter, Learned, check_start

__all__ = ["maid"]

_DECREASE = 1e-4  # η
_SHORTER, _LONGER = 0.5, 1.25  # step lengths tried, and the next one after a success
_SHARPER, _LOOSER = 0.5, 1.25  # accuracies after a failure and after a success
_TRIALS = 5  # step lengths tried before the lower level is solved more exactly
_TRUST = 0.9  # largest error of z, relative to ‖z‖


def maid(
    problem: Bilevel,
    theta: Tensor,
    *,
    step: float = 1.0,
    accuracy: float | None = None,
    tolerance: float = 1e-4,
    max_iterations: int = 100,
    callback: Callback | None = None,
) -> Learned:
    """Minimise F(θ) with a certified decrease at every step.

    Args:
        theta: where to start.
        step: first step length α, in units of θ²/F.
        accuracy: first ε, the certified distance ‖x̃ − x̂‖; by default a hundredth of ‖start‖.
        tolerance: largest ‖∇F‖ called converged: ‖z‖ plus the bound of its error, where there is one.
        max_iterations: most accepted steps.
        callback: called as callback(iteration, limit, loss).

    Returns:
        The parameters, with a history whose intervals [low, high] never overlap from one step to the next.

    Raises:
        InputError: a setting is out of range, or the lower level does not depend on θ.

    Example:
        >>> import torch
        >>> y, truth = torch.tensor([2.0, 4.0]).double(), torch.tensor([1.0, 2.0]).double()
        >>> problem = Bilevel(
        ...     lower=lambda x, t: 0.5 * (x - y).square().sum() + 0.5 * t.exp() * x.square().sum(),
        ...     upper=lambda x: 0.5 * (x - truth).square().sum(),
        ...     start=y, convexity=lambda t: 1 + float(t.exp()), lipschitz=lambda t: 1 + float(t.exp()),
        ... )
        >>> learned = maid(problem, torch.tensor(-1.0).double())
        >>> learned.status.converged, round(float(learned.theta.exp()), 2)
        (True, 1.0)
    """
    size = float(problem.start.norm())
    epsilon = (0.01 * size if size > 0 else 0.01) if accuracy is None else float(accuracy)
    theta = check_start(theta, "maid", step=step, accuracy=epsilon, tolerance=tolerance)
    floor = 4 * resolution(problem.start.dtype) * max(size, 1.0)
    work, alpha, trials, previous = Counter(), float(step), _TRIALS, 0.0
    solved, slope, epsilon = _differentiate(problem, theta, problem.start, epsilon, floor, tolerance, work)
    work.note(theta, solved, slope, 0.0)
    while True:
        length = float(slope.gradient.norm())
        if length + (slope.error if math.isfinite(slope.error) else 0.0) <= tolerance:
            return work.finish(theta, solved, True, "converged", f"the gradient is within {tolerance:.1e}")
        if len(work.history) > max_iterations:
            return work.finish(theta, solved, False, "max-iterations", "allow more iterations")
        found = _search(problem, theta, solved, slope, alpha, epsilon, trials, work)
        if found is None:
            epsilon, trials = _SHARPER * epsilon, trials + 1
            if epsilon < floor or not solved.reached:
                text = "no step is provably downhill at this precision; accept it or work in float64"
                return work.finish(theta, solved, False, "stagnation", text)
            solved, slope, epsilon = _differentiate(problem, theta, solved.x, epsilon, floor, tolerance, work)
            work.history.pop()
            work.note(theta, solved, slope, previous)
            continue
        theta, alpha, trial = found
        previous, alpha, trials, epsilon = alpha, _LONGER * alpha, _TRIALS, _LOOSER * epsilon
        solved, slope, epsilon = _differentiate(problem, theta, trial.x, epsilon, floor, tolerance, work, trial)
        work.note(theta, solved, slope, previous)
        if callback is not None:
            callback(len(work.history) - 1, max_iterations, solved.value)


def _search(
    problem: Bilevel, theta: Tensor, solved: LowerSolution, slope: Hypergradient, alpha: float, epsilon: float,
    trials: int, work: Counter,
) -> tuple[Tensor, float, LowerSolution] | None:  # fmt: skip
    """The first of α, α/2, … whose decrease is certain."""
    decrease = _DECREASE * float(slope.gradient.square().sum())
    for _ in range(trials):
        candidate = theta - alpha * slope.gradient
        trial = work.solved(problem.solve(candidate, epsilon, solved.x))
        if trial.high <= solved.low - alpha * decrease:
            return candidate, alpha, trial
        alpha *= _SHORTER
    return None


def _differentiate(
    problem: Bilevel, theta: Tensor, start: Tensor, epsilon: float, floor: float, tolerance: float, work: Counter,
    solved: LowerSolution | None = None,
) -> tuple[LowerSolution, Hypergradient, float]:  # fmt: skip
    """z with an error below its length, or below the tolerance, where the bound is known; and the ε it took."""
    while True:
        if solved is None:
            solved = work.solved(problem.solve(theta, epsilon, start))
        slope = work.differentiated(problem.hypergradient(theta, solved, problem.upper_lipschitz * epsilon))
        trusted = slope.error <= max(_TRUST * float(slope.gradient.norm()), 0.5 * tolerance)
        if trusted or not math.isfinite(slope.error) or not solved.reached or _SHARPER * epsilon < floor:
            return solved, slope, epsilon
        start, solved, epsilon = solved.x, None, _SHARPER * epsilon
