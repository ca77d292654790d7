"""The data that a recipe names, read and ready: one to train on, one to validate on."""

from .data import Crops, Dataset
from .images import read_images
from .pairs import read_pairs
from .recipe import ImageData, PairData, Recipe, data_folder

__all__ = ["datasets"]


def datasets(recipe: Recipe) -> tuple[Dataset, Dataset]:
    """Training and validation data of a recipe.

    Raises:
        InputError: they are not there, or do not fit.
        FormatError: a file is damaged.
    """
    data = recipe.data
    if isinstance(data, ImageData):
        return _images(data, data.train, data.crop), _images(data, data.validation, data.validation_crop)
    return _pairs(data, data.train, data.crop), _pairs(data, data.validation, data.validation_crop)


def _images(data: ImageData, folders: list[str] | str, crop: int) -> Dataset:
    names = [folders] if isinstance(folders, str) else folders
    found = [read_images(data_folder(name), data.channels, data.percentiles, data.axes) for name in names]
    return Crops([image for images in found for image in images], crop, data.turned)


def _pairs(data: PairData, path: str, crop: int | None) -> Dataset:
    return read_pairs(data_folder(path), data.measurement, data.truth, crop, data.channels, data.percentiles, data.axes)
