"""Hermitian Toeplitz matrices on images, by circulant embedding: one pair of FFTs of twice the size a product.

    (T x)(r) = Σ_r' t(r − r') x(r'),    t(−d) = conj t(d)

The lags −(N−1) … N−1 along each axis fit a periodic grid of P ≥ 2N − 1 points, on which T is a convolution with real
eigenvalues; the image is padded with zeros, convolved and cropped. A Gram matrix Σ_m w_m a_m a_mᴴ of Fourier rows a_m
is Toeplitz whatever the points, with t(d) = Σ_m w_m exp(2πi k_m·d).

References: Fessler et al., "Toeplitz-based iterative image reconstruction for MRI with correction for magnetic field
    inhomogeneity", IEEE TSP 2005.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .boundary import good_size

__all__ = ["toeplitz_eigenvalues", "toeplitz_product"]


def toeplitz_eigenvalues(lags: Tensor, grid: Sequence[int]) -> Tensor:
    """Real eigenvalues `(C, *padded)`, zero frequency first, from t at the lags −(N−1) … N−1: `(C, *(2N − 1))`."""
    padded = [good_size(2 * n - 1) for n in grid]
    embedded = lags.new_zeros((len(lags), *padded))
    places = [
        ((torch.arange(2 * n - 1, device=lags.device) - (n - 1)) % size).reshape(-1, *(1,) * (len(grid) - 1 - i))
        for i, (n, size) in enumerate(zip(grid, padded))
    ]
    embedded[(slice(None), *places)] = lags
    return torch.fft.fftn(embedded, dim=tuple(range(-len(grid), 0))).real.contiguous()


def toeplitz_product(x: Tensor, eigenvalues: Tensor) -> Tensor:
    """T x for complex images `(*, C, *grid)` and eigenvalues `(C or 1, *padded)`."""
    axes = eigenvalues.ndim - 1
    dims = tuple(range(-axes, 0))
    grid, padded = x.shape[-axes:], eigenvalues.shape[-axes:]
    # axis by axis, so that rows of zeros are never transformed and what is cropped is never computed
    for dim, size in zip(dims, padded):
        x = torch.fft.fft(x, n=size, dim=dim)
    x = x * eigenvalues
    for dim, n in zip(reversed(dims), reversed(grid)):
        x = torch.fft.ifft(x, dim=dim).narrow(dim, 0, n)
    return x.contiguous()
