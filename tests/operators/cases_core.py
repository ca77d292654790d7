"""Cases of convolution, sampling, Fourier, wavelets, differences and the algebra."""

import itertools
import math

import numpy as np
import torch

from obverse import operators as ops
from obverse.operators.axis_filter import AxisFilter
from obverse.operators.taps import scaling_filter
from tests.operators.case import Case, random


def convolution_matrix(kernel, image_shape, boundary):
    """y[c, n] = Σ_j h[c, j] x[c, n + k//2 − j], with each continued pixel looked up one at a time."""
    channels, *grid = image_shape
    kernel = kernel.numpy()
    kernel = np.broadcast_to(
        kernel if kernel.ndim > len(grid) else kernel[None], (channels, *kernel.shape[-len(grid) :])
    )
    size = kernel.shape[1:]
    data = [n - k + 1 if boundary == "valid" else n for n, k in zip(grid, size)]
    matrix = np.zeros((channels, *data, channels, *grid))
    for c in range(channels):
        for n in np.ndindex(*data):
            for j in np.ndindex(*size):
                shift = [k - 1 if boundary == "valid" else k // 2 for k in size]
                source = [_look_up(a + s - b, N, boundary) for a, s, b, N in zip(n, shift, j, grid)]
                if None not in source:
                    matrix[(c, *n, c, *source)] += kernel[(c, *j)]
    return matrix.reshape(channels * math.prod(data), channels * math.prod(grid))


def _look_up(i, n, boundary):
    if 0 <= i < n:
        return i
    if boundary == "circular":
        return i % n
    if boundary == "reflect":
        return -i if i < 0 else 2 * (n - 1) - i
    return None


def gradient_matrix(image_shape, spacing, circular):
    grid = image_shape[1:]
    matrix = np.zeros((len(grid), *image_shape, *image_shape))
    for axis, step in enumerate(spacing):
        for n in np.ndindex(*image_shape):
            nxt = list(n)
            nxt[axis + 1] += 1
            if nxt[axis + 1] == grid[axis]:
                if not circular:
                    continue
                nxt[axis + 1] = 0
            matrix[(axis, *n, *nxt)] += 1 / step
            matrix[(axis, *n, *n)] -= 1 / step
    return matrix.reshape(len(grid) * math.prod(image_shape), -1)


def downsample_matrix(operator):
    full = convolution_matrix(operator.kernel.double(), operator.image_shape, operator.boundary)
    full = full.reshape(*operator.image_shape, -1)
    return full[(slice(None), *(slice(p, None, f) for p, f in zip(operator.phase, operator.factor)))].reshape(
        math.prod(operator.data_shape), -1
    )


def axis_filter_matrix(image_shape, taps, dim, stride, start, count, boundary):
    n, (filters, length) = image_shape[dim], taps.shape
    axis = np.zeros((filters, count, n))
    for f, m, j in np.ndindex(filters, count, length):
        source = _look_up(stride * m + j - start, n, boundary)
        if source is not None:
            axis[f, m, source] += taps[f, j]
    before = np.eye(math.prod(image_shape[:dim]))
    behind = np.eye(math.prod(image_shape[len(image_shape) + dim + 1 :]))
    return np.kron(np.kron(before, axis.reshape(filters * count, n)), behind)


def fourier_matrix(image_shape, mask):
    matrix = np.ones((1, 1))
    for n in image_shape[1:]:
        index = np.arange(n) - n // 2
        matrix = np.kron(matrix, np.exp(-2j * np.pi * np.outer(index, index) / n) / np.sqrt(n))
    matrix = np.kron(np.eye(image_shape[0]), matrix)
    return np.broadcast_to(mask, image_shape).reshape(-1, 1) * matrix


def wavelet_matrix(image_shape, wavelet, levels):
    low = scaling_filter(wavelet).numpy()
    length = len(low)
    high = np.array([(-1) ** j * low[length - 1 - j] for j in range(length)])
    total = np.eye(math.prod(image_shape))
    block = list(image_shape)
    for _ in range(levels):
        one = np.ones((1, 1))
        for n in block[1:]:
            axis = np.zeros((n, n)) if n > 1 else np.eye(1)
            for m, j in itertools.product(range(n // 2), range(length)):
                source = (2 * m + j - length // 2 + 1) % n
                axis[m, source] += low[j]
                axis[n // 2 + m, source] += high[j]
            one = np.kron(one, axis)
        inside = np.zeros(image_shape, dtype=bool)
        inside[tuple(slice(n) for n in block)] = True
        where = np.flatnonzero(inside)
        step = np.eye(math.prod(image_shape))
        step[np.ix_(where, where)] = np.kron(np.eye(image_shape[0]), one)
        total = step @ total
        block = [block[0], *(max(1, n // 2) for n in block[1:])]
    return total


def mosaic_matrix(image_shape, tile):
    channels, height, width = image_shape
    matrix = np.zeros((height, width, channels, height, width))
    for i, j in np.ndindex(height, width):
        matrix[i, j, tile[i % len(tile)][j % len(tile[0])], i, j] = 1
    return matrix.reshape(height * width, -1)


def _convolution(kernel, image_shape, boundary, engine="auto"):
    return Case(
        lambda dtype: ops.Convolution(kernel.to(dtype), image_shape, boundary, engine=engine),
        lambda: convolution_matrix(kernel, image_shape, boundary),
    )


def _downsample(image_shape, factor, kernel, boundary="circular", **keywords):
    def make(dtype):
        chosen = kernel if isinstance(kernel, str) else kernel.to(dtype)
        return ops.Downsample(image_shape, factor, chosen, boundary, dtype=dtype, **keywords)

    return Case(make, lambda: downsample_matrix(make(torch.float64)))


def _axis_filter(image_shape, taps, dim, stride, start, count, boundary):
    return Case(
        lambda dtype: AxisFilter(
            image_shape, taps.to(dtype), dim, stride=stride, start=start, count=count, boundary=boundary
        ),
        lambda: axis_filter_matrix(image_shape, taps, dim, stride, start, count, boundary),
    )


def _complex(dtype):
    return torch.complex64 if dtype == torch.float32 else torch.complex128


_BLUR, _IMAGE = random(3, 4), (2, 5, 6)
_OUTER = random(3, seed=1)[:, None] * random(2, seed=2)
_MATRIX = random(6, 12) - 0.5
_COMPLEX = torch.complex(random(5, 6, seed=3), random(5, 6, seed=4))
_MASK = random(4, 5) > 0.5
_A, _B = (
    lambda dtype: ops.Dense(_MATRIX.to(dtype), (1, 3, 4)),
    lambda dtype: ops.Dense(-2 * _MATRIX.to(dtype), (1, 3, 4)),
)

CASES = {
    "identity": Case(lambda dtype: ops.Identity((2, 3, 4), dtype), lambda: np.eye(24)),
    "identity complex": Case(lambda dtype: ops.Identity((1, 3, 4), _complex(dtype)), lambda: np.eye(12)),
    "dense": Case(_A, lambda: _MATRIX.numpy()),
    "dense complex": Case(lambda dtype: ops.Dense(_COMPLEX.to(_complex(dtype)), (1, 2, 3)), lambda: _COMPLEX.numpy()),
    "mask": Case(
        lambda dtype: ops.Mask(_MASK, (2, 4, 5), dtype), lambda: np.diag(np.tile(_MASK.numpy().ravel(), 2) * 1.0)
    ),
    "mask weights 3-D": Case(
        lambda dtype: ops.Mask(random(1, 2, 3, 4).to(dtype)), lambda: np.diag(random(1, 2, 3, 4).numpy().ravel())
    ),
    "mosaic": Case(
        lambda dtype: ops.Mosaic("RGGB", (3, 4, 5), dtype), lambda: mosaic_matrix((3, 4, 5), [[0, 1], [1, 2]])
    ),
    "mosaic tile": Case(
        lambda dtype: ops.Mosaic([[1, 0, 1]], (2, 3, 4), dtype), lambda: mosaic_matrix((2, 3, 4), [[1, 0, 1]])
    ),
    **{
        f"convolution {boundary} {engine}": _convolution(kernel, _IMAGE, boundary, engine)
        for boundary in ("circular", "reflect", "zero", "valid")
        for engine, kernel in (("fft", _BLUR), ("direct", _BLUR), ("separable", _OUTER))
    },
    "convolution per channel": _convolution(random(2, 3, 3), _IMAGE, "reflect", "direct"),
    "convolution per channel fft": _convolution(random(2, 3, 3), _IMAGE, "zero", "fft"),
    "convolution awkward size": _convolution(_BLUR, (1, 11, 13), "circular", "fft"),
    "convolution wider than image": _convolution(random(7, 9), (1, 3, 4), "circular"),
    "convolution 3-D fft": _convolution(random(2, 3, 3), (1, 3, 4, 5), "circular", "fft"),
    "convolution 3-D direct": _convolution(random(2, 3, 3), (2, 3, 4, 5), "reflect", "direct"),
    "convolution 3-D separable": _convolution(_OUTER[:, :, None] * random(3), (1, 3, 4, 5), "zero", "separable"),
    "convolution 1-D": _convolution(random(1, 5), (1, 1, 12), "circular"),
    "downsample": _downsample((2, 4, 8), 2, "cubic"),
    "downsample box": _downsample((1, 6, 6), 3, "box"),
    "downsample gaussian zero": _downsample((1, 8, 8), 4, "gaussian", "zero"),
    "downsample reflect": _downsample((2, 6, 8), 2, random(4, 5), "reflect"),
    "downsample per channel": _downsample((2, 6, 6), 3, random(2, 3, 4), phase=0),
    "downsample 3-D": _downsample((1, 3, 4, 8), (1, 2, 4), "gaussian"),
    # several blocks along the axis, except where one block is said to be enough
    "axis filter circular": _axis_filter((2, 1, 160), random(1, 9), -1, 2, 4, 80, "circular"),
    "axis filter bank": _axis_filter((1, 144, 2), random(2, 8), -2, 2, 3, 72, "circular"),
    "axis filter bank, last axis": _axis_filter((1, 2, 144), random(2, 8), -1, 2, 3, 72, "circular"),
    "axis filter reflect, ragged": _axis_filter((1, 101, 2), random(1, 7), -2, 1, 3, 101, "reflect"),
    "axis filter circular, ragged": _axis_filter((1, 1, 101), random(1, 14), -1, 1, 5, 101, "circular"),
    "axis filter skips pixels": _axis_filter((1, 130, 1, 2), random(1, 2), -3, 3, -1, 43, "zero"),
    "axis filter valid": _axis_filter((1, 1, 150), random(1, 31), -1, 1, 0, 120, "zero"),
    "axis filter one block": _axis_filter((1, 2, 3, 5), random(2, 4), -1, 1, 2, 5, "reflect"),
    "fourier": Case(
        lambda dtype: ops.Fourier((2, 4, 5), dtype=_complex(dtype)), lambda: fourier_matrix((2, 4, 5), 1.0)
    ),
    "fourier even masked": Case(
        lambda dtype: ops.Fourier((1, 4, 6), random(4, 6) > 0.5, _complex(dtype)),
        lambda: fourier_matrix((1, 4, 6), (random(4, 6) > 0.5).numpy()),
    ),
    "fourier 3-D": Case(
        lambda dtype: ops.Fourier((1, 2, 3, 4), random(2, 3, 4), _complex(dtype)),
        lambda: fourier_matrix((1, 2, 3, 4), random(2, 3, 4).numpy()),
    ),
    "gradient": Case(
        lambda dtype: ops.Gradient((2, 4, 5), dtype=dtype), lambda: gradient_matrix((2, 4, 5), (1, 1), False)
    ),
    "gradient circular": Case(
        lambda dtype: ops.Gradient((1, 4, 5), (2.0, 0.5), "circular", dtype),
        lambda: gradient_matrix((1, 4, 5), (2, 0.5), True),
    ),
    "gradient 3-D": Case(
        lambda dtype: ops.Gradient((1, 3, 4, 2), (4.0, 1.0, 0.5), dtype=dtype),
        lambda: gradient_matrix((1, 3, 4, 2), (4, 1, 0.5), False),
    ),
    "gradient 1-D": Case(
        lambda dtype: ops.Gradient((1, 1, 7), dtype=dtype), lambda: gradient_matrix((1, 1, 7), (1, 1), False)
    ),
    "wavelet": Case(
        lambda dtype: ops.Wavelet((1, 8, 12), "db4", 2, dtype), lambda: wavelet_matrix((1, 8, 12), "db4", 2)
    ),
    "wavelet haar": Case(
        lambda dtype: ops.Wavelet((2, 4, 4), "haar", None, dtype), lambda: wavelet_matrix((2, 4, 4), "haar", 2)
    ),
    "wavelet 3-D": Case(
        lambda dtype: ops.Wavelet((1, 2, 4, 4), "sym4", 1, dtype), lambda: wavelet_matrix((1, 2, 4, 4), "sym4", 1)
    ),
    "wavelet 1-D": Case(
        lambda dtype: ops.Wavelet((1, 1, 16), "db2", 3, dtype), lambda: wavelet_matrix((1, 1, 16), "db2", 3)
    ),
    "adjoint": Case(lambda dtype: _A(dtype).H, lambda: _MATRIX.numpy().T),
    "sum": Case(lambda dtype: _A(dtype) + _B(dtype), lambda: -_MATRIX.numpy()),
    "difference": Case(lambda dtype: _A(dtype) - _B(dtype), lambda: 3 * _MATRIX.numpy()),
    "scaled": Case(lambda dtype: -2.5 * _A(dtype), lambda: -2.5 * _MATRIX.numpy()),
    "scaled complex": Case(
        lambda dtype: (1 + 2j) * ops.Dense(_COMPLEX.to(_complex(dtype)), (1, 2, 3)), lambda: (1 + 2j) * _COMPLEX.numpy()
    ),
    "composition": Case(lambda dtype: _A(dtype).H @ _B(dtype), lambda: -2 * _MATRIX.numpy().T @ _MATRIX.numpy()),
    "stack": Case(
        lambda dtype: ops.stack([ops.Gradient((1, 3, 4), dtype=dtype), 2.0 * ops.Gradient((1, 3, 4), dtype=dtype)]),
        lambda: np.vstack([gradient_matrix((1, 3, 4), (1, 1), False) * s for s in (1, 2)]),
    ),
    "blur then gradient, circular": Case(
        lambda dtype: ops.Gradient((1, 4, 5), None, "circular", dtype) @ ops.Convolution(_BLUR.to(dtype), (1, 4, 5)),
        lambda: gradient_matrix((1, 4, 5), (1, 1), True) @ convolution_matrix(_BLUR, (1, 4, 5), "circular"),
    ),
}
