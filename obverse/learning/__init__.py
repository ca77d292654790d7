"""Learning: objectives, data, one loop, checkpoints, recipes."""

from .loop import train
from .planet_training import train_deep_paco
from .recipe import Recipe, read_recipe

__all__ = ["Recipe", "read_recipe", "train", "train_deep_paco"]
