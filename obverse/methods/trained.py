"""From a file of weights to the method that it was trained as: the card's objective tells which, and how it was set."""

__all__ = ["Ranged", "require_range", "trained"]

import dataclasses
import math
import os
from typing import Any, TypeVar

from ..errors import InputError
from ..networks import load

Method = TypeVar("Method")


def trained(path: str | os.PathLike[str], kind: str) -> dict[str, Any]:
    """Arguments for a method of a kind: network, settings, card.

    Raises:
        InputError: the weights were trained as another method, or as none.
        FormatError: the file is damaged.
    """
    network, card = load(path)
    settings = dict(card.get("objective", {}).get("method", {}))
    found = settings.pop("kind", None)
    if found != kind:
        instead = f"of a {found}" if found else "of no method (a denoiser is read with priors.load)"
        raise InputError(f"expected weights of a method {kind} in {path}, got those {instead}")
    return {"channels": card.get("channels", 1), **settings, "network": network, "card": card}


class Ranged:
    """A method, a dataclass, for images whose values run from `low` to `high`."""

    def scaled(self: Method, low: float, high: float) -> Method:
        """The same method for images whose values run from `low` to `high`."""
        return dataclasses.replace(self, low=float(low), high=float(high))  # type: ignore[type-var]


def require_range(low: float, high: float, method: str) -> None:
    """An InputError unless low < high, both finite."""
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(f"{method} expects low < high, got [{low}, {high}]; name the range of the images")
