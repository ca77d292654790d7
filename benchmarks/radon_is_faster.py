"""Parallel-beam projection and its adjoint at 256²/180 and 512²/360, against deepinv's `Tomography` and ASTRA on CPU.

`Radon` follows one table of rays with compiled kernels, forward and back: at least 8 times as fast forward and 15 times
as fast back as deepinv's `Tomography` (normalize=False, its default adjoint) at 512²/360, and ahead of ASTRA's linear
projector. Before the times, each is compared with the exact projections of an off-centre disc. Memory is the peak of a
fresh process, forward and back at 512²/360, above what the imports take.

    python benchmarks/radon_is_faster.py [--small]       prints a table, writes the JSON beside this file

deepinv and astra-toolbox need their own environment; see benchmarks/README.md. deepinv takes 7 GB at 512²/360;
`--small` leaves that size out and writes nothing.
"""

import importlib.util
import itertools
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

GATES = {"forward": 8.0, "adjoint": 15.0}
MEMORY_GATE_MB = 300
ROUNDS, BATCH = 9, 8
DISC = {"radius": 0.2, "x": 0.08, "y": -0.05}  # of the image's width


def disc(n: int) -> torch.Tensor:
    part = (torch.arange(n * 8) + 0.5) / 8 - n / 2
    inside = (part - DISC["x"] * n) ** 2 + (-part[:, None] - DISC["y"] * n) ** 2 <= (DISC["radius"] * n) ** 2
    return inside.float().reshape(n, 8, n, 8).mean((1, 3))[None]


def exact(n: int, angles: torch.Tensor, detectors: int, dx: float = 0.0, dy: float = 0.0) -> torch.Tensor:
    """Chords of the disc, averaged over each cell."""
    part = ((torch.arange(detectors * 16) + 0.5) / 16 - detectors / 2).double()
    away = part - (DISC["x"] * n + dx) * angles.cos()[:, None] - (DISC["y"] * n + dy) * angles.sin()[:, None]
    chord = 2 * ((DISC["radius"] * n) ** 2 - away.square()).clamp(min=0).sqrt()
    return chord.reshape(len(angles), detectors, 16).mean(-1).float()[None]


def obverse(n: int, angles: torch.Tensor) -> tuple[Callable, Callable]:
    from obverse.operators import Radon

    A = Radon((1, n, n), angles)
    return A, A.adjoint


def deepinv(n: int, angles: torch.Tensor) -> tuple[Callable, Callable]:
    from deepinv.physics import Tomography

    A = Tomography(angles=angles.float() * 180 / math.pi, img_width=n, circle=False, normalize=False, device="cpu")
    return (lambda x: A.A(x)), (lambda y: A.A_adjoint(y))


def astra(n: int, angles: torch.Tensor) -> tuple[Callable, Callable]:
    import astra as toolbox

    detectors = math.ceil(n * math.sqrt(2))
    volume = toolbox.create_vol_geom(n, n)
    geometry = toolbox.create_proj_geom("parallel", 1.0, detectors, angles.numpy())
    projector = toolbox.create_projector("linear", geometry, volume)

    def run(function: str, x: torch.Tensor) -> torch.Tensor:
        planes = x.reshape(-1, *x.shape[-2:])
        results = []
        for plane in planes:
            identifier, result = getattr(toolbox, function)(plane.numpy(), projector)
            toolbox.data2d.delete(identifier)
            results.append(torch.from_numpy(result))
        return torch.stack(results)[:, None]

    return (lambda x: run("create_sino", x)), (lambda y: run("create_backprojection", y))


RIVALS = {"obverse": obverse, "deepinv": deepinv, "astra": astra}


def accuracy(name: str, y: torch.Tensor, n: int, angles: torch.Tensor) -> float:
    """Relative error of the disc's sinogram; deepinv's is turned and moved by half pixels to the best fit."""
    y = y.reshape(-1, *y.shape[-2:])[:1]
    if name != "deepinv":
        truth = exact(n, angles, y.shape[-1])
        return float((y - truth).norm() / truth.norm())
    y = y.mT  # (detectors, views)
    best, halves = math.inf, (-0.5, 0.0, 0.5)
    for sign, turn in itertools.product((1, -1), (0.0, math.pi / 2, math.pi, -math.pi / 2)):
        for dx, dy in itertools.product(halves, halves):
            truth = exact(n, sign * angles + turn, y.shape[-1], dx, dy)
            best = min(best, float((y - truth).norm() / truth.norm()))
    return best


def timed(jobs: list[Callable[[], object]], rounds: int) -> list[float]:
    """Median milliseconds of each job; the jobs alternate, so that the machine's other load falls on all alike."""
    times: list[list[float]] = [[] for _ in jobs]
    for round_ in range(rounds + 1):
        for job, sink in zip(jobs, times):
            start = time.perf_counter()
            job()
            if round_:
                sink.append((time.perf_counter() - start) * 1e3)
    return [statistics.median(sink) for sink in times]


def peak_megabytes(name: str, n: int, views: int) -> float:
    """What a fresh process takes for one projection and its adjoint, above its imports and a tiny run."""
    done = subprocess.run([sys.executable, "-W", "ignore", __file__, "--memory", name, str(n), str(views)],
                          capture_output=True, text=True, check=True)  # fmt: skip
    return float(done.stdout.split()[-1])


def high_water() -> float:
    """Peak resident megabytes of this process; `ru_maxrss` would start from what the parent had."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def measure_memory(name: str, n: int, views: int) -> None:
    forward, back = RIVALS[name](16, turns(8))
    back(forward(torch.rand(1, 1, 16, 16)))  # imports and compiled code
    before = high_water()
    forward, back = RIVALS[name](n, turns(views))
    back(forward(torch.rand(1, 1, n, n)))
    print(high_water() - before)


def turns(views: int) -> torch.Tensor:
    return torch.arange(views, dtype=torch.float64) * math.pi / views


def main() -> int:
    missing = [name for name in ("deepinv", "astra") if importlib.util.find_spec(name) is None]
    if missing:
        print(f"{' and '.join(missing)} not installed here; see benchmarks/README.md", file=sys.stderr)
        return 2
    small = "--small" in sys.argv
    rows = []
    for n, views in ((256, 180),) if small else ((256, 180), (512, 360)):
        angles = turns(views)
        made = {name: make(n, angles) for name, make in RIVALS.items()}
        x = disc(n)[None]
        data = {name: forward(x) for name, (forward, _) in made.items()}
        rounds = ROUNDS if n < 512 else 5
        forward = timed([partial(f, x) for f, _ in made.values()], rounds)
        back = timed([partial(b, data[name]) for name, (_, b) in made.items()], rounds)
        batch, batch_data = x.expand(BATCH, -1, -1, -1).contiguous(), data["obverse"].expand(BATCH, -1, -1, -1)
        ours = made["obverse"]
        together = timed([partial(ours[0], batch), partial(ours[1], batch_data)], 3)
        for i, name in enumerate(made):
            rows.append({
                "size": n, "views": views, "name": name,
                "forward_ms": round(forward[i], 1), "adjoint_ms": round(back[i], 1),
                "disc_error": round(accuracy(name, data[name], n, angles), 5),
                "batch_of_8_ms": [round(t, 1) for t in together] if name == "obverse" else None,
            })  # fmt: skip
    print(f"{'size':<10}{'':<10}{'forward':>10}{'adjoint':>10}{'disc error':>12}{'peak':>10}   median ms, MB")
    for row in rows:
        row["peak_mb"] = round(peak_megabytes(row["name"], row["size"], row["views"]))
        print(
            f"{row['size']}/{row['views']:<6}{row['name']:<10}{row['forward_ms']:>10.1f}{row['adjoint_ms']:>10.1f}"
            f"{row['disc_error']:>11.2%}{row['peak_mb']:>10}   "
            + (f"batch of {BATCH}: {row['batch_of_8_ms']}" if row["batch_of_8_ms"] else "")
        )
    largest = {row["name"]: row for row in rows[-len(RIVALS) :]}
    ratios = {
        (job, rival): largest[rival][f"{job}_ms"] / largest["obverse"][f"{job}_ms"]
        for job in GATES
        for rival in ("deepinv", "astra")
    }
    passed = (
        all(ratios[job, "deepinv"] >= gate and ratios[job, "astra"] > 1 for job, gate in GATES.items())
        and largest["obverse"]["peak_mb"] <= MEMORY_GATE_MB
    )
    for (job, rival), ratio in ratios.items():
        print(f"{job}: {ratio:.1f}× faster than {rival}")
    print(f"gates {GATES} against deepinv, ahead of ASTRA, at most {MEMORY_GATE_MB} MB: {'yes' if passed else 'NO'}")
    if small:
        return 0
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    machine = {"cores": os.cpu_count(), "threads": torch.get_num_threads()}
    result = {"gates": GATES, "passed": passed, "rows": rows, "versions": versions, "machine": machine}
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    return 0 if passed else 1


if __name__ == "__main__":
    if "--memory" in sys.argv:
        measure_memory(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        sys.exit(main())
