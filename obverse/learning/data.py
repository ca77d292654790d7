"""Training images: crops that depend on nothing but the seed, the pass over the data and the image's number.

Every pass visits each image once, in an order of its own. Step k of a batch of B takes the places kB … kB + B − 1 of
the endless sequence of passes; each place has its own random stream, which also draws what the objective adds (noise,
level). So an item is the same whoever asks for it, in whatever order, on any number of processes.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..noise.base import stream
from .images import as_unit, read_images

__all__ = ["Crops", "Cut", "Dataset", "Place", "as_unit", "places", "read_images"]


@runtime_checkable
class Dataset(Protocol):
    """What the loop needs of data."""

    def __len__(self) -> int: ...

    def item(self, index: int, generator: torch.Generator) -> Any:
        """Item `index`, with whatever is random in it drawn from `generator`."""
        ...


class Place(NamedTuple):
    """One place in the sequence of passes: which item, its random stream, and how many places came before."""

    index: int
    generator: torch.Generator
    number: int = 0


def places(size: int, first: int, count: int, seed: int) -> list[Place]:
    """The places `first` … `first + count − 1` of the endless sequence over `size` items."""
    found: list[Place] = []
    for number in range(first, first + count):
        epoch, position = divmod(number, size)
        if not found or position == 0:
            order = np.random.default_rng((seed, epoch)).permutation(size)
        found.append(Place(int(order[position]), stream(seed, number), number))
    return found


class Cut:
    """A random square out of an image, turned and mirrored; the same out of each image that it is called on.

    Args:
        shape: of the image, `(C, H, W)`.
        size: side of the square.
        generator: for where, and how it is turned.
    """

    def __init__(self, shape: Sequence[int], size: int, generator: torch.Generator):
        draw = torch.rand(4, generator=generator).tolist()
        top, left = int(draw[0] * (shape[-2] - size + 1)), int(draw[1] * (shape[-1] - size + 1))
        self.window = (..., slice(top, top + size), slice(left, left + size))
        self.quarters, self.mirrored = int(4 * draw[2]), draw[3] < 0.5

    def __call__(self, image: Tensor) -> Tensor:
        return self.turned(image[self.window])

    def turned(self, crop: Tensor) -> Tensor:
        """What was cut out already, turned and mirrored."""
        crop = torch.rot90(crop, self.quarters, (-2, -1))
        return crop.flip(-1) if self.mirrored else crop


class Crops:
    """Random square crops of images, turned and mirrored unless that is refused.

    Args:
        images: `(C, H, W)`, uint8, uint16 or float in [0, 1], each at least `size` wide and high.
        size: side of a crop.
        turned: whether crops may be turned by quarters and mirrored.
    """

    def __init__(self, images: Sequence[Tensor], size: int, turned: bool = True):
        small = [tuple(image.shape) for image in images if min(image.shape[-2:]) < size]
        if not images or small:
            raise InputError(f"expected images of at least {size} pixels a side, got {small[:3] or 'none'}")
        self.images, self.size, self.turned = list(images), size, turned

    def __len__(self) -> int:
        return len(self.images)

    def item(self, index: int, generator: torch.Generator) -> Tensor:
        image = self.images[index]
        cut = Cut(image.shape, self.size, generator)
        crop = as_unit(image[cut.window])
        return cut.turned(crop) if self.turned else crop
