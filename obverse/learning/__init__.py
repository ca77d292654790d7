"""Learning: objectives, data, one loop, checkpoints, recipes."""

from .loop import train
from .recipe import Recipe, read_recipe

__all__ = ["Recipe", "read_recipe", "train"]
