"""The skeleton of a TIFF file, checked before any pixel is read or any memory is taken for one.

A TIFF is a chain of directories, each a table of tags that says how large a page is and where its strips or tiles lie.
All of it comes from the file, so nothing of it is trusted: the chain may not loop, tables and segments lie inside the
file, sizes agree with each other, and a compressed segment may not grow past what the page declares.

References: Adobe, "TIFF Revision 6.0", 1992; "The BigTIFF File Format", AWare Systems, 2007.
"""

__all__ = ["Page", "Structure", "check_expansion", "scan"]

import math
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import FormatError

# Size in bytes and struct code of each field type.
_TYPES = {1: (1, "B"), 2: (1, "s"), 3: (2, "H"), 4: (4, "I"), 5: (8, "II"), 6: (1, "b"), 7: (1, "s"), 8: (2, "h")}
_TYPES |= {
    9: (4, "i"),
    10: (8, "ii"),
    11: (4, "f"),
    12: (8, "d"),
    13: (4, "I"),
    16: (8, "Q"),
    17: (8, "q"),
    18: (8, "Q"),
}

COMPRESSIONS = {1: "none", 5: "LZW", 8: "deflate", 32773: "PackBits", 32946: "deflate"}
_DEFLATE = (8, 32946)
_FIRST_PRIVATE = 32768
_MAX_PAGES = 1_000_000
_MAX_TEXT = 64 * 2**20  # bytes of a description; OME-XML of a large plate is a few MiB
_MAX_RATIO = {1: 1, 5: 1400, 8: 1040, 32773: 64, 32946: 1040}  # most that one compressed byte can expand to


@dataclass(frozen=True)
class Page:
    """One page's layout. `offsets` and `counts` are the file positions and lengths of its strips or tiles."""

    index: int
    height: int
    width: int
    samples: int
    dtype: np.dtype
    compression: int
    planar: bool
    tiled: bool
    predictor: int
    photometric: int
    reduced: bool
    offsets: np.ndarray
    counts: np.ndarray
    segment_bytes: int
    resolution: tuple[float, float, int]

    @property
    def nbytes(self) -> int:
        """Bytes of the decoded page."""
        return self.height * self.width * self.samples * self.dtype.itemsize

    @property
    def contiguous(self) -> bool:
        """Whether the page's bytes lie uncompressed and in order in the file."""
        plain = self.compression == 1 and self.predictor == 1 and not self.planar and not self.tiled
        return plain and bool(np.all(self.offsets[:-1] + self.counts[:-1] == self.offsets[1:]))


@dataclass(frozen=True)
class Structure:
    """The pages of a TIFF file, and the text of the first one's description."""

    pages: tuple[Page, ...]
    description: str
    size: int


def scan(path: Path) -> Structure:
    """Walk the directories of the TIFF file at `path`.

    Raises:
        FormatError: it is not a TIFF, is truncated, or declares what cannot be.
    """
    size = os.path.getsize(path)
    try:
        with open(path, "rb") as file:
            return _walk(file, size, Path(path).name)
    except (struct.error, IndexError, OverflowError, ValueError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(
            f"expected a whole TIFF file, {Path(path).name} has a damaged header ({error}); copy it again"
        ) from error


def check_expansion(path: Path, page: Page) -> None:
    """Refuse a deflate segment that would decompress to more than the page's layout allows."""
    slack = page.segment_bytes + 64
    if page.compression not in _DEFLATE:
        return
    with open(path, "rb") as file:
        for offset, count in zip(page.offsets.tolist(), page.counts.tolist()):
            if count * _MAX_RATIO[8] <= 2**26:
                continue  # at most 64 MiB whatever it holds
            file.seek(offset)
            decoder = zlib.decompressobj()
            try:
                produced = len(decoder.decompress(file.read(count), slack))
            except zlib.error as error:
                raise FormatError(
                    f"page {page.index} of {Path(path).name} does not decompress ({error}); copy it again"
                ) from error
            if produced >= slack:
                raise FormatError(
                    f"page {page.index} of {Path(path).name} expected at most {page.segment_bytes} bytes in a segment, "
                    "got more; the file is damaged or hostile, do not use it"
                )


def _walk(file: BinaryIO, size: int, name: str) -> Structure:
    head = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    magic = struct.unpack(order + "H", head[2:4])[0] if order and len(head) >= 8 else 0
    if magic not in (42, 43) or order is None:
        raise FormatError(f"expected a TIFF file, {name} does not begin like one; convert it to TIFF or check the path")
    big = magic == 43
    count_code, entry_size, pointer_code = ("Q", 20, "Q") if big else ("H", 12, "I")
    position = struct.unpack(order + pointer_code, head[8:16] if big else head[4:8])[0]
    pages: list[Page] = []
    seen: set[int] = set()
    description = ""
    entries_read = 0
    while position:
        if position in seen or len(seen) >= _MAX_PAGES:
            raise FormatError(
                f"expected a finite chain of pages, {name} has a loop in it; the file is damaged, copy it again"
            )
        seen.add(position)
        count = struct.unpack(order + count_code, _at(file, position, struct.calcsize("=" + count_code), size, name))[0]
        position += struct.calcsize("=" + count_code)
        entries_read += count * entry_size
        if count == 0 or entries_read > size:
            raise FormatError(
                f"expected page tables that fit the file, {name} declares {count} tags in one; copy it again"
            )
        table = _at(file, position, count * entry_size, size, name)
        tags = _Tags(file, table, order, big, size, name)
        if not pages:
            description = tags.text(270)
        pages.append(_page(tags, len(pages), order, size, name))
        end = _at(file, position + count * entry_size, struct.calcsize("=" + pointer_code), size, name)
        position = struct.unpack(order + pointer_code, end)[0]
    if not pages:
        raise FormatError(f"expected at least one page, {name} has none; the file was cut short, copy it again")
    return Structure(tuple(pages), description, size)


class _Tags:
    """The tags of one directory; values are read on demand and always inside the file."""

    def __init__(self, file: BinaryIO, table: bytes, order: str, big: bool, size: int, name: str):
        self.file, self.order, self.size, self.name = file, order, size, name
        self.entries: dict[int, tuple[int, int, int, bytes]] = {}
        step, inline, code = (20, 8, "HHQ") if big else (12, 4, "HHI")
        for at in range(0, len(table), step):
            tag, kind, count = struct.unpack_from(order + code, table, at)
            field = table[at + step - inline : at + step]
            self.entries.setdefault(tag, (kind, count, inline, field))
            length = count * _TYPES.get(kind, (0, ""))[0]
            if inline < length and tag < _FIRST_PRIVATE:  # vendors' private tags may point anywhere: nobody reads them
                _require(struct.unpack(order + ("I" if inline == 4 else "Q"), field)[0] + length, size, name)

    def values(self, tag: int, default: tuple | None = None, limit: int = 2**26) -> np.ndarray:
        if tag not in self.entries:
            if default is None:
                raise FormatError(
                    f"expected the TIFF tag {tag}, {self.name} lacks it; the file is damaged, save it again"
                )
            return np.asarray(default)
        kind, count, inline, field = self.entries[tag]
        width, code = _TYPES.get(kind, (0, ""))
        if not width or not 0 < count * width <= min(self.size, limit):
            raise FormatError(
                f"expected a sensible TIFF tag {tag}, {self.name} declares {count} of type {kind}; copy it again"
            )
        raw = field[: count * width]
        if count * width > inline:
            offset = struct.unpack(self.order + ("I" if inline == 4 else "Q"), field)[0]
            raw = _at(self.file, offset, count * width, self.size, self.name)
        if code == "s":
            return np.frombuffer(raw, np.uint8)
        numbers = np.frombuffer(raw, self.order + np.dtype(code[0]).str[1:])
        if len(code) == 2:
            return numbers[::2] / np.maximum(numbers[1::2], 1)
        return numbers

    def number(self, tag: int, default: int | None = None) -> int:
        return int(self.values(tag, None if default is None else (default,))[0])

    def text(self, tag: int) -> str:
        raw = self.values(tag, (0,), _MAX_TEXT).astype(np.uint8).tobytes()
        return raw.split(b"\0")[0].decode("utf-8", errors="replace")


def _require(end: int, size: int, name: str) -> None:
    if end > size:
        raise FormatError(f"expected {name} to hold byte {end}, it ends at {size}; it was cut short, copy it again")


def _at(file: BinaryIO, offset: int, length: int, size: int, name: str) -> bytes:
    _require(offset + length, size, name)
    file.seek(offset)
    return file.read(length)


def _page(tags: _Tags, index: int, order: str, size: int, name: str) -> Page:
    where = f"page {index} of {name}"
    height, width, samples = tags.number(257), tags.number(256), tags.number(277, 1)
    bits = set(tags.values(258, (1,)).tolist())
    form = set(tags.values(339, (1,)).tolist())
    compression = tags.number(259, 1)
    kind = {1: "u", 2: "i", 3: "f", 4: "u", 6: "c"}.get(int(next(iter(form))))
    width_bits = int(next(iter(bits)))
    if len(bits) != 1 or len(form) != 1 or kind is None or width_bits not in (8, 16, 32, 64, 128):
        raise FormatError(
            f"{where} expected samples of 8, 16, 32 or 64 bits, got {sorted(bits)}; save it as 16-bit greyscale"
        )
    try:
        dtype = np.dtype(f"{order}{kind}{width_bits // 8}")
    except TypeError as error:
        raise FormatError(
            f"{where} expected integers or floats, got {kind}{width_bits}; save it as 16-bit greyscale"
        ) from error
    if min(height, width, samples) < 1 or samples > 4096 or max(height, width) > 2**31 or tags.number(32997, 1) != 1:
        raise FormatError(
            f"{where} expected a sensible size, got {height}×{width}×{samples}; the file is damaged, copy it again"
        )
    if compression not in COMPRESSIONS:
        raise FormatError(
            f"{where} expected no, deflate, LZW or PackBits compression, got code {compression}; save it uncompressed"
        )
    photometric = tags.number(262, 1)
    planar = tags.number(284, 1) == 2 and samples > 1
    depth = 1 if planar else samples
    tiled = 322 in tags.entries
    if tiled:
        tile = (tags.number(323), tags.number(322))
        if min(tile) < 1 or tile[0] * tile[1] > 4 * height * width + 2**24:
            raise FormatError(f"{where} expected tiles no larger than the page, got {tile[0]}×{tile[1]}; copy it again")
        grid = math.ceil(height / tile[0]) * math.ceil(width / tile[1])
    else:
        rows = max(1, min(tags.number(278, height), height))
        tile = (rows, width)
        grid = math.ceil(height / rows)
    segments = grid * (samples if planar else 1)
    segment_bytes = tile[0] * tile[1] * depth * dtype.itemsize
    offsets = tags.values(324 if tiled else 273, limit=2**30).astype(np.int64)
    guess = (height * width * samples * dtype.itemsize,) if compression == 1 and segments == 1 else None
    counts = tags.values(325 if tiled else 279, guess, 2**30).astype(np.int64)
    nbytes = height * width * samples * dtype.itemsize
    if len(offsets) != segments or len(counts) != segments or np.any(counts < 1) or np.any(offsets < 8):
        raise FormatError(
            f"{where} expected {segments} segments of pixels, got a damaged list of {len(offsets)}; copy it again"
        )
    end = int(np.max(offsets + counts))
    if end > size or end < 0:
        raise FormatError(
            f"{where} expected pixels up to byte {end}, {name} ends at {size}; it was cut short, copy it again"
        )
    # Segments may share bytes in a hostile file, so the size of the file bounds what one page can hold.
    if nbytes > min(int(counts.sum()), size) * _MAX_RATIO[compression]:
        raise FormatError(
            f"{where} declares {nbytes} bytes of pixels but stores {int(counts.sum())}; it was cut short, copy it again"
        )
    resolution = (float(tags.values(282, (0.0,))[0]), float(tags.values(283, (0.0,))[0]), tags.number(296, 2))
    reduced = bool(tags.number(254, 0) & 1)
    predictor = tags.number(317, 1)
    return Page(
        index, height, width, samples, dtype, compression, planar, tiled, predictor, photometric, reduced, offsets,
        counts, segment_bytes, resolution,
    )  # fmt: skip
