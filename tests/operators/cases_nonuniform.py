"""Fourier transforms at arbitrary frequencies, and their sums written out."""

import numpy as np
import torch

from obverse import operators as ops
from tests.operators.case import Case, random

__all__ = ["CASES", "fourier_sum", "points"]

_FINE = 1e-13  # the suite compares with the sum to 1e-10


def points(count: int, axes: int) -> torch.Tensor:
    """Frequencies beyond a period, of both signs, that float32 holds exactly."""
    return 2 * random(count, axes, seed=axes) - 1.25


def fourier_sum(points, grid, channels=1, scaling="orthonormal"):
    """The matrix, number by number: exp(−2πi k·(n − N // 2))."""
    points = np.asarray(points, dtype=np.float64)
    matrix = np.zeros((len(points), *grid), dtype=complex)
    for m in range(len(points)):
        for n in np.ndindex(*grid):
            turns = sum(k * (j - size // 2) for k, j, size in zip(points[m], n, grid))
            matrix[(m, *n)] = np.exp(-2j * np.pi * turns)
    if scaling == "orthonormal":
        matrix /= np.sqrt(np.prod(grid))
    return np.kron(np.eye(channels), matrix.reshape(len(points), -1))


def _complex(dtype):
    return torch.complex64 if dtype == torch.float32 else torch.complex128


def _nonuniform(count, image_shape, scaling="orthonormal", **keywords):
    places = points(count, len(image_shape) - 1)
    return Case(
        lambda dtype: ops.NonuniformFourier(
            places, image_shape, scaling=scaling, accuracy=_FINE, dtype=_complex(dtype), **keywords
        ),
        lambda: fourier_sum(places, image_shape[1:], image_shape[0], scaling),
    )


def _direct(count, image_shape, scaling="orthonormal"):
    places = points(count, len(image_shape) - 1)
    return Case(
        lambda dtype: ops.DirectFourier(places, image_shape, scaling=scaling, dtype=_complex(dtype)),
        lambda: fourier_sum(places, image_shape[1:], image_shape[0], scaling),
    )


CASES = {
    "nonuniform fourier": _nonuniform(17, (2, 5, 4)),
    "nonuniform fourier 1-D": _nonuniform(9, (1, 1, 8)),
    "nonuniform fourier 3-D unscaled": _nonuniform(11, (1, 2, 3, 4), "none"),
    "nonuniform fourier torch": _nonuniform(17, (2, 5, 4), engine="torch"),
    "nonuniform fourier torch 3-D unscaled": _nonuniform(11, (1, 2, 3, 4), "none", engine="torch"),
    "direct fourier": _direct(17, (2, 5, 4)),
    "direct fourier 3-D unscaled": _direct(11, (2, 2, 3, 4), "none"),
}
