"""The plan of a run: what fits in memory goes at once, what does not is cut into tiles that overlap.

A tile has a core, which it fills in the output, and a halo around it, which it only reads: the reach of the
point-spread function and of the prior. Cores partition the grid, so that every output voxel is computed exactly once.
"""

import itertools
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError

__all__ = ["Plan", "Tile", "available_memory", "parse_memory", "plan"]

_UNKNOWN_MEMORY = 4 * 10**9  # bytes assumed where the system does not tell
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


@dataclass(frozen=True)
class Tile:
    """One job: `core` is filled in the output, `read` (core and halo) is read from the data; spatial slices."""

    index: int
    core: tuple[slice, ...]
    read: tuple[slice, ...]

    @property
    def inner(self) -> tuple[slice, ...]:
        """The core within what was read."""
        return tuple(slice(c.start - r.start, c.stop - r.start) for c, r in zip(self.core, self.read, strict=True))


@dataclass(frozen=True)
class Plan:
    """Tiles of a run and what they are expected to take.

    Args:
        tiles: jobs, in order.
        shape: spatial shape of the whole.
        bytes_needed: expected peak of the largest job.
        memory: the budget it was planned for, in bytes.
    """

    tiles: tuple[Tile, ...]
    shape: tuple[int, ...]
    bytes_needed: int
    memory: int

    @property
    def whole(self) -> bool:
        return len(self.tiles) == 1


def parse_memory(text: str) -> int:
    """Bytes of a size such as `4GB`, `512MiB` or `2g`."""
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([kmgt]?i?)b?\s*", text, flags=re.IGNORECASE)
    if not match or float(match[1]) <= 0 or match[2].lower() not in _UNITS:
        raise InputError(f"expected a memory size such as 4GB or 512MB, got {text!r}; write a number and a unit")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def available_memory() -> int:
    """Bytes of physical memory free for use now, half of which a run takes unless told otherwise."""
    try:
        with open("/proc/meminfo", encoding="ascii") as info:
            for line in info:
                if line.startswith("MemAvailable:"):
                    return int(min(int(line.split()[1]) * 1024, max(_container_limit(), 0)))
    except OSError:
        pass
    if hasattr(os, "sysconf"):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return _UNKNOWN_MEMORY


def _container_limit() -> float:
    """Bytes that a container still allows (cgroup v2); infinite where there is no limit."""
    try:
        folder = Path("/sys/fs/cgroup")
        return float(int((folder / "memory.max").read_text()) - int((folder / "memory.current").read_text()))
    except (OSError, ValueError):
        return math.inf


def plan(
    shape: Sequence[int],
    halo: Sequence[int],
    *,
    bytes_per_voxel: float,
    fixed_bytes: int,
    memory: int,
    channels: int = 1,
) -> Plan:
    """Cut the spatial grid so that each job stays within `memory`.

    The longest axis (in voxels of the current core) is cut into one part more until the padded tile fits.

    Args:
        shape: spatial shape, (H, W) or (D, H, W).
        halo: voxels read on either side of a core, per axis.
        bytes_per_voxel: peak bytes of a job per voxel it reads, with its padding.
        fixed_bytes: peak bytes that do not depend on the tile.
        memory: budget in bytes.

    Raises:
        InputError: even the smallest sensible tile (a core as large as its halo) is over the budget; the message names
            the memory that would do.
    """
    counts = [1] * len(shape)

    def cores() -> list[int]:
        return [math.ceil(n / c) for n, c in zip(shape, counts, strict=True)]

    def needed() -> int:
        read = (
            min(n, core + 2 * h) if c > 1 else n for n, core, h, c in zip(shape, cores(), halo, counts, strict=True)
        )
        return int(fixed_bytes + bytes_per_voxel * channels * math.prod(read))

    while needed() > memory:
        sizes = cores()
        splittable = [axis for axis, size in enumerate(sizes) if size > max(16, 2 * halo[axis])]
        if not splittable:
            raise InputError(
                f"expected at least {_readable(needed())} of memory for the smallest tile with its overlap, got "
                f"{_readable(memory)}; pass --memory {_readable(needed())} or more"
            )
        counts[max(splittable, key=lambda axis: sizes[axis])] += 1
    axes = []
    for n, size, h in zip(shape, cores(), halo, strict=True):
        starts = range(0, n, size)
        axes.append([(slice(a, min(a + size, n)), slice(max(0, a - h), min(n, a + size + h))) for a in starts])
    tiles = [
        Tile(index, tuple(core for core, _ in parts), tuple(read for _, read in parts))
        for index, parts in enumerate(itertools.product(*axes))
    ]
    return Plan(tuple(tiles), tuple(shape), needed(), memory)


def _readable(size: int) -> str:
    return f"{math.ceil(size / 10**6)}MB"
