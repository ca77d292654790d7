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
from ..solvers.admm import System, admm
from ..solvers.certificate import Certificate, certify
from ..solvers.coupling import Coupling
from ..solvers.linear import cg
from ..solvers.primal_dual import pdhg
from ..solvers.result import Result, Status
from .base import Callback
from .fidelity import Counting, Fidelity, Likelihood, Quadratic
from .image_form import image_form
from .newton import newton
from .quadratic import quadratic_hessian
from .split_form import Form, lower_bound, parts, split

_RELAXATION = 1.8  # of ADMM; 1.5 to 1.8 are usual (Boyd et al., 2011, §3.4.3)
_RATIO = 0.4  # dual step of the primal–dual method in the units of the blocks; best of 0.3 to 3 on those of the tests
_RATIO_WITH_PROX = 0.12  # where the data term is no block: the same for TGV deblurring, weights 2 to 50
_CHECK_EVERY = 10


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
    if isinstance(data, Likelihood) and prior.smooth:
        return _newton(operator, data, prior, weight, x0, tolerance, max_iterations, callback), "newton"
    if not data.convex:
        raise InputError(
            "MAP expects a smooth prior for a noise law that is not log-concave, such as Rician or Gamma; use "
            "GaussianField, Tikhonov or a smoothed prior with positivity=False"
        )
    try:
        form = split(operator, data, summands, x0)
        if form.solve is None and isinstance(data, Quadratic):
            form = image_form(operator, data, summands, x0, tolerance) or form
    except InputError:
        if not prior.smooth:
            raise
        return _newton(operator, data, prior, weight, x0, tolerance, max_iterations, callback), "newton"
    return _splitting(form, x0, tolerance, max_iterations, callback)


def starting_image(operator: LinearOperator, data: Fidelity) -> Tensor:
    """Aᴴy times the number that explains the data best."""
    y = data.t - data.shift if isinstance(data, Counting) else data.y  # type: ignore[attr-defined]
    back = operator.adjoint(y)
    forth = operator(back)
    energy = float(forth.abs().square().sum())
    return back * (float((forth.conj() * y).real.sum()) / energy) if energy > 0 else back


def _splitting(form: Form, x0: Tensor, tolerance: float, max_iterations: int, callback: Callback) -> tuple[Result, str]:
    """ADMM where its system is solved, else the primal–dual method; both stop on the certificate."""
    x0 = form.feasible(form.start(x0))
    history: list[float] = []
    certificate = Certificate(math.inf, math.inf, math.inf)
    # the primal–dual method measures each block in a metric of its own units
    blocks: list[Coupling] = list(form.blocks)
    if form.solve is None:
        blocks = [block.scaled(math.sqrt(block.penalty)) for block in form.blocks]

    def gap(x: Tensor, images: tuple[Tensor, ...], multipliers: tuple[Tensor, ...]) -> float:
        nonlocal certificate
        points = tuple(
            torch.zeros_like(z) if block.homogeneous else z for block, z in zip(form.blocks, images, strict=True)
        )
        certificate = certify(blocks, form.feasible(x), points, multipliers, form.smooth)
        history.append(certificate.objective)
        return certificate.residual

    common: dict = {"gap": gap, "check_every": _CHECK_EVERY, "tolerance": tolerance}
    common |= {"max_iterations": max_iterations, "callback": callback}
    if form.solve is not None:
        gradient = None if form.smooth is None else (lambda x: form.smooth(x)[1])  # type: ignore[misc]
        weights = [block.penalty for block in form.blocks]
        system = System(form.solve, gradient)
        result = admm(blocks, system, x0, weights=weights, relaxation=_RELAXATION, **common)
    else:
        # operators' norms may be approached from below only
        ratio = _RATIO if form.prox is None else _RATIO_WITH_PROX
        norm = 1.01 * math.sqrt(sum(block.penalty * block.norm**2 for block in form.blocks))
        result = pdhg(blocks, x0, norm, prox=form.prox, ratio=ratio * norm, adaptive=False, **common)
    image = form.image(form.feasible(result.x))
    status = _certified(result, certificate, tolerance)
    result = Result(image, status, result.iterations, result.residual, tuple(history))
    return result, "primal-dual" if form.solve is None else "admm"


def _certified(result: Result, certificate: Certificate, tolerance: float) -> Status:
    """The solver's status in words about the image."""
    count, reason = result.iterations, result.status.reason
    if result.status.converged:
        message = (
            f"optimal to a relative gap of {certificate.relative_gap:.1e} and a relative gradient of "
            f"{certificate.stationarity:.1e} after {count} iterations"
        )
        return Status(True, "converged", message)
    if not math.isfinite(certificate.objective):
        return Status(
            False, "breakdown", "the objective is not finite; check the units of the data and the weight of the prior"
        )
    if reason != "max-iterations":
        return result.status
    message = (
        f"{count} iterations left a residual of {result.residual:.1e}, above the tolerance {tolerance:.1e}; raise "
        "max_iterations, or tolerance if the image is good enough"
    )
    return Status(False, reason, message)


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
