"""What a bilevel method returns: the parameters, and at every iterate the loss with its certified bounds."""

from dataclasses import dataclass

from torch import Tensor

from ...errors import InputError
from ...solvers.result import Status
from .implicit import Hypergradient, LowerSolution

__all__ = ["Counter", "Iterate", "Learned", "check_start"]


@dataclass(frozen=True)
class Iterate:
    """One accepted θ.

    Args:
        theta: θ.
        value: ℓ(x̃).
        low: lower bound of F(θ).
        high: upper bound of F(θ).
        slope: ‖z‖, of the computed hypergradient.
        slope_error: bound of ‖z − ∇F(θ)‖; infinite without the constants that it needs.
        accuracy: certified distance ‖x̃ − x̂‖.
        step: length α of the step that led here.
        solves: lower-level problems solved so far.
        gradients: gradients of h so far.
        products: products with h_xx so far.
    """

    theta: Tensor
    value: float
    low: float
    high: float
    slope: float
    slope_error: float
    accuracy: float
    step: float
    solves: int
    gradients: int
    products: int


@dataclass(frozen=True)
class Learned:
    """Outcome of a bilevel method.

    Args:
        theta: the parameters learnt.
        x: the lower level's solution there.
        status: how it ended.
        history: every accepted iterate, the last one being `theta`.
    """

    theta: Tensor
    x: Tensor
    status: Status
    history: tuple[Iterate, ...]


class Counter:
    """Work done so far, and the iterates seen."""

    def __init__(self):
        self.solves = self.gradients = self.products = 0
        self.history: list[Iterate] = []

    def solved(self, solution: LowerSolution) -> LowerSolution:
        """Count a lower-level solution."""
        self.solves, self.gradients = self.solves + 1, self.gradients + solution.gradients
        return solution

    def differentiated(self, slope: Hypergradient) -> Hypergradient:
        """Count a hypergradient."""
        self.products += slope.products
        return slope

    def note(self, theta: Tensor, solution: LowerSolution, slope: Hypergradient, step: float) -> Iterate:
        """Append an iterate."""
        iterate = Iterate(
            theta, solution.value, solution.low, solution.high, float(slope.gradient.norm()), slope.error,
            solution.distance, step, self.solves, self.gradients, self.products,
        )  # fmt: skip
        self.history.append(iterate)
        return iterate

    def finish(self, theta: Tensor, solution: LowerSolution, converged: bool, reason: str, text: str) -> Learned:
        """The outcome, with what every ending tells."""
        last = self.history[-1]
        error = f" ± {last.slope_error:.1e}" if last.slope_error < float("inf") else ""
        message = (
            f"the loss lies in [{last.low:.6g}, {last.high:.6g}] and its gradient is {last.slope:.1e}{error} after "
            f"{len(self.history) - 1} steps and {self.solves} solves: {text}"
        )
        return Learned(theta, solution.x, Status(converged, reason, message), tuple(self.history))


def check_start(theta: Tensor, method: str, **positive: float) -> Tensor:
    """θ detached, after checking it and the settings that must be positive.

    Raises:
        InputError: θ is not finite and floating-point, or a setting is not positive.
    """
    if not (theta.is_floating_point() and bool(theta.isfinite().all())):
        raise InputError(f"{method} expects finite floating-point parameters, got {theta}; start elsewhere")
    for name, value in positive.items():
        if not 0 < value < float("inf"):
            raise InputError(f"{method} expects a positive {name}, got {value}")
    return theta.detach().clone()
