"""The end of a run: its outputs in the instrument's own format, its record and its report."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import __version__
from ..io.safe import write_safetensors
from ..report import write as write_report
from ..volume import LENGTH_UNITS, Volume
from .assemble import Assembly
from .batch import Request
from .figures import compare, resolve
from .prepare import Prepared
from .store import OUTPUTS, Session, Store, versions

__all__ = ["already", "publish"]


def publish(
    module: Any,
    request: Request,
    prepared: Prepared,
    store: Store,
    assembly: Assembly,
    notes: list[dict[str, Any]],
    inputs: list[dict[str, Any]],
    reference: Volume | None,
    spent: Callable[[], Session],
) -> dict[str, Any]:
    """Write the outputs, `run.json` and the report; returns the paths written and the figures that matter.

    Args:
        module: the instrument.
        request: what was asked.
        prepared: the input and what was understood of it.
        store: the output folder.
        assembly: the result.
        notes: of each tile.
        inputs: the input files, as recorded.
        reference: to compare with, or None.
        spent: the session with the seconds spent when it is called.
    """
    volume, folder = prepared.volume, store.folder
    data = np.asarray(module.picture(volume), dtype=np.float32)
    known = {"data": data, "prediction": assembly.prediction, "noise_std": assembly.noise_std, **assembly.others}
    stored = {name: array for name, array in known.items() if array is not None}
    if reference is not None:
        stored["reference"] = np.asarray(reference.image(), dtype=np.float32)
    periods, curves = resolve(data, assembly, reference, volume.spacing_in("X", "nm"))
    stored |= curves
    store.drop_stale(set())
    std = None if assembly.posterior is None else assembly.posterior.std.to(torch.float32).numpy()
    answered: dict[str, Any] = notes[0].get("figures", {})
    arrays = {"image": assembly.image, **assembly.others}
    module.export(folder, volume, arrays, std, answered, prepared.facts)
    write_safetensors(
        folder / "measurement.safetensors", stored, {"axes": "C" + "ZYX"[-(data.ndim - 1) :]}, overwrite=True
    )
    if assembly.posterior is not None:
        assembly.posterior.save(folder / "posterior.safetensors", overwrite=True)
    else:
        write_safetensors(folder / "estimate.safetensors", {"image": assembly.image}, {}, overwrite=True)
    status = next((note["status"] for note in notes if not note["status"]["converged"]), notes[0]["status"])
    session = spent()
    figures = {**compare(data, assembly, reference), **periods, **answered, "seconds": session.seconds}
    if all("evaluations" in note["diagnostics"] for note in notes):
        figures["evaluations"] = sum(int(note["diagnostics"]["evaluations"]) for note in notes)
    axes = "C" + "ZYX"[-(data.ndim - 1) :]
    spacing, unit = _spacing(volume, axes)
    warnings = list(
        dict.fromkeys([sentence for note in notes for sentence in note["warnings"]] + list(assembly.warnings))
    )
    record = {
        "obverse": __version__,
        "command": list(request.command),
        "instrument": request.instrument,
        "method": notes[0]["method"],
        "settings": request.settings.model_dump(mode="json"),
        "facts": prepared.facts,
        "seed": request.seed,
        "started": session.started,
        "seconds": figures["seconds"],
        "versions": versions(),
        "inputs": inputs,
        "figures": figures,
        "diagnostics": notes[0]["diagnostics"]
        if len(notes) == 1
        else {"tiles": [note["diagnostics"] for note in notes]},
        "status": status,
        "warnings": warnings,
        "target": assembly.posterior.target if assembly.posterior else None,
        "axes": axes,
        "spacing": spacing,
        "spacing_unit": unit,
        "intensity_unit": volume.intensity_unit,
        "tiles": len(notes),
    }
    store.finish(record)
    write_report(folder)
    return _answer(record, folder)


def already(folder: Path, record: dict[str, Any]) -> dict[str, Any]:
    """What `publish` returned of a run that is finished; its report is written if that had not come about."""
    if not (folder / "report.html").is_file():
        write_report(folder)
    return _answer(record, folder) | {"finished before": True}


def _spacing(volume: Volume, axes: str) -> tuple[list[float | None], str]:
    """Steps along the axes of the image in µm, or, where they are no lengths, in their own unit."""
    own = {letter: (step, unit) for letter, step, unit in zip(volume.axes, volume.spacing or (), volume.units or ())}
    step, unit = own.get("X", (None, None))
    if step is None or unit is None or unit in LENGTH_UNITS:
        return [volume.spacing_in(axis, "um") for axis in axes], "um"
    return [own.get(axis, (None, None))[0] for axis in axes], unit


def _answer(record: dict[str, Any], folder: Path) -> dict[str, Any]:
    return {
        "input": record["inputs"][0]["name"],
        **{name: str(folder / file) for file, name in OUTPUTS.items() if name and (folder / file).is_file()},
        **record["figures"],
        "converged": bool(record["status"]["converged"]),
        "status": record["status"]["message"],
        "warnings": record["warnings"],
    }
