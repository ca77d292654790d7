"""The receive coils of a magnetic resonance scanner: each sees the image through its own sensitivity.

    y_c = s_c · x,      Aᴴ y = Σ_c conj(s_c) · y_c,      AᴴA = Σ_c |s_c|²

    y_c = Σ_m s_mc · x_m        with several sets of sensitivities, where different tissue folds onto one pixel

A scan is `Fourier(A.data_shape, mask) @ A`, and its `solve` is CG-SENSE. The Gram operator of that product takes plain
transforms, without shifts or phases, along the axes on which the mask depends, of a few coils at a time.

References: Pruessmann, Weiger, Börnert, Boesiger, "Advances in sensitivity encoding with arbitrary k-space
trajectories", MRM 2001. Uecker et al., "ESPIRiT — an eigenvalue approach to autocalibrating parallel MRI", MRM 2014
(several sets).
"""

import math
from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from ..errors import InputError
from .base import LinearOperator, constant_like, require_finite

__all__ = ["Coils"]

_TOGETHER = 1 << 19
"""Values that a scan's Gram operator works on at a time: enough to share out between threads, and few enough to stay
in the cache and in memory that the process holds, since fresh pages cost several times what is computed in them."""


class Coils(LinearOperator):
    """Image `(1, H, W)` → one image for each coil, `(coils, H, W)`; in 3-D `(1, D, H, W)` → `(coils, D, H, W)`.

    Args:
        sensitivities: complex maps `(coils, H, W)` or `(coils, D, H, W)`; several sets as `(sets, coils, *grid)`.
        image_shape: the image's shape; needed for several sets only, where it is `(sets, *grid)`.

    Raises:
        InputError: the maps are not complex and finite, or do not fit the image.

    Example:
        >>> A = Coils(torch.tensor([1.0, 2.0j]).reshape(2, 1, 1).expand(2, 4, 4))
        >>> A(torch.ones(1, 4, 4, dtype=torch.complex64))[:, 0, 0]
        tensor([1.+0.j, 0.+2.j])
        >>> round(A.norm() ** 2, 3)
        5.0
    """

    def __init__(self, sensitivities: Tensor, image_shape: Sequence[int] | None = None):
        require_finite(sensitivities, "Coils expects sensitivities")
        if not sensitivities.is_complex():
            raise InputError(f"Coils expects complex sensitivities, got {sensitivities.dtype}; convert them")
        shape = (1, *sensitivities.shape[1:]) if image_shape is None else tuple(image_shape)
        sets = sensitivities[None] if sensitivities.ndim == len(shape) else sensitivities
        if len(shape) not in (3, 4) or sets.ndim != len(shape) + 1 or (len(sets), *sets.shape[2:]) != shape:
            raise InputError(
                "Coils expects sensitivities (coils, *grid) for an image (1, *grid), or (sets, coils, *grid) for an "
                f"image_shape (sets, *grid), got {tuple(sensitivities.shape)} and {image_shape}; reshape them"
            )
        super().__init__(shape, sets.shape[1:], sensitivities.dtype)
        self.sensitivities = sets.detach().clone()
        self._conjugate = self.sensitivities.conj().resolve_conj()  # a lazy conjugate costs as much as the product

    def _apply(self, x: Tensor) -> Tensor:
        return _seen(constant_like(self.sensitivities, x), x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return _combined(constant_like(self._conjugate, y), y)

    def _gram(self, x: Tensor, weight: Tensor | float | None) -> Tensor:
        if len(self.sensitivities) > 1 or (isinstance(weight, Tensor) and weight.ndim > len(self.data_shape)):
            return super()._gram(x, weight)
        return self._power(x, weight) * x

    def _gram_behind(self, outer: LinearOperator, x: Tensor, weight: Tensor | float | None) -> Tensor:
        if not outer.channelwise or (isinstance(weight, Tensor) and weight.ndim >= len(self.data_shape)):
            return super()._gram_behind(outer, x, weight)
        step = max(1, _TOGETHER // math.prod((*x.shape[: -len(self.image_shape)], *self.image_shape[1:])))
        maps, conjugates = (constant_like(s, x).split(step, 1) for s in (self.sensitivities, self._conjugate))
        parts = (_combined(c, outer._gram(_seen(s, x), weight)) for s, c in zip(maps, conjugates, strict=True))
        return reduce(torch.add, parts)

    def norm(self, iterations: int = 200, tolerance: float = 1e-6, seed: int = 0) -> float:
        if len(self.sensitivities) == 1:
            return float(self._power(self.sensitivities, None).max().sqrt())
        # pixel by pixel, the largest eigenvalue of the (sets, sets) matrix ⟨s_m, s_n⟩
        maps = self.sensitivities.flatten(2).permute(2, 1, 0)
        return float(torch.linalg.matrix_norm(maps, 2).max())

    def _solve(self, b: Tensor, damping: Tensor, weight: Tensor | None) -> Tensor | None:
        if len(self.sensitivities) > 1 or (weight is not None and weight.ndim > len(self.data_shape)):
            return None
        return b / (self._power(b, weight) + damping)

    def _power(self, like: Tensor, weight: Tensor | float | None) -> Tensor:
        """Σ_c w_c |s_c|² of the only set, `(1, *grid)`."""
        maps = constant_like(self.sensitivities[0], like)
        power = maps.real.square() + maps.imag.square()
        return (power if weight is None else weight * power).sum(0, keepdim=True)


def _seen(sets: Tensor, x: Tensor) -> Tensor:
    """Σ_m s_m · x_m, with maps `(sets, coils, *grid)`."""
    images = x.split(1, 1 - sets.ndim)
    return reduce(torch.add, (maps * image for maps, image in zip(sets, images, strict=True)))


def _combined(conjugates: Tensor, y: Tensor) -> Tensor:
    """Σ_c conj(s_mc) · y_c for every set m."""
    axis = 1 - conjugates.ndim
    return torch.cat([(maps * y).sum(axis, keepdim=True) for maps in conjugates], axis)
