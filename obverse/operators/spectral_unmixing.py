"""The linear mixing model of spectral images: each pixel's spectrum is a mixture of the spectra of few materials.

    y[l, n] = Σ_e M[l, e] a[e, n]          abundances a of the endmembers → bands, pixel by pixel

so that AᴴWA + d I is one small matrix of endmembers for each pixel, the same one where W does not vary over pixels.

Reference: Bioucas-Dias et al., "Hyperspectral unmixing overview", IEEE J-STARS 2012.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InputError
from .base import LinearOperator, constant_like, require_finite

__all__ = ["SpectralUnmixing"]


class SpectralUnmixing(LinearOperator):
    """Spectra of mixtures: abundances `(endmembers, H, W)` → `(bands, H, W)`; solving it unmixes them.

    Args:
        endmembers: M, `(bands, endmembers)`: one spectrum in each column, in the data's unit.
        image_shape: `(endmembers, H, W)` or `(endmembers, D, H, W)`.

    Raises:
        InputError: the matrix is not finite or does not fit the image.

    >>> A = SpectralUnmixing(torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 2.0]]), (2, 1, 1))
    >>> A(torch.tensor([[[1.0]], [[3.0]]])).flatten()
    tensor([1., 2., 6.])
    """

    def __init__(self, endmembers: Tensor, image_shape: Sequence[int]):
        require_finite(endmembers, "SpectralUnmixing expects endmembers")
        if endmembers.ndim != 2 or len(image_shape) not in (3, 4) or endmembers.shape[1] != image_shape[0]:
            raise InputError(
                f"SpectralUnmixing expects endmembers (bands, {image_shape[0]}) for abundances {tuple(image_shape)}, "
                f"got {tuple(endmembers.shape)}; transpose the matrix or correct image_shape"
            )
        super().__init__(image_shape, (endmembers.shape[0], *image_shape[1:]), endmembers.dtype)
        self.endmembers = endmembers.clone()

    def _apply(self, x: Tensor) -> Tensor:
        return self._mixed(constant_like(self.endmembers, x), x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._mixed(constant_like(self.endmembers, y).mH, y)

    def norm(self, iterations: int = 200, tolerance: float = 1e-6, seed: int = 0) -> float:
        return float(torch.linalg.matrix_norm(self.endmembers.detach(), 2))

    def _solve(self, b: Tensor, damping: Tensor, weight: Tensor | None) -> Tensor | None:
        if weight is not None and weight.ndim > len(self.data_shape):
            return None
        wide = b.to(torch.promote_types(b.dtype, self.dtype))
        matrix = constant_like(self.endmembers, b).to(wide.dtype)
        precision = torch.ones_like(damping) if weight is None else weight
        over_pixels = precision.shape[1 - len(self.data_shape) :] if precision.ndim else ()
        if max(over_pixels, default=1) == 1:  # one matrix for all pixels
            precision = precision.reshape(-1, 1)
        else:
            precision = precision.expand(self.data_shape).flatten(1)
        weighted = precision.mT[:, :, None] * matrix
        identity = torch.eye(matrix.shape[1], dtype=matrix.dtype, device=b.device)
        factor = torch.linalg.cholesky(matrix.mH @ weighted + damping * identity)
        pixels = wide.flatten(1 - len(self.image_shape)).mT[..., None]
        solved = torch.cholesky_solve(pixels, factor)[..., 0].mT
        return solved.unflatten(-1, self.image_shape[1:])

    def _mixed(self, matrix: Tensor, x: Tensor) -> Tensor:
        if x.is_complex() and not matrix.is_complex():
            matrix = matrix.to(x.dtype)
        return (matrix @ x.flatten(1 - len(self.image_shape))).unflatten(-1, self.image_shape[1:])
