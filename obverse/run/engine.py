"""One input, from its file to its output folder.

    read → characterise the whole → plan tiles → per tile: measure → method → store → assemble → report

A run that fits in memory is a run of one tile. Each finished tile is stored at once, so that an interrupted run goes on
where it stopped; an assembled output is the same whatever tiles it was made of.
"""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import __version__
from ..errors import InputError
from ..io.record import plain
from ..io.safe import read_safetensors, write_safetensors
from ..posterior import Posterior
from ..report import write as write_report
from ..volume import Volume
from .assemble import Assembly, join
from .batch import Progress, Request
from .config import instrument as load_instrument
from .figures import compare, resolve
from .plan import Tile, plan
from .store import OUTPUTS, Store, describe_inputs, now, versions

__all__ = ["reconstruct"]


@dataclass(frozen=True)
class _Run:
    """What every tile of one run shares."""

    module: Any
    request: Request
    volume: Volume
    facts: dict[str, Any]
    store: Store


def reconstruct(path: Path, folder: Path, request: Request, progress: Progress) -> dict[str, Any]:
    """Reconstruct the file at `path` into `folder`; returns the paths written and the figures that matter.

    Raises:
        InputError, FormatError: the input, its settings or the folder are not usable; nothing half-written is left.
        KeyboardInterrupt: finished tiles stay in the folder, for `resume`.
    """
    started, began = now(), time.perf_counter()
    module, settings = load_instrument(request.instrument), request.settings
    files = {"data": path, **{role: Path(p) for role, p in module.files(settings).items()}}
    if request.reference is not None:
        files["reference"] = request.reference
    missing = [p for p in files.values() if not p.is_file()]
    if missing:
        raise InputError(f"expected a file, found none at {missing[0]}; check the path")
    for p in files.values():
        if p.resolve().parent == folder.resolve() and p.name in OUTPUTS:
            raise InputError(
                f"expected an output folder that does not hold the input {p.name}, got {folder}; choose another"
            )
    inputs = describe_inputs(files)
    volume = module.read(path, settings)
    reference = module.read(request.reference, settings) if request.reference is not None else None
    if reference is not None:
        reference.check_values("the reference")
    if reference is not None and reference.image().shape != volume.image().shape:
        raise InputError(
            f"expected a reference on the data's grid {volume.image().shape}, got {reference.image().shape}; "
            "resample it"
        )
    facts = module.characterise(volume, settings)
    footprint = module.footprint(volume, settings, facts)
    shape = volume.image().shape
    tiles = plan(
        shape[1:],
        footprint.halo,
        bytes_per_voxel=footprint.bytes_per_voxel,
        fixed_bytes=footprint.fixed_bytes,
        memory=request.memory,
        channels=shape[0],
    )
    if request.dry_run:
        return {
            "input": str(path),
            "output": str(folder),
            "shape": list(shape),
            "tiles": len(tiles.tiles),
            "expected memory": tiles.bytes_needed,
            "settings": settings.model_dump(mode="json"),
            "facts": facts,
        }
    fingerprint = {
        "inputs": inputs,
        "settings": settings.model_dump(mode="json"),
        "seed": request.seed,
        "version": __version__,
        "tiles": [str(tile) for tile in tiles.tiles],
    }
    store = Store(folder, fingerprint, overwrite=request.overwrite, resume=request.resume)
    run = _Run(module, request, volume, facts, store)
    try:
        notes = [_tile(run, tile, len(tiles.tiles), progress) for tile in tiles.tiles]
        assembly = join(store.work, tiles, shape, rank=facts.get("rank"))
        return _publish(run, assembly, notes, inputs, reference, started, began)
    except BaseException:
        store.abandon()
        raise


def _tile(run: _Run, tile: Tile, count: int, progress: Progress) -> dict[str, Any]:
    """Compute one tile, or find it already computed; its arrays and posterior are stored, its notes returned."""
    arrays_path = run.store.work / f"{tile.index:04d}.arrays.safetensors"
    if arrays_path.is_file():
        return json.loads(read_safetensors(arrays_path)[1]["notes"])
    module, request = run.module, run.request
    read = (slice(None), *tile.read)
    part = run.volume if count == 1 else run.volume.cropped(read)
    measurement = module.measure(part, request.settings, shared=run.facts)
    method = module.method(measurement, request.settings, request.seed + tile.index)
    label = "reconstructing" if count == 1 else f"tile {tile.index + 1} of {count}"
    with progress(label) as callback:
        result = method(measurement.y, measurement.problem, callback=callback)
    inner = (slice(None), *tile.inner)
    posterior = None
    if isinstance(result, Posterior):
        posterior = result.crop(measurement.crop).affine(measurement.scale, measurement.offset).crop(inner)
        path = run.store.work / f"{tile.index:04d}.posterior.safetensors"
        posterior.save(path, rank=run.facts.get("rank"), overwrite=True)
    ideal = measurement.problem.operator(result.image)
    spread = measurement.problem.noise.variance(ideal).sqrt().expand_as(ideal)

    def counts(array: torch.Tensor, offset: float) -> np.ndarray:
        kept = array[measurement.crop][inner]
        return (offset + measurement.scale * kept).to(torch.float32).numpy()

    arrays = {
        "image": counts(result.image, measurement.offset),
        "prediction": counts(ideal, measurement.offset),
        "noise_std": counts(spread, 0.0),
    }
    notes = {
        "status": asdict(result.status),
        "diagnostics": result.diagnostics,
        "target": posterior.target if posterior else None,
        "method": {"name": type(method).__name__, **module.describe(method)},
        "warnings": measurement.warnings,
    }
    write_safetensors(arrays_path, arrays, {"notes": json.dumps(plain(notes))}, overwrite=True)
    return plain(notes)


def _publish(
    run: _Run,
    assembly: Assembly,
    notes: list[dict[str, Any]],
    inputs: list[dict[str, Any]],
    reference: Volume | None,
    started: str,
    began: float,
) -> dict[str, Any]:
    """Write the outputs in the instrument's own format, the record and the report."""
    module, request, volume, folder = run.module, run.request, run.volume, run.store.folder
    data = np.asarray(volume.image(), dtype=np.float32)
    stored = {"data": data, "prediction": assembly.prediction, "noise_std": assembly.noise_std}
    if reference is not None:
        stored["reference"] = np.asarray(reference.image(), dtype=np.float32)
    periods, curves = resolve(data, assembly, reference, volume.spacing_in("X", "nm"))
    stored |= curves
    paths = {"image": folder / "image.ome.tif"}
    kept = {"image.ome.tif", "measurement.safetensors", "report.html", "run.json"}
    kept |= {"std.ome.tif", "posterior.safetensors"} if assembly.posterior else {"estimate.safetensors"}
    run.store.drop_stale(kept - {"run.json", "report.html"})
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
    figures = {
        **compare(data, assembly, reference),
        **periods,
        "seconds": time.perf_counter() - began,
    }
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
        "facts": run.facts,
        "seed": request.seed,
        "started": started,
        "seconds": figures["seconds"],
        "versions": versions(),
        "inputs": inputs,
        "figures": figures,
        "diagnostics": notes[0]["diagnostics"]
        if len(notes) == 1
        else {"tiles": [note["diagnostics"] for note in notes]},
        "status": status,
        "warnings": warnings,
        "target": notes[0]["target"],
        "axes": axes,
        "spacing": [volume.spacing_in(axis, "um") for axis in axes],
        "spacing_unit": "um",
        "intensity_unit": volume.intensity_unit,
        "tiles": len(notes),
    }
    run.store.finish(record)
    paths["report"] = write_report(folder)
    return {
        "input": inputs[0]["name"],
        **{name: str(path) for name, path in paths.items()},
        **figures,
        "converged": bool(status["converged"]),
        "status": status["message"],
        "warnings": warnings,
    }
