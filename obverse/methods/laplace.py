"""Laplace's approximation: a Gaussian at the most probable image, with the curvature found there.

    x̂ = argmin f(x),   f(x) = −log p(y | x) + w·E(x)
    Σ = (JᴴFJ + w·∇²E(x̂))⁻¹,    J the operator's Jacobian and F the Fisher weight of the noise at x̂

For a smooth prior energy E: a Gaussian field, Tikhonov, smoothed total variation, their sums. The minimum is found by
Newton's method with conjugate gradients and a line search; non-linear operators enter by Gauss–Newton, counting noise
by Fisher scoring. The covariance is matrix-free: components by block Krylov, marginal variances exactly up to 4096
pixels and by probing above, draws by perturb-and-optimise. With a quadratic prior, a linear operator and Gaussian
noise it is the exact posterior, equal to `methods.Gaussian`.

What it does not see: skewness, and bounds. Nothing keeps the image positive, so intervals of dark pixels may reach
below zero. Where the prior's energy has flat directions or sharp bends (total variation with little smoothing), the
curvature at one point tells of a small neighbourhood only; `methods.Langevin` explores.

References: MacKay, "Bayesian interpolation", Neural Computation 1992. Tierney, Kadane, "Accurate approximations for
posterior moments and marginal densities", JASA 1986.
"""

__all__ = ["Laplace"]

import math
import time
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace

import torch
from torch import Tensor

from ..errors import InputError, NumericsError
from ..posterior import Posterior
from ..posterior.estimate import Estimate
from ..priors.base import Prior, Scaled, Sum
from ..problem import Problem
from ..solvers.result import Result, Status
from .base import Callback, check_item, described, real_image
from .covariance_error import CovarianceError
from .curvature import Curvature, marginal_facts
from .newton import newton
from .quadratic import prior_mean
from .target import level_image


@dataclass(frozen=True)
class Laplace:
    """Gaussian approximation at the most probable image.

    Args:
        prior: a smooth prior energy, with `gradient` and `hessian`.
        weight: w > 0, multiplies the prior's energy.
        rank: factors kept when the posterior is saved or compressed.
        tolerance: on the gradient's norm relative to its first value; by default 1e-5 for float32 data and 1e-8 for
            float64.
        max_iterations: Newton steps.
        inner_iterations: conjugate gradient iterations per Newton step, and per product with Σ at most ten times as
            many.
        probes: products with Σ spent on marginal variances above 4096 pixels.
        covariance_tolerance: relative residual of products with Σ; by default 1e-5 in float32 and 1e-10 in float64.
            1e-3 is far below the error of probed marginals, and several times faster.
        seed: of those probes.

    Example:
        >>> from obverse import noise, operators, priors, problem
        >>> field = priors.GaussianField(torch.ones(8, 8), (1, 8, 8))
        >>> p = problem.Problem(operators.Identity((1, 8, 8)), noise.Gaussian(1.0))
        >>> posterior = Laplace(prior=field, weight=3.0)(torch.ones(1, 8, 8), p)
        >>> round(float(posterior.mean[0, 0, 0]), 4), round(float(posterior.std[0, 0, 0]), 4)
        (0.25, 0.5)
    """

    prior: Prior
    weight: float = 1.0
    rank: int = 16
    _: KW_ONLY
    tolerance: float | None = None
    max_iterations: int = 60
    inner_iterations: int = 200
    probes: int = 128
    covariance_tolerance: float | None = None
    seed: int = 0

    def __post_init__(self):
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise InputError(
                f"Laplace expects a positive weight of the prior, got {self.weight}; 1 is the Bayesian value"
            )

    def __call__(self, y: Tensor, problem: Problem, callback: Callback | None = None) -> Posterior:
        """The posterior of one measurement.

        Args:
            y: data of exactly the operator's `data_shape`.
            problem: an operator, linear or not, and a noise law.
            callback: told (Newton step, limit, relative gradient); it counts anew for each softened energy before.

        Returns:
            A posterior whose status says whether the most probable image was reached.

        Raises:
            InputError: the data do not fit, or the prior is not smooth.
            CovarianceError: the image was found, its covariance was not; the error keeps the image.
        """
        begun = time.perf_counter()
        check_item(y, problem, "Laplace")
        if not self.prior.smooth:
            raise InputError(
                f"Laplace expects a smooth prior, got {type(self.prior).__name__}; smooth it, as in "
                "TotalVariation(smoothing=0.01), or use methods.Langevin"
            )
        zero = real_image(problem.operator, y, "Laplace")
        prior = (self.prior if self.weight == 1.0 else self.weight * self.prior).bind(problem.operator.image_shape)
        # Counting laws are steep at rates near zero: start at the level of the data, not at the prior's mean.
        start = prior_mean(self.prior, zero) if problem.noise.gaussian else level_image(y, problem, zero)
        # In double precision, since single precision cannot resolve the last decreases of a sum over a whole image.
        search = _Search(self, y.to(torch.promote_types(y.dtype, torch.float64)), problem)
        start = start.double()
        tolerance = self.tolerance or (1e-5 if zero.dtype == torch.float32 else 1e-8)
        for softer in softened(prior):
            start = search.minimise(softer, start, max(tolerance, _ROUGH), callback).x
        found = search.minimise(prior, start, tolerance, callback)
        mean = found.x.to(zero.dtype)
        here = search.curvature(mean, prior)
        status = _explained(found.status, problem, mean)
        try:
            covariance = here.covariance(self.covariance_tolerance, 10 * self.inner_iterations, self.probes)
            marginals = marginal_facts(covariance)
        except NumericsError as error:
            raise CovarianceError(error, Estimate(mean, status, found.history)) from error
        diagnostics = {
            "likelihood": "exact; Fisher information for the curvature",
            "newton_steps": found.iterations,
            "gradient": found.residual,
            "closed_form": here.spectrum is not None,
            **marginals,
            "evaluations": search.evaluations(),
            "seconds": time.perf_counter() - begun,
        }
        return described(self, mean, status, found.history, diagnostics, covariance)


class _Search:
    """The way to the most probable image, and what it cost."""

    def __init__(self, method: Laplace, y: Tensor, problem: Problem):
        self.method, self.y, self.problem = method, y, problem
        self.gradients = 0
        self.spent: list[Curvature] = []

    def minimise(self, prior: Prior, start: Tensor, tolerance: float, callback: Callback | None) -> Result:
        """Newton's method on −log p(y | x) + prior."""
        problem, y = self.problem, self.y

        def objective(x: Tensor) -> Tensor:
            return prior.value(x) - problem.log_likelihood(x, y)

        def gradients(x: Tensor) -> tuple[Tensor, ...]:
            self.gradients += 1
            return problem.gradient(x, y), prior.gradient(x)

        def curvature(x: Tensor) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
            here = self.curvature(x, prior)
            return here.matvec, here.preconditioner.matvec

        return newton(
            objective,
            gradients,
            curvature,
            start,
            tolerance=tolerance,
            max_iterations=self.method.max_iterations,
            inner_iterations=self.method.inner_iterations,
            callback=callback,
        )

    def curvature(self, x: Tensor, prior: Prior) -> Curvature:
        operator, fisher = self.problem.operator.linearise(x), self.problem.fisher_weight(x)
        here = Curvature(operator, fisher, prior.hessian(x), x, seed=self.method.seed)
        self.spent.append(here)
        return here

    def evaluations(self) -> int:
        """Gradients and Hessian products so far."""
        return self.gradients + sum(curvature.products for curvature in self.spent)


def softened(prior: Prior) -> list[Prior]:
    """The prior with its smoothing constants enlarged, largest first: Newton's method converges from afar on these, and
    each minimum starts the next. Empty for a prior without such constants."""
    if not _is_smoothed(prior):
        return []
    return [_with_smoothing(prior, factor) for factor in (64.0, 16.0, 4.0)]


def _is_smoothed(prior: Prior) -> bool:
    if isinstance(prior, Sum):
        return any(_is_smoothed(part) for part in prior.priors)
    return _is_smoothed(prior.prior) if isinstance(prior, Scaled) else getattr(prior, "smoothing", 0.0) > 0


def _with_smoothing(prior: Prior, factor: float) -> Prior:
    if isinstance(prior, Sum):
        return Sum(tuple(_with_smoothing(part, factor) for part in prior.priors))
    if isinstance(prior, Scaled):
        return Scaled(_with_smoothing(prior.prior, factor), prior.factor)
    if not _is_smoothed(prior):
        return prior
    return replace(prior, smoothing=factor * prior.smoothing)  # type: ignore[type-var, attr-defined]


def _explained(status: Status, problem: Problem, x: Tensor) -> Status:
    """The status, with the usual reason where counting noise without a background was not minimised."""
    predicted = problem.operator(x)
    if status.converged or problem.noise.signed or float(predicted.min()) > 0.01 * float(predicted.max()):
        return status
    hint = (
        "the predicted data touch zero, where the Poisson law bends without bound: add the known background to the "
        "data, or use PoissonGaussian noise"
    )
    return replace(status, message=f"{status.message}; {hint}")


# Relative gradient at which the minimum of a softened energy is near enough to start the next.
_ROUGH = 1e-2
