"""What the pages of a TIFF file are: axes, voxel size, channels, from whatever the file says about itself.

OME-XML, ImageJ's header and tifffile's own description are understood. A stack of pages that says nothing is refused
with the question to answer, rather than guessed at.

References: OME-TIFF specification 2016-06; ImageJ `ij.io.FileInfo`; Gohlke, tifffile, https://github.com/cgohlke/tifffile.
"""

__all__ = ["TiffInfo", "info"]

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FormatError, InputError
from . import ome
from .tiff_structure import Page, Structure, scan

_RGB = ("red", "green", "blue", "alpha")


@dataclass(frozen=True)
class TiffInfo:
    """What a TIFF file holds, found without decoding a pixel.

    Args:
        axes: one letter per axis of `shape`; axes of one sample are left out, except Y and X.
        planes: page of each plane, shape (T, C, Z) of planes.
        samples: channels interleaved in each page.
        first_byte: where the planes lie back to back in a one-page ImageJ stack, else None.
    """

    path: Path
    axes: str
    shape: tuple[int, ...]
    dtype: np.dtype
    spacing: tuple[float | None, ...]
    units: tuple[str | None, ...]
    metadata: Mapping[str, Any]
    planes: np.ndarray
    samples: int
    first_byte: int | None
    pages: tuple[Page, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the decoded array."""
        return math.prod(self.shape) * self.dtype.itemsize


def info(path: str | os.PathLike, *, axes: str | None = None, image: int | None = None) -> TiffInfo:
    """Axes, shape, voxel size and metadata of a TIFF file, without decoding its pixels.

    Args:
        axes: what the pages of a plain TIFF are, such as "ZYX", "CYX", "TYX" or "CZYX"; the last two letters are "YX".
            It overrules what the file says, if it fits.
        image: which image of an OME-TIFF that has several.

    Raises:
        FormatError: the file is damaged, or of a kind that is not supported.
        InputError: the path is not a file, or the axes cannot be known without `axes`.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"expected a TIFF file, found none at {path}; check the path")
    structure = scan(path)
    text = structure.description
    if ome.is_ome(text):
        return _from_ome(path, structure, axes, image)
    if text.startswith("ImageJ="):
        return _from_imagej(path, structure, axes)
    return _from_plain(path, structure, axes)


def _from_ome(path: Path, structure: Structure, axes: str | None, image: int | None) -> TiffInfo:
    found = ome.parse(structure.description, len(structure.pages), image, path.name)
    pages = tuple(structure.pages[i] for i in np.unique(found.planes))
    _same_pages(pages, path.name)
    first = pages[0]
    if (first.height, first.width, first.samples) != (found.sizes["Y"], found.sizes["X"], found.samples):
        raise FormatError(
            f"the OME-XML of {path.name} declares planes of {found.sizes['Y']}×{found.sizes['X']}×"
            f"{found.samples}, its pages are {first.height}×{first.width}×{first.samples}; export the file again"
        )
    return _info(path, structure, found.planes, found.samples, None, found.spacing, found.metadata, axes, first)


def _from_imagej(path: Path, structure: Structure, axes: str | None) -> TiffInfo:
    text = structure.description
    entries = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    count = {key: _integer(entries.get(key, "1"), key, path.name) for key in ("images", "channels", "slices", "frames")}
    first = structure.pages[0]
    total = max(count["images"], len(structure.pages))
    if first.samples > 1 and count["channels"] == first.samples:
        count["channels"] = 1  # an RGB image: its channels are samples of one page
    named = count["channels"] * count["slices"] * count["frames"]
    if named == 1 and total > 1:
        count["slices"] = named = total  # ImageJ leaves the single stack axis unnamed
    if named != total:
        raise FormatError(f"{path.name} names {named} planes and holds {total}; save it again from ImageJ")
    first_byte = None
    if len(structure.pages) == 1 and total > 1:
        first_byte = int(first.offsets[0])
        if not first.contiguous or first_byte + total * first.nbytes > structure.size:
            raise FormatError(
                f"expected {total} planes of {first.nbytes} bytes in {path.name}, it ends before; copy it again"
            )
    elif len(structure.pages) != total:
        raise FormatError(
            f"expected {total} pages in {path.name}, got {len(structure.pages)}; it was cut short, copy it again"
        )
    order = (count["frames"], count["slices"], count["channels"])  # channels vary fastest
    planes = np.arange(total).reshape(order).transpose(0, 2, 1)
    unit = ome.normal_unit(entries.get("unit"))
    spacing: dict[str, tuple[float, str] | None] = {}
    for axis, per_unit in (("X", first.resolution[0]), ("Y", first.resolution[1])):
        own = ome.normal_unit(entries.get(f"{axis.lower()}unit")) or unit
        spacing[axis] = (1 / per_unit, own) if own and per_unit > 0 and math.isfinite(1 / per_unit) else None
    step = _float(entries.get("spacing"))
    unit_z = ome.normal_unit(entries.get("zunit")) or unit
    spacing["Z"] = (step, unit_z) if unit_z and step else None
    if first_byte is None:
        _same_pages(structure.pages, path.name)
    return _info(path, structure, planes, first.samples, first_byte, spacing, {}, axes, first)


def _from_plain(path: Path, structure: Structure, axes: str | None) -> TiffInfo:
    pages = tuple(p for p in structure.pages if not p.reduced) or structure.pages
    _same_pages(pages, path.name)
    first = pages[0]
    if first.photometric == 3:
        raise FormatError(f"{path.name} expected intensities, got a colour palette; save it as greyscale")
    shape, declared = _described(structure.description)
    if axes is None and declared and shape[: len(declared) - 2] and math.prod(shape[:-2]) == len(pages):
        axes = declared
    stack = len(pages)
    if stack > 1 and axes is None:
        raise InputError(
            f"expected to know what the {stack} pages of {path.name} are, the file does not say; give axes=ZYX for a "
            "stack of slices, CYX for channels or TYX for a time series"
        )
    outer = (axes or "YX")[:-2]
    if (axes or "YX")[-2:] != "YX" or set(outer) - set("TCZ") or len(set(outer)) != len(outer):
        raise InputError(
            f"axes of {path.name} expect letters out of T, C, Z followed by YX, got {axes!r}; write for example ZYX"
        )
    known = dict(zip(declared, shape)) if declared else {}
    sizes = [known.get(a, 0) for a in outer]
    if len(outer) == 1:
        sizes = [stack]
    if math.prod(sizes) != stack:
        raise InputError(
            f"axes {axes!r} do not say how the {stack} pages of {path.name} divide; save it as OME-TIFF or ImageJ TIFF"
        )
    letters = outer
    planes = np.array([p.index for p in pages]).reshape(sizes or [1])
    for letter in "TCZ":
        if letter not in letters:
            planes, letters = planes[..., None] if letters else planes, letters + letter
    planes = planes.reshape([*sizes, *[1] * (3 - len(sizes))]).transpose([letters.index(a) for a in "TCZ"])
    spacing: dict[str, tuple[float, str] | None] = {"Z": None}
    for axis, per_cm in (("X", first.resolution[0]), ("Y", first.resolution[1])):
        # Printing resolutions (72 dpi and such) are no pixel sizes; those of microscopes are below 0.1 mm.
        physical = first.resolution[2] == 3 and per_cm > 100 and math.isfinite(per_cm)
        spacing[axis] = (1e4 / per_cm, "um") if physical else None
    return _info(path, structure, planes, first.samples, None, spacing, {}, None, first)


def _info(
    path: Path, structure: Structure, planes: np.ndarray, samples: int, first_byte: int | None,
    spacing: Mapping[str, tuple[float, str] | None], metadata: Mapping[str, Any], axes: str | None, first: Page,
) -> TiffInfo:  # fmt: skip
    metadata = dict(metadata)
    if samples > 1 and "channels" not in metadata and samples in (3, 4) and first.photometric == 2:
        metadata["channels"] = [{"name": name} for name in _RGB[:samples]]
    if samples > 1 and planes.shape[1] > 1 and samples * planes.shape[1] > 4096:
        raise FormatError(f"{path.name} declares {samples * planes.shape[1]} channels; export it again")
    sizes = {
        "T": planes.shape[0],
        "C": planes.shape[1] * samples,
        "Z": planes.shape[2],
        "Y": first.height,
        "X": first.width,
    }
    kept = "".join(a for a in "TCZYX" if a in "YX" or sizes[a] > 1)
    if axes is not None and axes != kept:
        stacked = [a for a in kept if a in "TCZ"]
        if len(axes) != len(kept) or axes[-2:] != "YX" or len(stacked) != 1 or samples > 1 or axes[0] not in "TCZ":
            raise InputError(f"{path.name} has axes {kept}, axes={axes!r} was given; leave it out or correct it")
        planes = planes.reshape([planes.size if a == axes[0] else 1 for a in "TCZ"])
        sizes = {**sizes, **{a: planes.size if a == axes[0] else 1 for a in "TCZ"}}
        kept = axes
    steps = [spacing.get(a) for a in kept]
    return TiffInfo(
        path, kept, tuple(sizes[a] for a in kept), first.dtype, tuple(s[0] if s else None for s in steps),
        tuple(s[1] if s else None for s in steps), metadata, planes, samples, first_byte, structure.pages,
    )  # fmt: skip


def _same_pages(pages: tuple[Page, ...], name: str) -> None:
    kinds = {(p.height, p.width, p.samples, p.dtype.str, p.planar) for p in pages}
    if len(kinds) > 1:
        raise InputError(
            f"expected pages of one size and type in {name}, got {len(kinds)} kinds; export one image from it"
        )


def _described(description: str) -> tuple[tuple[int, ...], str]:
    """Shape and axes from the JSON that tifffile writes into plain TIFFs, if they are there and make sense."""
    if not description.startswith("{") or len(description) > 100_000:
        return (), ""
    try:
        content = json.loads(description)
        shape, axes = content["shape"], content["axes"]
        sensible = (
            isinstance(axes, str) and len(axes) == len(shape) and all(isinstance(n, int) and n > 0 for n in shape)
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return (), ""
    return (tuple(shape), axes) if sensible and axes[-2:] == "YX" and not set(axes) - set("TCZYX") else ((), "")


def _integer(text: str, key: str, name: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if not 0 < value <= 10_000_000:
        raise FormatError(
            f"expected a positive number for {key!r} in the header of {name}, got {text[:40]!r}; save it again"
        )
    return value


def _float(text: str | None) -> float | None:
    try:
        value = abs(float(text or "nan"))
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None
