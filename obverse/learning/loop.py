"""The training loop: one network, one objective, one stream of data.

    repeat: loss of a batch → gradient, clipped → AdamW at a rate that rises, then falls as a cosine → running mean
    now and then: validate the running mean, keep it if it is the best so far, write a checkpoint

The folder holds `metrics.jsonl` (a line a step), `checkpoint.safetensors` and, at the end, `NAME.safetensors` with its
card. Killed at any moment, training goes on from the last checkpoint along the same curve.
"""

import copy
import json
import math
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import __version__
from ..errors import InputError, NumericsError
from ..networks import build, load, save
from .checkpoint import load_checkpoint, save_checkpoint
from .data import Crops, Dataset, places, read_images
from .objectives import Objective, make_objective
from .recipe import Recipe, data_folder

__all__ = ["learning_rate", "train"]

Callback = Callable[[int, int | None, float], None]


def learning_rate(recipe: Recipe, step: int) -> float:
    """Rate of step 0, 1, …: linear warm-up, then a cosine to zero."""
    if step < recipe.warmup:
        return recipe.rate * (step + 1) / recipe.warmup
    part = (step - recipe.warmup) / max(recipe.steps - recipe.warmup, 1)
    return 0.5 * recipe.rate * (1 + math.cos(math.pi * part))


def train(recipe: Recipe, folder: Path, *, resume: bool = False, callback: Callback | None = None) -> Path:
    """Train as a recipe says.

    Args:
        folder: for everything written.
        resume: go on from the checkpoint in the folder, if there is one.
        callback: told (step, steps, loss).

    Returns:
        The weights' file.

    Raises:
        InputError: the data or settings do not fit, or the folder holds another training.
        NumericsError: the loss is not finite.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    training, validation = _data(recipe)
    objective = make_objective(recipe.objective)
    torch.manual_seed(recipe.seed)
    network = build(recipe.network).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if recipe.start is not None:
        network.load_state_dict(load(data_folder(recipe.start))[0].state_dict())
    average = copy.deepcopy(network).requires_grad_(False)
    optimiser = torch.optim.AdamW(network.parameters(), recipe.rate, betas=(0.9, 0.99), weight_decay=0.0)

    folder.mkdir(parents=True, exist_ok=True)
    checkpoint, log = folder / "checkpoint.safetensors", folder / "metrics.jsonl"
    state: dict[str, Any] = {"step": 0, "best": None, "waited": 0, "seconds": 0.0, "recipe": recipe.model_dump()}
    if checkpoint.exists():
        if not resume:
            raise InputError(f"{folder} expects no training in it, found {checkpoint.name}; pass --resume to go on")
        state = load_checkpoint(checkpoint, network, average, optimiser, recipe.model_dump())
    _cut(log, state["step"])

    began, saved = time.monotonic() - state["seconds"], time.monotonic()
    with log.open("a", encoding="utf-8") as lines:
        while state["step"] < recipe.steps and not _stopped(recipe, state):
            step = state["step"]
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(recipe, step)
            batch = places(len(training), step * recipe.batch, recipe.batch, recipe.seed)
            with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
                loss = objective.loss(network, training, batch, device)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            norm = float(nn.utils.clip_grad_norm_(network.parameters(), recipe.clip))
            if not math.isfinite(norm):
                raise NumericsError(f"expected a finite loss, got {loss.item()} at step {step}; lower the rate")
            optimiser.step()
            _follow(average, network, min(recipe.average, (1 + step) / (10 + step)))
            state["step"], state["seconds"] = step + 1, time.monotonic() - began
            record = {"step": step + 1, "loss": loss.item(), "gradient": norm, "seconds": round(state["seconds"], 2)}
            last = state["step"] == recipe.steps
            if last or state["step"] % recipe.validate_every == 0:
                with torch.no_grad():
                    figures = objective.validate(average, validation, device)
                record |= figures
                better = state["best"] is None or figures[objective.metric] > state["best"][objective.metric]
                state["best"] = figures if better else state["best"]
                state["waited"] = 0 if better else state["waited"] + 1
            lines.write(json.dumps(record) + "\n")
            if callback is not None:
                callback(step + 1, recipe.steps, loss.item())
            if last or _stopped(recipe, state) or time.monotonic() - saved >= recipe.checkpoint_seconds:
                lines.flush()
                save_checkpoint(checkpoint, network, average, optimiser, state)
                saved = time.monotonic()
    path = folder / f"{recipe.name}.safetensors"
    with torch.no_grad():
        figures = objective.validate(average, validation, device)
    save(path, average, _card(recipe, state, figures, device, average, objective), overwrite=True)
    return path


def _data(recipe: Recipe) -> tuple[Dataset, Dataset]:
    def images(folders: list[str] | str) -> list[torch.Tensor]:
        names = [folders] if isinstance(folders, str) else folders
        return [image for name in names for image in read_images(data_folder(name), recipe.data.channels)]

    return (
        Crops(images(recipe.data.train), recipe.data.crop),
        Crops(images(recipe.data.validation), recipe.data.validation_crop),
    )


def _follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    with torch.no_grad():
        means: list[torch.Tensor] = list(average.parameters())
        current: list[torch.Tensor] = list(network.parameters())
        torch._foreach_lerp_(means, current, 1.0 - decay)


def _stopped(recipe: Recipe, state: dict[str, Any]) -> bool:
    return recipe.patience is not None and state["waited"] >= recipe.patience


def _cut(log: Path, step: int) -> None:
    """Drop the lines beyond a checkpoint's step: they are about to be made again."""
    if not log.exists():
        return
    kept = []
    for line in log.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError):
            break  # a line cut short by a crash
    log.write_text("".join(kept), encoding="utf-8")


def _card(
    recipe: Recipe,
    state: dict[str, Any],
    figures: dict[str, float],
    device: torch.device,
    network: nn.Module,
    objective: Objective,
) -> dict[str, Any]:
    settings = recipe.model_dump()
    return {
        "name": recipe.name,
        "description": recipe.description,
        "network": settings["network"],
        "channels": recipe.data.channels,
        "sigma_range": getattr(objective, "sigma_range", None),
        "parameters": sum(p.numel() for p in network.parameters()),
        "objective": settings["objective"],
        "data": settings["data"],
        "recipe": settings,
        "command": f"obverse train recipes/{recipe.name}.yaml",
        "seed": recipe.seed,
        "steps": state["step"],
        "seconds": round(state["seconds"]),
        "device": f"{device.type}, {torch.get_num_threads()} threads" if device.type == "cpu" else device.type,
        "metrics": figures,
        "versions": {"obverse": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }
