"""The Walsh–Hadamard transform by butterflies, all of it or some of its patterns.

    H₁ = 1,   H₂ₙ = (Hₙ Hₙ; Hₙ −Hₙ) / √2          orthonormal, symmetric, its own inverse

A Kronecker product of transforms of the axes is the transform of the flattened image, so that each pattern is an outer
product of rows. The pattern at position (p, q) changes sign s(p) times down and s(q) times across the image, where s(p)
is the Gray code read backwards: the bits of p reversed, then each bit the parity of those from it upwards. Orders:

    natural       position p·W + q, as the recursion gives it
    sequency      by the number of sign changes along the pattern read row by row (Walsh's order)
    cake-cutting  by the number of pieces of one sign, (s(p) + 1)(s(q) + 1): coarse patterns first

The butterflies join up to four levels, products with 16 × 16 matrices, since a pass over memory costs more than sums.

References: Pratt, Kane, Andrews, "Hadamard transform image coding", Proc. IEEE 1969. Yu, "Super sub-Nyquist
single-pixel imaging by means of cake-cutting Hadamard basis sort", Sensors 2019.
"""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from ..errors import InputError
from .orthonormal import OrthonormalTransform, kept_indices

__all__ = ["Hadamard", "hadamard_order", "walsh_hadamard"]

_LEVELS = 4
"""Butterfly levels joined in one product: fewer read the memory more often, more multiply more often."""


class Hadamard(OrthonormalTransform):
    """Orthonormal Walsh–Hadamard coefficients of each channel, `(C, H, W)` → `(C, 1, m)`.

    Args:
        image_shape: `(C, H, W)` or `(C, D, H, W)`, with powers of two as spatial sizes.
        kept: how many of the first patterns to measure, or a list of positions in the order; all by default.
        ordering: "natural", "sequency" or "cake-cutting".
        dtype: precision of the images; a complex type for complex images.

    Raises:
        InputError: a size is no power of two, or a position lies outside the order or comes twice.

    >>> Hadamard((1, 2, 2))(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]))
    tensor([[[ 5., -1., -2.,  0.]]])
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        kept: int | Sequence[int] | Tensor | None = None,
        ordering: str = "natural",
        dtype: torch.dtype = torch.float32,
    ):
        grid = tuple(image_shape[1:])
        order = hadamard_order(grid, ordering)
        super().__init__(image_shape, order if kept is None else order[kept_indices(kept, grid, "Hadamard")], dtype)
        self.ordering = ordering

    def _transform(self, x: Tensor) -> Tensor:
        axes = len(self.image_shape) - 1
        return walsh_hadamard(x.flatten(-axes)).unflatten(-1, self.image_shape[1:])

    def _inverse(self, c: Tensor) -> Tensor:
        return self._transform(c)


def walsh_hadamard(x: Tensor) -> Tensor:
    """The orthonormal transform of the last axis, of a length that is a power of two, in natural order."""
    length = x.shape[-1]
    levels = length.bit_length() - 1
    inner, done = 1, 0
    while done < levels:
        step = min(_LEVELS, levels - done)
        matrix = _matrix(step, x)
        blocks = x.reshape(*x.shape[:-1], -1, 2**step, inner)
        # products with the matrix on the side where the axis lies, so that nothing is transposed in memory
        blocks = blocks[..., 0] @ matrix if inner == 1 else matrix @ blocks
        x = blocks.reshape(*x.shape)
        inner, done = inner * 2**step, done + step
    return x.clone() if levels == 0 else x


def hadamard_order(grid: Sequence[int], ordering: str) -> Tensor:
    """Positions in the natural order of the flattened grid, listed in another order."""
    if any(n < 1 or n & (n - 1) for n in grid):
        raise InputError(
            f"the Hadamard transform expects powers of two as sizes, got {tuple(grid)}; pad the image, or use Cosine"
        )
    total = prod(grid)
    if ordering == "natural":
        return torch.arange(total)
    if ordering == "sequency":
        return _sign_changes(total).argsort()
    if ordering == "cake-cutting":
        pieces = torch.ones((), dtype=torch.long)
        changes = torch.zeros((), dtype=torch.long)
        for n in grid:
            pieces = pieces[..., None] * (_sign_changes(n) + 1)
            changes = changes[..., None] + _sign_changes(n)
        # among equally many pieces the more square ones, which have fewer sign changes, come first
        return (pieces * (total + sum(grid)) + changes).flatten().argsort(stable=True)
    raise InputError(f"Hadamard expects ordering 'natural', 'sequency' or 'cake-cutting', got {ordering!r}; choose one")


def _sign_changes(length: int) -> Tensor:
    """Number of sign changes along each row of the natural transform."""
    index, bits = torch.arange(length), length.bit_length() - 1
    result = torch.zeros_like(index)
    parity = torch.zeros_like(index)
    for level in range(bits):
        parity = parity ^ (index >> level) & 1
        result = result | parity << (bits - 1 - level)
    return result


def _matrix(levels: int, like: Tensor) -> Tensor:
    matrix = torch.ones(1, 1, dtype=torch.float64)
    for _ in range(levels):
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return (matrix / 2 ** (levels / 2)).to(like)
