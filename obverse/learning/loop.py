"""The training loop: one network, one objective, one stream of data.

    repeat: loss of a batch → gradient, clipped → Muon at a rate that rises, then falls as a cosine → running mean
    now and then: validate the running mean; stop if it has not got better for long; write a checkpoint

The folder holds `metrics.jsonl` (a line a step), `checkpoint.safetensors` and, at the end, `NAME.safetensors` with its
card. Killed at any moment, training goes on from the last checkpoint along the same curve; shared by several processes,
it takes the same steps.

Reference: Loshchilov, Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017.
"""

import copy
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import InputError, NumericsError
from ..networks import build, load, save
from .card import make_card
from .checkpoint import Training, load_checkpoint, save_checkpoint, weights_of
from .data import places
from .datasets import datasets
from .interruption import Interruption
from .metrics import Metrics
from .muon import Muon
from .objectives import make_objective
from .parallel import Processes, join, load_whole, local, shard, whole
from .recipe import Recipe, start_files

__all__ = ["learning_rate", "load_start", "train"]

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
    """Train as a recipe says, together with the other processes if torchrun started several.

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
    with join() as processes:
        return _train(recipe, folder, resume, overwrite, callback, processes)


def _train(
    recipe: Recipe, folder: Path, resume: bool, overwrite: bool, callback: Callback | None, processes: Processes
) -> Path:
    device, (offset, share) = processes.device, processes.share(recipe.batch)
    items, held_out = datasets(recipe)
    objective = make_objective(recipe.objective, recipe.data.kind)
    training = _begin(recipe, processes)
    network, average, optimiser, state = training.network, training.average, training.optimiser, training.state

    sharded, checkpoint = recipe.shard and processes.count > 1, folder / "checkpoint.safetensors"
    if processes.from_first(lambda: _found(checkpoint, resume, overwrite)):
        load_checkpoint(checkpoint, training, recipe, processes)
        state = training.state

    def validate() -> dict[str, float]:
        with torch.no_grad():
            if sharded:  # no process has all the weights, so all take part
                figures = objective.validate(average, held_out, device)
                return processes.from_first(lambda: figures)
            return processes.from_first(lambda: objective.validate(average, held_out, device))

    began, saved = time.monotonic() - state["seconds"], time.monotonic()
    log = folder / "metrics.jsonl" if processes.first else None
    figures: dict[str, float] = {}  # of the running mean as it is after the last step
    with Interruption() as interruption, Metrics(log, state["step"]) as metrics:
        while state["step"] < recipe.steps and not _stalled(recipe, training):
            step = state["step"]
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(recipe, step)
            batch = places(len(items), step * recipe.batch + offset, share, recipe.seed)
            with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
                loss = objective.loss(network, items, batch, device)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            if not sharded:  # FSDP averages by itself
                processes.average(parameter.grad for parameter in network.parameters())
            norm = float(whole(nn.utils.clip_grad_norm_(network.parameters(), recipe.clip)))
            if not math.isfinite(norm):
                raise NumericsError(f"expected a finite gradient, got {norm} at step {step}; lower the rate or clip")
            optimiser.step()
            _follow(average, network, min(recipe.average, (1 + step) / (10 + step)))

            due = processes.first and time.monotonic() - saved >= recipe.checkpoint_seconds
            total, asked, due = processes.sum(loss.item(), interruption.asked, due)
            state["step"], state["seconds"] = step + 1, time.monotonic() - began
            record = {"step": step + 1, "loss": total / processes.count, "gradient": norm}
            last = state["step"] == recipe.steps
            if last or state["step"] % recipe.validate_every == 0:
                figures = validate()
                _compare(recipe, training, figures, objective.metric)
                record |= figures
            metrics.write(record | {"seconds": round(state["seconds"], 2)})
            if callback is not None:
                callback(step + 1, recipe.steps, record["loss"])
            if last or asked or due or _stalled(recipe, training):
                metrics.flush()
                save_checkpoint(checkpoint, training, recipe, processes)
                saved = time.monotonic()
            if asked and not last:
                raise KeyboardInterrupt(f"interrupted after step {step + 1}, which is kept; pass --resume to go on")

    if training.best:
        load_whole(average, training.best)
        figures = {}
    figures, weights = figures or validate(), weights_of(average)
    path = folder / f"{recipe.name}.safetensors"
    if processes.first:
        trained = build(recipe.network)
        trained.load_state_dict(weights)
        save(path, trained, make_card(recipe, weights, objective, figures, training.state, processes), overwrite=True)
    return path


def load_start(network: nn.Module, recipe: Recipe) -> None:
    """Put the weights that a recipe starts from, if any, into its network.

    Raises:
        InputError: there are none of that name, or they are of another network.
    """
    for part, file in start_files(recipe).items():
        try:
            network.get_submodule(part).load_state_dict(load(file)[0].state_dict())
        except (AttributeError, RuntimeError) as error:
            detail = " ".join(str(error).split())[:200]
            raise InputError(
                f"expected start to name weights of the recipe's network, got others ({detail})"
            ) from error


def _begin(recipe: Recipe, processes: Processes) -> Training:
    torch.manual_seed(recipe.seed)
    sharded = recipe.shard and processes.count > 1
    network = build(recipe.network).to(processes.device)
    if not sharded:  # FSDP wants rows in memory order
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    load_start(network, recipe)
    average = copy.deepcopy(network).requires_grad_(False)
    if sharded:
        shard(network, processes)
        shard(average, processes)
    return Training(network, average, Muon(network.parameters(), recipe.rate))


def _found(checkpoint: Path, resume: bool, overwrite: bool) -> bool:
    """Whether there is a checkpoint to go on from."""
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    if overwrite:
        checkpoint.unlink(missing_ok=True)
    if checkpoint.exists() and not resume:
        raise InputError(
            f"{checkpoint.parent} holds a training already; pass --resume to go on or --overwrite to begin again"
        )
    for leftover in checkpoint.parent.glob(".*.part"):  # of a write that was killed
        leftover.unlink(missing_ok=True)
    return checkpoint.exists()


def _follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    with torch.no_grad():
        means: list[Tensor] = [local(tensor) for tensor in average.parameters()]
        current: list[Tensor] = [local(tensor) for tensor in network.parameters()]
        torch._foreach_lerp_(means, current, 1.0 - decay)
        for mean, now in zip(average.buffers(), network.buffers(), strict=True):
            mean.copy_(now)


def _compare(recipe: Recipe, training: Training, figures: dict[str, float], metric: str) -> None:
    best, state = training.state["best"], training.state
    better = best is None or not figures[metric] <= best[metric]
    state["best"], state["waited"] = (figures, 0) if better else (best, state["waited"] + 1)
    if better and recipe.patience is not None:
        training.best = {name: value.clone() for name, value in weights_of(training.average).items()}


def _stalled(recipe: Recipe, training: Training) -> bool:
    return recipe.patience is not None and training.state["waited"] >= recipe.patience
