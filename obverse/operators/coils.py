"""The receive coils of a magnetic resonance scanner: each sees the image through its own sensitivity.

    y_c = s_c · x,      Aᴴ y = Σ_c conj(s_c) · y_c,      AᴴA = Σ_c |s_c|²

    y_c = Σ_m s_mc · x_m        with several sets of sensitivities, where different tissue folds onto one pixel

A scan is `Fourier(A.data_shape, mask) @ A`, and its `solve` is CG-SENSE. The Gram operator of that product takes plain
transforms, without shifts or phases, along the axes on which the mask depends.

References: Pruessmann, Weiger, Börnert, Boesiger, "Advances in sensitivity encoding with arbitrary k-space
trajectories", MRM 2001. Uecker et al., "ESPIRiT — an eigenvalue approach to autocalibrating parallel MRI", MRM 2014
(several sets).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InputError
from .base import LinearOperator, constant_like, require_finite

__all__ = ["Coils"]


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
        axis = -len(self.image_shape)
        sets = constant_like(self.sensitivities, x)
        seen = sets[0] * x.narrow(axis, 0, 1)
        for m in range(1, len(sets)):
            seen = seen + sets[m] * x.narrow(axis, m, 1)
        return seen

    def _adjoint(self, y: Tensor) -> Tensor:
        axis = -len(self.data_shape)
        sets = constant_like(self._conjugate, y)
        return torch.cat([(maps * y).sum(axis, keepdim=True) for maps in sets], axis)

    def _gram(self, x: Tensor, weight: Tensor | float | None) -> Tensor:
        if len(self.sensitivities) > 1 or (isinstance(weight, Tensor) and weight.ndim > len(self.data_shape)):
            return super()._gram(x, weight)
        return self._power(x, weight) * x

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
