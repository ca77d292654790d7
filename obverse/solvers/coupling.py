"""One summand f(K x) of a convex problem, as the splitting solvers see it: three plain callables.

prox_{s f}(v) = argmin_z  f(z) + ‖z − v‖² / (2 s)
prox_{s f*}(v) = v − s prox_{f/s}(v / s)                            (Moreau)
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from .algebra import Map

__all__ = ["Coupling", "Prox"]

Prox = Callable[[Tensor, float], Tensor]


@dataclass(frozen=True)
class Coupling:
    """The term f(K x).

    Args:
        apply: x ↦ K x.
        adjoint: u ↦ Kᴴ u.
        prox: (v, s) ↦ prox_{s f}(v).
        prox_conjugate: (v, s) ↦ prox_{s f*}(v), if it is known directly; by Moreau's identity otherwise.
    """

    apply: Map
    adjoint: Map
    prox: Prox
    prox_conjugate: Prox | None = None

    def conjugate(self, v: Tensor, step: float) -> Tensor:
        """prox_{step f*}(v)."""
        if self.prox_conjugate is not None:
            return self.prox_conjugate(v, step)
        return v - step * self.prox(v / step, 1 / step)
