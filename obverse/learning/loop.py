"""The training loop: one network, one objective, one stream of data.

    repeat: loss of a batch → gradient, clipped → AdamW at a rate that rises, then falls as a cosine → running mean
    now and then: validate the running mean, keep it if it is the best so far, write a checkpoint

The folder holds `metrics.jsonl` (a line a step), `checkpoint.safetensors` and, at the end, `NAME.safetensors` with its
card. Killed at any moment, training goes on from the last checkpoint along the same curve.
"""

import copy
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import InputError, NumericsError
from ..networks import build, load, save
from .card import make_card
from .checkpoint import load_checkpoint, save_checkpoint
from .data import places
from .datasets import datasets
from .interruption import Interruption
from .metrics import Metrics
from .objectives import make_objective
from .recipe import Recipe, data_folder

__all__ = ["learning_rate", "train"]

Callback = Callable[[int, int | None, float], None]


def learning_rate(recipe: Recipe, step: int) -> float:
    """Rate of step 0, 1, …: linear warm-up, then a cosine to zero."""
    if step < recipe.warmup:
        return recipe.rate * (step + 1) / recipe.warmup
    part = (step - recipe.warmup) / max(recipe.steps - recipe.warmup, 1)
    return 0.5 * recipe.rate * (1 + math.cos(math.pi * part))


def train(
    recipe: Recipe, folder: Path, *, resume: bool = False, overwrite: bool = False, callback: Callback | None = None
) -> Path:
    """Train as a recipe says.

    Args:
        folder: for everything written.
        resume: go on from the checkpoint in the folder, if there is one.
        overwrite: begin again, whatever is in the folder.
        callback: told (step, steps, loss).

    Returns:
        The weights' file.

    Raises:
        InputError: the data or settings do not fit, or the folder holds another training.
        NumericsError: the loss is not finite; the last checkpoint is left as it was.
        KeyboardInterrupt: Ctrl-C or SIGTERM, after the step was finished and a checkpoint written.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    training, validation = datasets(recipe)
    objective = make_objective(recipe.objective)
    torch.manual_seed(recipe.seed)
    network = build(recipe.network).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if recipe.start is not None:
        network.load_state_dict(load(data_folder(recipe.start))[0].state_dict())
    average = copy.deepcopy(network).requires_grad_(False)
    optimiser = torch.optim.AdamW(network.parameters(), recipe.rate, betas=(0.9, 0.99), weight_decay=0.0)

    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoint.safetensors"
    state: dict[str, Any] = {"step": 0, "best": None, "waited": 0, "seconds": 0.0, "recipe": recipe.model_dump()}
    if overwrite:
        checkpoint.unlink(missing_ok=True)
    if checkpoint.exists():
        if not resume:
            raise InputError(f"{folder} holds a training already; pass --resume to go on or --overwrite to begin again")
        state = load_checkpoint(checkpoint, network, average, optimiser, recipe)

    began, saved = time.monotonic() - state["seconds"], time.monotonic()
    with Interruption() as interruption, Metrics(folder / "metrics.jsonl", state["step"]) as metrics:
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
            metrics.write(record)
            if callback is not None:
                callback(step + 1, recipe.steps, loss.item())
            over = last or _stopped(recipe, state) or interruption.asked
            if over or time.monotonic() - saved >= recipe.checkpoint_seconds:
                metrics.flush()
                save_checkpoint(checkpoint, network, average, optimiser, state)
                saved = time.monotonic()
            if interruption.asked and not last:
                raise KeyboardInterrupt(f"interrupted after step {step + 1}, which is kept; pass --resume to go on")
    path = folder / f"{recipe.name}.safetensors"
    with torch.no_grad():
        figures = objective.validate(average, validation, device)
    card = make_card(recipe, average, objective, figures, steps=state["step"], seconds=state["seconds"], device=device)
    save(path, average, card, overwrite=True)
    return path


def _follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    with torch.no_grad():
        means: list[torch.Tensor] = list(average.parameters())
        current: list[torch.Tensor] = list(network.parameters())
        torch._foreach_lerp_(means, current, 1.0 - decay)


def _stopped(recipe: Recipe, state: dict[str, Any]) -> bool:
    return recipe.patience is not None and state["waited"] >= recipe.patience
