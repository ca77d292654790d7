"""Weights on disk: one safetensors file whose header holds the card, verified byte by byte when it is read.

A card is a mapping: `network` describes the architecture (`kind` names the class, the other entries are its arguments,
which may be descriptions themselves), the rest says where the weights come from: data and its licence, recipe, seed,
steps, metrics, range of noise levels.
"""

import json
import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..errors import FormatError, InputError
from ..io.record import plain
from ..io.safe import read_safetensors, write_safetensors

__all__ = ["build", "load", "read_card", "register", "save"]

_LARGEST = 65536  # channels, layers, components of a network in a file

_KINDS: dict[str, type[nn.Module]] = {}


def register(*kinds: type[nn.Module]) -> None:
    """Make classes known to `build` under their names."""
    for kind in kinds:
        _KINDS[kind.__name__] = kind


def build(description: Mapping[str, Any]) -> nn.Module:
    """A network with fresh weights, drawn from torch's global generator as torch's layers do.

    Args:
        description: `kind`, the class, and its arguments; an argument that is itself a description is built first.

    Raises:
        InputError: an unknown kind or argument.

    Example:
        >>> build({"kind": "UNet", "inputs": 1, "outputs": 1, "widths": [8], "blocks": 1}).head.out_channels
        8
    """
    if not isinstance(description, Mapping) or description.get("kind") not in _KINDS:
        kind = description.get("kind") if isinstance(description, Mapping) else description
        raise InputError(f"expected a network whose kind is one of {', '.join(sorted(_KINDS))}, got {kind!r}")
    arguments = {
        name: build(value) if isinstance(value, Mapping) and "kind" in value else value
        for name, value in description.items()
        if name != "kind"
    }
    try:
        return _KINDS[description["kind"]](**arguments)
    except TypeError as error:
        raise InputError(f"{description['kind']} cannot be built from {sorted(arguments)}: {error}") from error


def save(path: str | os.PathLike[str], network: nn.Module, card: Mapping[str, Any], overwrite: bool = False) -> str:
    """Write weights and card atomically; returns the file's SHA-256.

    Args:
        card: `network`, its description, and whatever tells of its making.
    """
    arrays = {name: value.detach().contiguous().cpu() for name, value in network.state_dict().items()}
    return write_safetensors(path, arrays, {"card": json.dumps(plain(card))}, overwrite)


def load(path: str | os.PathLike[str]) -> tuple[nn.Module, dict[str, Any]]:
    """The network, in evaluation mode and without gradients, and its card.

    Raises:
        InputError: the file cannot be read.
        FormatError: it is damaged, or its weights do not fit the network that its card describes.
    """
    arrays, metadata = read_safetensors(path)
    weights = {name: torch.from_numpy(array) for name, array in arrays.items()}
    try:
        card = _card(metadata)
        # First without memory: a card may ask for more than there is, the file cannot hold more than its size.
        with torch.device("meta"):
            _check_fit(path, build(card["network"]), weights)
        network = build(card["network"])
    except FormatError:
        raise
    except Exception as error:  # whatever a class makes of a description that is not to be trusted
        detail = " ".join(str(error).split())[:200]
        raise FormatError(
            f"{path} expects a card that describes its network, got none that can be built ({detail}); write it with "
            "Obverse"
        ) from error
    _check_fit(path, network, weights)
    network.load_state_dict(weights)
    return network.eval().requires_grad_(False), card


def read_card(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The card alone, of a file whose every byte was verified; the network is not built.

    Raises:
        InputError: the file cannot be read.
        FormatError: it is damaged, or holds no card.
    """
    try:
        return _card(read_safetensors(path)[1])
    except (FormatError, InputError):
        raise
    except Exception as error:  # a card is not to be trusted
        detail = " ".join(str(error).split())[:200]
        raise FormatError(f"{path} expects weights with a card, got none ({detail}); write it with Obverse") from error


def _card(metadata: Mapping[str, str]) -> dict[str, Any]:
    card = json.loads(metadata["card"])
    _check_numbers(card["network"])
    return card


def _check_numbers(description: Any) -> None:
    """Refuse numbers of layers or channels that nothing could ever build."""
    parts = description.values() if isinstance(description, Mapping) else description
    for part in parts:
        if isinstance(part, Mapping | list):
            _check_numbers(part)
        elif isinstance(part, int) and part > _LARGEST:
            raise FormatError(f"a network's description expects numbers up to {_LARGEST}, got {part}; it is hostile")


def _check_fit(path: Any, network: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    odd = [name for name in expected | found if expected.get(name) != found.get(name)]
    if odd:
        name = odd[0]
        raise FormatError(
            f"{path} expects weights that fit its card, got {name} of shape {found.get(name, 'none')} instead of "
            f"{expected.get(name, 'none')}; train it again"
        )
