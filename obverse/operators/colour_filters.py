"""Colour-filter arrays: the smallest repeating tile of colour indices (red 0, green 1, blue 2), by name.

    Bayer            R G        Quad-Bayer       R R G G        X-Trans      G B G G R G
                     G B                         R R G G                     R G R B G B
                                                 G G B B                     G B G G R G
                                                 G G B B                     G R G G B G
                                                                             B G B R G R
                                                                             G R G G B G

Which pixel of its tile lies at the picture's corner differs between cameras and changes when a picture is cropped.
Bayer's four phases have names of their own; for the others an offset says it. Raw files state it, and their
statement goes before any default.

References: Bayer, "Color imaging array", US patent 3971065, 1976. Fujifilm, "X-Trans CMOS" (the phase above is that of
the maker's own figure; the raw files of many models begin at its second row and third column).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InputError

__all__ = ["colour_filter_tile"]

_BAYER = ("RGGB", "BGGR", "GRBG", "GBRG")
_X_TRANS = "GBGGRG RGRBGB GBGGRG GRGGBG BGBRGR GRGGBG"


def colour_filter_tile(pattern: str | Sequence[Sequence[int]], offset: Sequence[int] = (0, 0)) -> Tensor:
    """The tile of a colour-filter array, integers of shape `(rows, columns)`.

    Args:
        pattern: "RGGB", "BGGR", "GRBG" or "GBRG"; one of them after "quad-", as in "quad-RGGB", for an array in which
            each colour covers two by two pixels; "X-Trans"; or the tile itself as rows of indices from 0 on.
        offset: row and column of the tile that lie at the image's corner.

    Raises:
        InputError: the name is unknown, or the indices do not form a rectangle.

    >>> colour_filter_tile("RGGB", (0, 1))
    tensor([[1, 0],
            [2, 1]])
    """
    tile = _named(pattern) if isinstance(pattern, str) else _given(pattern)
    if len(offset) != 2 or not all(isinstance(o, int) and not isinstance(o, bool) for o in offset):
        raise InputError(f"a colour-filter array expects offset as two integers (row, column), got {offset!r}")
    return tile.roll((-offset[0], -offset[1]), (0, 1))


def _named(name: str) -> Tensor:
    key = name.upper()
    letters = key.removeprefix("QUAD-")
    if key in ("X-TRANS", "XTRANS"):
        return torch.tensor([["RGB".index(letter) for letter in row] for row in _X_TRANS.split()])
    if letters not in _BAYER:
        raise InputError(
            f"Mosaic expects 'RGGB', 'BGGR', 'GRBG', 'GBRG', 'quad-RGGB' and so on, 'X-Trans' or a tile of indices, "
            f"got {name!r}; choose one"
        )
    tile = torch.tensor(["RGB".index(letter) for letter in letters]).reshape(2, 2)
    return tile if letters == key else tile.repeat_interleave(2, 0).repeat_interleave(2, 1)


def _given(pattern: Sequence[Sequence[int]]) -> Tensor:
    try:
        tile = torch.tensor([[int(i) for i in row] for row in pattern])
    except (TypeError, ValueError) as error:
        raise InputError(
            f"Mosaic expects a rectangular tile of colour indices, got {pattern!r}; see its help"
        ) from error
    if tile.ndim != 2 or tile.numel() == 0 or tile.min() < 0:
        raise InputError(
            f"Mosaic expects a rectangular tile of colour indices from 0 on, got {pattern!r}; see its help"
        )
    return tile
