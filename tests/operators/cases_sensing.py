"""Cases of compressed sensing, spectral imaging and colour-filter arrays."""

import math

import numpy as np
import torch

from obverse import operators as ops
from tests.operators.case import Case, random
from tests.operators.cases_core import mosaic_matrix

X_TRANS = [["RGB".index(c) for c in row] for row in "GBGGRG RGRBGB GBGGRG GRGGBG BGBRGR GRGGBG".split()]
QUAD = [[1, 1, 0, 0], [1, 1, 0, 0], [2, 2, 1, 1], [2, 2, 1, 1]]


def hadamard_matrix(n):
    """Sylvester's signs, one at a time: the parity of the bits that row and column share."""
    return np.array([[(-1) ** (i & j).bit_count() for j in range(n)] for i in range(n)], dtype=float)


def sign_changes(row):
    return int((row[1:] != row[:-1]).sum())


def pieces(pattern):
    """Connected pieces of one sign, counted by flooding."""
    left, count = set(np.ndindex(*pattern.shape)), 0
    while left:
        count += 1
        front = [left.pop()]
        while front:
            at = front.pop()
            for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
                near = tuple(a + step * (i == axis) for i, a in enumerate(at))
                if near in left and pattern[near] == pattern[at]:
                    left.remove(near)
                    front.append(near)
    return count


def ordered_patterns(grid, ordering):
    """±1 patterns, one a row, sorted by what is counted on the pattern itself."""
    rows = hadamard_matrix(math.prod(grid))
    if ordering == "sequency":
        return np.array(sorted(rows, key=sign_changes))
    if ordering == "cake-cutting":
        coarse = [
            (pieces(r.reshape(grid)), sign_changes(r.reshape(grid)[0]) + sign_changes(r.reshape(grid)[:, 0]))
            for r in rows
        ]
        return rows[sorted(range(len(rows)), key=lambda i: (*coarse[i], i))]
    return rows


def hadamard_case_matrix(image_shape, ordering, kept):
    grid = image_shape[1:]
    rows = ordered_patterns(grid, ordering)[kept] / math.sqrt(math.prod(grid))
    return np.kron(np.eye(image_shape[0]), rows)


def cosine_matrix(image_shape, kept=None):
    matrix = np.ones((1, 1))
    for n in image_shape[1:]:
        k, i = np.arange(n)[:, None], np.arange(n)
        axis = np.sqrt(np.where(k == 0, 1, 2) / n) * np.cos(np.pi * k * (2 * i + 1) / (2 * n))
        matrix = np.kron(matrix, axis)
    return np.kron(np.eye(image_shape[0]), matrix if kept is None else matrix[kept])


def single_pixel_matrix(image_shape, ordering, kept, split):
    patterns = ordered_patterns(image_shape[1:], ordering)[kept]
    rows = np.vstack([(1 + patterns) / 2, (1 - patterns) / 2]) if split else patterns
    return np.kron(np.eye(image_shape[0]), rows)


def structured_matrix(operator, image_shape, transform):
    """From the operator's own draws, with the transform of the definition."""
    n = math.prod(image_shape[1:])
    one = cosine_matrix((1, *image_shape[1:])) if transform == "cosine" else hadamard_matrix(n) / math.sqrt(n)
    total = np.eye(n)
    for signs in operator.signs:
        total = one @ np.diag(signs.numpy().ravel()) @ total
    kept = operator.subsampled.kept.numpy()
    return np.kron(np.eye(image_shape[0]), math.sqrt(n / len(kept)) * total[kept])


def coded_aperture_matrix(mask, image_shape, step, dual):
    bands, height, width = image_shape
    wide = width if dual else width + step * (bands - 1)
    matrix = np.zeros((height, wide, *image_shape))
    for band, i, j in np.ndindex(*image_shape):
        if dual:
            matrix[i, j, band, i, j] = mask[i, j + step * band]
        else:
            matrix[i, j + step * band, band, i, j] = mask[i, j]
    return matrix.reshape(height * wide, -1)


def complex_type(dtype):
    return torch.complex64 if dtype == torch.float32 else torch.complex128


def _hadamard(image_shape, ordering, kept, number=None):
    return Case(
        lambda dtype: ops.Hadamard(image_shape, kept if number is None else number, ordering, dtype),
        lambda: hadamard_case_matrix(image_shape, ordering, slice(number) if kept is None else kept),
    )


def _structured(image_shape, count, layers, transform, as_type=lambda dtype: dtype):
    def make(dtype):
        return ops.StructuredRandom(image_shape, count, layers, transform, seed=3, dtype=as_type(dtype))

    return Case(make, lambda: structured_matrix(make(torch.float64), image_shape, transform))


def _aperture(mask, image_shape, step=1, dual=False):
    return Case(
        lambda dtype: ops.CodedAperture(mask.to(dtype), image_shape, step, dual),
        lambda: coded_aperture_matrix(mask.numpy(), image_shape, step, dual),
    )


def _single(image_shape, kept, split, ordering="cake-cutting"):
    return Case(
        lambda dtype: ops.SinglePixel(image_shape, kept, ordering, split, dtype),
        lambda: single_pixel_matrix(image_shape, ordering, slice(None) if kept is None else kept, split),
    )


def _mosaic(pattern, tile, offset=(0, 0)):
    rolled = np.roll(tile, [-o for o in offset], (0, 1)).tolist()
    return Case(lambda dtype: ops.Mosaic(pattern, (3, 7, 8), dtype, offset), lambda: mosaic_matrix((3, 7, 8), rolled))


_SPECTRA = random(5, 3) - 0.5

CASES = {
    "mosaic X-Trans": _mosaic("X-Trans", X_TRANS),
    "mosaic X-Trans, cropped": _mosaic("X-Trans", X_TRANS, (1, 2)),
    "mosaic quad-Bayer": _mosaic("quad-GRBG", QUAD),
    "hadamard": _hadamard((2, 4, 8), "natural", None),
    "hadamard sequency": _hadamard((1, 4, 8), "sequency", None, 11),
    "hadamard cake-cutting": _hadamard((1, 4, 8), "cake-cutting", [5, 0, 7, 31, 12]),
    "hadamard 1-D": _hadamard((1, 1, 64), "sequency", [3, 40]),
    "hadamard complex": Case(
        lambda dtype: ops.Hadamard((1, 2, 4), 5, dtype=complex_type(dtype)),
        lambda: hadamard_case_matrix((1, 2, 4), "natural", slice(5)),
    ),
    "cosine": Case(lambda dtype: ops.Cosine((2, 4, 5), dtype=dtype), lambda: cosine_matrix((2, 4, 5))),
    "cosine some, 3-D": Case(
        lambda dtype: ops.Cosine((1, 2, 3, 4), [7, 0, 20, 5], dtype), lambda: cosine_matrix((1, 2, 3, 4), [7, 0, 20, 5])
    ),
    "cosine complex": Case(
        lambda dtype: ops.Cosine((1, 3, 6), random(3, 6) > 0.6, complex_type(dtype)),
        lambda: cosine_matrix((1, 3, 6), (random(3, 6) > 0.6).numpy().ravel()),
    ),
    "structured random": _structured((2, 4, 4), 7, 1, "hadamard"),
    "structured random, three layers": _structured((1, 3, 5), 6, 3, "cosine"),
    "structured random, complex": _structured((1, 4, 4), 9, 2, "hadamard", complex_type),
    "single pixel": _single((2, 4, 4), [0, 3, 9], False),
    "single pixel split": _single((1, 4, 8), None, True, "sequency"),
    "single pixel split, some": _single((2, 4, 4), [0, 3, 9, 4], True),
    "single pixel split, without the constant": _single((1, 4, 4), [3, 9, 4], True),
    "coded aperture": _aperture(random(4, 5), (3, 4, 5)),
    "coded aperture, two pixels a band": _aperture(random(3, 4), (4, 3, 4), 2),
    "coded aperture, dual": _aperture(random(3, 6), (3, 3, 4), dual=True),
    "coded aperture, dual, two pixels a band": _aperture(random(3, 8), (3, 3, 4), 2, True),
    "spectral unmixing": Case(
        lambda dtype: ops.SpectralUnmixing(_SPECTRA.to(dtype), (3, 2, 4)), lambda: np.kron(_SPECTRA.numpy(), np.eye(8))
    ),
    "spectral unmixing 3-D": Case(
        lambda dtype: ops.SpectralUnmixing(_SPECTRA.to(dtype), (3, 2, 2, 3)),
        lambda: np.kron(_SPECTRA.numpy(), np.eye(12)),
    ),
}
