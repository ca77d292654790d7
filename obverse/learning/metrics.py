"""The record of a training: a JSON line a step, never behind the checkpoint and never ahead of it once resumed.

Lines reach the disk before the checkpoint of their step does. After a crash the file may hold steps that the checkpoint
does not know, or half a line; they are cut off when training goes on, since they are about to be made again.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..io.safe import atomic_write

__all__ = ["Metrics"]


class Metrics:
    """A context that appends to a file of JSON lines.

    Args:
        path: of the file; None where another process keeps it.
        step: of the checkpoint; later lines are dropped.
    """

    def __init__(self, path: Path | None, step: int):
        if path is not None and path.exists():
            kept = "".join(_until(step, path.read_text(encoding="utf-8", errors="replace")))
            with atomic_write(path, overwrite=True) as file:
                file.write(kept.encode())
        self.path = path

    def __enter__(self) -> "Metrics":
        self.file = None if self.path is None else self.path.open("a", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        if self.file is not None:
            self.file.close()

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one line."""
        if self.file is not None:
            self.file.write(json.dumps(record) + "\n")

    def flush(self) -> None:
        """See to it that what was written is on the disk."""
        if self.file is not None:
            self.file.flush()
            os.fsync(self.file.fileno())


def _until(step: int, text: str) -> list[str]:
    kept = []
    for line in text.splitlines():
        try:
            if json.loads(line)["step"] > step:
                break
        except (ValueError, KeyError, TypeError):
            break
        kept.append(line + "\n")
    return kept
