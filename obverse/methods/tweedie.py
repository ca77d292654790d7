"""Denoising with its uncertainty: mean and covariance of an image in white noise, from one denoiser.

    y = x + σ ε:      E[x | y] = D(y, σ),      Cov[x | y] = σ² ∂D/∂y                                   (Tweedie)

Exact for the prior whose posterior mean D is. A network's Jacobian is not quite symmetric, and may have a few negative
eigenvalues: its symmetric part is taken, negative variances are cut off, and the diagnostics say how much that was.
Eigenvalues above σ² are no error: there the posterior has more than one mode. On request the leading components get
their skewness and kurtosis too (`priors.moments`), from which `Posterior.marginal` makes a density.

References: Efron, "Tweedie's formula and selection bias", JASA 2011. Manor, Michaeli, "On the posterior distribution in
denoising: application to uncertainty quantification", ICLR 2024.
"""

__all__ = ["Tweedie"]

import time
from dataclasses import KW_ONLY, dataclass, replace

from torch import Tensor

from ..errors import InputError
from ..noise import Gaussian
from ..operators import Identity
from ..posterior import DirectionalMoments, Posterior
from ..posterior.product import ProductCovariance
from ..priors.denoiser import Denoiser, Denoises, check_denoiser, check_range, known_levels
from ..priors.jacobian import Jacobian
from ..priors.moments import directional_moments
from ..problem import Problem
from ..solvers.result import Status
from .base import Callback, check_item, described, real_image

_TILT = 1.0  # standard deviations over which a network's kinks are averaged, see `priors.moments`


@dataclass(frozen=True, eq=False)
class Tweedie:
    """Posterior of a denoising problem.

    Args:
        denoiser: anything with a differentiable `denoise(x, sigma)`.
        rank: components found at once, which the diagnostics speak of.
        probes: products for the marginal variances; exact where that many suffice.
        seed: of the probes.
        moments: leading components of which skewness and kurtosis are found.

    Example:
        >>> import torch, obverse as ob
        >>> field = ob.priors.GaussianField(torch.ones(8, 8), (1, 8, 8))
        >>> problem = ob.Problem(ob.operators.Identity((1, 8, 8)), ob.noise.Gaussian(1.0))
        >>> posterior = Tweedie(field)(torch.ones(1, 8, 8), problem)
        >>> round(posterior.mean.mean().item(), 4), round(posterior.std.mean().item(), 4)
        (0.5, 0.7071)
    """

    denoiser: Denoises
    _: KW_ONLY
    rank: int = 16
    probes: int = 128
    seed: int = 0
    moments: int = 0

    def __post_init__(self):
        check_denoiser(self.denoiser, "Tweedie")
        if min(self.rank, self.probes) < 1:
            raise InputError(f"Tweedie expects rank and probes of at least 1, got {self.rank, self.probes}")
        if not 0 <= self.moments <= self.rank:
            raise InputError(f"Tweedie expects moments of at most rank components, got {self.moments} of {self.rank}")

    def __call__(self, y: Tensor, problem: Problem, callback: Callback | None = None) -> Posterior:
        """The posterior of one noisy image.

        Args:
            y: of exactly the operator's `data_shape`.
            problem: `Identity` and `Gaussian` noise of one level.

        Raises:
            InputError: another operator or law, more noise than the denoiser knows, or an image of other units.
        """
        begun = time.perf_counter()
        check_item(y, problem, "Tweedie")
        sigma = getattr(problem.noise, "sigma", None)
        if not (isinstance(problem.operator, Identity) and type(problem.noise) is Gaussian and _single(sigma)):
            raise InputError(
                "Tweedie expects an Identity and Gaussian noise of one level, got "
                f"{type(problem.operator).__name__} and {type(problem.noise).__name__}; use methods.LocalGaussian"
            )
        level, highest = float(sigma), known_levels(self.denoiser)[1]  # type: ignore[arg-type]
        if level > highest:
            raise InputError(
                f"Tweedie expects noise that the denoiser knows, of at most {highest:.3g} in units of the image, got "
                f"{level:.3g}; denoiser.scaled(low, high) gives it the range of your images"
            )
        real_image(problem.operator, y, "Tweedie")
        check_range(y, self.denoiser, "Tweedie")
        jacobian = Jacobian(self.denoiser, y, level)
        covariance = ProductCovariance(
            lambda v: level**2 * jacobian(v),
            y.shape,
            probes=self.probes,
            seed=self.seed,
            dtype=y.dtype,
            device=y.device,
        )
        marginals = {f"marginals_{key}": value for key, value in covariance.diagonal_report().items()}
        components = covariance.components(min(self.rank, covariance.size))
        leading = components.variances
        moments = self._moments(y, level, components.directions[: self.moments]) if self.moments else None
        diagnostics = {
            "asymmetry": jacobian.asymmetry,
            "components_above_noise": int((leading > (1 + 1e-3) * level**2).sum()),
            **marginals,
            "evaluations": 1 + jacobian.products,
            "seconds": time.perf_counter() - begun,
        }
        status = Status(True, "closed-form", "mean and covariance are the denoiser's answer and its Jacobian")
        posterior = described(self, jacobian.output, status, (), diagnostics, covariance)
        return posterior if moments is None else replace(posterior, moments=moments)

    def _moments(self, y: Tensor, level: float, directions: Tensor) -> DirectionalMoments:
        """By autograd where the denoiser is smooth; a network's activations have kinks."""
        tilt = _TILT if isinstance(self.denoiser, Denoiser) else None
        _, variance, third, fourth = directional_moments(self.denoiser, y, level, directions, tilt)
        variance = variance.clamp_min(1e-300)
        return DirectionalMoments(directions, (third / variance**1.5).to(y), (fourth / variance**2).to(y))


def _single(sigma: object) -> bool:
    return isinstance(sigma, int | float) or (isinstance(sigma, Tensor) and sigma.numel() == 1)
