"""Some coefficients of an orthonormal transform over an image's spatial axes.

    y = S T x,   TᴴT = T Tᴴ = I,   S keeps some coefficients

Hence A Aᴴ = I, and with any inverse noise variances W

    AᴴWA + d I = Tᴴ (SᵀWS + d I) T,

whose middle is diagonal: two transforms and a division solve it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InputError
from .arguments import as_numbers
from .base import LinearOperator

__all__ = ["OrthonormalTransform", "kept_indices"]


class OrthonormalTransform(LinearOperator):
    """A subsampled orthonormal transform; a subclass defines `_transform` and `_inverse`.

    Args:
        image_shape: `(C, H, W)` or `(C, D, H, W)`; every channel is transformed alike.
        kept: positions of the measured coefficients in the flattened grid, in the order in which they are measured;
            None measures all of them and keeps their grid.
        dtype: precision of the images.
    """

    def __init__(self, image_shape: Sequence[int], kept: Tensor | None, dtype: torch.dtype):
        shape = tuple(image_shape)
        if len(shape) not in (3, 4):
            raise InputError(
                f"{type(self).__name__} expects an image_shape (C, H, W) or (C, D, H, W), got {shape}; reshape"
            )
        super().__init__(shape, shape if kept is None else (shape[0], *(1,) * (len(shape) - 2), len(kept)), dtype)
        self.kept = kept

    def _transform(self, x: Tensor) -> Tensor:
        """T x over the spatial axes, of the same shape."""
        raise NotImplementedError(f"{type(self).__name__} must define _transform")

    def _inverse(self, c: Tensor) -> Tensor:
        """Tᴴ c."""
        raise NotImplementedError(f"{type(self).__name__} must define _inverse")

    def _apply(self, x: Tensor) -> Tensor:
        coefficients = self._transform(x)
        if self.kept is None:
            return coefficients
        kept = self.kept.to(x.device)
        return coefficients.flatten(1 - len(self.image_shape))[..., kept].unflatten(-1, self.data_shape[1:])

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._inverse(self._placed(y))

    def norm(self, iterations: int = 200, tolerance: float = 1e-6, seed: int = 0) -> float:
        return 1.0

    def _solve(self, b: Tensor, damping: Tensor, weight: Tensor | None) -> Tensor | None:
        if weight is not None and weight.ndim > len(self.data_shape):
            return None
        precision = torch.ones((), dtype=damping.dtype, device=b.device) if weight is None else weight
        return self._inverse(self._transform(b) / (self._placed(precision.expand(self.data_shape)) + damping))

    def _placed(self, y: Tensor) -> Tensor:
        """Measured values at their coefficients' places in the grid, zero elsewhere."""
        if self.kept is None:
            return y
        grid = self.image_shape[1:]
        flat = y.flatten(1 - len(self.data_shape))
        empty = flat.new_zeros(*flat.shape[:-1], torch.Size(grid).numel())
        return empty.index_copy(-1, self.kept.to(y.device), flat).unflatten(-1, grid)


def kept_indices(kept: int | Sequence[int] | Tensor, grid: Sequence[int], name: str) -> Tensor:
    """Positions in a flattened grid from the first so many, from a list of positions, or from a mask of the grid."""
    total = torch.Size(grid).numel()
    if isinstance(kept, Tensor) and kept.dtype == torch.bool:
        if tuple(kept.shape) != tuple(grid):
            raise InputError(f"{name} expects a mask of shape {tuple(grid)}, got {tuple(kept.shape)}; crop it")
        indices = kept.flatten().nonzero().flatten()
    elif isinstance(kept, int) and not isinstance(kept, bool):
        indices = torch.arange(min(max(kept, 0), total + 1))
    else:
        indices = as_numbers(kept, f"{name} expects the positions kept")
        if indices.ndim != 1 or indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool:
            raise InputError(f"{name} expects kept as a number, a list of positions or a mask, got {kept!r}; see help")
        indices = indices.long().clone()
    distinct = len(indices.unique()) == len(indices)
    if len(indices) == 0 or not distinct or int(indices.min()) < 0 or int(indices.max()) >= total:
        raise InputError(
            f"{name} expects between 1 and {total} different coefficients, positions 0 to {total - 1}, got "
            f"{len(indices)}{'' if distinct else ', some of them twice'}; correct kept"
        )
    return indices
