"""Checkpoints: all that training needs to go on as if it had never stopped.

One safetensors file, written atomically and verified when read: weights, their running mean, the optimiser's moments,
the step. Data and noise need nothing, since both follow from the seed and the step.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..io.safe import read_safetensors, write_safetensors
from .recipe import Recipe

__all__ = ["load_checkpoint", "save_checkpoint"]


def save_checkpoint(
    path: Path, network: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer, state: Mapping[str, Any]
) -> None:
    """Write a checkpoint over an older one.

    Args:
        state: plain figures: the step, the best validation, the recipe.
    """
    arrays: dict[str, Tensor] = {}
    for prefix, module in (("network", network), ("average", average)):
        arrays |= {f"{prefix}/{name}": value for name, value in module.state_dict().items()}
    names = [name for name, _ in network.named_parameters()]
    for name, entry in zip(names, _moments(optimiser), strict=True):
        arrays |= {f"optimiser/{name}/{key}": torch.as_tensor(value) for key, value in entry.items()}
    arrays = {name: value.detach().contiguous().cpu() for name, value in arrays.items()}
    write_safetensors(path, arrays, {"state": json.dumps(state)}, overwrite=True)


def load_checkpoint(
    path: Path, network: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer, recipe: Recipe
) -> dict[str, Any]:
    """Put a checkpoint's contents in place and return its figures.

    Raises:
        InputError: it belongs to another recipe.
        FormatError: it is damaged.
    """
    arrays, metadata = read_safetensors(path)
    state = json.loads(metadata["state"])
    # Through the recipe's own class, so that a setting which a newer version adds counts with its default.
    begun, asked = Recipe(**state["recipe"]).model_dump(mode="json"), recipe.model_dump(mode="json")
    changed = [name for name in asked if begun[name] != asked[name]]
    if changed:
        raise InputError(
            f"{path} expects the recipe it was begun with, got another {', '.join(changed)}; train into another folder"
        )
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    for prefix, module in (("network/", network), ("average/", average)):
        module.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    for name, parameter in network.named_parameters():
        prefix = f"optimiser/{name}/"
        entry = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        optimiser.state[parameter] = {
            key: value if key == "step" else value.to(parameter) for key, value in entry.items()
        }
    return state


def _moments(optimiser: torch.optim.Optimizer) -> list[dict[str, Tensor]]:
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    return [optimiser.state.get(parameter, {}) for parameter in parameters]
