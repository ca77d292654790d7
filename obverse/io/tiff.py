"""Micrographs from TIFF, ImageJ TIFF and OME-TIFF, and back to OME-TIFF, with their voxel size.

Reading goes in three steps: the file's skeleton is checked (`tiff_structure`), its axes and voxel size are resolved
from whatever it says about itself (`info`), and only then are pixels decoded, if they fit in memory (`read`). A file
that does not say what its pages are is refused with the question to answer, rather than guessed at.

References: OME-TIFF specification 2016-06; ImageJ `ij.io.FileInfo`; Gohlke, tifffile, https://github.com/cgohlke/tifffile.
"""

__all__ = ["TiffInfo", "info", "read", "write"]

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from ..errors import FormatError, InputError
from ..volume import Volume
from . import ome
from .safe import atomic_write
from .tiff_layout import TiffInfo, info
from .tiff_structure import check_expansion

_OUTPUT_TYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float32", "float64", "complex64", "complex128")


def read(
    path: str | os.PathLike,
    *,
    axes: str | None = None,
    time: int | None = None,
    channel: int | None = None,
    image: int | None = None,
    region: Mapping[str, slice] | None = None,
    max_bytes: int | None = None,
) -> Volume:
    """Read a TIFF file.

    Args:
        axes, image: see `info`.
        time, channel: choose one sample of these axes; the others are not read.
        region: the part to read, per axis, such as `{"Z": slice(0, 16)}`; planes outside it are not decoded.
        max_bytes: most memory that the array may take; by default four fifths of what the process may still use.

    Raises:
        FormatError: the file is damaged.
        InputError: the array would not fit, or the axes cannot be known.
    """
    found = info(path, axes=axes, image=image)
    part = {letter: slice(0, n) for letter, n in zip(found.axes, found.shape)}
    for letter, index in (("T", time), ("C", channel)):
        if index is not None:
            size = dict(zip(found.axes, found.shape)).get(letter, 1)
            if not 0 <= index < size:
                raise InputError(
                    f"{found.path.name} expects an index of 0 to {size - 1} along {letter}, got {index}; choose another"
                )
            part[letter] = slice(index, index + 1)
    for letter, chosen in (region or {}).items():
        if letter not in found.axes:
            raise InputError(
                f"{found.path.name} has axes {found.axes}, a region along {letter} was asked for; leave it out"
            )
        start, stop, step = chosen.indices(dict(zip(found.axes, found.shape))[letter])
        if step != 1 or stop <= start:
            raise InputError(f"a region expects start < stop and no step, got {chosen} along {letter}; choose another")
        part[letter] = slice(start, stop)
    size = math.prod(p.stop - p.start for p in part.values()) * found.dtype.itemsize
    budget = _memory_left() * 4 // 5 if max_bytes is None else max_bytes
    if size > budget:
        raise InputError(
            f"{found.path.name} of shape {found.shape} needs {size / 2**20:.0f} MiB, "
            f"{budget / 2**20:.0f} MiB may be used; read a region of it, or work in tiles"
        )
    try:
        array = _decode(found, part)
    except FormatError:
        raise
    except (Exception, MemoryError) as error:  # whatever a decoder makes of damaged bytes
        raise FormatError(f"the pixels of {found.path.name} do not decode ({_short(error)}); copy it again") from error
    volume = Volume(
        array, found.axes, found.spacing, found.units, metadata=found.metadata, provenance=(f"read {found.path.name}",)
    )
    for letter, index in (("T", time), ("C", channel)):
        if index is not None and letter in volume.axes:
            volume = volume.select(letter, 0)
            if letter == "C" and len(found.metadata.get("channels") or ()) > index:
                volume.metadata["channels"] = [found.metadata["channels"][index]]  # type: ignore[index]
    return volume


def write(volume: Volume, path: str | os.PathLike, *, dtype: str | None = "float32") -> Path:
    """Write a volume as OME-TIFF: voxel size, units, axes and channel names kept; the file appears whole or not at all.

    Args:
        path: where to; an existing file is replaced.
        dtype: type of the stored values, None for the array's own.

    Raises:
        InputError: an axis other than T, C, Z, Y, X, a missing X or Y, or a type that OME-TIFF does not have.
    """
    if "Y" not in volume.axes or "X" not in volume.axes or set(volume.axes) - set("TCZYX"):
        raise InputError(f"OME-TIFF expects axes out of TCZYX with Y and X, got {volume.axes!r}; rename or select axes")
    array = np.asarray(volume.array)
    array = array.transpose([volume.axes.index(a) for a in "TCZYX" if a in volume.axes])
    array = array.reshape([volume.size(a) for a in "TCZYX"])
    kind = np.dtype(dtype or array.dtype).newbyteorder("<")
    if np.dtype(kind).name not in _OUTPUT_TYPES:
        raise InputError(f"OME-TIFF expects one of {', '.join(_OUTPUT_TYPES)}, got {kind}; convert the array")
    array = np.ascontiguousarray(array, dtype=kind)
    description = ome.render(volume, array)
    path = Path(path)
    with atomic_write(path, overwrite=True) as file:
        tifffile.imwrite(
            file,
            array.reshape(-1, *array.shape[-2:]),
            photometric="minisblack",
            description=description,
            metadata=None,
            software="obverse",
            bigtiff=array.size * kind.itemsize > 2**32 - 2**25,
            byteorder="<",
            **_resolution(volume),
        )
    return path


def _decode(found: TiffInfo, part: Mapping[str, slice]) -> np.ndarray:
    """The array of the chosen part; one decoded page is held besides it."""
    y, x = part["Y"], part["X"]
    t, c, z = (part.get(a, slice(0, 1)) for a in "TCZ")
    planes = found.planes[t, :, z]
    samples = found.samples
    used = range(c.start // samples, (c.stop - 1) // samples + 1)
    shape = (planes.shape[0], len(used) * samples, planes.shape[2], y.stop - y.start, x.stop - x.start)
    result = np.empty(shape, found.dtype.newbyteorder("="))
    with tifffile.TiffFile(found.path) as tif, open(found.path, "rb") as raw:
        for it, k, iz in np.ndindex(planes.shape[0], len(used), planes.shape[2]):
            page = _plane(found, int(planes[it, used[k], iz]), tif, raw)
            block = page[y, x].transpose(2, 0, 1)
            result[it, k * samples : (k + 1) * samples, iz] = block
    offset = c.start - used[0] * samples
    result = result[:, offset : offset + c.stop - c.start]
    return result.reshape([n for n, a in zip(result.shape, "TCZYX") if a in found.axes])


def _plane(found: TiffInfo, index: int, tif: tifffile.TiffFile, raw: Any) -> np.ndarray:
    """One page as (Y, X, samples)."""
    page = found.pages[0 if found.first_byte is not None else index]
    if page.contiguous:
        start = int(page.offsets[0]) + (index * page.nbytes if found.first_byte is not None else 0)
        raw.seek(start)
        data = np.frombuffer(raw.read(page.nbytes), page.dtype)
        return data.reshape(page.height, page.width, page.samples)
    check_expansion(found.path, page)
    decoded = tif.pages[index].asarray()
    expected = (page.samples, page.height, page.width) if page.planar else (page.height, page.width, page.samples)
    if decoded.size != math.prod(expected):
        raise FormatError(
            f"page {index} of {found.path.name} decodes to {decoded.shape}, not {expected}; copy it again"
        )
    decoded = decoded.reshape(expected)
    return decoded.transpose(1, 2, 0) if page.planar else decoded


def _resolution(volume: Volume) -> dict[str, Any]:
    x, y = (volume.spacing_in(a, "cm") for a in "XY")
    return {"resolution": (1 / x, 1 / y), "resolutionunit": "CENTIMETER"} if x and y else {}


def _memory_left() -> int:
    """Bytes that this process may still take: free memory, or less under a limit set for the process."""
    left = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES") if hasattr(os, "sysconf") else 2**62
    try:
        with open("/proc/meminfo", encoding="ascii") as table:
            left = next((int(line.split()[1]) * 1024 for line in table if line.startswith("MemAvailable:")), left)
        import resource  # Unix only

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        with open("/proc/self/statm", encoding="ascii") as table:
            used = int(table.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ImportError):
        return left
    return left if limit == resource.RLIM_INFINITY else max(0, min(left, limit - used))


def _short(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
