"""One summand f(K x) of a convex problem, as the splitting solvers see it: plain callables.

prox_{s f}(v) = argmin_z  f(z) + ‖z − v‖² / (2 s)
prox_{s f*}(v) = v − s prox_{f/s}(v / s)                            (Moreau)
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .algebra import Map, inner

__all__ = ["Coupling", "Gap", "Prox", "adjoint_error", "length"]

Prox = Callable[[Tensor, float], Tensor]
Gap = Callable[[Tensor, tuple[Tensor, ...], tuple[Tensor, ...]], float]
Step = Callable[[Tensor, Tensor, Tensor, float, float], Tensor]


@dataclass(frozen=True)
class Coupling:
    """The term f(K x).

    Args:
        apply: x ↦ K x.
        adjoint: u ↦ Kᴴ u.
        prox: (v, s) ↦ prox_{s f}(v).
        prox_conjugate: (v, s) ↦ prox_{s f*}(v), if it is known directly; by Moreau's identity otherwise.
        value: z ↦ f(z), a scalar; for certificates.
        step: (x, z, u, s, α) ↦ Kᴴ(z − u), if the step of ADMM has a fused form: it overwrites z with prox_{s f}(q) and
            u with q − z, where q = α K x + (1 − α) z + u.
    """

    apply: Map
    adjoint: Map
    prox: Prox
    prox_conjugate: Prox | None = None
    value: Map | None = None
    step: Step | None = None

    def conjugate(self, v: Tensor, step: float) -> tuple[Tensor, Tensor]:
        """u = prox_{step f*}(v), and z = (v − u)/step, of which u is a subgradient: u ∈ ∂f(z)."""
        if self.prox_conjugate is not None:
            u = self.prox_conjugate(v, step).detach()
            return u, (v - u) / step
        z = self.prox(v / step, 1 / step).detach()
        return v - step * z, z

    def scaled(self, factor: float) -> "Coupling":
        """The same term written with factor·K, which changes the metric in which solvers measure it."""
        value = self.value
        return Coupling(
            lambda x: factor * self.apply(x),
            lambda u: factor * self.adjoint(u),
            lambda v, s: factor * self.prox(v / factor, s / factor**2),
            value=None if value is None else lambda z: value(z / factor),
        )


def adjoint_error(x: Tensor, kx: tuple[Tensor, ...], u: tuple[Tensor, ...], pulled: tuple[Tensor, ...]) -> float:
    """Largest |⟨K_i x, u_i⟩ − ⟨x, K_iᴴu_i⟩| relative to the vectors' sizes: zero if the adjoints given are right.

    On real images only real parts can agree.
    """
    worst = 0.0
    for k, v, p in zip(kx, u, pulled, strict=True):
        gap = complex(inner(k, v).sum()) - complex(inner(x, p).sum())
        size = float(k.norm() * v.norm() + x.norm() * p.norm())
        worst = max(worst, abs(gap if x.is_complex() else gap.real) / (size or 1.0))
    return worst


def length(parts: tuple[Tensor, ...]) -> float:
    """Euclidean norm of several tensors taken as one vector."""
    return math.sqrt(sum(float(torch.linalg.vector_norm(p)) ** 2 for p in parts))
