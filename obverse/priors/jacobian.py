"""The Jacobian of a denoiser at one image, as products with a batch of directions.

    J = ∂D(x, σ)/∂x,      Cov[image | image + σε = x] = σ² J      for D the posterior mean                (Tweedie)

An exact D has a symmetric J with eigenvalues ≥ 0. A network's is neither; what is nearest to a covariance is its
symmetric part, and the asymmetry of the products says how far away that is. One pass through the network serves all
products: Jᵀv goes back through its graph, Jv through the graph of the way back. A gradient-step network's J is
symmetric by construction and needs the first alone. Either costs no more convolutions than the network itself
(`frozen_convolution`).

References: Manor, Michaeli, "On the posterior distribution in denoising: application to uncertainty quantification",
ICLR 2024. Efron, "Tweedie's formula and selection bias", JASA 2011.
"""

import torch
from torch import Tensor

from ..errors import InputError
from .denoiser import Denoises
from .frozen_convolution import frozen_convolutions
from .gradient_step import GradientStep

__all__ = ["Jacobian"]


class Jacobian:
    """J at one image.

    Args:
        denoiser: anything with a `denoise` that autograd can follow.
        x: the image, `(C, H, W)`.
        sigma: the noise level told.

    Attributes:
        output: D(x, σ), of the shape of `x`.
        products: directions multiplied so far; a symmetrised product counts as one.
        asymmetry: ‖(J − Jᵀ)v‖/‖(J + Jᵀ)v‖ over those directions, in the root mean square; 0 where it is so by design.

    Example:
        >>> from obverse.priors import GaussianField
        >>> J = Jacobian(GaussianField(torch.ones(4, 4), (1, 4, 4)), torch.zeros(1, 4, 4), 1.0)
        >>> float(J(torch.ones(1, 1, 4, 4)).mean())
        0.5
    """

    def __init__(self, denoiser: Denoises, x: Tensor, sigma: float):
        self.symmetric = isinstance(denoiser, GradientStep)
        self.products, self._skew, self._size = 0, 0.0, 0.0
        with torch.enable_grad(), frozen_convolutions():
            self._point = x.detach().requires_grad_()
            self._answer = denoiser.denoise(self._point, sigma)
            self._probe = torch.zeros_like(self._answer, requires_grad=True)
            back = None
            if self._answer.requires_grad:
                graph = {"create_graph": not self.symmetric, "retain_graph": True, "allow_unused": True}
                (back,) = torch.autograd.grad(self._answer, self._point, self._probe, **graph)
            if back is None:
                raise InputError(
                    f"expected a denoiser that autograd can differentiate, got {type(denoiser).__name__}, whose answer "
                    "does not depend on the image by a graph"
                )
            self._back = back
        self.output = self._answer.detach()

    @property
    def asymmetry(self) -> float:
        return (self._skew / self._size) ** 0.5 if self._size else 0.0

    def __call__(self, v: Tensor) -> Tensor:
        """½(J + Jᵀ)v for directions `(b, C, H, W)`."""
        self.products += len(v)
        back = self._pulled(self._answer, self._point, v)
        if self.symmetric:
            return back
        ahead = self._pulled(self._back, self._probe, v)
        self._skew += float((ahead - back).double().square().sum())
        self._size += float((ahead + back).double().square().sum())
        return (ahead + back) / 2

    @staticmethod
    def _pulled(of: Tensor, at: Tensor, v: Tensor) -> Tensor:
        rows = [torch.autograd.grad(of, at, each, retain_graph=True)[0] for each in v.to(of)]
        return torch.stack(rows).to(v) if rows else v
