"""What an iterative solver returns: the point it reached and the truth about it."""

from dataclasses import dataclass

from torch import Tensor

__all__ = ["Result", "Status"]


@dataclass(frozen=True)
class Status:
    """How an iteration ended.

    Args:
        converged: True only if the stopping criterion was checked and met.
        reason: a short fixed name such as "converged", "max-iterations", "breakdown", "stagnation".
        message: a sentence that says what happened, why, and what to try.
    """

    converged: bool
    reason: str
    message: str


@dataclass(frozen=True)
class Result:
    """Outcome of a solver.

    Args:
        x: the point reached.
        status: how it ended.
        iterations: number of iterations done.
        residual: the criterion at `x`, computed afresh (a relative residual, a duality gap or a relative change).
        history: the criterion at each iteration.
    """

    x: Tensor
    status: Status
    iterations: int
    residual: float
    history: tuple[float, ...]
