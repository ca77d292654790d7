"""The exact posterior of a Gaussian prior seen through a linear operator and Gaussian noise.

    p(x | y) = N(m, Σ),     Σ = (AᴴFA + P)⁻¹,     m = μ + Σ Aᴴ F (y − A μ)

P is the prior's precision and F the inverse noise variance. On a periodic grid with a circular blur, a stationary
prior and constant noise everything is diagonal in Fourier (the Wiener filter and its error spectrum); elsewhere the
mean is found by preconditioned conjugate gradients and draws by perturb-and-optimise, both exact to the tolerance.

Counting noise (Poisson, Poisson–Gaussian) has a variance that depends on the mean. It is evaluated at the predicted
data A m, and m found anew, until m settles: the likelihood is then the Gaussian of that variance, which is close to
the counting law from about ten counts a pixel. The posterior's diagnostics say so.

References: Wiener, "Extrapolation, Interpolation, and Smoothing of Stationary Time Series", 1949. Tarantola, "Inverse
Problem Theory", SIAM 2005, chapter 3.
"""

__all__ = ["Gaussian"]

import time
from dataclasses import KW_ONLY, dataclass

from torch import Tensor

from ..errors import NumericsError
from ..operators.base import LinearOperator
from ..posterior import Posterior
from ..posterior.estimate import Estimate
from ..priors.base import Prior
from ..problem import Problem
from ..solvers.linear import cg
from ..solvers.result import Status
from .base import Callback, check_item, default_tolerance, described, linear_part, real_image, silent
from .covariance_error import CovarianceError
from .curvature import Curvature, marginal_facts
from .quadratic import prior_mean, quadratic_hessian


@dataclass(frozen=True)
class Gaussian:
    """Exact posterior for a quadratic prior (`GaussianField`, `Tikhonov`, their sums) and a linear operator.

    Args:
        prior: a prior whose energy is quadratic.
        rank: factors kept when the posterior is saved or compressed.
        tolerance: relative residual of conjugate gradients; by default 1e-5 in float32 and 1e-10 in float64.
        max_iterations: of conjugate gradients.
        reweightings: with counting noise, how often the noise variance is evaluated anew at the predicted mean.
        probes: products with Σ spent on marginal variances above 4096 pixels, where no closed form is known.
        covariance_tolerance: relative residual of products with Σ; by default that of the mean.
        seed: of those probes.

    Example:
        >>> import torch
        >>> from obverse import noise, operators, priors, problem
        >>> field = priors.GaussianField(torch.ones(8, 8), (1, 8, 8))
        >>> p = problem.Problem(operators.Identity((1, 8, 8)), noise.Gaussian(1.0))
        >>> posterior = Gaussian(prior=field)(torch.ones(1, 8, 8), p)
        >>> round(float(posterior.mean[0, 0, 0]), 4), round(float(posterior.std[0, 0, 0]), 4)
        (0.5, 0.7071)
    """

    prior: Prior
    _: KW_ONLY
    rank: int = 16
    tolerance: float | None = None
    max_iterations: int = 2000
    reweightings: int = 10
    probes: int = 128
    covariance_tolerance: float | None = None
    seed: int = 0

    def __call__(self, y: Tensor, problem: Problem, callback: Callback | None = None) -> Posterior:
        """The posterior of one measurement.

        Args:
            y: data of exactly the operator's `data_shape`.
            problem: a linear operator and a noise law.
            callback: told (iteration, total, relative residual or change).

        Raises:
            InputError: the data do not fit, the operator is not linear, or the prior is not quadratic.
            CovarianceError: the image was found, its covariance was not; the error keeps the image.
        """
        begun = time.perf_counter()
        check_item(y, problem, "Gaussian")
        operator = linear_part(problem, "Gaussian")
        prior = self.prior.bind(operator.image_shape)
        start = prior_mean(prior, real_image(operator, y, "Gaussian"))
        run = _Run(self, y, problem, operator, prior, start, callback or silent)
        mean, status = run.exact(start) if problem.noise.gaussian else run.reweighted(start)
        curvature = run.curvature
        tolerance = self.covariance_tolerance or self.tolerance
        try:
            covariance = curvature.covariance(tolerance, self.max_iterations, self.probes)
            marginals = marginal_facts(covariance)
        except NumericsError as error:
            raise CovarianceError(error, Estimate(mean, status, tuple(run.history))) from error
        diagnostics = {
            "likelihood": "gaussian" if problem.noise.gaussian else "gaussian, with the variance at the predicted mean",
            "closed_form": curvature.spectrum is not None,
            **marginals,
            "evaluations": run.products + curvature.products,
            "seconds": time.perf_counter() - begun,
        }
        return described(self, mean, status, tuple(run.history), diagnostics, covariance)


class _Run:
    """One call: the data, the present curvature, and what was spent."""

    def __init__(
        self,
        method: Gaussian,
        y: Tensor,
        problem: Problem,
        operator: LinearOperator,
        prior: Prior,
        start: Tensor,
        report: Callback,
    ):
        self.method, self.y, self.problem, self.operator, self.prior = method, y, problem, operator, prior
        self.hessian, self.report = quadratic_hessian(prior, start), report
        self.history: list[float] = []
        self.products = 1  # the gradient at the start
        self.curvature: Curvature

    def exact(self, start: Tensor) -> tuple[Tensor, Status]:
        """One Newton step from the prior's mean, which is exact since both energies are quadratic."""
        self.curvature = Curvature(
            self.operator, self.problem.fisher_weight(), self.hessian, start, seed=self.method.seed
        )
        return self._step(start, self.problem.gradient(start, self.y))

    def reweighted(self, start: Tensor) -> tuple[Tensor, Status]:
        """Fixed point of mean → noise variance at the predicted data → mean."""
        noise = self.problem.noise
        weight = noise.weight(self.y.mean().expand(self.y.shape))
        # how far the data's expectation lies from A x, under laws of magnitudes, logarithms or clipped data
        mean, change, bias = start, float("inf"), self.y.new_zeros(())
        for index in range(max(1, self.method.reweightings)):
            if index:
                self.products += self.curvature.products
            self.curvature = Curvature(self.operator, weight, self.hessian, start, seed=self.method.seed)
            residual = self.operator(start) - (self.y - bias)
            previous, (mean, status) = mean, self._step(start, self.operator.adjoint(weight * residual))
            change = float((mean - previous).norm() / mean.norm().clamp_min(1e-300))
            self.report(index + 1, self.method.reweightings, change)
            if not status.converged:
                return mean, status
            if index > 0 and change <= _SETTLED:
                message = f"the noise variance settled in {index + 1} reweightings; {status.message}"
                return mean, Status(True, "converged", message)
            predicted = self.operator(mean)
            weight, bias = noise.weight(predicted), noise.expectation(predicted) - predicted
        message = (
            f"the mean still moved by {change:.1e} after {self.method.reweightings} evaluations of the noise variance; "
            "allow more reweightings, or use methods.Laplace, which keeps the counting law"
        )
        return mean, Status(False, "max-iterations", message)

    def _step(self, start: Tensor, likelihood_gradient: Tensor) -> tuple[Tensor, Status]:
        gradient = likelihood_gradient + self.prior.gradient(start)
        if self.curvature.spectrum is not None:
            self.history.append(0.0)
            step = self.curvature.preconditioner.matvec(-gradient)
            return start + step, Status(True, "closed-form", "the mean was computed in closed form, in Fourier")
        found = cg(
            self.curvature.matvec,
            -gradient,
            preconditioner=self.curvature.preconditioner.matvec,
            tolerance=self.method.tolerance or default_tolerance(start.dtype),
            max_iterations=self.method.max_iterations,
            callback=self.report if self.problem.noise.gaussian else None,
        )
        self.history += found.history
        return start + found.x, found.status


# Relative change of the mean at which the noise variance counts as settled: far below any standard deviation.
_SETTLED = 1e-4
