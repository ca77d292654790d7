"""Small values as JSON files: what was found on calibration images, to be used on others."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import FormatError, InputError
from ...io.record import write_json

__all__ = ["read_facts", "write_facts"]


def write_facts(path: str | os.PathLike[str], kind: str, facts: Mapping[str, Any], overwrite: bool) -> Path:
    """One JSON object with its kind and version, whole or not at all."""
    return write_json(path, {"format": f"obverse-{kind}", "version": 1, **facts}, overwrite)


def read_facts(path: str | os.PathLike[str], kind: str) -> dict[str, Any]:
    """The facts of a file of this kind.

    Raises:
        InputError: the file cannot be read.
        FormatError: it is of another kind.
    """
    try:
        facts = json.loads(Path(path).read_text(encoding="utf-8"))
        if facts.pop("format") != f"obverse-{kind}" or facts.pop("version") != 1:
            raise ValueError("another format or version")
        return {name: tuple(part) if isinstance(part, list) else part for name, part in facts.items()}
    except OSError as error:
        raise InputError(f"{path} expects a readable file, got {error.strerror}; check the path") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{path} expects a saved {kind}, got another kind of file ({error})") from error
