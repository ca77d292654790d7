"""The card in a file of weights: what they are, what they were made from and how well they did."""

import platform
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .. import __version__
from ..io.safe import sha256
from .objectives import Objective
from .parallel import Processes
from .recipe import Recipe, start_files

__all__ = ["make_card"]


def make_card(
    recipe: Recipe,
    weights: Mapping[str, Tensor],
    objective: Objective,
    figures: Mapping[str, float],
    state: Mapping[str, Any],
    processes: Processes,
) -> dict[str, Any]:
    """The card of a trained network.

    Args:
        weights: by name.
        figures: of the validation, for these very weights.
        state: steps taken, and seconds, interruptions left out.
        processes: that trained together.
    """
    device = processes.device.type
    settings = recipe.model_dump(mode="json")
    # Where a file lay is nobody's business; which it was is its digest.
    files = {part: {"name": file.name, "sha256": sha256(file)} for part, file in start_files(recipe).items()}
    start = files.get("", files) or None
    if isinstance(recipe.start, dict):
        settings["start"] = {part: file["name"] for part, file in files.items()}
    elif start is not None:
        settings["start"] = start["name"]
    return {
        "name": recipe.name,
        "description": recipe.description,
        "network": settings["network"],
        "channels": recipe.data.channels,
        "sigma_range": getattr(objective, "sigma_range", None),
        "parameters": sum(value.numel() for value in weights.values()),
        "objective": settings["objective"],
        "data": settings["data"],
        "recipe": settings,
        "command": f"obverse train recipes/{recipe.name}.yaml",
        "start": start,
        "seed": recipe.seed,
        "steps": state["step"],
        "seconds": round(state["seconds"]),
        "device": f"{device}, {torch.get_num_threads()} threads" if device == "cpu" else torch.cuda.get_device_name(),
        "processes": processes.count,
        "metrics": dict(figures),
        "versions": {"obverse": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }
