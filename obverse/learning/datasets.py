"""The data that a recipe names, read and ready: one to train on, one to validate on."""

import torch

from .data import Crops, Dataset, read_images
from .recipe import Recipe, data_folder

__all__ = ["datasets"]


def datasets(recipe: Recipe) -> tuple[Dataset, Dataset]:
    """Training and validation data of a recipe.

    Raises:
        InputError: they are not there, or do not fit.
    """

    def images(folders: list[str] | str) -> list[torch.Tensor]:
        names = [folders] if isinstance(folders, str) else folders
        return [image for name in names for image in read_images(data_folder(name), recipe.data.channels)]

    return (
        Crops(images(recipe.data.train), recipe.data.crop),
        Crops(images(recipe.data.validation), recipe.data.validation_crop),
    )
