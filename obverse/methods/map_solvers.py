"""Which solver minimises −log p(y | A x) + weight · prior(x), and how the choice is made."""

__all__ = ["solve", "starting_image"]

import math
from dataclasses import replace

import torch
from torch import Tensor

from ..errors import InputError
from ..operators.base import LinearOperator
from ..operators.elementary import Identity
from ..priors.base import Prior
from ..priors.positivity import Positivity
from ..priors.sparsity import L1, WaveletL1
from ..priors.tgv import TotalGeneralizedVariation
from ..priors.total_variation import TotalVariation
from ..solvers.linear import cg
from ..solvers.result import Result, Status
from .base import Callback
from .fidelity import Fidelity, Quadratic
from .newton import newton
from .quadratic import quadratic_hessian
from .split_form import lower_bound, parts, split
from .splitting import admm, primal_dual


def solve(
    operator: LinearOperator,
    data: Fidelity,
    prior: Prior,
    weight: float,
    *,
    start: Tensor | None,
    tolerance: float,
    max_iterations: int,
    callback: Callback,
) -> tuple[Result, str]:
    """The minimiser and the name of the solver that found it."""
    summands = [(weight * factor, part) for factor, part in parts(prior)]
    x0 = starting_image(operator, data) if start is None else start
    if isinstance(data, Quadratic) and prior.smooth:
        linear = _linear(operator, data, prior, weight, x0, tolerance, max_iterations, callback)
        if linear is not None:
            return linear
    if isinstance(operator, Identity) and isinstance(data, Quadratic) and not isinstance(data.weight, Tensor):
        direct = _prox(data, summands, tolerance, max_iterations)
        if direct is not None:
            return direct
    try:
        form, fourier = split(operator, data, summands, x0)
    except InputError:
        if not prior.smooth:
            raise
        return _newton(operator, data, prior, weight, x0, tolerance, max_iterations, callback), "newton"
    x0 = form.feasible(x0)
    method = admm if fourier else primal_dual
    result, _ = method(form, x0, tolerance=tolerance, max_iterations=max_iterations, callback=callback)
    return result, "admm" if fourier else "primal-dual"


def starting_image(operator: LinearOperator, data: Fidelity) -> Tensor:
    """Aᴴy times the number that explains the data best."""
    y = data.y if isinstance(data, Quadratic) else data.t - data.shift  # type: ignore[attr-defined]
    back = operator.adjoint(y)
    forth = operator(back)
    energy = float(forth.abs().square().sum())
    return back * (float((forth.conj() * y).real.sum()) / energy) if energy > 0 else back


def _linear(
    operator: LinearOperator, data: Quadratic, prior: Prior, weight: float, x0: Tensor,
    tolerance: float, max_iterations: int, callback: Callback,
) -> tuple[Result, str] | None:  # fmt: skip
    """Quadratic prior and data: (w AᴴA + weight P) x = w Aᴴy − weight ∇prior(0)."""
    zero = torch.zeros_like(x0)
    try:
        hessian = quadratic_hessian(prior, zero)
    except InputError:
        return None
    right = operator.adjoint(data.weight * data.y) - weight * prior.gradient(zero)

    def normal(v: Tensor) -> Tensor:
        return operator.gram(v, data.weight) + weight * hessian.matvec(v)

    def objective(x: Tensor) -> float:
        return float(data.value(operator(x)) + weight * prior.value(x))

    gram, modes = operator.gram_spectrum(), hessian.spectrum()
    if gram is not None and modes is not None and not isinstance(data.weight, Tensor) and not x0.is_complex():
        axes = tuple(range(-x0.ndim + 1, 0))
        total = data.weight * gram.to(x0) + weight * modes.to(x0)
        x = torch.fft.irfftn(torch.fft.rfftn(right, dim=axes) / total, s=x0.shape[1:], dim=axes)
        residual = float((normal(x) - right).norm() / right.norm().clamp_min(1e-30))
        ok = residual <= max(tolerance, 1e-4 if x0.dtype == torch.float32 else 1e-10)
        message = f"solved in closed form in Fourier; the relative residual of the normal equations is {residual:.1e}"
        if not ok:
            message += ": the system is close to singular; raise the weight or use float64"
        return Result(
            x, Status(ok, "closed-form" if ok else "breakdown", message), 0, residual, (objective(x),)
        ), "fourier"
    result = cg(normal, right, x0=x0, tolerance=tolerance * 1e-2, max_iterations=max_iterations, callback=callback)
    return Result(result.x, result.status, result.iterations, result.residual, (objective(result.x),)), "cg"


def _prox(
    data: Quadratic, summands: list[tuple[float, Prior]], tolerance: float, limit: int
) -> tuple[Result, str] | None:
    """Denoising: the prior's own proximal operator, for TV with its duality gap, for separable priors exact."""
    if len(summands) != 1:
        return None
    (factor, prior), noise = summands[0], 1.0 / float(data.weight)
    if isinstance(prior, TotalVariation | TotalGeneralizedVariation) and prior.proximable:
        found = replace(prior, tolerance=tolerance, max_iterations=limit).prox_result(data.y, factor * noise)
        value = float(data.value(found.x) + factor * prior.value(found.x))
        return Result(found.x, found.status, found.iterations, found.gap, (value,)), "prox"
    if not isinstance(prior, L1 | WaveletL1 | Positivity):
        return None
    x = prior.prox(data.y, factor * noise)
    value = float(data.value(x) + factor * prior.value(x))
    status = Status(True, "closed-form", "solved in closed form by the prior's proximal operator")
    return Result(x, status, 0, 0.0, (value,)), "prox"


def _newton(
    operator: LinearOperator, data: Fidelity, prior: Prior, weight: float, x0: Tensor,
    tolerance: float, max_iterations: int, callback: Callback,
) -> Result:  # fmt: skip
    if math.isfinite(lower_bound(parts(prior))):
        raise InputError("MAP needs a prior with terms or a prox to combine it with positivity; set positivity=False")

    def gradients(x: Tensor) -> tuple[Tensor, ...]:
        return operator.adjoint(data.gradient(operator(x))), weight * prior.gradient(x)

    def curvature(x: Tensor):
        bend, hessian = data.curvature(operator(x)), prior.hessian(x)
        return (lambda v: operator.gram(v, bend) + weight * hessian.matvec(v)), None

    def objective(x: Tensor) -> Tensor:
        return data.value(operator(x)) + weight * prior.value(x)

    return newton(
        objective, gradients, curvature, x0,
        tolerance=tolerance, max_iterations=min(max_iterations, 100), callback=callback,
    )  # fmt: skip
