"""Checkpoints: all that training needs to go on as if it had never stopped.

One safetensors file, written atomically and verified when read: weights, their running mean, the optimiser's moments,
the best weights so far if training may stop early, and the step. Data and noise need nothing, since both follow from
the seed and the step. The file is the same whether one process wrote it or several, of which each held a part.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import FormatError, InputError
from ..io.safe import read_safetensors, write_safetensors
from .parallel import Processes, load_whole, whole, whole_like
from .recipe import Recipe

__all__ = ["Training", "load_checkpoint", "save_checkpoint", "weights_of"]


class Training:
    """What changes while a network is trained.

    Args:
        network: being trained.
        average: the running mean of its weights.
        optimiser: over the network's parameters.

    Attributes:
        best: copy of the running mean's weights at the best validation, if they are to be kept.
        state: plain figures: step, seconds, the best validation's figures, validations since.
    """

    def __init__(self, network: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer):
        self.network, self.average, self.optimiser = network, average, optimiser
        self.best: dict[str, Tensor] = {}
        self.state: dict[str, Any] = {"step": 0, "best": None, "waited": 0, "seconds": 0.0}


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """A module's weights, whole and on the CPU; several processes must ask together."""
    return {name: whole(value).detach().contiguous().cpu() for name, value in module.state_dict().items()}


def save_checkpoint(path: Path, training: Training, recipe: Recipe, processes: Processes) -> None:
    """Write a checkpoint over an older one; all processes call it, the first one writes."""
    arrays: dict[str, Tensor] = {}
    modules = {"network": weights_of(training.network), "average": weights_of(training.average), "best": training.best}
    for prefix, weights in modules.items():
        arrays |= {f"{prefix}/{name}": value for name, value in weights.items()}
    for name, parameter in training.network.named_parameters():
        moments = training.optimiser.state.get(parameter, {})
        arrays |= {
            f"optimiser/{name}/{key}": whole(torch.as_tensor(value)).detach().contiguous().cpu()
            for key, value in moments.items()
        }
    if processes.first:
        state = training.state | {"recipe": recipe.model_dump(mode="json")}
        write_safetensors(path, arrays, {"state": json.dumps(state)}, overwrite=True)


def load_checkpoint(path: Path, training: Training, recipe: Recipe, processes: Processes) -> None:
    """Put a checkpoint's contents in place; the first process reads it for all.

    Raises:
        InputError: it belongs to another recipe.
        FormatError: it is damaged.
    """
    content, metadata = processes.from_first(lambda: read_safetensors(path))
    try:
        state = json.loads(metadata["state"])
        # Through the recipe's own class, so that a setting which a newer version adds counts with its default.
        begun = Recipe(**state.pop("recipe")).model_dump(mode="json")
    except (KeyError, ValueError, TypeError) as error:
        raise FormatError(f"{path} expects the state of a training, got none; train into another folder") from error
    asked = recipe.model_dump(mode="json")
    changed = [name for name in asked if begun[name] != asked[name]]
    if changed:
        raise InputError(
            f"{path} expects the recipe it was begun with, got another {', '.join(changed)}; give the same "
            "settings again or train into another folder"
        )
    tensors = {name: torch.from_numpy(array) for name, array in content.items()}
    try:
        load_whole(training.network, _below("network/", tensors))
        load_whole(training.average, _below("average/", tensors))
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:200]
        raise FormatError(f"{path} expects weights of the recipe's network, got others ({detail})") from error
    kinds = {name.rsplit("/", 1)[1] for name in tensors if name.startswith("optimiser/")}
    if not kinds <= {"momentum", "step", "mean", "square"}:
        raise InputError(f"{path} expects the optimiser of this version, got another's; train into another folder")
    for name, parameter in training.network.named_parameters():
        moments = _below(f"optimiser/{name}/", tensors)
        training.optimiser.state[parameter] = {
            key: value if key == "step" else whole_like(value, parameter) for key, value in moments.items()
        }
    training.best, training.state = _below("best/", tensors), state


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
