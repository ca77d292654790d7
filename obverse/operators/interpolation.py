"""Values of an image between its pixels: the weights of the neighbours, and sums of such values in plain torch.

    x(r, s) = Σ_kl w(r − k) w(s − l) x[k, l],    with w the tent (bilinear) or Keys's cubic with a = −1/2 (bicubic)

On each unit interval a weight is a polynomial in the fraction t of the position, so a table of coefficients holds it;
its derivatives in the position are the derivatives of the polynomials, whence any order of derivative costs what the
value costs. At a pixel's centre, where the tent has a kink, the derivative is the one to the right.

Beyond its edges the image is "zero", "circular" or "reflect"ed about the centre of the edge pixel, pixel by pixel: the
interpolation then sees the continued pixels.

References: Keys, "Cubic convolution interpolation for digital image processing", IEEE TASSP 1981.
"""

from functools import cache

import torch
from torch import Tensor

__all__ = ["BOUNDARIES", "INTERPOLATIONS", "coefficients", "gather", "scatter"]

INTERPOLATIONS = ("bilinear", "bicubic")
BOUNDARIES = ("zero", "circular", "reflect")
FARTHEST = float(1 << 30)
"""Positions are cut off here, in pixels: farther than any image is wide, and still an integer of 32 bits."""
_POLYNOMIALS = {  # one row for each neighbour, from left to right: coefficients of 1, t, t², t³
    "bilinear": ((1.0, -1.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0)),
    "bicubic": ((0.0, -0.5, 1.0, -0.5), (1.0, 0.0, -2.5, 1.5), (0.0, 0.5, 2.0, -1.5), (0.0, 0.0, -0.5, 0.5)),
}


@cache
def coefficients(interpolation: str, order: int = 0) -> Tensor:
    """The neighbours' weights, or their derivative of some `order`: `(neighbours, 4)`, coefficients of 1, t, t², t³.

    >>> coefficients("bilinear", 1)[:, 0]
    tensor([-1.,  1.], dtype=torch.float64)
    """
    table = torch.tensor(_POLYNOMIALS[interpolation], dtype=torch.float64)
    for _ in range(order):
        table = torch.roll(table * torch.arange(4.0, dtype=torch.float64), -1, 1)
    return table


def gather(x: Tensor, positions: Tensor, tables: tuple[Tensor, Tensor], boundary: str) -> Tensor:
    """Values of the planes `x` (P, H, W) at `positions` (2, h, w) in float64: `(P, h, w)`."""
    flat, result = x.flatten(1), x.new_zeros(len(x), *positions.shape[1:])
    for index, weight in _neighbours(positions, x, (x.shape[1], x.shape[2]), tables, boundary):
        result += weight * flat[:, index]
    return result


def scatter(
    y: Tensor, positions: Tensor, tables: tuple[Tensor, Tensor], boundary: str, size: tuple[int, int]
) -> Tensor:
    """The transpose of `gather`: values `y` (P, h, w) added up at the neighbours of their positions, `(P, *size)`.

    Sums run in a fixed order on every device, so that equal inputs give equal outputs.
    """
    count, pixels = len(y), size[0] * size[1]
    result = y.new_zeros(count, pixels)
    plane = torch.arange(count, device=y.device)[:, None] * pixels
    for index, weight in _neighbours(positions, y, size, tables, boundary):
        where, value = index.reshape(1, -1).expand(count, -1), (weight * y).flatten(1)
        if y.device.type == "cpu":
            result.scatter_add_(1, where, value)
        else:  # index_put_ sorts there, where scatter_add_ would race
            result.view(-1).index_put_(((where + plane).reshape(-1),), value.reshape(-1), accumulate=True)
    return result.reshape(count, *size)


def _neighbours(positions: Tensor, like: Tensor, size: tuple[int, int], tables: tuple[Tensor, Tensor], boundary: str):
    """Flat index and weight, both (h, w), of each neighbour in turn; outside a zero boundary the weight is 0."""
    whole = positions.clamp(-FARTHEST, FARTHEST).floor()
    fraction, first = (positions - whole).to(like), whole.long()
    axes = []
    for axis in range(2):
        powers = torch.stack([fraction[axis] ** n for n in range(4)])
        weights = torch.tensordot(tables[axis].to(like), powers, 1)
        start = 1 - len(weights) // 2
        axes.append([(_continued(first[axis] + start + n, size[axis], boundary), w) for n, w in enumerate(weights)])
    for (row, inside), u in axes[0]:
        for (column, within), v in axes[1]:
            yield row * size[1] + column, u * v * (inside & within)


def _continued(index: Tensor, n: int, boundary: str) -> tuple[Tensor, Tensor]:
    """The pixel that stands at `index`, and whether there is one."""
    if boundary == "zero":
        return index.clamp(0, n - 1), (index >= 0) & (index < n)
    if boundary == "reflect":
        index = index.remainder(max(2 * n - 2, 1))
        index = torch.minimum(index, (2 * n - 2 - index).abs())
    return index.remainder(n), torch.ones_like(index, dtype=torch.bool)
