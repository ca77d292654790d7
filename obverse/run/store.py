"""The output folder of a run: claimed before work begins, filled file by file, complete once `run.json` is there.

    OUT/.work/        tiles already computed, with the fingerprint of the run they belong to; removed at the end
    OUT/run.json      written last: settings, seed, versions, hashes of inputs and outputs, diagnostics

Every file is written whole or not at all. Nothing that Obverse did not write is ever removed.
"""

import hashlib
import json
import os
import platform
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import FormatError, InputError
from ..io.record import plain, write_json
from ..io.safe import atomic_write, sha256

__all__ = [
    "OUTPUTS",
    "Session",
    "Store",
    "describe_inputs",
    "finished",
    "interrupted",
    "read_record",
    "verify",
    "versions",
]

# What a run may write, whatever the instrument, and what an answer calls it.
OUTPUTS = {
    "image.ome.tif": "image",
    "std.ome.tif": "std",
    "snr.fits": "snr",
    "flux.fits": "flux",
    "sigma.fits": "sigma",
    "contrast.fits": "contrast",
    "candidates.ecsv": "candidates_table",
    "spectra.ecsv": "spectra",
    "candidate_posterior.ecsv": "candidate_posterior",
    "contrast_curve.ecsv": "contrast_curve",
    "posterior.safetensors": "posterior",
    "estimate.safetensors": "estimate",
    "measurement.safetensors": None,
    "report.html": "report",
    "run.json": None,
}

# What a run leaves in `.work`: its fingerprint, its tiles, and files that an interrupted write did not finish.
_OURS = re.compile(r"fingerprint|session\.json|\d{4,}\.(arrays|posterior)\.safetensors|\..*")
_STAMP, _SESSION = "fingerprint", "session.json"
_RECORD_LIMIT = 50_000_000  # bytes of a run.json


@dataclass(frozen=True)
class Session:
    """What a run leaves for the one that resumes it.

    Args:
        started: when the first session began.
        memory: the budget, in bytes, that the tiles were planned for.
        seconds: spent so far, in all sessions.
    """

    started: str
    memory: int
    seconds: float = 0.0


class Store:
    """One output folder.

    Args:
        folder: OUT; made if it is not there.
        fingerprint: what makes two runs the same: inputs, settings, seed, version and tiles, as JSON-able values.
        overwrite: replace the outputs of an earlier run.
        resume: go on from the tiles of an interrupted run with the same fingerprint.

    Raises:
        InputError: the folder holds an earlier run (without overwrite), or other files, or tiles of a different run.
    """

    def __init__(self, folder: Path, fingerprint: Mapping[str, Any], *, overwrite: bool = False, resume: bool = False):
        self.folder = folder
        self.work = folder / ".work"
        self._made = not folder.exists()
        mark = hashlib.sha256(json.dumps(fingerprint, sort_keys=True, default=str).encode()).hexdigest()
        self._claim(mark, overwrite, resume)

    def _claim(self, mark: str, overwrite: bool, resume: bool) -> None:
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"expected a folder for the output, {self.folder} is a file; choose another -o")
        present = {entry.name for entry in self.folder.iterdir()} if self.folder.exists() else set()
        ours = present & set(OUTPUTS)
        stamp = self.work / _STAMP
        interrupted = stamp.is_file()
        if "run.json" in present and not overwrite and not (interrupted and resume):
            raise InputError(
                f"expected a new output folder, {self.folder} holds a finished run; pass --overwrite or another -o"
            )
        if present - set(OUTPUTS) - {".work"} and not (ours or interrupted):
            raise InputError(
                f"expected a new or empty output folder, {self.folder} holds other files; choose another -o"
            )
        if ours and not (overwrite or interrupted):
            raise InputError(
                f"expected a new output folder, {self.folder} holds {sorted(ours)[0]}; pass --overwrite or another -o"
            )
        foreign = self.work.exists() and any(not _OURS.fullmatch(path.name) for path in self.work.iterdir())
        if foreign:
            raise InputError(f"expected a new output folder, {self.work} holds other files; choose another -o")
        if interrupted and resume and stamp.read_text() != mark:
            raise InputError(
                "expected --resume with the inputs, settings, seed and version of the interrupted run in "
                f"{self.folder}, got others; repeat that command, or drop --resume and pass --overwrite to start afresh"
            )
        if interrupted and not resume and not overwrite:
            raise InputError(
                f"expected a new output folder, {self.folder} holds an interrupted run; pass --resume or --overwrite"
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not (interrupted and resume):
                if self.work.exists():
                    shutil.rmtree(self.work)
                self.work.mkdir()
                with atomic_write(stamp) as file:
                    file.write(mark.encode())
        except OSError as error:
            raise InputError(
                f"expected to write to {self.folder}, got {error.strerror}; choose a folder that can be written"
            ) from error

    def note(self, session: Session) -> None:
        """Store how far this run is, for `interrupted` to read."""
        write_json(self.work / _SESSION, asdict(session), overwrite=True)

    def abandon(self, session: Session | None = None) -> None:
        """Note how far an interrupted run came, or take back its claim if it computed nothing worth keeping."""
        if session is not None and self.work.exists():
            with suppress(OSError, InputError):  # what ended the run matters more
                self.note(session)
        if self.work.exists() and not any(path.name not in (_STAMP, _SESSION) for path in self.work.iterdir()):
            shutil.rmtree(self.work, ignore_errors=True)
            if self._made and not any(self.folder.iterdir()):
                self.folder.rmdir()

    def drop_stale(self, kept: set[str]) -> None:
        """Remove outputs of the run being replaced that the new one does not write, `run.json` first."""
        for name in ("run.json", *OUTPUTS):
            if name not in kept:
                (self.folder / name).unlink(missing_ok=True)

    def finish(self, record: dict[str, Any]) -> None:
        """Write `run.json` with the hashes of all outputs, then drop the work folder."""
        names = [name for name in OUTPUTS if name not in ("run.json", "report.html") and (self.folder / name).is_file()]
        record["outputs"] = {name: sha256(self.folder / name) for name in names}
        write_json(self.folder / "run.json", record, overwrite=True)
        shutil.rmtree(self.work, ignore_errors=True)


def interrupted(folder: Path) -> Session | None:
    """The session of the interrupted run in `folder`; None where there is none to go on with."""
    if not (folder / ".work" / _STAMP).is_file():
        return None
    try:
        found = json.loads((folder / ".work" / _SESSION).read_text(encoding="utf-8"))
        return Session(str(found["started"]), int(found["memory"]), float(found["seconds"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def finished(folder: Path, fingerprint: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record of the run that ended in `folder`, if it had the inputs, settings, seed and version of `fingerprint`.

    Raises:
        InputError: its outputs changed since.
    """
    if not (folder / "run.json").is_file() or (folder / ".work" / _STAMP).is_file():
        return None
    record = read_record(folder)
    wanted = {"inputs": "inputs", "settings": "settings", "seed": "seed", "version": "obverse"}
    if any(record.get(name) != plain(fingerprint[key]) for key, name in wanted.items()):
        return None
    changed = verify(folder)
    if changed:
        raise InputError(
            f"expected the outputs that run.json vouches for, {', '.join(changed)} in {folder} changed since; pass "
            "--overwrite to compute them again"
        )
    return record


def read_record(folder: Path) -> dict[str, Any]:
    """The `run.json` of a finished run."""
    path = folder / "run.json"
    if not path.is_file():
        raise InputError(
            f"expected the folder of a finished run, found no run.json in {folder}; name the -o folder of a run"
        )
    if path.stat().st_size > _RECORD_LIMIT:
        raise FormatError(
            f"expected a run.json of at most {_RECORD_LIMIT} bytes, got a larger one in {folder}; it is damaged"
        )
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise FormatError(
            f"expected JSON in {path}, got text that does not parse; run the reconstruction again"
        ) from error
    if not isinstance(record, dict) or "obverse" not in record:
        raise FormatError(
            f"expected a record written by Obverse in {path}, got something else; name the -o folder of a run"
        )
    return record


def verify(folder: Path) -> list[str]:
    """Names of the stored outputs whose SHA-256 is no longer the one in `run.json` (or that are gone)."""
    outputs = read_record(folder).get("outputs", {})
    if not isinstance(outputs, dict) or not set(outputs) <= set(OUTPUTS):
        raise FormatError(
            f"expected the names of outputs in {folder}/run.json, got others; run the reconstruction again"
        )
    return [
        name for name, digest in outputs.items() if not (folder / name).is_file() or sha256(folder / name) != digest
    ]


def describe_inputs(paths: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Name, role, SHA-256 and size of each input file."""
    return [
        {"role": role, "name": path.name, "sha256": sha256(path), "bytes": os.path.getsize(path)}
        for role, path in paths.items()
    ]


def versions() -> dict[str, str]:
    """Versions of what computed the result."""
    found = {"obverse": __version__, "python": platform.python_version(), "platform": platform.platform()}
    for name in (
        "torch",
        "numpy",
        "scipy",
        "numba",
        "finufft",
        "tifffile",
        "astropy",
        "safetensors",
        "linear_operator",
    ):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def now() -> str:
    """The time of day in ISO 8601, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
