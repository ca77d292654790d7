"""Cases of the receive coils of magnetic resonance imaging, and of the transforms behind them."""

import math

import numpy as np
import torch

from obverse import operators as ops
from tests.operators.case import Case, random
from tests.operators.cases_core import fourier_matrix


def maps(*shape, seed=0):
    """Sensitivities that complex64 holds exactly."""
    return torch.complex(random(*shape, seed=seed) - 0.5, random(*shape, seed=seed + 1) - 0.5)


def coils_matrix(sensitivities):
    """y[c, n] = Σ_m s[m, c, n] x[m, n], entry by entry."""
    sets, coils, *grid = sensitivities.shape
    matrix = np.zeros((coils, *grid, sets, *grid), dtype=complex)
    for m, c in np.ndindex(sets, coils):
        for n in np.ndindex(*grid):
            matrix[(c, *n, m, *n)] = sensitivities[(m, c, *n)]
    return matrix.reshape(coils * math.prod(grid), -1)


def scan_matrix(sensitivities, mask):
    shape = tuple(sensitivities.shape[1:])
    return fourier_matrix(shape, mask.numpy()) @ coils_matrix(sensitivities)


def _complex(dtype):
    return torch.complex64 if dtype == torch.float32 else torch.complex128


def _scan(sensitivities, mask, image_shape=None):
    def make(dtype):
        coils = ops.Coils(sensitivities.to(_complex(dtype)), image_shape)
        return ops.Fourier(coils.data_shape, mask, _complex(dtype)) @ coils

    sets = sensitivities if image_shape is not None else sensitivities[None]
    return Case(make, lambda: scan_matrix(sets, mask))


_ONE, _TWO, _VOLUME = maps(3, 4, 5), maps(2, 3, 4, 3, seed=5), maps(2, 2, 3, 4, seed=9)
_COLUMNS, _ROWS = torch.tensor([True, False, True, True, False]), torch.tensor([[True], [False], [True], [True]])

CASES = {
    "coils": Case(lambda dtype: ops.Coils(_ONE.to(_complex(dtype))), lambda: coils_matrix(_ONE[None])),
    "coils 3-D": Case(lambda dtype: ops.Coils(_VOLUME.to(_complex(dtype))), lambda: coils_matrix(_VOLUME[None])),
    "coils two sets": Case(lambda dtype: ops.Coils(_TWO.to(_complex(dtype)), (2, 4, 3)), lambda: coils_matrix(_TWO)),
    "fourier columns": Case(
        lambda dtype: ops.Fourier((2, 4, 5), _COLUMNS, _complex(dtype)),
        lambda: fourier_matrix((2, 4, 5), _COLUMNS.numpy()),
    ),
    "fourier mask per channel": Case(
        lambda dtype: ops.Fourier((2, 4, 5), random(2, 4, 5), _complex(dtype)),
        lambda: fourier_matrix((2, 4, 5), random(2, 4, 5).numpy()),
    ),
    "scan columns": _scan(_ONE, _COLUMNS),
    "scan rows, two sets": _scan(_TWO, _ROWS, (2, 4, 3)),
    "scan mask per coil": _scan(_ONE, random(3, 4, 5)),
    "scan 3-D": _scan(_VOLUME, random(2, 3, 4) > 0.5),
}
