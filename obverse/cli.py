"""The command line: from an instrument's file to a report.

Exit codes: 0 done, 2 bad input, 3 some items failed and are listed, 4 ran but did not converge, 130 interrupted.
With `--json` a command prints one JSON object on standard output and nothing else there; progress and messages go to
standard error.
"""

import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter

from . import __version__
from .errors import InputError, NumericsError, ObverseError

__all__ = ["app", "main"]

DONE, BAD_INPUT, SOME_FAILED, NOT_CONVERGED, INTERRUPTED = 0, 2, 3, 4, 130

# The words of the command that is running, for its record.
_COMMAND: ContextVar[tuple[str, ...]] = ContextVar("command", default=())

app = App(
    name="obverse",
    version=__version__,
    help="Posteriors for imaging inverse problems: the image, how far to trust each part of it, and the picture of "
    "both.",
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)

Json = Annotated[bool, Parameter(name="--json", negative=(), help="Print one JSON object on standard output.")]
Config = Annotated[Path | None, Parameter(help="YAML file of settings, as `obverse config` prints them.")]
Assign = Annotated[
    list[str] | None, Parameter(name="--set", negative=(), help="KEY=VALUE, one setting; may be repeated.")
]
Psf = Annotated[Path | None, Parameter(help="TIFF or FITS of the measured point-spread function.")]
Angles = Annotated[Path | None, Parameter(help="FITS, text or CSV of each frame's angle, for exoplanet.")]
Memory = Annotated[str | None, Parameter(help="Memory budget such as 4GB; default half of what is free.")]
Overwrite = Annotated[bool, Parameter(negative=(), help="Replace the outputs of an earlier run.")]


@app.command
def demo(
    name: str = "microtubules",
    /,
    *,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"], help="Output folder.")] = None,
    set_: Assign = None,
    overwrite: Overwrite = False,
    json_: Json = False,
) -> int:
    """Reconstruct a bundled real example, from its data to report.html.

    Parameters
    ----------
    name
        The example: microtubules (2-D widefield, with its SIM reference), grid (3-D stack with a measured PSF) or
        exoplanet (frames of beta Pictoris with its planet b).
    """
    from .run.demo import example

    chosen = example(name)
    return _reconstruct(
        [chosen.data],
        output or Path(f"obverse-demo-{name}"),
        chosen.instrument,
        [chosen.settings, *_layers(None, set_)],
        reference=chosen.reference,
        overwrite=overwrite,
        as_json=json_,
    )


@app.command
def reconstruct(
    inputs: Annotated[list[Path], Parameter(name="INPUT", help="Files, or folders of files.")],
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="Output folder.")],
    instrument: Annotated[str, Parameter(help="Instrument that made the data.")] = "microscopy",
    psf: Psf = None,
    angles: Angles = None,
    reference: Annotated[Path | None, Parameter(help="Image of the same field to compare with.")] = None,
    method: Annotated[
        str | None,
        Parameter(
            help="laplace, gaussian, langevin, local-gaussian, map, plug-and-play or richardson-lucy; for exoplanet "
            "paco, deep-paco, fmmf, pca, llsg or median-adi."
        ),
    ] = None,
    rank: Annotated[int | None, Parameter(help="Components of the covariance to keep.")] = None,
    samples: Annotated[int | None, Parameter(help="Posterior draws, for sampling methods.")] = None,
    config: Config = None,
    set_: Assign = None,
    seed: Annotated[int, Parameter(help="Seed of all randomness.")] = 0,
    memory: Memory = None,
    resume: Annotated[bool, Parameter(negative=(), help="Go on with an interrupted run.")] = False,
    dry_run: Annotated[bool, Parameter(negative=(), help="Say what would be done, and stop.")] = False,
    overwrite: Overwrite = False,
    json_: Json = False,
) -> int:
    """Reconstruct measurements: image, standard deviation, posterior and report, in the instrument's own format."""
    flags = {"psf": psf, "angles": angles, "method": method, "rank": rank, "samples": samples}
    return _reconstruct(
        inputs,
        output,
        instrument,
        [*_layers(config, set_), {key: value for key, value in flags.items() if value is not None}],
        reference=reference,
        seed=seed,
        memory=memory,
        resume=resume,
        dry_run=dry_run,
        overwrite=overwrite,
        as_json=json_,
    )


@app.command
def report(folder: Path, /, *, json_: Json = False) -> int:
    """Write report.html of a finished run again, from what is stored in its folder."""
    from .report import write
    from .run.store import verify

    changed = verify(folder)
    if changed:
        raise InputError(
            f"expected the outputs that run.json vouches for, {', '.join(changed)} in {folder} changed since; run the "
            "reconstruction again"
        )
    path = write(folder)
    _answer({"report": str(path)}, as_json=json_, text=f"report: {path}")
    return DONE


@app.command
def config(
    instrument: str = "microscopy", /, *, config: Config = None, set_: Assign = None, json_: Json = False
) -> int:
    """Print every setting of an instrument with its value, as a file that --config reads."""
    from .run.config import as_yaml, resolve

    settings = resolve(instrument, *_layers(config, set_))
    _answer(settings.model_dump(mode="json"), as_json=json_, text=as_yaml(settings).rstrip())
    return DONE


@app.command
def check(
    inputs: Annotated[list[Path], Parameter(name="INPUT", help="Files, folders of files, or finished runs.")],
    /,
    *,
    instrument: str = "microscopy",
    psf: Psf = None,
    angles: Angles = None,
    config: Config = None,
    set_: Assign = None,
    memory: Memory = None,
    json_: Json = False,
) -> int:
    """Read measurements without reconstructing them, and say what was understood; or verify a finished run's files."""
    from .run.batch import inspect
    from .run.listing import understood

    flags = {key: value for key, value in {"psf": psf, "angles": angles}.items() if value is not None}
    layers, budget = [*_layers(config, set_), flags], _budget(memory)
    findings = [finding for path in inputs for finding in inspect(path, instrument, layers, budget)]
    _answer({"items": findings}, as_json=json_, text="\n".join(understood(finding) for finding in findings))
    return DONE if all("error" not in finding for finding in findings) else BAD_INPUT


@app.command
def train(
    recipe: Path,
    /,
    *,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"], help="Output folder.")] = None,
    set_: Assign = None,
    resume: Annotated[bool, Parameter(negative=(), help="Go on from the last checkpoint.")] = False,
    dry_run: Annotated[bool, Parameter(negative=(), help="Say what would be done, and stop.")] = False,
    overwrite: Annotated[bool, Parameter(negative=(), help="Begin again, over an earlier training.")] = False,
    json_: Json = False,
) -> int:
    """Train the network of a recipe into weights that carry a card; `torchrun -m obverse train …` uses several GPUs.

    Parameters
    ----------
    recipe
        YAML file: network, objective, data and schedule. The data lie below the folder that OBVERSE_DATA names.
    """
    from .run.config import parse_assignments
    from .run.listing import lines
    from .run.progress import progress
    from .run.training import foresee, run_training

    settings = parse_assignments(set_ or [])
    if dry_run:
        answer = foresee(recipe, settings)
    else:
        answer = run_training(recipe, output, settings, progress, resume=resume, overwrite=overwrite)
    if answer is not None:
        _answer(answer, as_json=json_, text=lines(answer))
    return DONE


@app.command
def doctor(*, json_: Json = False) -> int:
    """Say what this installation has, and test that its operators, solvers and kernels give right answers here."""
    from .run.doctor import examine
    from .run.listing import lines

    findings = examine()
    _answer(findings, as_json=json_, text=lines(findings))
    return DONE if findings["healthy"] else BAD_INPUT


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    # Threads that spin while they wait make everything many times slower on cores that other programs use too.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """The exit code of one command; every error that is the user's to mend becomes one sentence on standard error."""
    as_json = "--json" in arguments
    running = _COMMAND.set(tuple(arguments))
    try:
        code = app(arguments, exit_on_error=False, print_error=False)
        return code if isinstance(code, int) else DONE
    except CycloptsError as error:
        return _fail(" ".join(str(error).split()) + " (see `obverse --help`)", as_json)
    except NumericsError as error:
        return _fail(str(error), as_json, NOT_CONVERGED)
    except ObverseError as error:
        return _fail(str(error), as_json)
    except KeyboardInterrupt as error:
        said = str(error) or "interrupted; tiles or steps that were finished, if any, are kept for --resume"
        return _fail(said, as_json, INTERRUPTED)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        return _fail(
            "expected to fit in memory, ran out of it; pass a smaller --memory or close other programs", as_json
        )
    except OSError as error:
        where = f" at {error.filename}" if error.filename else ""
        return _fail(
            f"expected to read and write files, got: {error.strerror or error}{where}; check path and space", as_json
        )
    finally:
        _COMMAND.reset(running)


def _reconstruct(
    inputs: list[Path],
    output: Path,
    instrument: str,
    layers: Sequence[Mapping[str, Any]],
    *,
    reference: Path | None = None,
    seed: int = 0,
    memory: str | None = None,
    resume: bool = False,
    dry_run: bool = False,
    overwrite: bool = False,
    as_json: bool = False,
) -> int:
    from .run.batch import Request, expand, run_all
    from .run.config import resolve
    from .run.listing import lines, understood
    from .run.progress import progress, say

    if not 0 <= seed < 2**62:
        raise InputError(f"expected a seed from 0 to 2^62, got {seed}; choose another")
    request = Request(
        instrument=instrument,
        settings=resolve(instrument, *layers),
        seed=seed,
        memory=_budget(memory),
        reference=reference,
        overwrite=overwrite,
        resume=resume,
        dry_run=dry_run,
        command=["obverse", *_COMMAND.get()],
        say=say,
    )
    outcomes = run_all(expand(inputs, instrument), output, request, progress)
    failed = [outcome for outcome in outcomes if "error" in outcome]
    if len(outcomes) == 1 and failed:
        raise failed[0].pop("exception")
    for outcome in failed:
        outcome.pop("exception")
        say(f"obverse: {outcome['input']}: {outcome['error']}")
    answer = outcomes[0] if len(outcomes) == 1 else {"items": outcomes, "failed": [o["input"] for o in failed]}
    describe = understood if dry_run else lines
    _answer(answer, as_json=as_json, text="\n".join(describe(outcome) for outcome in outcomes))
    if failed:
        return SOME_FAILED
    return DONE if all(outcome.get("converged", True) for outcome in outcomes) else NOT_CONVERGED


def _layers(path: Path | None, assignments: list[str] | None) -> list[dict[str, Any]]:
    from .run.config import parse_assignments, read_config

    return [read_config(path) if path else {}, parse_assignments(assignments or [])]


def _budget(memory: str | None) -> int:
    from .run.plan import available_memory, parse_memory

    return parse_memory(memory) if memory else available_memory() // 2


def _answer(content: dict[str, Any], *, as_json: bool, text: str) -> None:
    from .io.record import plain

    sys.stdout.write((json.dumps(plain(content), allow_nan=False) if as_json else text) + "\n")


def _fail(message: str, as_json: bool, code: int = BAD_INPUT) -> int:
    sys.stderr.write(f"obverse: {message}\n")
    if as_json:
        sys.stdout.write(json.dumps({"error": message, "exit_code": code}) + "\n")
    return code
