"""Hermitian Toeplitz matrices on images, by circulant embedding: one pair of FFTs of twice the size a product.

    (T x)(r) = Σ_r' t(r − r') x(r'),    t(−d) = conj t(d)

The lags −(N−1) … N−1 along each axis fit a periodic grid of P ≥ 2N − 1 points, on which T is a convolution with real
eigenvalues; the image is padded with zeros, convolved and cropped. A Gram matrix Σ_m w_m a_m a_mᴴ of Fourier rows a_m
is Toeplitz whatever the points, with t(d) = Σ_m w_m exp(2πi k_m·d).

References: Fessler et al., "Toeplitz-based iterative image reconstruction for MRI with correction for magnetic field
    inhomogeneity", IEEE TSP 2005.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .boundary import good_size

__all__ = ["toeplitz_eigenvalues", "toeplitz_product"]

_BLOCK = 1 << 16
"""Values transformed at a time along the later axes: half a megabyte in complex64, which the cache holds."""


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
    """T x for complex images `(*, C, *grid)` and eigenvalues `(C or 1, *padded)`; differentiable in `x`."""
    return _Product.apply(x, eigenvalues)  # type: ignore[return-value]


class _Product(torch.autograd.Function):
    """T is Hermitian, hence its own backward pass."""

    @staticmethod
    def forward(x: Tensor, eigenvalues: Tensor) -> Tensor:
        grid, padded = x.shape[1 - eigenvalues.ndim :], eigenvalues.shape[1:]
        if math.prod(padded) <= _BLOCK:
            dims = tuple(range(-len(grid), 0))
            transform = torch.fft.fftn(x, s=padded, dim=dims)
            transform *= eigenvalues
            return torch.fft.ifftn(transform, dim=dims)[(..., *(slice(n) for n in grid))].contiguous()
        images = x.reshape(-1, *grid)
        result = torch.empty_like(images)
        for i, one in enumerate(images):
            result[i] = _convolved(one, eigenvalues[i % len(eigenvalues)])
        return result.reshape(x.shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor):
        ctx.save_for_backward(inputs[1])
        ctx.save_for_forward(inputs[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        return toeplitz_product(gradients[0], *ctx.saved_tensors), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        return toeplitz_product(tangents[0], *ctx.saved_tensors)


def _convolved(x: Tensor, eigenvalues: Tensor) -> Tensor:
    """One image, padded, convolved and cropped: the first axis whole, the others in blocks of its frequencies.

    Zeros are not transformed and what is cropped is not computed; blocks stay in the cache, and large intermediate
    arrays, whose memory costs more to obtain than their values to compute, are not made.
    """
    grid, (first, *rest) = x.shape, eigenvalues.shape
    later = tuple(range(1, len(grid)))
    x = torch.fft.fft(x, n=first, dim=0)
    step = max(1, _BLOCK // math.prod(rest))
    for start in range(0, first, step):
        rows = slice(start, start + step)
        block = torch.fft.fftn(x[rows], s=rest, dim=later)
        block *= eigenvalues[rows]
        block = torch.fft.ifftn(block, dim=later)
        x[rows] = block[(slice(None), *(slice(n) for n in grid[1:]))]
    return torch.fft.ifft(x, dim=0)[: grid[0]]
