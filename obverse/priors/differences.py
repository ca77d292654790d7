"""Forward differences with Neumann boundary, for the proximal operators of total variation.

    (∇x)_a[i] = (x[i + e_a] − x[i])/h_a,   0 across the far edge;      ‖∇‖² ≤ Σ_a 4/h_a²

Components are stacked in front of the channel axis, as in `operators.Gradient`: `(*batch, axes, C, H, W)`.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError

__all__ = ["checked_spacing", "gradient", "gradient_adjoint", "squared_norm_bound"]


def gradient(x: Tensor, spacing: Sequence[float]) -> Tensor:
    """∇x: `(*batch, C, *grid)` → `(*batch, axes, C, *grid)`."""
    axes = len(spacing)
    parts = [_forward(x, dim, h) for dim, h in zip(range(-axes, 0), spacing, strict=True)]
    return torch.stack(parts, dim=-axes - 2)


def gradient_adjoint(p: Tensor, spacing: Sequence[float]) -> Tensor:
    """∇ᴴp: `(*batch, axes, C, *grid)` → `(*batch, C, *grid)`."""
    axes = len(spacing)
    parts = p.unbind(-axes - 2)
    total = _forward_adjoint(parts[0], -axes, spacing[0])
    for dim, part, h in zip(range(1 - axes, 0), parts[1:], spacing[1:], strict=True):
        total = total + _forward_adjoint(part, dim, h)
    return total


def squared_norm_bound(spacing: Sequence[float]) -> float:
    """An upper bound of ‖∇‖²."""
    return sum(4.0 / h**2 for h in spacing)


def checked_spacing(spacing: Sequence[float] | None, dimensions: int, owner: str) -> tuple[float, ...]:
    """One positive pixel size per spatial axis; 1 everywhere when None."""
    steps = (1.0,) * dimensions if spacing is None else tuple(float(h) for h in spacing)
    if len(steps) != dimensions or not all(math.isfinite(h) and h > 0 for h in steps):
        raise InputError(f"{owner} expects {dimensions} positive spacings, got {steps}; give one for each spatial axis")
    return steps


def _forward(x: Tensor, dim: int, h: float) -> Tensor:
    return F.pad(x.diff(dim=dim), (0, 0) * (-dim - 1) + (0, 1)) / h


def _forward_adjoint(p: Tensor, dim: int, h: float) -> Tensor:
    inner = p.narrow(dim, 0, p.shape[dim] - 1)
    beside = (0, 0) * (-dim - 1)
    return (F.pad(inner, (*beside, 1, 0)) - F.pad(inner, (*beside, 0, 1))) / h
