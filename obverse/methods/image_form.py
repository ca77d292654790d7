"""The split form that divides the image itself, x = z_i, for operators that know nearly their own inverse.

    minimise  ½ ‖A x − y‖²_W + Σ_i φ_i(x)

    z_i = prox_{φ_i/ρ_i}(x + u_i),   u_i ← u_i + x − z_i,   x = (AᴴWA + ρ)⁻¹(AᴴWy + Σ ρ_i (z_i − u_i))

with ρ = Σ ρ_i. It suits tomography, whose operators know nearly the inverse of AᴴWA + ρ: the x-step is a few conjugate
gradients from the last image with that preconditioner, where a split on ∇x would have to undo the ramp of A by steps as
short as ‖A‖ allows. Total variation is one φ with the prox of `tv_prox`, started where the last one ended, so that its
inner iterations are few. Inexact steps cannot hide: the certificate is computed afresh from the point reached.

For a φ of degree one, φ(0) = 0 and every subgradient at z is one at 0 too; the certificate uses this, and thereby does
not trust the prox either.

References: Afonso, Bioucas-Dias, Figueiredo, "Fast image recovery using variable splitting and constrained
optimization", IEEE TIP 2010. Eckstein, Bertsekas, "On the Douglas–Rachford splitting method and the proximal point
algorithm for maximal monotone operators", Mathematical Programming 1992 (inexact steps).
"""

__all__ = ["image_form"]

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from ..operators.base import LinearOperator
from ..priors.base import Prior
from ..priors.positivity import Positivity
from ..priors.sparsity import L1, WaveletL1
from ..priors.total_variation import TotalVariation
from ..solvers.algebra import Map, real_inner
from .fidelity import Quadratic
from .split_form import Block, Form, lower_bound

_STEPS = 3  # of conjugate gradients in one step, at most
_PENALTY = 0.05  # to start from, in units of the largest curvature of the data term
_INNER = 0.1  # tolerance of the inner prox, in units of the outer one


def image_form(
    operator: LinearOperator,
    data: Quadratic,
    summands: Sequence[tuple[float, Prior]],
    x0: Tensor,
    tolerance: float,
) -> Form | None:
    """The form at images like `x0`; None without a preconditioner, or where a prior has no cheap proximal operator.

    Args:
        tolerance: of the certificate that is aimed at.
    """
    known = type(operator).preconditioner is not LinearOperator.preconditioner
    if not known or x0.is_complex() or not all(_proximable(prior) for _, prior in summands):
        return None
    bound = lower_bound(summands)
    curvature = float(torch.as_tensor(data.weight).mean()) * operator.norm() ** 2
    blocks = [_block(factor, prior, curvature, tolerance) for factor, prior in summands]
    form = Form(blocks, _same, _same, (lambda x: x.clamp_min(bound)) if bound > -torch.inf else _same)

    def smooth(x: Tensor) -> tuple[Tensor, Tensor]:
        image = operator(x)
        return data.value(image), operator.adjoint(data.gradient(image))

    return dataclasses.replace(form, smooth=smooth, solve=_Solve(operator, data, x0))


class _Solve:
    """Penalties ↦ the map b ↦ argmin_x ½ w ‖A x − y‖² + ½ Σρ_i ‖x‖² − ⟨b, x⟩, from the last image on."""

    def __init__(self, operator: LinearOperator, data: Quadratic, x0: Tensor):
        self.operator, self.last = operator, x0
        self.weight = torch.as_tensor(data.weight, dtype=x0.real.dtype, device=x0.device)
        self.constant = operator.adjoint(data.weight * data.y)

    def __call__(self, penalties: tuple[float, ...]) -> Map:
        damping = torch.as_tensor(sum(penalties), dtype=self.weight.dtype, device=self.weight.device)
        precondition = self.operator.preconditioner(damping, self.weight)
        assert precondition is not None

        def minimise(b: Tensor) -> Tensor:
            self.last = _descended(
                lambda v: self.operator.gram(v, self.weight) + damping * v, b + self.constant, self.last, precondition
            )
            return self.last

        return minimise


def _descended(normal: Map, right: Tensor, x: Tensor, precondition: Map) -> Tensor:
    """Some steps of conjugate gradients for normal(x) = right: the energy falls with each, though residuals may not."""
    residual = right - normal(x)
    z = direction = precondition(residual)
    size = real_inner(residual, z)
    for _ in range(_STEPS):
        image = normal(direction)
        bend = real_inner(direction, image)
        if not bool((size > 0) & (bend > 0)):
            break
        x = x + (size / bend) * direction
        residual = residual - (size / bend) * image
        z = precondition(residual)
        size, before = real_inner(residual, z), size
        direction = z + (size / before) * direction
    return x


def _proximable(prior: Prior) -> bool:
    return isinstance(prior, L1 | WaveletL1 | Positivity) or (isinstance(prior, TotalVariation) and prior.proximable)


def _block(factor: float, prior: Prior, curvature: float, tolerance: float) -> Block:
    total_variation = isinstance(prior, TotalVariation)
    prox = _Warm(dataclasses.replace(prior, tolerance=_INNER * tolerance), factor) if total_variation else None
    return Block(
        _same,
        _same,
        prox or (lambda v, step: prior.prox(v, factor * step)),
        value=lambda z: factor * prior.value(z),
        penalty=_PENALTY * curvature,
        homogeneous=not isinstance(prior, Positivity),
    )


class _Warm:
    """The prox of total variation from the dual point of the call before, in units of the step."""

    def __init__(self, prior: TotalVariation, factor: float):
        self.prior, self.factor = prior, factor
        self.dual: Tensor | None = None

    def __call__(self, v: Tensor, step: float) -> Tensor:
        size = self.factor * step
        found = self.prior.prox_result(v, size, None if self.dual is None else size * self.dual)
        self.dual = found.dual / size
        return found.x


def _same(v: Tensor) -> Tensor:
    return v
