"""Bilevel problems from pairs of clean and noisy images: the weight of total variation, and fields of experts.

    ℓ(x) = ½‖x − x*‖²
    weight:   h(x, θ) = ½‖x − y‖² + e^θ Σ_i φ(|(∇x)_i|)
    experts:  h(x, θ) = ½‖x − y‖² + Σ_k e^{θ_k} Σ_i φ((f_k ∗ x)_i)           φ(t) = √(t² + ν²)

A symmetric trilinear form is largest on the diagonal, and along any line φ is √((t − s)² + d² + ν²), so that its third
derivative is at most 0.859/ν² in one dimension and in two. With ‖∇‖² ≤ 8, and |(∇e)_i| ≤ √3 ‖e‖ for each pixel,

    L = 1 + 8e^θ/ν,      L_H = 8√3 · 0.859 e^θ/ν²,      L_J = 8e^θ/ν,      m = 1.

References: Kunisch, Pock, "A bilevel optimization approach for parameter learning in variational models", SIAM J.
Imaging Sciences 2013. Roth, Black, "Fields of experts", IJCV 2009.
"""

import math

import torch.nn.functional as F
from torch import Tensor

from ...errors import InputError
from ...priors.total_variation import TotalVariation
from .implicit import Bilevel

__all__ = ["experts_from_pairs", "weight_from_pairs"]

_THIRD = 1.5 / 1.25**2.5  # largest third derivative of √(t² + 1), at t = ½
_GRADIENT = 8.0  # bound of ‖∇‖² in the plane
_ROW = math.sqrt(3.0)  # largest norm of the two rows of ∇ that belong to one pixel


def weight_from_pairs(clean: Tensor, noisy: Tensor, smoothing: float = 0.01) -> Bilevel:
    """Learn θ = log of the weight of smoothed total variation in denoising.

    Args:
        clean: images `(*batch, C, H, W)`.
        noisy: the same with noise.
        smoothing: ν, in units of the image per pixel; small values make both levels slow.

    Raises:
        InputError: the shapes differ, or the smoothing is not positive.

    Example:
        >>> import torch
        >>> truth = torch.zeros(1, 8, 8, dtype=torch.float64)
        >>> truth[:, :, 4:] = 1.0
        >>> noise = 0.1 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        >>> from obverse.learning.bilevel import maid
        >>> learned = maid(weight_from_pairs(truth, truth + noise, 0.05), torch.tensor(-4.0).double(), max_iterations=5)
        >>> learned.history[-1].high < learned.history[0].low
        True
    """
    _check(clean, noisy, smoothing)
    prior = TotalVariation(smoothing=smoothing)
    return Bilevel(
        lower=lambda x, theta: 0.5 * (x - noisy).square().sum() + theta.exp() * prior.value(x).sum(),
        upper=lambda x: 0.5 * (x - clean).square().sum(),
        start=noisy,
        convexity=1.0,
        lipschitz=lambda theta: 1 + _GRADIENT * float(theta.exp()) / smoothing,
        hessian_lipschitz=lambda theta: _THIRD * _ROW * _GRADIENT * float(theta.exp()) / smoothing**2,
        mixed_lipschitz=lambda theta: _GRADIENT * float(theta.exp()) / smoothing,
    )


def experts_from_pairs(clean: Tensor, noisy: Tensor, side: int, smoothing: float = 0.01) -> Bilevel:
    """Learn the filters of a field of experts and the logarithms of their weights.

    θ has the shape `(experts, 1 + side²)`: the logarithm of the weight, then the filter; its mean is taken off.

    Args:
        clean: images `(batch, 1, H, W)`.
        noisy: the same with noise.
        side: of the filters.
        smoothing: ν.

    Raises:
        InputError: the shapes differ, or the smoothing is not positive.
    """
    _check(clean, noisy, smoothing)

    def parts(theta: Tensor) -> tuple[Tensor, Tensor]:
        weights, filters = theta[:, 0].exp(), theta[:, 1:]
        return weights, (filters - filters.mean(1, keepdim=True)).reshape(-1, 1, side, side)

    def lower(x: Tensor, theta: Tensor) -> Tensor:
        weights, filters = parts(theta)
        experts = (F.conv2d(x, filters).square() + smoothing**2).sqrt().sum((0, 2, 3))
        return 0.5 * (x - noisy).square().sum() + (weights * experts).sum()

    def lipschitz(theta: Tensor) -> float:
        weights, filters = parts(theta)
        # ‖f ∗‖ is at most the sum of |f|, by Young's inequality
        return 1 + float((weights * filters.abs().sum((1, 2, 3)).square()).sum()) / smoothing

    return Bilevel(lower, lambda x: 0.5 * (x - clean).square().sum(), noisy, convexity=1.0, lipschitz=lipschitz)


def _check(clean: Tensor, noisy: Tensor, smoothing: float) -> None:
    if clean.shape != noisy.shape or clean.ndim < 3 or not clean.is_floating_point():
        raise InputError(
            f"expected clean and noisy images of one shape, got {tuple(clean.shape)} and {tuple(noisy.shape)}"
        )
    if not smoothing > 0:
        raise InputError(f"expected a positive smoothing, got {smoothing}; 0.01 of the image's range is usual")
