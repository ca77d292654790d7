"""One training from the command line: what a recipe would do, doing it, and the figures to answer with."""

import contextlib
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..learning import Recipe, read_recipe, train
from ..learning.datasets import datasets
from ..learning.loop import load_start
from ..learning.objectives import make_objective
from ..networks import build, load

__all__ = ["foresee", "run_training"]

Progress = Callable[[str], AbstractContextManager[Callable[[int, int | None, float], None]]]


def run_training(
    path: Path,
    output: Path | None,
    settings: Mapping[str, Any],
    progress: Progress,
    *,
    resume: bool = False,
    overwrite: bool = False,
) -> dict[str, Any] | None:
    """Train a recipe into a folder (by default obverse-train-NAME) and say what came of it.

    Returns:
        Paths and figures; None in all but the first of several processes, which have nothing to say.

    Raises:
        InputError, FormatError, NumericsError: see `learning.train`.
    """
    recipe = read_recipe(path, settings)
    folder = output or Path(f"obverse-train-{recipe.name}")
    if resume and overwrite:
        raise InputError("expected --resume or --overwrite, got both; choose whether to go on or to begin again")
    first = os.environ.get("RANK", "0") == "0"
    with progress(recipe.name) if first else contextlib.nullcontext() as callback:
        weights = train(recipe, folder, resume=resume, overwrite=overwrite, callback=callback)
    if not first:
        return None
    card = load(weights)[1]
    return {
        "weights": str(weights),
        "metrics": str(folder / "metrics.jsonl"),
        "checkpoint": str(folder / "checkpoint.safetensors"),
        "parameters": card["parameters"],
        "steps": card["steps"],
        "seconds": card["seconds"],
        **card["metrics"],
    }


def foresee(path: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a recipe would do: its data are read, its network built and started, but nothing is trained or written."""
    recipe: Recipe = read_recipe(path, settings)
    training, validation = datasets(recipe)
    make_objective(recipe.objective, recipe.data.kind)
    network = build(recipe.network)
    load_start(network, recipe)
    return {
        "name": recipe.name,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "training items": len(training),
        "validation items": len(validation),
        "steps": recipe.steps,
        "items a step": recipe.batch,
        "passes over the data": round(recipe.steps * recipe.batch / len(training), 1),
    }
