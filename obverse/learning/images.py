"""Picture files as tensors: photographs, and micrographs of any bit depth, slices and frames.

A picture from 0 to 1 is what networks see. Integers of 8 and 16 bits get there by the range of their type; anything
else by two percentiles of each file's values, which the recipe states and the card keeps.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import FormatError, InputError
from ..io import tiff

__all__ = ["as_unit", "read_images"]

_TIFF = {".tif", ".tiff"}
_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp"} | _TIFF
_GREY = (0.299, 0.587, 0.114)  # luma of ITU-R BT.601, as MATLAB's rgb2gray and the published figures use
_MODES = {"1": "L", "P": "RGB", "PA": "RGB", "LA": "L", "CMYK": "RGB", "YCbCr": "RGB", "LAB": "RGB", "HSV": "RGB"}


def as_unit(image: Tensor) -> Tensor:
    """float32 in [0, 1] from uint8 or uint16; floating-point images as they are."""
    if image.is_floating_point():
        return image.float()
    return image.float() / float(torch.iinfo(image.dtype).max)


def read_images(
    folder: Path, channels: int, percentiles: Sequence[float] | None = None, axes: str | None = None
) -> list[Tensor]:
    """Every image file of a folder, sorted by name, or the images of one file, as `(channels, H, W)`.

    Colour becomes grey by luma. Slices and frames of a TIFF are images of their own.

    Args:
        folder: or a file.
        channels: of an image.
        percentiles: of a file's values, to become 0 and 1; None for the range of an 8- or 16-bit type.
        axes: of TIFF stacks that do not say, such as "ZYX".

    Raises:
        InputError: there is no such folder, no image in it, or an image that does not fit.
        FormatError: a file is damaged.
    """
    files = [folder] if folder.is_file() else []
    if folder.is_dir():
        files = sorted(path for path in folder.glob("*") if path.suffix.lower() in _SUFFIXES)
    if not files or not {path.suffix.lower() for path in files} <= _SUFFIXES:
        raise InputError(f"expected a folder of images ({', '.join(sorted(_SUFFIXES))}) at {folder}, found none")
    return [
        _channels(torch.from_numpy(np.array(image)), channels, path.name)
        for path in files
        for image in _scaled(_planes(path, axes), percentiles, path.name)
    ]


def _planes(path: Path, axes: str | None) -> np.ndarray:
    """The pictures of a file, `(N, C, H, W)`."""
    if path.suffix.lower() in _TIFF:
        volume = tiff.read(path, axes=axes)
        order = [volume.axes.index(letter) for letter in "TZCYX" if letter in volume.axes]
        array = volume.array.transpose(order)
        array = array if "C" in volume.axes else np.expand_dims(array, -3)
        return _native(array.reshape(-1, *array.shape[-3:]))
    from PIL import Image

    try:
        with Image.open(path) as picture:
            array = np.asarray(picture.convert(_MODES.get(picture.mode, picture.mode)))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        detail = " ".join(str(error).split())
        raise FormatError(f"expected a picture in {path.name}, it does not decode ({detail}); copy it again") from error
    array = array[..., None] if array.ndim == 2 else array
    return _native(np.moveaxis(array, -1, 0)[None])


def _native(array: np.ndarray) -> np.ndarray:
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _scaled(planes: np.ndarray, percentiles: Sequence[float] | None, name: str) -> Iterator[np.ndarray]:
    if not np.isfinite(planes).all():
        raise InputError(f"expected finite values in {name}, got NaN or infinity; fill or remove them")
    if percentiles is not None:
        low, high = np.percentile(planes, percentiles)
        if not low < high:
            raise InputError(f"expected a picture in {name}, its percentiles {list(percentiles)} are both {low:g}")
        yield from ((plane.astype(np.float32) - np.float32(low)) / np.float32(high - low) for plane in planes)
    elif planes.dtype in (np.uint8, np.uint16) or (planes.dtype.kind == "f" and 0 <= planes.min() <= planes.max() <= 1):
        yield from planes
    else:
        raise InputError(
            f"expected 8 or 16 bits, or values from 0 to 1, in {name}, got {planes.dtype} from {planes.min():g} to "
            f"{planes.max():g}; set data.percentiles, such as [0.1, 99.9]"
        )


def _channels(image: Tensor, channels: int, name: str) -> Tensor:
    if len(image) == 4 and channels in (1, 3):
        image = image[:3]  # without its transparency
    if channels == 1 and len(image) == 3:
        grey = (image.float() * torch.tensor(_GREY).reshape(3, 1, 1)).sum(0, keepdim=True)
        return (
            grey if image.is_floating_point() else grey.round().clamp(0, torch.iinfo(image.dtype).max).to(image.dtype)
        )
    if len(image) != channels:
        raise InputError(f"expected {channels} channels in {name}, got {len(image)}; set data.channels in the recipe")
    return image
