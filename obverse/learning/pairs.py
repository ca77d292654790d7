"""Measured pairs: a measurement and the truth that belongs to it, in two arrays of a file or two folders of images.

    pairs.h5 or pairs.zarr    arrays `measurement` and `truth` (or other names), whose first axis counts the items
    a folder                  folders of those names, with images that belong together in the order of their names

Arrays are read an item at a time, when it is asked for.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from ..errors import FormatError, InputError
from .data import Cut
from .images import as_unit, read_images

__all__ = ["Pair", "Pairs", "read_pairs"]

_HDF5 = {".h5", ".hdf5", ".hdf"}


class Pair(NamedTuple):
    """One item."""

    measurement: Tensor
    truth: Tensor


@runtime_checkable
class Items(Protocol):
    """A list, or an array that its library reads from a file a piece at a time."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class Pairs:
    """Pairs, whole or cut alike at a random place and turned and mirrored alike.

    Args:
        measurements: one an item: arrays or tensors `(C, H, W)`, `(H, W)`, or of any other shape if they are not cut.
        truths: as many.
        size: side of a crop, or None for whole items.
        name: of the file, for messages.

    Raises:
        InputError: not as many of the one as of the other, or none.
    """

    def __init__(self, measurements: Items, truths: Items, size: int | None = None, name: str = "data"):
        if len(measurements) != len(truths) or not len(truths):
            raise InputError(
                f"{name} expects as many measurements as truths, got {len(measurements)} and {len(truths)}; complete it"
            )
        self.measurements, self.truths, self.size, self.name = measurements, truths, size, name

    def __len__(self) -> int:
        return len(self.truths)

    def item(self, index: int, generator: torch.Generator) -> Pair:
        """Item `index`.

        Raises:
            InputError: a value is not finite, or the two cannot be cut alike.
        """
        measurement, truth = (self._read(array, index) for array in (self.measurements, self.truths))
        if self.size is None:
            return Pair(measurement, truth)
        if measurement.shape[-2:] != truth.shape[-2:] or min(truth.shape[-2:]) < self.size:
            raise InputError(
                f"item {index} of {self.name} expects a measurement and a truth of one size and at least {self.size} "
                f"pixels a side, got {tuple(measurement.shape)} and {tuple(truth.shape)}; set data.crop to null"
            )
        cut = Cut(truth.shape, self.size, generator)
        return Pair(cut(measurement), cut(truth))

    def _read(self, array: Items, index: int) -> Tensor:
        value = torch.as_tensor(np.asarray(array[index]))
        if not bool(value.isfinite().all()):
            raise InputError(f"item {index} of {self.name} expects finite values, got NaN or infinity; leave it out")
        value = value.to(torch.complex64) if value.is_complex() else as_unit(value)
        return value[None] if value.ndim == 2 else value


def read_pairs(
    path: Path,
    measurement: str,
    truth: str,
    size: int | None,
    channels: int,
    percentiles: Sequence[float] | None = None,
    axes: str | None = None,
) -> Pairs:
    """The pairs of an HDF5 file, a zarr store or a folder with two folders of images.

    Args:
        path: of the file or folder.
        measurement, truth: names of the arrays or folders in it.
        size: side of a crop, or None.
        channels, percentiles, axes: of images in folders, see `read_images`.

    Raises:
        InputError: a name or the shapes do not fit, or the library that reads the format is not installed.
        FormatError: the file is damaged.
    """
    if path.is_dir() and (path / truth).is_dir() and path.suffix != ".zarr":
        images = [read_images(path / name, channels, percentiles, axes) for name in (measurement, truth)]
        for index, (one, other) in enumerate(zip(*images)):
            if one.shape != other.shape:
                raise InputError(
                    f"{path} expects pairs of images of one size, got {tuple(one.shape)} and {tuple(other.shape)} as "
                    f"number {index} of {measurement} and {truth}; the two folders have to match in the order of names"
                )
        return Pairs(images[0], images[1], size, str(path))
    if path.suffix.lower() in _HDF5 and path.is_file():
        group = _open("h5py", lambda h5py: h5py.File(path, "r"), path)
    elif path.suffix == ".zarr" and path.exists():
        group = _open("zarr", lambda zarr: zarr.open_group(str(path), mode="r"), path)
    else:
        raise InputError(
            f"expected an HDF5 file (.h5), a zarr store (.zarr) or a folder with folders {measurement} and {truth} at "
            f"{path}, found none; correct the recipe's path"
        )
    return Pairs(_array(group, measurement, path), _array(group, truth, path), size, str(path))


def _open(library: str, read: Any, path: Path) -> Any:
    from importlib import import_module

    try:
        module = import_module(library)
    except ImportError as error:
        raise InputError(f"{path} needs the package {library}, it is missing; install obverse[learn]") from error
    try:
        return read(module)
    except (OSError, ValueError, KeyError) as error:
        detail = " ".join(str(error).split())[:200]
        raise FormatError(f"{path} does not open as {library} reads it ({detail}); write it again") from error


class _Stored:
    """An array in a file; zarr's does not say its length."""

    def __init__(self, array: Any):
        self.array = array

    def __len__(self) -> int:
        return self.array.shape[0]

    def __getitem__(self, index: int, /) -> Any:
        return self.array[index]


def _array(group: Any, name: str, path: Path) -> Items:
    found = group.get(name) if name in group else None
    if found is None or not hasattr(found, "dtype"):
        known = ", ".join(sorted(group.keys())) or "nothing"
        raise InputError(f"{path} expects an array named {name!r}, it holds {known}; name it in the recipe")
    if found.dtype.kind not in "uifc" or len(found.shape) < 2:
        raise InputError(
            f"{name} in {path} expects numbers with an axis of items first, got {found.dtype} {tuple(found.shape)}"
        )
    return _Stored(found)
