"""A denoiser as a prior: the gradient of −log p_σ, the law of images with white noise of level σ in them.

    p_σ = p * N(0, σ²)                                     the law of x + σε
    −∇ log p_σ(x) = (x − D(x, σ))/σ²                       (Tweedie)
    −∇² log p_σ(x) = (1 − J)/σ²,      J = ∂D/∂x ≥ 0        at most 1/σ² for an exact D

So the prior is that of images with a little noise in them, and tends to that of images as σ → 0. Its energy is known
where the denoiser has one: a gradient-step network's g_σ/σ², a mixture's and a Gaussian field's in closed form. Other
networks give a gradient alone, and one that need not be that of any energy; J is then made symmetric.

References: Efron, "Tweedie's formula and selection bias", JASA 2011. Laumont et al., "Bayesian imaging using plug &
play priors: when Langevin meets Tweedie", SIAM J. Imaging Sciences 2022.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from .base import Hessian, Prior
from .denoiser import Denoises, check_denoiser, check_level
from .field import GaussianField
from .gradient_step import GradientStep
from .jacobian import Jacobian
from .mixture import GaussianMixture

__all__ = ["Score"]


@dataclass(frozen=True, eq=False)
class Score(Prior):
    """The law that a denoiser knows, smoothed by white noise.

    Args:
        denoiser: anything with `denoise(x, sigma)`; for its Hessian one that autograd can differentiate.
        sigma: σ in units of the image, within the levels that the denoiser was trained for.
        dimensions: number of spatial axes, of a denoiser for images of any shape.

    Raises:
        InputError: not a denoiser, or a level that it does not know.

    Example:
        >>> field = GaussianField(torch.ones(4, 4), (1, 4, 4))
        >>> float(Score(field, 1.0).gradient(torch.ones(1, 4, 4)).mean())
        0.5
    """

    denoiser: Denoises
    sigma: float
    dimensions: int = 2

    def __post_init__(self):
        check_denoiser(self.denoiser, "Score")
        check_level(self.sigma, self.denoiser, "Score expects a sigma")
        shape = getattr(self.denoiser, "image_shape", None)
        if shape is not None:
            object.__setattr__(self, "image_shape", tuple(shape))
            object.__setattr__(self, "dimensions", len(shape) - 1)

    @property
    def smooth(self) -> bool:
        return True

    @property
    def proximable(self) -> bool:
        return False

    @property
    def valued(self) -> bool:
        return isinstance(self.denoiser, GradientStep | GaussianMixture | GaussianField)

    def value(self, x: Tensor) -> Tensor:
        """−log p_σ(x) up to a constant: batch shape.

        Raises:
            InputError: the denoiser has no energy.
        """
        if isinstance(self.denoiser, GradientStep):
            return self.denoiser.value(x, self.sigma) / self.sigma**2
        if isinstance(self.denoiser, GaussianMixture):
            return -self.denoiser.log_prob(x, self.sigma)
        if isinstance(self.denoiser, GaussianField):
            return self.denoiser.smoothed(self.sigma).value(x)
        raise InputError(
            f"value expects a denoiser with an energy, got {type(self.denoiser).__name__}, which has a gradient alone; "
            "use a GradientStep, such as priors.load('natural-gray-gradient')"
        )

    def gradient(self, x: Tensor) -> Tensor:
        return (x - self.denoiser.denoise(x, self.sigma)) / self.sigma**2

    def hessian(self, x: Tensor) -> Hessian:
        """(1 − ½(J + Jᵀ))/σ² at one image; not always ≥ 0, since the law need not be log-concave."""
        jacobian = Jacobian(self.denoiser, x, self.sigma)

        def matvec(v: Tensor) -> Tensor:
            flat = v.reshape(-1, *x.shape)
            return ((flat - jacobian(flat)) / self.sigma**2).reshape(v.shape)

        def perturbation(generator: torch.Generator) -> Tensor:
            raise InputError(
                "the energy of a denoiser is not convex, so its Hessian is no covariance; use LocalGaussian"
            )

        return Hessian(matvec, perturbation)
