"""Cases of phase retrieval: its linear part, and its derivative over pairs of real numbers."""

import numpy as np
import torch

from obverse import operators as ops
from obverse.operators.phase_retrieval import IntensityDerivative
from obverse.operators.ptychography import ScannedProbe
from tests.operators.case import Case, random
from tests.operators.cases_core import fourier_matrix


def field(*shape, seed=0):
    """A complex field that complex64 holds exactly."""
    return torch.complex(random(*shape, seed=seed) - 0.5, random(*shape, seed=seed + 1) - 0.5)


def complex_type(dtype):
    return torch.complex64 if dtype == torch.float32 else torch.complex128


def over_pairs(matrix):
    """The real matrix of v ↦ 2 Re(M v) on (real parts, imaginary parts)."""
    return 2 * np.hstack([matrix.real, -matrix.imag])


def scanned_probe_matrix(image_shape, probe, positions):
    height, width = probe.shape
    picked = np.zeros((len(positions), height, width, *image_shape), dtype=complex)
    for k, (row, column) in enumerate(positions):
        for i, j in np.ndindex(height, width):
            picked[k, i, j, 0, row + i, column + j] = probe[i, j]
    size = len(positions) * height * width
    return fourier_matrix((len(positions), height, width), 1.0) @ picked.reshape(size, -1)


PROBE, POSITIONS = field(2, 3, seed=4), [[0, 0], [1, 0], [0, 1], [2, 2]]
_FIELD, _MATRIX, _IMAGE = field(2, 2, 3), field(7, 6, seed=2), field(1, 2, 3, seed=6)


def _linearised(dtype):
    A = ops.PhaseRetrieval(ops.Dense(_MATRIX.to(complex_type(dtype)), (1, 2, 3)))
    return A.linearise(_IMAGE.to(complex_type(dtype)))


def _linearised_matrix():
    matrix = _MATRIX.numpy()
    return over_pairs((matrix @ _IMAGE.numpy().ravel()).conj()[:, None] * matrix)


CASES = {
    "intensity derivative": Case(
        lambda dtype: IntensityDerivative(_FIELD.to(complex_type(dtype))),
        lambda: over_pairs(np.diag(_FIELD.numpy().conj().ravel())),
    ),
    "intensity derivative, real": Case(
        lambda dtype: IntensityDerivative(_FIELD.real.to(dtype)), lambda: 2 * np.diag(_FIELD.real.numpy().ravel())
    ),
    "phase retrieval, linearised": Case(_linearised, _linearised_matrix),
    "phase retrieval, linearised, sum": Case(
        lambda dtype: 3.0 * _linearised(dtype) - _linearised(dtype), lambda: 2 * _linearised_matrix()
    ),
    "scanned probe": Case(
        lambda dtype: ScannedProbe((1, 4, 5), PROBE.to(complex_type(dtype)), POSITIONS, complex_type(dtype)),
        lambda: scanned_probe_matrix((1, 4, 5), PROBE.numpy(), POSITIONS),
    ),
}
