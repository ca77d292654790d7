"""The covariance of a handful of images, as they are and no more: their low-rank part, with no diagonal added to it.

    C = 1/(M − 1) Σ_m (x_m − x̄)(x_m − x̄)ᵀ          rank ≤ M − 1,  about their own mean x̄
    C = 1/M Σ_m (x_m − c)(x_m − c)ᵀ                  rank ≤ M,      about a given centre c

M images say nothing of the directions outside their span. A floor on the diagonal there would be a number that nobody
measured, so there is none: C is singular, and `solve` and `logdet` refuse it.
"""

import torch
from torch import Tensor

from ..errors import InputError
from .low_rank import LowRankDiagonal

__all__ = ["rooted_covariance", "spread_covariance"]


def spread_covariance(images: Tensor, centre: Tensor | None = None) -> LowRankDiagonal:
    """The covariance of images about their mean, or about a centre that was not found from them.

    Args:
        images: `(M, *image_shape)`, real; at least two.
        centre: c, `image_shape`.

    Raises:
        InputError: a single image without a centre, or shapes that do not agree.

    Example:
        >>> pair = torch.tensor([[[[0.0, 1.0]]], [[[2.0, 1.0]]]])
        >>> found = spread_covariance(pair)
        >>> found.rank, found.diagonal().flatten().tolist()
        (1, [2.0, 0.0])
    """
    if images.ndim < 2 or len(images) < (2 if centre is None else 1):
        raise InputError(f"a spread expects at least two images, got {tuple(images.shape)}; make more")
    if centre is not None and centre.shape != images.shape[1:]:
        raise InputError(f"a centre expects shape {tuple(images.shape[1:])}, got {tuple(centre.shape)}; pass one image")
    count = len(images) - 1 if centre is None else len(images)
    wide = images.double()
    offsets = wide - (wide.mean(0) if centre is None else centre)
    root = offsets.reshape(len(images), -1).mT / count**0.5
    rounding = torch.finfo(images.dtype).eps * float(wide.norm()) / count**0.5
    return rooted_covariance(root, tuple(images.shape[1:]), images.dtype, rounding)


def rooted_covariance(
    root: Tensor, image_shape: tuple[int, ...], dtype: torch.dtype, rounding: float = 0.0
) -> LowRankDiagonal:
    """R Rᵀ of a root `(n, K)`, with orthonormal factors.

    Directions whose deviation is at most `rounding`, or the rounding of `dtype` against the largest, are left out.
    """
    U, s, _ = torch.linalg.svd(root, full_matrices=False)
    kept = s > (s.amax() * len(s) * torch.finfo(dtype).eps).clamp_min(rounding)
    diagonal = torch.zeros(len(root), dtype=dtype, device=root.device)
    return LowRankDiagonal(U[:, kept].to(dtype), s[kept].square().to(dtype), diagonal, image_shape)
