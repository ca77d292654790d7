"""The single-pixel camera: one detector behind a modulator that shows Walsh–Hadamard patterns.

    y_k = ⟨h_k, x⟩,   h_k = ±1                                   differential
    y_k⁺ = ⟨(1 + h_k)/2, x⟩,   y_k⁻ = ⟨(1 − h_k)/2, x⟩           split: what a modulator of zeros and ones records

In units of the detector: the image is the light of each pixel, and a datum the sum of what a pattern lets through. The
split data are counts, so that Poisson noise applies to them; y⁺ − y⁻ are the differential ones.

With T the orthonormal transform and e₀ its constant pattern, 1 = √n e₀ and h_k = √n e_k, so that for the split camera

    AᴴWA = n/4 Σ_k (w_k⁺ + w_k⁻)(e₀e₀ᵀ + e_k e_kᵀ) + (w_k⁺ − w_k⁻)(e₀e_kᵀ + e_k e₀ᵀ)

is an arrow behind T: a diagonal, one row and one column, which elimination solves for any weights.

References: Duarte et al., "Single-pixel imaging via compressive sampling", IEEE Signal Processing Magazine 2008.
"""

from collections.abc import Sequence
from math import prod, sqrt

import torch
from torch import Tensor

from .base import LinearOperator
from .hadamard import Hadamard

__all__ = ["SinglePixel"]


class SinglePixel(LinearOperator):
    """Sums of an image's light behind Hadamard patterns, `(C, H, W)` → `(C, 1, m)`, or `(C, 2, m)` when split.

    Args:
        image_shape: `(C, H, W)` with powers of two as spatial sizes; a channel is a colour of its own.
        kept: how many of the first patterns to show, or a list of positions in the order; all by default.
        ordering: "natural", "sequency" or "cake-cutting".
        split: show each pattern's positive and negative part in turn (first and second row of the data) rather than
            measure their difference.
        dtype: precision of the images.

    Raises:
        InputError: a size is no power of two, or a position lies outside the order or comes twice.

    >>> SinglePixel((1, 2, 2), split=True)(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]))
    tensor([[[10.,  4.,  3.,  5.],
             [ 0.,  6.,  7.,  5.]]])
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        kept: int | Sequence[int] | Tensor | None = None,
        ordering: str = "cake-cutting",
        split: bool = False,
        dtype: torch.dtype = torch.float32,
    ):
        patterns = Hadamard(image_shape, kept, ordering, dtype)
        *rest, count = patterns.data_shape
        super().__init__(image_shape, (*rest[:-1], 2, count) if split else patterns.data_shape, dtype)
        self.patterns = patterns
        self.split = split
        self._root = sqrt(prod(self.image_shape[1:]))

    def _apply(self, x: Tensor) -> Tensor:
        difference = self._root * self.patterns._apply(x)
        if not self.split:
            return difference
        total = x.sum(tuple(range(1 - len(self.image_shape), 0)), keepdim=True)
        return torch.cat([(total + difference) / 2, (total - difference) / 2], -2)

    def _adjoint(self, y: Tensor) -> Tensor:
        if not self.split:
            return self._root * self.patterns._adjoint(y)
        positive, negative = y[..., :1, :], y[..., 1:, :]
        everywhere = (y.sum((-2, -1), keepdim=True) / 2).expand(*y.shape[:-2], *self.image_shape[-2:])
        return everywhere + self._root / 2 * self.patterns._adjoint(positive - negative)

    def norm(self, iterations: int = 200, tolerance: float = 1e-6, seed: int = 0) -> float:
        if not self.split:
            return self._root
        # n/2 times: m on the constant pattern, and one on each pattern shown
        shown = bool((self.patterns.kept == 0).any()) if self.patterns.kept is not None else True
        return self._root * sqrt((self.data_shape[-1] + shown) / 2)

    def _solve(self, b: Tensor, damping: Tensor, weight: Tensor | None) -> Tensor | None:
        power = self._root**2
        if not self.split:
            return self.patterns._solve(
                b, damping, torch.full_like(damping, power) if weight is None else power * weight
            )
        if weight is not None and weight.ndim > len(self.data_shape):
            return None
        # in float64, because the elimination subtracts nearly equal numbers when the damping is small
        d = damping.double()
        precision = (torch.ones_like(d) if weight is None else weight.double()).expand(self.data_shape)
        both, apart = precision.sum(-2, keepdim=True), precision[..., :1, :] - precision[..., 1:, :]
        diagonal = power / 4 * self.patterns._placed(both).flatten(-2)
        arrow = power / 4 * self.patterns._placed(apart).flatten(-2)
        diagonal, arrow = torch.broadcast_tensors(diagonal, arrow)
        corner = diagonal[..., :1] + 2 * arrow[..., :1] + power / 4 * both.sum(-1) + d
        coefficients = self.patterns._transform(b.to(torch.promote_types(b.dtype, torch.float64))).flatten(-2)
        rest, side = diagonal[..., 1:] + d, arrow[..., 1:]
        first = coefficients[..., :1] - (side / rest * coefficients[..., 1:]).sum(-1, keepdim=True)
        first = first / (corner - (side.square() / rest).sum(-1, keepdim=True))
        others = (coefficients[..., 1:] - side * first) / rest
        return self.patterns._inverse(torch.cat([first, others], -1).unflatten(-1, self.image_shape[1:])).to(b.dtype)
