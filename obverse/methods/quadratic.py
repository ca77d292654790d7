"""Quadratic priors: what the exact Gaussian posterior needs to know of one.

−log p(x) = ½ (x − μ)ᵀ P (x − μ) + const    ⇔    ∇(x) is affine and its derivative P is the same everywhere
"""

__all__ = ["prior_mean", "quadratic_hessian"]

import torch
from torch import Tensor

from ..errors import InputError
from ..priors.base import Hessian, Prior


def prior_mean(prior: Prior, like: Tensor) -> Tensor:
    """The prior's mean where it has one, else zero; in shape, precision and device of the image `like`."""
    mean = getattr(prior, "mean", None)
    return like if mean is None else like + torch.as_tensor(mean).to(like)


def quadratic_hessian(prior: Prior, start: Tensor) -> Hessian:
    """The constant Hessian of a quadratic prior.

    A gradient taken at a random image must equal the Hessian's product to rounding; this tells quadratic priors, sums
    of them included, from all others without a list of classes.

    Raises:
        InputError: the prior is not quadratic.
    """
    name = type(prior).__name__
    advice = "use methods.Laplace for smooth priors and methods.Langevin for others"
    if not prior.smooth:
        raise InputError(f"Gaussian expects a quadratic prior such as GaussianField or Tikhonov, got {name}; {advice}")
    hessian = prior.hessian(start)
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(start.shape, generator=generator, dtype=start.dtype).to(start.device)
    for scale in (1.0, 30.0):
        told, found = hessian.matvec(scale * probe), prior.gradient(start + scale * probe) - prior.gradient(start)
        tolerance = 1e-3 if start.dtype == torch.float32 else 1e-8
        if not float((told - found).norm()) <= tolerance * float(told.norm()):
            raise InputError(
                f"Gaussian expects a quadratic prior such as GaussianField or Tikhonov, got {name}; {advice}"
            )
    return hessian
