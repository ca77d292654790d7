"""How far a point is from the minimum of a sum of convex terms, shown by a dual point, whatever solver found them.

    J(x) = f(x) + Σ_i φ_i(K_i x),      f smooth (possibly zero);      multipliers u_i ∈ ∂φ_i(z_i)

    J(x) − min J ≤ Σ_i gap_i + ‖r‖·‖x − x*‖,        r = ∇f(x) + Σ_i K_iᴴu_i
    gap_i = φ_i(K_i x) − φ_i(z_i) − Re⟨u_i, K_i x − z_i⟩ ≥ 0                                       (Fenchel–Young)

The residual is the larger of Σ gap_i / |J(x)| and ‖r‖ / (‖∇f‖ + Σ ‖K_iᴴu_i‖).

References: Boyd, Vandenberghe, "Convex Optimization", 2004, §3.3 and §5.5.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from .coupling import Coupling

__all__ = ["Certificate", "certify"]


@dataclass(frozen=True)
class Certificate:
    """The objective at a point, and bounds on what is missing there.

    Args:
        objective: J(x).
        gap: Σ gap_i.
        stationarity: ‖r‖ relative to the vectors it is made of.
    """

    objective: float
    gap: float
    stationarity: float

    @property
    def relative_gap(self) -> float:
        """Σ gap_i / |J(x)|."""
        return self.gap / max(abs(self.objective), 1e-300)

    @property
    def residual(self) -> float:
        """The larger of the relative gap and the relative stationarity; infinite where either is not a number."""
        worst = max(self.relative_gap, self.stationarity)
        return worst if math.isfinite(self.relative_gap + self.stationarity) else math.inf


def certify(
    couplings: Sequence[Coupling],
    x: Tensor,
    images: Sequence[Tensor],
    multipliers: Sequence[Tensor],
    smooth: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None,
) -> Certificate:
    """The certificate of `x`, with every product computed afresh.

    Args:
        couplings: the terms φ_i(K_i x), with their values.
        images: z_i.
        multipliers: u_i ∈ ∂φ_i(z_i).
        smooth: x ↦ (f(x), ∇f(x)); None for f = 0.

    Raises:
        InputError: a coupling has no value.
    """
    objective = gap = torch.zeros((), dtype=torch.float64)
    parts = []
    if smooth is not None:
        value, gradient = smooth(x)
        objective = objective + value.double()
        parts.append(gradient)
    for coupling, z, u in zip(couplings, images, multipliers, strict=True):
        if coupling.value is None:
            raise InputError("certify expects couplings that know their value, got one without; pass value=")
        image = coupling.apply(x)
        here, there = coupling.value(image).double(), coupling.value(z).double()
        product = (u.conj() * (image - z)).real if u.is_complex() else u * (image - z)
        missing = (here - there - product.sum(dtype=torch.float64)).clamp_min(0)
        # A point z outside the domain of φ has no subgradients and proves nothing.
        gap = gap + torch.where(there.isfinite(), missing, math.inf)
        objective = objective + here
        parts.append(coupling.adjoint(u))
    scale = sum(float(part.norm()) for part in parts)
    total: Tensor = sum(parts[1:], parts[0])
    return Certificate(float(objective), float(gap), float(total.norm()) / scale if scale > 0 else 0.0)
