"""The identity, and an operator given by its matrix.

Identity: y = x            Dense: y = M x, with the image and the data flattened in memory order
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InputError
from .base import LinearOperator, constant_like, require_finite

__all__ = ["Dense", "Identity"]

_LARGEST_FACTORISED = 4096
"""Largest side of a normal matrix that `Dense.solve` factorises rather than iterates on: 128 MB in float64."""


class Identity(LinearOperator):
    """A x = x: denoising.

    Args:
        image_shape: `(C, H, W)` or `(C, D, H, W)`.
        dtype: precision of the images; a complex type for complex images.

    >>> Identity((1, 4, 4)).norm()
    1.0
    """

    def __init__(self, image_shape: Sequence[int], dtype: torch.dtype = torch.float32):
        super().__init__(image_shape, image_shape, dtype)

    def _apply(self, x: Tensor) -> Tensor:
        return x.clone()

    def _adjoint(self, y: Tensor) -> Tensor:
        return y.clone()

    def spectrum(self) -> Tensor:
        *rest, last = self.image_shape[1:]
        return torch.ones((1, *rest, last // 2 + 1), dtype=self.real_dtype)

    def norm(self, iterations: int = 200, tolerance: float = 1e-6, seed: int = 0) -> float:
        return 1.0

    def _solve(self, b: Tensor, damping: Tensor, weight: Tensor | None) -> Tensor:
        return b / ((1.0 if weight is None else weight) + damping)


class Dense(LinearOperator):
    """A x = M x with a stored matrix; for small problems, and the twin against which other operators are tested.

    Args:
        matrix: `(n_data, n_image)`, real or complex, finite.
        image_shape: shape of one image, `n_image` pixels in all.
        data_shape: shape of one measurement, `n_data` values in all; `(1, 1, n_data)` by default.

    Raises:
        InputError: the sizes do not match, or the matrix has values that are not finite.
    """

    def __init__(self, matrix: Tensor, image_shape: Sequence[int], data_shape: Sequence[int] | None = None):
        require_finite(matrix, "Dense expects a matrix")
        if matrix.ndim != 2:
            raise InputError(f"Dense expects a matrix (n_data, n_image), got shape {tuple(matrix.shape)}; reshape it")
        data_shape = (1, 1, matrix.shape[0]) if data_shape is None else data_shape
        super().__init__(image_shape, data_shape, matrix.dtype)
        sizes = (torch.Size(self.data_shape).numel(), torch.Size(self.image_shape).numel())
        if sizes != tuple(matrix.shape):
            raise InputError(
                f"Dense expects a matrix of shape {sizes} for image {self.image_shape} and data {self.data_shape}, "
                f"got {tuple(matrix.shape)}; transpose it or correct the shapes"
            )
        self.matrix = matrix.clone()

    def _apply(self, x: Tensor) -> Tensor:
        flat = x.flatten(-len(self.image_shape))
        return (flat @ constant_like(self.matrix, x).mT).unflatten(-1, self.data_shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        flat = y.flatten(-len(self.data_shape))
        return (flat @ constant_like(self.matrix, y).conj()).unflatten(-1, self.image_shape)

    def norm(self, iterations: int = 200, tolerance: float = 1e-6, seed: int = 0) -> float:
        return float(torch.linalg.matrix_norm(self.matrix.detach(), 2))

    def _solve(self, b: Tensor, damping: Tensor, weight: Tensor | None) -> Tensor | None:
        n = self.matrix.shape[1]
        if n > _LARGEST_FACTORISED or (weight is not None and weight.ndim > len(self.data_shape)):
            return None
        matrix = constant_like(self.matrix, b)
        weighted = matrix
        if weight is not None:
            weighted = weight.expand(self.data_shape).reshape(-1, 1) * matrix
        normal = matrix.mH @ weighted + damping * torch.eye(n, dtype=matrix.dtype, device=b.device)
        factor = torch.linalg.cholesky(normal)
        flat = b.reshape(-1, n).mT.to(matrix.dtype)
        return torch.cholesky_solve(flat, factor).mT.reshape(b.shape)
