"""One input, from its file to its output folder.

    read → characterise the whole → plan tiles → per tile: measure → method → store → assemble → report

A run that fits in memory is a run of one tile. Each finished tile is stored at once, so that an interrupted run goes on
where it stopped; an assembled output is the same whatever tiles it was made of.
"""

import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import InputError, NumericsError
from ..io.record import plain
from ..io.safe import read_safetensors, write_safetensors
from ..methods.covariance_error import CovarianceError
from ..posterior import Posterior
from ..posterior.estimate import Estimate
from ..volume import Volume
from .assemble import join
from .batch import Progress, Request
from .config import instrument as load_instrument
from .plan import Tile
from .prepare import Prepared, prepare
from .publish import already, publish
from .store import OUTPUTS, Session, Store, describe_inputs, finished, interrupted, now

__all__ = ["reconstruct"]


@dataclass(frozen=True)
class _Run:
    """What every tile of one run shares; `began` is by a clock that starts with this session."""

    module: Any
    request: Request
    prepared: Prepared
    store: Store
    session: Session
    began: float

    def spent(self) -> Session:
        """The session, with the seconds that have passed."""
        return replace(self.session, seconds=self.session.seconds + time.perf_counter() - self.began)


def reconstruct(path: Path, folder: Path, request: Request, progress: Progress) -> dict[str, Any]:
    """Reconstruct the file at `path` into `folder`; returns the paths written and the figures that matter.

    Raises:
        InputError, FormatError: the input, its settings or the folder are not usable; nothing half-written is left.
        KeyboardInterrupt: finished tiles stay in the folder, for `resume`.
    """
    session, began = Session(now(), request.memory), time.perf_counter()
    module, settings = load_instrument(request.instrument), request.settings
    inputs = _inputs(path, folder, request, module)
    fingerprint = {
        "inputs": inputs,
        "settings": settings.model_dump(mode="json"),
        "seed": request.seed,
        "version": __version__,
    }
    if request.resume and not request.dry_run:
        done = finished(folder, fingerprint)
        if done is not None:
            request.say(f"obverse: {path.name} was finished before, nothing is left to resume in {folder}")
            return already(folder, done)
        session = _resumed(folder, session, request)
    volume = module.read(path, settings)
    reference = _reference(volume, request, module)
    prepared = prepare(path, volume, module, settings, session.memory)
    tiles = prepared.plan.tiles
    if request.dry_run:
        answer = {"output": str(folder), "settings": settings.model_dump(mode="json")}
        return prepared.understood() | answer
    fingerprint["tiles"] = [str(tile) for tile in tiles]
    store = Store(folder, fingerprint, overwrite=request.overwrite, resume=request.resume)
    run = _Run(module, request, prepared, store, session, began)
    try:
        store.note(session)
        for sentence in prepared.facts["warnings"]:
            request.say(f"obverse: {path.name}: {sentence}")
        notes = [_tile(run, tile, progress) for tile in tiles]
        assembly = join(store.work, prepared.plan, prepared.shape, rank=prepared.facts.get("rank"))
        return publish(module, request, prepared, store, assembly, notes, inputs, reference, run.spent)
    except BaseException:
        store.abandon(run.spent())
        raise


def _inputs(path: Path, folder: Path, request: Request, module: Any) -> list[dict[str, Any]]:
    """The input files, all of them there and none of them in the way of an output."""
    files = {"data": path, **{role: Path(p) for role, p in module.files(request.settings).items()}}
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
    return describe_inputs(files)


def _reference(volume: Volume, request: Request, module: Any) -> Volume | None:
    if request.reference is None:
        return None
    reference = module.read(request.reference, request.settings)
    reference.check_values("the reference")
    grid, found = module.picture(volume).shape, module.picture(reference).shape
    if found != grid:
        raise InputError(f"expected a reference on the data's grid {grid}, got {found}; resample it")
    return reference


def _resumed(folder: Path, session: Session, request: Request) -> Session:
    """The session to go on with: that of the interrupted run, whose tiles only its own memory budget gives again."""
    earlier = interrupted(folder)
    if earlier is None:
        request.say(f"obverse: nothing to resume in {folder}: starting from the beginning")
        return session
    budget = f"{earlier.memory / 10**9:.3g} GB"
    request.say(f"obverse: resuming the run in {folder}, with the tiles planned for its memory budget of {budget}")
    return earlier


def _tile(run: _Run, tile: Tile, progress: Progress) -> dict[str, Any]:
    """Compute one tile, or find it already computed; its arrays and posterior are stored, its notes returned."""
    arrays_path = run.store.work / f"{tile.index:04d}.arrays.safetensors"
    if arrays_path.is_file():
        return json.loads(read_safetensors(arrays_path)[1]["notes"])
    module, request, prepared = run.module, run.request, run.prepared
    count = len(prepared.plan.tiles)
    part = prepared.volume if count == 1 else prepared.volume.cropped((slice(None), *tile.read))
    measurement = module.measure(part, request.settings, shared=prepared.facts)
    method = module.method(measurement, request.settings, request.seed + tile.index)
    label = "reconstructing" if count == 1 else f"tile {tile.index + 1} of {count}"
    kept = measurement.narrowed((slice(None), *tile.inner))
    posterior = None
    with progress(label) as callback:
        try:
            result: Estimate = method(measurement.y, measurement.problem, callback=callback)
            if isinstance(result, Posterior):
                posterior = result.crop(kept.crop).affine(kept.scale, kept.offset)
                path = run.store.work / f"{tile.index:04d}.posterior.safetensors"
                _save(posterior, result, path, prepared.facts.get("rank"))
        except CovarianceError as error:
            # The image took the most work, and is as good as without this: it is published without uncertainty.
            result, posterior = error.estimate, None
    status = module.explained(result.status)
    lost = (status.message,) if status.reason == "no-covariance" else ()
    arrays, figures = module.answer(result, kept)
    notes = {
        "status": asdict(status),
        "diagnostics": result.diagnostics,
        "figures": figures,
        "target": posterior.target if posterior else None,
        "method": {"name": getattr(method, "name", type(method).__name__), **module.describe(method)},
        "warnings": (*measurement.warnings, *lost),
    }
    write_safetensors(arrays_path, arrays, {"notes": json.dumps(plain(notes))}, overwrite=True)
    run.store.note(run.spent())
    return plain(notes)


def _save(posterior: Posterior, result: Posterior, path: Path, rank: int | None) -> None:
    """Compress and write a posterior, which is when most of its covariance is computed."""
    try:
        posterior.save(path, rank=rank, overwrite=True)
    except NumericsError as error:
        raise CovarianceError(error, result) from error
