"""A posterior for any linear operator from one denoiser: its prior, as the Gaussian that the denoiser sees around it.

    at the fixed point x = D(z, σ),  z = x − σ² ∇f(x),  f(x) = −log p(y | A x):
    B = σ² ∂D/∂z,      P = B⁻¹ − σ⁻²,      Σ = (AᴴWA + P)⁻¹ = (B⁻¹ + M)⁻¹,      M = AᴴWA − σ⁻²

D(z, σ) is the mean of the image given z = image + σ ε, and B its covariance (Tweedie). Taking away what z told leaves
the local prior's precision P; the data then say what they say. For a Gaussian prior this is the posterior exactly, at
every σ; for others it is the Gaussian that agrees with D at z. Unlike the Jacobian of a reconstruction it has variance
where the operator sees nothing. `solvers.update` multiplies by Σ and finds its components without inverses.

The image is that of plug-and-play (ADMM at level σ), with one step of Newton's method, which is exact for Gaussians.
"""

__all__ = ["LocalGaussian"]

import time
from dataclasses import KW_ONLY, dataclass

from torch import Tensor

from ..errors import InputError, NumericsError
from ..posterior import Posterior
from ..posterior.updated import UpdatedCovariance
from ..priors.denoiser import Denoises, check_denoiser
from ..priors.jacobian import Jacobian
from ..problem import Problem
from ..solvers.result import Status
from ..solvers.update import updated_solve
from .base import Callback, check_item, described, linear_part, real_image
from .covariance_error import CovarianceError
from .matched_level import WorkingPoint, matched_level

_MOST_TRUNCATED = 0.5  # of the products with Σ, beyond which there is no covariance to speak of
_FARTHEST = 0.3  # relative change of the image in Newton's step, beyond which it is not to be trusted


@dataclass(frozen=True, eq=False)
class LocalGaussian:
    """Posterior of a linear problem under a denoiser's prior.

    Args:
        denoiser: anything with a differentiable `denoise(x, sigma)`; a `GradientStep` has a symmetric Jacobian.
        sigma: level at which the denoiser is asked, in units of the image; found by `matched_level` if None.
        rank: components found at once, which the diagnostics speak of.
        tolerance: relative residual of products with Σ, and of the components.
        max_iterations: of one product with Σ, each one product with the Jacobian.
        probes: products with Σ for the marginal variances; exact where as many as pixels.
        seed: of probes and starts.

    Example:
        >>> import torch, obverse as ob
        >>> field = ob.priors.GaussianField(torch.ones(8, 8), (1, 8, 8))
        >>> kept = (torch.arange(64).reshape(1, 8, 8) % 2).float()
        >>> problem = ob.Problem(ob.operators.Mask(kept), ob.noise.Gaussian(1.0))
        >>> posterior = LocalGaussian(field, sigma=0.5)(kept, problem)
        >>> [round(v, 3) for v in posterior.std.flatten()[:2].tolist()]
        [1.0, 0.707]
    """

    denoiser: Denoises
    _: KW_ONLY
    sigma: float | None = None
    rank: int = 16
    tolerance: float = 1e-2
    max_iterations: int = 300
    probes: int = 64
    seed: int = 0

    def __post_init__(self):
        check_denoiser(self.denoiser, "LocalGaussian")
        if self.sigma is not None and not (isinstance(self.sigma, int | float) and 0 < self.sigma < float("inf")):
            raise InputError(f"LocalGaussian expects a positive sigma, got {self.sigma!r}; it is in units of the image")
        if not 0 < self.tolerance < 1:
            raise InputError(f"LocalGaussian expects a tolerance between 0 and 1, got {self.tolerance}")
        if min(self.rank, self.max_iterations, self.probes) < 1:
            raise InputError(
                "LocalGaussian expects rank, max_iterations and probes of at least 1, got "
                f"{self.rank, self.max_iterations, self.probes}"
            )

    def __call__(self, y: Tensor, problem: Problem, callback: Callback | None = None) -> Posterior:
        """The posterior of one measurement.

        Args:
            y: data of exactly the operator's `data_shape`.
            problem: a linear operator and a law of independent data; counting laws enter by their curvature at the
                image, bounded where there is less than a count.
            callback: told (iteration, limit, relative change) by plug-and-play, then (iteration, limit, residual) by
                every solve and search that the covariance takes.

        Raises:
            InputError: the data do not fit, or the operator is not linear or not on real images.
            CovarianceError: the image was found, its covariance was not; the error keeps the image.
        """
        begun = time.perf_counter()
        check_item(y, problem, "LocalGaussian")
        operator = linear_part(problem, "LocalGaussian")
        zero = real_image(operator, y, "LocalGaussian")
        point = WorkingPoint(self.denoiser, y, problem)
        matched = None if self.sigma is not None else matched_level(point, self.seed, callback)
        level = float(self.sigma) if matched is None else matched.sigma  # type: ignore[arg-type]
        played, z = point.find(level, callback)
        jacobian = Jacobian(self.denoiser, z, level)
        x = jacobian.output.to(zero)
        weight = point.weight(x)

        def B(v: Tensor) -> Tensor:
            return level**2 * jacobian(v)

        def M(v: Tensor) -> Tensor:
            return operator.gram(v, weight) - v / level**2

        try:
            slope = (x - z) / level**2 - point.data.gradient(x)
            limits = {"tolerance": self.tolerance, "max_iterations": self.max_iterations}
            step, bent = updated_solve(B, M, slope[None], **limits, callback=callback)
            mean = x + step.x[0]
            covariance = UpdatedCovariance(
                B,
                M,
                zero.shape,
                **limits,
                probes=self.probes,
                seed=self.seed,
                dtype=zero.dtype,
                device=zero.device,
            )
            covariance.callback = callback
            marginals = {f"marginals_{key}": value for key, value in covariance.diagonal_report().items()}
            covariance.components(min(self.rank, covariance.size))
            covariance.callback = None  # what is asked of it later is not this method's progress
        except NumericsError as error:
            raise CovarianceError(error, played) from error
        moved = float((mean - played.image).norm() / played.image.norm().clamp_min(1e-30))
        diagnostics = {
            "sigma": level,
            "ladder": [] if matched is None else matched.ladder,
            "level_settled": matched is None or matched.settled,
            "asymmetry": jacobian.asymmetry,
            "truncated": covariance.truncated / max(covariance.solves, 1),
            "newton_step": moved,
            **{f"components_{key}": value for key, value in covariance.components_report().items()},
            **marginals,
            "evaluations": point.evaluations + 1,
            "products": jacobian.products,
            "seconds": time.perf_counter() - begun,
        }
        status = _status(played.status, moved, step.status, bent, diagnostics["truncated"])
        return described(self, mean, status, (), diagnostics, covariance)


def _status(played: Status, moved: float, step: Status, bent: int, truncated: float) -> Status:
    if not played.converged:
        return Status(False, played.reason, f"plug-and-play did not reach its fixed point: {played.message}")
    if bent or not step.converged:
        return Status(False, "newton-step", f"the last step towards the mean has no solution: {step.message}")
    if not moved <= _FARTHEST:
        message = f"the last step towards the mean changes it by {moved:.1e}, so that the Gaussian is a poor picture"
        return Status(False, "newton-step", f"{message}; try another sigma")
    if truncated > _MOST_TRUNCATED:
        message = (
            f"{truncated:.0%} of the products with the covariance met negative curvature, so that there is none here"
        )
        return Status(False, "negative-curvature", f"{message}; try a lower sigma, or a denoiser with 0 ≤ J ≤ 1")
    return Status(True, "converged", f"plug-and-play and a Newton step agree on the mean to {moved:.1e}")
