"""The Gaussian law whose precision is the curvature of likelihood plus prior.

    Q = Jᴴ F J + H,       F the Fisher weight of the data, H the prior's Hessian, J the (linearised) operator

Where J is a circular convolution, F constant and H stationary, Q is diagonal in Fourier and so is its inverse.
Otherwise products with Q⁻¹ come from preconditioned conjugate gradients, and exact draws from perturb-and-optimise:
with ε₁ ~ N(0, F) and ε₂ ~ N(0, H), Q⁻¹(Jᴴ ε₁ + ε₂) ~ N(0, Q⁻¹).

References: Orieux, Féron, Giovannelli, "Sampling high-dimensional Gaussian distributions for general linear inverse
problems", IEEE SPL 2012.
"""

__all__ = ["Curvature", "constant", "full_spectrum", "marginal_facts"]

import math
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..operators.base import LinearOperator
from ..posterior import Covariance, PrecisionCovariance, StationaryCovariance, circulant_preconditioner
from ..priors.base import Hessian


class Curvature:
    """Q = Jᴴ F J + H at one image, and its inverse as a covariance.

    Args:
        operator: J, on real images.
        fisher: F, broadcastable to the data: a scalar tensor where it is constant.
        hessian: H, the prior's.
        like: an image `image_shape` that sets precision and device.
        seed: of the preconditioner's and the diagonal's probes.
    """

    def __init__(self, operator: LinearOperator, fisher: Tensor, hessian: Hessian, like: Tensor, seed: int = 0):
        self.operator, self.fisher, self.hessian, self.seed = operator, constant(fisher), hessian, seed
        self.image_shape, self.dtype, self.device = tuple(like.shape), like.dtype, like.device
        self.products = 0

    def matvec(self, v: Tensor) -> Tensor:
        """Q v for images `(*batch, *image_shape)`."""
        self.products += math.prod(v.shape[: v.ndim - len(self.image_shape)])
        return self.operator.gram(v, self.fisher.to(v.dtype)) + self.hessian.matvec(v)

    @cached_property
    def spectrum(self) -> Tensor | None:
        """Mode variances of Q⁻¹ in FFT order, where Q is diagonal in Fourier; else None."""
        return self._inverse_spectrum(self.fisher) if self.fisher.numel() == 1 else None

    @cached_property
    def preconditioner(self) -> Covariance:
        """An approximation of Q⁻¹, diagonal in Fourier up to a local scale, and equal to Q⁻¹ where Q is circulant.

        With J a convolution and H stationary, the circulant nearest to Q has the mean of F in place of F. Otherwise
        scale and spectrum are found by probing.
        """
        known = self._inverse_spectrum(self.fisher.mean())
        if known is not None:
            return StationaryCovariance(known, self.image_shape)
        generator = torch.Generator().manual_seed(self.seed)
        return circulant_preconditioner(self.matvec, self.image_shape, generator, dtype=self.dtype, device=self.device)

    def covariance(self, tolerance: float | None = None, max_iterations: int = 2000, probes: int = 128) -> Covariance:
        """Q⁻¹: in closed form where there is one, else matrix-free."""
        if self.spectrum is not None:
            return StationaryCovariance(self.spectrum, self.image_shape)
        return PrecisionCovariance(
            self.matvec,
            self.image_shape,
            preconditioner=self.preconditioner,
            perturbation=self.perturbation,
            tolerance=tolerance,
            max_iterations=max_iterations,
            probes=probes,
            seed=self.seed,
            dtype=self.dtype,
            device=self.device,
        )

    def perturbation(self, generator: torch.Generator) -> Tensor:
        """A draw from N(0, Q), shape `image_shape`."""
        shape = self.operator.data_shape
        data_type = self._data_type()
        white = torch.randn(shape, generator=generator, dtype=data_type, device=generator.device).to(self.device)
        # F is information per real coordinate; torch's complex normal has variance ½ in each of the two.
        scale = math.sqrt(2.0) if data_type.is_complex else 1.0
        likelihood = self.operator.adjoint(scale * self.fisher.sqrt().to(self.dtype) * white)
        return likelihood + self.hessian.perturbation(generator).to(dtype=self.dtype, device=self.device)

    def _data_type(self) -> torch.dtype:
        probe = torch.zeros(self.image_shape, dtype=self.dtype, device=self.device)
        return self.operator(probe).dtype

    def _inverse_spectrum(self, fisher: Tensor) -> Tensor | None:
        transfer, prior = self.operator.spectrum(), self.hessian.spectrum()
        if transfer is None or prior is None:
            return None
        weight = fisher.to(device=self.device, dtype=torch.float64)
        precision = weight * transfer.to(self.device).abs().double().square() + prior.to(self.device).double()
        return full_spectrum(1.0 / precision, self.image_shape[1:]).to(self.dtype)


def constant(weight: Tensor) -> Tensor:
    """`weight` as a scalar tensor if all its entries are equal, else as it is."""
    first = weight.reshape(-1)[0]
    return first if bool((weight == first).all()) else weight


def full_spectrum(half: Tensor, grid: tuple[int, ...]) -> Tensor:
    """FFT-order array `(..., *grid)` of a real even spectrum given in `rfftn` layout."""
    width = grid[-1]
    axes = tuple(range(-len(grid), -1))
    # Columns W−1 … W/2+1 are the mirror images of columns 1 … (W−1)//2: S(f) = S(−f).
    mirrored = half[..., 1 : (width + 1) // 2].flip(-1)
    for axis in axes:
        mirrored = torch.roll(mirrored.flip(axis), 1, axis)
    return torch.cat([half, mirrored], dim=-1)


def marginal_facts(covariance: Covariance) -> dict[str, Any]:
    """How the marginal variances were found, and their relative standard error where they are estimates."""
    if not isinstance(covariance, PrecisionCovariance):
        return {"marginals": "closed form"}
    told = covariance.diagonal_report()
    return {"marginals": told["kind"], **{f"marginals_{key}": value for key, value in told.items() if key != "kind"}}
