"""The priors that come with Obverse: weights trained by the recipes of the project, each with its card."""

from pathlib import Path
from typing import Any

import torch

from .. import networks
from ..errors import InputError
from .denoiser import Denoiser
from .gradient_step import GradientStep
from .ridge import Ridge

__all__ = ["available", "find", "load", "names"]

_FOLDER = Path(__file__).parent / "weights"


def available() -> dict[str, dict[str, Any]]:
    """The card of every shipped prior, by name: data and its licence, recipe, seed, steps, metrics, noise levels."""
    return {path.stem: networks.read_card(path) for path in sorted(_FOLDER.glob("*.safetensors"))}


def names() -> list[str]:
    """The names of the shipped priors; their cards are in `available`."""
    return sorted(path.stem for path in _FOLDER.glob("*.safetensors"))


def find(name: str | Path) -> Path:
    """The file of a shipped prior's weights, or of your own by path.

    Raises:
        InputError: no such prior.
    """
    path = Path(str(name))
    if path.suffix != ".safetensors":
        path = _FOLDER / f"{name}.safetensors"
    if not path.is_file():
        raise InputError(f"expected a prior out of {', '.join(names())}, or a file of weights, got {str(name)!r}")
    return path


def load(name: str | Path) -> Denoiser | Ridge:
    """A shipped prior by name, or weights of your own by path.

    Returns:
        What the network is made for: a `Ridge`, an explicit prior; a `GradientStep`, with an energy; or a `Denoiser`.

    Raises:
        InputError: no such prior.
        FormatError: the file is damaged.
    """
    network, card = networks.load(find(name))
    if isinstance(network, networks.RidgeEnergy):
        return Ridge(network, card=card)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster on CPUs
    kind = GradientStep if isinstance(network, networks.GradientStep) else Denoiser
    return kind(network, channels=card.get("channels", 1), card=card)
