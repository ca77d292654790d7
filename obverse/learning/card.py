"""The card in a file of weights: what they are, what they were made from and how well they did."""

import platform
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from .. import __version__
from .objectives import Objective
from .recipe import Recipe

__all__ = ["make_card"]


def make_card(
    recipe: Recipe,
    network: nn.Module,
    objective: Objective,
    figures: Mapping[str, float],
    *,
    steps: int,
    seconds: float,
    device: torch.device,
    processes: int = 1,
) -> dict[str, Any]:
    """The card of a trained network.

    Args:
        figures: of the validation, for these very weights.
        steps: taken until these weights.
        seconds: of training, interruptions left out.
        device: of each process.
        processes: that trained together.
    """
    settings = recipe.model_dump(mode="json")
    return {
        "name": recipe.name,
        "description": recipe.description,
        "network": settings["network"],
        "channels": recipe.data.channels,
        "sigma_range": getattr(objective, "sigma_range", None),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "objective": settings["objective"],
        "data": settings["data"],
        "recipe": settings,
        "command": f"obverse train recipes/{recipe.name}.yaml",
        "seed": recipe.seed,
        "steps": steps,
        "seconds": round(seconds),
        "device": f"{device.type}, {torch.get_num_threads()} threads" if device.type == "cpu" else device.type,
        "processes": processes,
        "metrics": dict(figures),
        "versions": {"obverse": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }
