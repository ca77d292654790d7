"""Bilinear warp of a 12-megapixel image by a rotation and a shift, against copying that image, in the same run.

The gate: at every angle at most 4 times the time of `x.clone()`, with 2 threads. Like the warp, the clone makes a new
image, whose memory the system has to hand out page by page; the time of copying into memory that is already there is
printed beside it. Peers are torch's `grid_sample`, with its grid made beforehand, and scipy's `affine_transform`; the
results must agree first.

    python benchmarks/warp_is_near_memory_speed.py       prints a table, writes the JSON beside this file
"""

import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np
import scipy
import scipy.ndimage
import torch
import torch.nn.functional as F

from obverse.operators import Motion, Warp
from obverse.operators.motion import pixel_matrix

SIZE, ANGLES, SHIFT, GATE, THREADS, ROUNDS = (3000, 4000), (0.0, 1.0, 10.0, 45.0, 90.0), (1.3, -2.2), 4.0, 2, 9


def main() -> int:
    torch.set_num_threads(THREADS)
    x = torch.rand(1, *SIZE, generator=torch.Generator().manual_seed(0))
    there, rows = torch.empty_like(x), []
    for degrees in ANGLES:
        A = Warp(x.shape, Motion.rigid([math.radians(degrees), *SHIFT]))
        matrix, grid = pixel_matrix(A.motion, A.centre).numpy(), normalised(A)
        jobs = {
            "clone": x.clone,
            "copy": lambda: there.copy_(x),
            "forward": lambda A=A: A(x),
            "adjoint": lambda A=A: A.adjoint(x),
            "grid_sample": lambda grid=grid: F.grid_sample(x[None], grid, align_corners=True)[0],
        }
        y = A(x)
        peer = jobs["grid_sample"]()
        other = by_scipy(x, matrix)
        difference = max(float((y - z).abs().mean()) for z in (peer, other))
        # grid_sample computes positions in float32, with errors of some 1e-4 pixels
        assert difference < 1e-3, f"the three must compute the same, they differ by {difference:g} on average"
        times = dict(zip(jobs, timed(*jobs.values())))
        start = time.perf_counter()
        by_scipy(x, matrix)
        times["scipy"] = (time.perf_counter() - start) * 1e3
        rows.append({"degrees": degrees, **{k: round(v, 1) for k, v in times.items()}, "difference": difference})
    names = ("clone", "copy", "forward", "adjoint", "grid_sample", "scipy")
    print(f"{'angle':>6}" + "".join(f"{name:>13}" for name in names) + "   forward / clone   (ms, medians)")
    for row in rows:
        row["ratio"] = round(row["forward"] / row["clone"], 2)
        print(f"{row['degrees']:>5.0f}°" + "".join(f"{row[n]:>13.1f}" for n in names) + f"{row['ratio']:>15.2f}×")
    passed = all(row["ratio"] <= GATE for row in rows)
    print(f"12 megapixels, float32, at most {GATE:g}× a clone at every angle: {'yes' if passed else 'NO'}")
    versions = {m.__name__: m.__version__ for m in (torch, numba, np, scipy)} | {"python": platform.python_version()}
    machine = {"cores": os.cpu_count(), "threads": THREADS}
    result = {"gate": GATE, "passed": passed, "rows": rows, "versions": versions, "machine": machine}
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    return 0 if passed else 1


def normalised(A: Warp) -> torch.Tensor:
    """The positions as `grid_sample` wants them: (1, H, W, 2), columns first, from −1 to 1."""
    assert A.motion is not None
    axes = [torch.arange(n, dtype=torch.float64) for n in SIZE]
    positions = A.motion.flow(SIZE, A.centre) + torch.stack(torch.meshgrid(*axes, indexing="ij"))
    scaled = [2 * p / (n - 1) - 1 for p, n in zip(positions, SIZE)]
    return torch.stack(scaled[::-1], -1)[None].float()


def by_scipy(x: torch.Tensor, matrix: np.ndarray) -> torch.Tensor:
    result = scipy.ndimage.affine_transform(x[0].numpy(), matrix[:2, :2], matrix[:2, 2], order=1, mode="grid-constant")
    return torch.from_numpy(result)[None]


def timed(*jobs: Callable[[], object]) -> list[float]:
    """Median milliseconds of each job; the jobs alternate, so that the machine's other load falls on all alike."""
    times: list[list[float]] = [[] for _ in jobs]
    for round_ in range(ROUNDS + 2):
        for job, sink in zip(jobs, times):
            start = time.perf_counter()
            job()
            if round_ >= 2:
                sink.append((time.perf_counter() - start) * 1e3)
    return [statistics.median(sink) for sink in times]


if __name__ == "__main__":
    sys.exit(main())
