"""Cases of space-variant blur."""

import math

import numpy as np

from obverse import operators as ops
from tests.operators.case import Case, random


def space_variant_matrix(kernels, weights, image_shape, boundary):
    """y[c, n] = Σ_k Σ_j h_k[c, j] w_k[c, m] x[c, m] with m = n + k//2 − j, each continued pixel looked up in turn."""
    channels, *grid = image_shape
    axes = len(grid)
    kernels, weights = kernels.numpy(), weights.numpy()
    kernels = kernels[:, None] if kernels.ndim == axes + 1 else kernels
    weights = weights[:, None] if weights.ndim == axes + 1 else weights
    kernels = np.broadcast_to(kernels, (len(kernels), channels, *kernels.shape[2:]))
    weights = np.broadcast_to(weights, (len(weights), channels, *grid))
    size = kernels.shape[2:]
    data = [n - k + 1 if boundary == "valid" else n for n, k in zip(grid, size)]
    matrix = np.zeros((channels, *data, channels, *grid))
    for c in range(channels):
        for n in np.ndindex(*data):
            for j in np.ndindex(*size):
                shift = [k - 1 if boundary == "valid" else k // 2 for k in size]
                source = tuple(_look_up(a + s - b, N, boundary) for a, s, b, N in zip(n, shift, j, grid))
                if None not in source:
                    seen = sum(h[(c, *j)] * w[(c, *source)] for h, w in zip(kernels, weights))
                    matrix[(c, *n, c, *source)] += seen
    return matrix.reshape(channels * math.prod(data), channels * math.prod(grid))


def _look_up(i, n, boundary):
    if 0 <= i < n:
        return i
    if boundary == "circular":
        return i % n
    if boundary == "reflect":
        return -i if i < 0 else 2 * (n - 1) - i
    return None


def _case(kernels, weights, image_shape, boundary):
    return Case(
        lambda dtype: ops.SpaceVariantBlur(kernels.to(dtype), weights.to(dtype), image_shape, boundary),
        lambda: space_variant_matrix(kernels, weights, image_shape, boundary),
    )


CASES = {
    "space-variant circular": _case(random(3, 3, 4), random(3, 7, 6), (1, 7, 6), "circular"),
    "space-variant circular prime": _case(random(2, 3, 3), random(2, 5, 11), (1, 5, 11), "circular"),
    "space-variant reflect": _case(random(2, 2, 4, 3), random(2, 5, 6), (2, 5, 6), "reflect"),
    "space-variant zero": _case(random(2, 3, 5), random(2, 2, 5, 4), (2, 5, 4), "zero"),
    "space-variant valid": _case(random(3, 2, 3), random(3, 6, 5), (1, 6, 5), "valid"),
    "space-variant 3-D": _case(random(2, 3, 2, 3), random(2, 4, 3, 4), (1, 4, 3, 4), "reflect"),
}
