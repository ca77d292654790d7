"""Cases of field rotation, with matrices whose columns are the images of the pixels, by the formula."""

import itertools
import math

import numpy as np
import torch

from obverse import operators as ops
from tests.operators.case import Case, random
from tests.operators.cases_warp import dirichlet


def field_matrix(operator, transmission, exposures):
    """One column for each pixel: in each frame the PSF, by Dirichlet kernels, where that pixel turns to."""
    size, centre = operator.image_shape[1:], [(n - 1) / 2 for n in operator.image_shape[1:]]
    psfs = operator.psf.double().numpy().reshape(-1, *operator.psf.shape[-2:])
    parts = operator._offsets
    matrix = np.zeros((len(psfs), len(operator.degrees), *size, len(psfs), *size))
    for i in np.ndindex(*size):
        y, x = (a - c for a, c in zip(i, centre, strict=True))
        for t, l, part in itertools.product(range(len(operator.degrees)), range(len(psfs)), parts):
            angle = math.atan2(y, x) - math.radians(operator.degrees[t] + exposures * part)
            place = centre[0] + math.hypot(x, y) * math.sin(angle), centre[1] + math.hypot(x, y) * math.cos(angle)
            down, across = (
                dirichlet(grid, p - k // 2)[:n, :k]
                for grid, p, n, k in zip(operator._grid, place, size, psfs[l].shape, strict=True)
            )
            matrix[(l, t, slice(None), slice(None), l, *i)] += transmission[i] * down @ psfs[l] @ across.T / len(parts)
    return matrix.reshape(math.prod(operator.data_shape), -1)


def _case(image_shape, degrees, psf, exposure=0.0, table=None):
    def make(dtype):
        keywords = {} if table is None else {"transmission": table}
        if exposure:
            keywords["exposure_degrees"] = exposure
        return ops.FieldRotation(image_shape, degrees, psf.to(dtype), dtype=dtype, **keywords)

    def dense():
        transmission = np.ones(image_shape[1:])
        if table is not None:
            axes = [np.arange(n) - (n - 1) / 2 for n in image_shape[1:]]
            transmission = np.interp(np.hypot(axes[0][:, None], axes[1]), *table)
        return field_matrix(make(torch.float64), transmission, exposure)

    return Case(make, dense)


CASES = {
    "field rotation": _case((1, 5, 5), [25.0, -130.0], random(3, 3)),
    "field rotation smeared, transmitted": _case((1, 4, 5), [40.0], random(3, 3), 12.0, [[0.5, 2.0], [0.25, 1.0]]),
    "field rotation in two bands": _case((2, 4, 3), [15.0, 200.0], random(2, 3, 3)),
}
