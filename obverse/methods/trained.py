"""From a file of weights to the method that it was trained as: the card's objective tells which, and how it was set."""

__all__ = ["require_range", "trained"]

import math
import os
from typing import Any

from ..errors import InputError
from ..networks import load


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


def require_range(low: float, high: float, method: str) -> None:
    """An InputError unless low < high, both finite."""
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(f"{method} expects low < high, got [{low}, {high}]; name the range of the images")
