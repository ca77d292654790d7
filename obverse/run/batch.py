"""Several inputs, one after another: a bad one is listed and does not stop the rest."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ..errors import InputError, ObverseError
from .config import instrument as load_instrument
from .config import resolve
from .prepare import prepare
from .store import verify

__all__ = ["Request", "expand", "inspect", "run_all"]

Progress = Callable[[str], AbstractContextManager[Callable[[int, int | None, float], None]]]


@dataclass(frozen=True)
class Request:
    """What is asked of every input of one command.

    Args:
        instrument: name of the instrument.
        settings: the instrument's resolved settings.
        seed: seed of all randomness.
        memory: budget in bytes.
        reference: image of the same field to compare with, or None.
        overwrite, resume, dry_run: as on the command line.
        command: the command as typed, for the record.
        say: takes a line for the user, while the run goes on.
    """

    instrument: str
    settings: BaseModel
    seed: int
    memory: int
    reference: Path | None
    overwrite: bool
    resume: bool
    dry_run: bool
    command: Sequence[str]
    say: Callable[[str], None]


def expand(inputs: Sequence[Path], instrument: str) -> list[Path]:
    """The files named: a folder stands for the instrument's files in it, in order of name."""
    suffixes = load_instrument(instrument).SUFFIXES
    files: list[Path] = []
    for path in inputs:
        if path.is_dir():
            found = sorted(
                p for p in path.iterdir() if p.name.lower().endswith(suffixes) and p.is_file() and p.name[0] != "."
            )
            if not found:
                raise InputError(
                    f"expected files {', '.join(suffixes)} in the folder {path}, found none; name the files themselves"
                )
            files += found
        else:
            files.append(path)
    return files


def run_all(files: Sequence[Path], output: Path, request: Request, progress: Progress) -> list[dict[str, Any]]:
    """Reconstruct each file: one straight into `output`, several into a folder each below it.

    Returns:
        One mapping per file: paths and figures, or `error` (a sentence) and `exception`.
    """
    from .engine import reconstruct

    if request.reference is not None and len(files) > 1:
        raise InputError(f"expected one input with --reference, got {len(files)}; run them one by one")
    folders = [output] if len(files) == 1 else [output / name for name in _distinct(files)]
    outcomes: list[dict[str, Any]] = []
    for path, folder in zip(files, folders, strict=True):
        try:
            outcomes.append(reconstruct(path, folder, request, progress))
        except Exception as error:  # whatever is wrong with one file, the others are still done; it is reported
            outcomes.append({"input": str(path), "error": str(error) or type(error).__name__, "exception": error})
    return outcomes


def inspect(path: Path, instrument: str, layers: Sequence[dict[str, Any]], memory: int) -> list[dict[str, Any]]:
    """What is understood of a file, or of each file of a folder, without reconstructing it; of a run's folder, whether
    its files are intact.

    Returns:
        One mapping per file; with `error`, a sentence, where it cannot be used.
    """
    try:
        if (path / "run.json").is_file():
            changed = verify(path)
            if changed:
                raise InputError(
                    f"expected the files that run.json vouches for, {', '.join(changed)} changed; run it again"
                )
            return [{"input": str(path), "intact": True}]
        if path.is_dir():
            return [
                finding for file in expand([path], instrument) for finding in inspect(file, instrument, layers, memory)
            ]
        module, settings = load_instrument(instrument), resolve(instrument, *layers)
        return [prepare(path, module.read(path, settings), module, settings, memory).understood()]
    except (ObverseError, OSError, MemoryError) as error:
        return [{"input": str(path), "error": str(error) or type(error).__name__}]


def _distinct(files: Sequence[Path]) -> list[str]:
    """A folder name per file: its stem without `.ome`, numbered where two would be equal."""
    names: list[str] = []
    for path in files:
        stem = path.name.split(".")[0] or path.name
        name, number = stem, 2
        while name in names:
            name, number = f"{stem}-{number}", number + 1
        names.append(name)
    return names
