"""Records: settings, figures and diagnostics as plain JSON, whatever library their numbers come from."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .safe import atomic_write

__all__ = ["plain", "write_json"]


def plain(value: Any) -> Any:
    """What JSON can hold: tensors and arrays become lists; numbers that it cannot hold (NaN, infinity) become text.

    >>> plain({"a": np.float32(0.5), 2: (np.arange(2), float("inf"))})
    {'a': 0.5, '2': [[0, 1], 'inf']}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if hasattr(value, "detach"):
        return plain(value.detach().cpu().numpy())
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()  # a file name may hold bytes that are no text
    if value is None or isinstance(value, bool | int | float):
        return value
    return str(value)


def write_json(path: str | os.PathLike[str], value: Any, overwrite: bool = False) -> Path:
    """Write a value as indented JSON, whole or not at all."""
    with atomic_write(path, overwrite) as file:
        file.write((json.dumps(plain(value), indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode())
    return Path(path)
