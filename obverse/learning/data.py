"""Training images: crops that depend on nothing but the seed, the pass over the data and the image's number.

Every pass visits each image once, in an order of its own. Step k of a batch of B takes the places kB … kB + B − 1 of
the endless sequence of passes; each place has its own random stream, which also draws what the objective adds (noise,
level). So an item is the same whoever asks for it, in whatever order, on any number of processes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..noise.base import stream

__all__ = ["Crops", "Dataset", "Place", "places", "read_images"]

_SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"}
_GREY = (0.299, 0.587, 0.114)  # luma of ITU-R BT.601, as MATLAB's rgb2gray and the published figures use


@runtime_checkable
class Dataset(Protocol):
    """What the loop needs of data."""

    def __len__(self) -> int: ...

    def item(self, index: int, generator: torch.Generator) -> Tensor:
        """Item `index`, with whatever is random in it drawn from `generator`."""
        ...


class Place:
    """One place in the sequence of passes: which item, and its random stream."""

    def __init__(self, index: int, generator: torch.Generator):
        self.index, self.generator = index, generator


def places(size: int, first: int, count: int, seed: int) -> list[Place]:
    """The places `first` … `first + count − 1` of the endless sequence over `size` items."""
    found = []
    for number in range(first, first + count):
        epoch, position = divmod(number, size)
        order = np.random.default_rng((seed, epoch)).permutation(size)
        found.append(Place(int(order[position]), stream(seed, number)))
    return found


class Crops:
    """Random square crops of images, turned and mirrored.

    Args:
        images: `(C, H, W)`, uint8 or float in [0, 1], each at least `size` wide and high.
        size: side of a crop.
    """

    def __init__(self, images: Sequence[Tensor], size: int):
        small = [tuple(image.shape) for image in images if min(image.shape[-2:]) < size]
        if not images or small:
            raise InputError(f"expected images of at least {size} pixels a side, got {small[:3] or 'none'}")
        self.images, self.size = list(images), size

    def __len__(self) -> int:
        return len(self.images)

    def item(self, index: int, generator: torch.Generator) -> Tensor:
        image, size = self.images[index], self.size
        draw = torch.rand(4, generator=generator).tolist()
        top = int(draw[0] * (image.shape[-2] - size + 1))
        left = int(draw[1] * (image.shape[-1] - size + 1))
        crop = as_unit(image[:, top : top + size, left : left + size])
        crop = torch.rot90(crop, int(4 * draw[2]), (-2, -1))
        return crop.flip(-1) if draw[3] < 0.5 else crop


def as_unit(image: Tensor) -> Tensor:
    """float32 in [0, 1] from uint8 or uint16; floating-point images as they are."""
    if image.is_floating_point():
        return image.float()
    return image.float() / float(torch.iinfo(image.dtype).max)


def read_images(folder: Path, channels: int) -> list[Tensor]:
    """Every image file of a folder, sorted by name, as `(channels, H, W)`; colour becomes grey by luma.

    Raises:
        InputError: there is no such folder, no image in it, or an image with other channels.
    """
    files = sorted(path for path in folder.glob("*") if path.suffix.lower() in _SUFFIXES) if folder.is_dir() else []
    if not files:
        raise InputError(f"expected a folder of images ({', '.join(sorted(_SUFFIXES))}) at {folder}, found none")
    return [_read(path, channels) for path in files]


def _read(path: Path, channels: int) -> Tensor:
    if path.suffix.lower() in (".tif", ".tiff"):
        import tifffile

        array = np.asarray(tifffile.imread(path))
    else:
        from PIL import Image

        array = np.asarray(Image.open(path))
    array = array[..., None] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[-1] not in (1, 3, 4):
        raise InputError(f"expected a grey or colour picture in {path.name}, got an array {array.shape}")
    image = torch.from_numpy(np.array(array[..., :3])).movedim(-1, 0)
    if channels == 1 and len(image) == 3:
        luma = torch.tensor(_GREY).reshape(3, 1, 1)
        return (image.float() * luma).sum(0, keepdim=True).round().clamp(0, 255).to(torch.uint8)
    if len(image) != channels:
        raise InputError(f"expected {channels} channels in {path.name}, got {len(image)}; set channels in the recipe")
    return image
