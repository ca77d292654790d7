"""Coded-aperture snapshot spectral imaging: a mask, a dispersion, and one exposure of all bands.

    single disperser    y[i, j] = Σ_l m[i, j − s·l] x[l, i, j − s·l]       the scene is masked, then its bands shifted
    dual disperser      y[i, j] = Σ_l m[i, j + s·l] x[l, i, j]             the mask is shifted, the bands lie in place

with s pixels of dispersion between neighbouring bands, along the last axis. Each value of the image reaches one datum,
so that A Aᴴ is diagonal (the sum of the mask's squares over the bands that meet in a pixel), and so is the middle of

    (AᴴWA + d I)⁻¹ b = (b − AᴴW (A AᴴW + d I)⁻¹ A b) / d.

References: Wagadarikar et al., "Single disperser design for coded aperture snapshot spectral imaging", Applied Optics
2008. Gehm et al., "Single-shot compressive spectral imaging with a dual-disperser architecture", Optics Express 2007.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InputError
from .base import LinearOperator, constant_like
from .sampling import mask_weights

__all__ = ["CodedAperture"]


class CodedAperture(LinearOperator):
    """Snapshot of a spectral image `(bands, H, W)`.

    The data are `(1, H, W + step·(bands − 1))` behind a single disperser, and `(1, H, W)` behind two.

    Args:
        mask: transmission of the aperture, booleans or real numbers: `(H, W)` for a single disperser, or
            `(H, W + step·(bands − 1))` for two, of which each band sees its own window.
        image_shape: `(bands, H, W)`.
        step: pixels of dispersion from one band to the next, at least one.
        dual: whether a second disperser undoes the first.
        dtype: precision of the images; the mask's own, or float32 for a boolean mask, by default.

    Raises:
        InputError: the mask does not fit.

    >>> A = CodedAperture(torch.tensor([[1.0, 0.0]]), (2, 1, 2))
    >>> A(torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]]))
    tensor([[[1., 3., 0.]]])
    """

    def __init__(
        self,
        mask: Tensor,
        image_shape: Sequence[int],
        step: int = 1,
        dual: bool = False,
        dtype: torch.dtype | None = None,
    ):
        if len(image_shape) != 3:
            raise InputError(f"CodedAperture expects an image_shape (bands, H, W), got {tuple(image_shape)}")
        if isinstance(step, bool) or not isinstance(step, int) or step < 1:
            raise InputError(f"CodedAperture expects a step of at least one pixel, got {step!r}; flip the bands' order")
        bands, height, width = image_shape
        wide = width + step * (bands - 1)
        weights, dtype = mask_weights(mask, (1, height, wide if dual else width), dtype, "CodedAperture")
        super().__init__(image_shape, (1, height, width if dual else wide), dtype)
        self.mask = weights.expand(1, height, wide if dual else width).clone()
        self.step = step
        self.dual = dual
        #: A Aᴴ, from the mask's squares
        seen = self._windows(self.mask.square()) if dual else self.mask.square().expand(bands, height, width)
        self._power = self._gathered(seen).clone()

    def _apply(self, x: Tensor) -> Tensor:
        return self._gathered(self._transmission(x) * x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._transmission(y) * (y if self.dual else self._windows(y))

    def norm(self, iterations: int = 200, tolerance: float = 1e-6, seed: int = 0) -> float:
        return float(self._power.detach().max().sqrt())

    def _solve(self, b: Tensor, damping: Tensor, weight: Tensor | None) -> Tensor:
        # in float64, because b and what is subtracted from it nearly cancel when the damping is small
        wide = b.to(torch.complex128 if b.is_complex() else torch.float64)
        d = damping.double()
        precision = torch.ones_like(d) if weight is None else weight.double()
        seen = precision * self._apply(wide) / (precision * constant_like(self._power, d) + d)
        return ((wide - self._adjoint(seen)) / d).to(b.dtype)

    def _transmission(self, x: Tensor) -> Tensor:
        """What each band sees of the mask."""
        mask = constant_like(self.mask, x)
        return self._windows(mask) if self.dual else mask

    def _windows(self, y: Tensor) -> Tensor:
        """`(*, 1, H, W + step·(bands − 1))` → `(*, bands, H, W)`, of which band l begins at pixel step·l."""
        return y.squeeze(-3).unfold(-1, self.image_shape[2], self.step).movedim(-2, -3)

    def _gathered(self, x: Tensor) -> Tensor:
        """The sum over the bands, each moved to its place: the adjoint of `_windows`, or a plain sum."""
        if self.dual:
            return x.sum(-3, keepdim=True)
        bands, _, width = self.image_shape
        # rows one after another, each with zeros behind it: read again with shorter rows, they have moved apart
        padded = torch.nn.functional.pad(x.movedim(-3, -2), (0, bands * self.step)).flatten(-2)
        wide = width + self.step * (bands - 1)
        return padded[..., : bands * wide].unflatten(-1, (bands, wide)).sum(-2).unsqueeze(-3)
