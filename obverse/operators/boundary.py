"""Continuing an image beyond its edges, and the exact adjoint of doing so.

    zero      … 0 0 | a b c d | 0 0 …
    circular  … c d | a b c d | a b …
    reflect   … c b | a b c d | c b …      mirrored about the centre of the edge pixel

`reflect` is what numpy and torch call by that name (scipy.ndimage calls it "mirror"). A negative margin crops.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError

__all__ = ["extend", "fold", "good_size", "is_smooth", "require_boundary"]

Margins = Sequence[tuple[int, int]]


def require_boundary(boundary: str, allowed: Sequence[str], name: str) -> str:
    """`boundary` if it is one of `allowed`; an InputError that lists them otherwise."""
    if boundary not in allowed:
        raise InputError(
            f"{name} expects boundary {' or '.join(map(repr, allowed))}, got {boundary!r}; choose one of them"
        )
    return boundary


def is_smooth(n: int) -> bool:
    """Whether the only prime factors of `n` are 2, 3, 5 and 7, which an FFT handles best.

    >>> is_smooth(126), is_smooth(127)
    (True, False)
    """
    return math.gcd(n, 210**20) == n


def good_size(n: int) -> int:
    """The smallest smooth length from `n` on; beyond 16 a multiple of 4, since odd lengths cost MKL twice as much.

    >>> good_size(509), good_size(514)
    (512, 540)
    """
    while not is_smooth(n) or (n > 16 and n % 4):
        n += 1
    return n


def extend(x: Tensor, margins: Margins, boundary: str) -> Tensor:
    """`x` with margins `(before, after)` added to each of its last axes."""
    if boundary == "zero":
        return F.pad(x, _flat(margins))
    for i, (before, after) in enumerate(margins):
        x = _extend_axis(x, i - len(margins), before, after, boundary)
    return x


def fold(y: Tensor, margins: Margins, boundary: str) -> Tensor:
    """The adjoint of `extend`: every margin is added back to the pixels that it was copied from."""
    if boundary == "zero":
        return F.pad(y, _flat([(-before, -after) for before, after in margins]))
    for i, (before, after) in enumerate(margins):
        y = _fold_axis(y, i - len(margins), before, after, boundary)
    return y


def _extend_axis(x: Tensor, dim: int, before: int, after: int, boundary: str) -> Tensor:
    size, left, right = x.shape[dim], max(before, 0), max(after, 0)
    if boundary == "circular" and max(left, right) > size:
        x = x.index_select(dim, torch.arange(-left, size + right, device=x.device) % size)
    elif left or right:
        if boundary == "circular":
            parts = [x.narrow(dim, size - left, left), x, x.narrow(dim, 0, right)]
        else:
            parts = [x.narrow(dim, 1, left).flip(dim), x, x.narrow(dim, size - 1 - right, right).flip(dim)]
        x = torch.cat([part for part in parts if part.shape[dim]], dim)
    return x.narrow(dim, left - before, size + before + after) if min(before, after) < 0 else x


def _fold_axis(y: Tensor, dim: int, before: int, after: int, boundary: str) -> Tensor:
    if min(before, after) < 0:
        y = _pad_axis(y, dim, max(-before, 0), max(-after, 0))
    left, right = max(before, 0), max(after, 0)
    size = y.shape[dim] - left - right
    if boundary == "circular" and max(left, right) > size:
        y = _pad_axis(y, dim, -left % size, -right % size)
        return y.unflatten(dim, (-1, size)).sum(dim - 1)
    x = y.narrow(dim, left, size)
    first, last = y.narrow(dim, 0, left), y.narrow(dim, left + size, right)
    if boundary == "circular":
        starts = size - left, 0
    else:
        first, last, starts = first.flip(dim), last.flip(dim), (1, size - 1 - right)
    for part, start in zip((first, last), starts):
        width = part.shape[dim]
        if width:
            x = x + _pad_axis(part, dim, start, size - start - width)
    return x


def _pad_axis(x: Tensor, dim: int, before: int, after: int) -> Tensor:
    return F.pad(x, (0, 0) * (-dim - 1) + (before, after))


def _flat(margins: Margins) -> list[int]:
    return [margin for pair in reversed(margins) for margin in pair]
