"""The end of a run: its outputs in the instrument's own format, its record and its report."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import __version__
from ..io.safe import write_safetensors
from ..report import write as write_report
from ..volume import Volume
from .assemble import Assembly
from .batch import Request
from .figures import compare, resolve
from .prepare import Prepared
from .store import Session, Store, versions

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
    data = np.asarray(volume.image(), dtype=np.float32)
    stored = {"data": data, "prediction": assembly.prediction, "noise_std": assembly.noise_std}
    if reference is not None:
        stored["reference"] = np.asarray(reference.image(), dtype=np.float32)
    periods, curves = resolve(data, assembly, reference, volume.spacing_in("X", "nm"))
    stored |= curves
    paths = {"image": folder / "image.ome.tif"}
    kept = {"image.ome.tif", "measurement.safetensors", "report.html", "run.json"}
    kept |= {"std.ome.tif", "posterior.safetensors"} if assembly.posterior else {"estimate.safetensors"}
    store.drop_stale(kept - {"run.json", "report.html"})
    module.write(volume.like(assembly.image, "reconstructed by Obverse: mean"), paths["image"])
    write_safetensors(
        folder / "measurement.safetensors", stored, {"axes": "C" + "ZYX"[-(data.ndim - 1) :]}, overwrite=True
    )
    if assembly.posterior is not None:
        std = assembly.posterior.std.to(torch.float32).numpy()
        module.write(volume.like(std, "posterior standard deviation by Obverse"), folder / "std.ome.tif")
        assembly.posterior.save(folder / "posterior.safetensors", overwrite=True)
        paths |= {"std": folder / "std.ome.tif", "posterior": folder / "posterior.safetensors"}
    else:
        write_safetensors(folder / "estimate.safetensors", {"image": assembly.image}, {}, overwrite=True)
        paths["estimate"] = folder / "estimate.safetensors"
    status = next((note["status"] for note in notes if not note["status"]["converged"]), notes[0]["status"])
    session = spent()
    figures = {**compare(data, assembly, reference), **periods, "seconds": session.seconds}
    if all("evaluations" in note["diagnostics"] for note in notes):
        figures["evaluations"] = sum(int(note["diagnostics"]["evaluations"]) for note in notes)
    axes = "C" + "ZYX"[-(data.ndim - 1) :]
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
        "spacing": [volume.spacing_in(axis, "um") for axis in axes],
        "spacing_unit": "um",
        "intensity_unit": volume.intensity_unit,
        "tiles": len(notes),
    }
    store.finish(record)
    paths["report"] = write_report(folder)
    return _answer(record, paths)


def already(folder: Path, record: dict[str, Any]) -> dict[str, Any]:
    """What `publish` returned of a run that is finished; its report is written if that had not come about."""
    if not (folder / "report.html").is_file():
        write_report(folder)
    names = {
        "image": "image.ome.tif",
        "std": "std.ome.tif",
        "posterior": "posterior.safetensors",
        "estimate": "estimate.safetensors",
        "report": "report.html",
    }
    paths = {name: folder / file for name, file in names.items() if (folder / file).is_file()}
    return _answer(record, paths) | {"finished before": True}


def _answer(record: dict[str, Any], paths: dict[str, Path]) -> dict[str, Any]:
    return {
        "input": record["inputs"][0]["name"],
        **{name: str(path) for name, path in paths.items()},
        **record["figures"],
        "converged": bool(record["status"]["converged"]),
        "status": record["status"]["message"],
        "warnings": record["warnings"],
    }
