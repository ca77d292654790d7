"""Images of any size within a bounded memory: a local map tile by tile, without seams.

    f(x) ≈ Σ_t w_t · f(x on tile t and its halo),      Σ_t w_t = 1

Tiles begin at multiples of 32, so that a network that samples down sees each pixel at the place in its grid where it
would see it in the whole image. The weights fade from one tile to the next over half a halo, so that what a halo cuts
off shows as no edge.

Beyond a network's reach nothing is cut off. The shipped U-Nets reach 96 pixels; at a border 32, 48 and 64 pixels away
their answer changes by at most 2e-4, 6e-6 and 1e-7 of the range for a noise of 15/255, and by 4e-3, 4e-4 and 7e-6 for
a noise as large as the range. With the default halo of 96 no pixel that counts is nearer to a border than 72 pixels, so
that the whole and its tiles agree to rounding.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..errors import InputError

__all__ = ["HALO", "by_tiles", "tile_side"]

HALO = 96  # pixels
_GRID = 32  # pixels: a multiple of every network's coarsest sampling
_ARRAYS = 8  # arrays of the finest level that a U-Net holds at once; measured on the shipped one


def by_tiles(function: Callable[[Tensor, Tensor], Tensor], x: Tensor, levels: Tensor, tile: int, halo: int) -> Tensor:
    """`function(x, levels)` with no more than (tile + 2 halo)² pixels in one call.

    Args:
        function: image to image of the same shape, local: each pixel of the result depends on those near it.
        x: `(B, C, H, W)`.
        levels: `(B,)`, what the function is told of each image.
        tile: side of a tile's core, a multiple of 32.
        halo: pixels that a tile sees around its core, a multiple of 32 up to `tile`.
    """
    if tile < _GRID or halo < 0 or tile % _GRID or halo % _GRID or halo > tile:
        raise InputError(
            f"expected a tile and a halo that are multiples of {_GRID}, the halo no larger, got {tile} and {halo}"
        )
    height, width = x.shape[-2:]
    side = tile + 2 * halo
    if max(height, width) <= side:
        several = max(1, side**2 // (height * width))
        pairs = zip(x.split(several), levels.split(several), strict=True)
        return torch.cat([function(images, level) for images, level in pairs])
    rows, columns = _spans(height, tile, halo), _spans(width, tile, halo)
    found = []
    for image, level in zip(x.split(1), levels.split(1), strict=True):
        total = torch.zeros_like(image)
        for top, read_rows, down in rows:
            for left, read_columns, across in columns:
                part = function(image[..., read_rows, read_columns], level)
                weight = down.to(part)[:, None] * across.to(part)
                inner = part[..., top.start - read_rows.start : top.stop - read_rows.start, :]
                inner = inner[..., left.start - read_columns.start : left.stop - read_columns.start]
                total[..., top, left] += weight * inner
        found.append(total)
    return torch.cat(found)


def tile_side(network: nn.Module, memory: float, halo: int = HALO) -> int:
    """The largest tile whose activations are expected to fit into `memory` bytes.

    Raises:
        InputError: not even a tile as large as its halo fits.
    """
    finest = next((m.out_channels for m in network.modules() if isinstance(m, nn.Conv2d)), 1)
    bytes_per_pixel = 4 * _ARRAYS * finest
    side = int(math.sqrt(memory / bytes_per_pixel) - 2 * halo) // _GRID * _GRID
    smallest = max(halo, _GRID)
    if side < smallest:
        needed = bytes_per_pixel * (smallest + 2 * halo) ** 2
        raise InputError(f"expected at least {needed / 1e6:.0f} MB for one tile, got {memory / 1e6:.0f} MB; allow more")
    return side


def _spans(n: int, tile: int, halo: int) -> list[tuple[slice, slice, Tensor]]:
    """Along one axis, for each tile: where it counts, what it reads, and its weight where it counts."""
    size = math.ceil(math.ceil(n / math.ceil(n / tile)) / _GRID) * _GRID  # of a core: about equal ones
    fade = halo // 4
    place = torch.arange(n, dtype=torch.float32)
    found = []
    for start in range(0, n, size):
        stop = min(start + size, n)
        counts = slice(max(start - fade, 0) if start else 0, min(stop + fade, n))
        reads = slice(max(start - halo, 0), min(stop + halo, n))
        rise = _step(place[counts], start, fade) if start else 1.0
        fall = _step(place[counts], stop, fade) if stop < n else 0.0
        found.append((counts, reads, torch.as_tensor(rise - fall).expand(counts.stop - counts.start)))
    return found


def _step(place: Tensor, centre: int, fade: int) -> Tensor:
    """From 0 to 1 about the boundary in front of pixel `centre`, antisymmetric about it."""
    if fade == 0:
        return (place >= centre).float()
    t = ((place + 0.5 - centre) / (2 * fade) + 0.5).clamp(0, 1)
    return t.square() * (3 - 2 * t)
