"""Downsampling ×4 of a 512×512 RGB image against deepinv's `Downsampling`, with the same filter, in the same run.

deepinv convolves at full size and throws 15 of 16 pixels away; `Downsample` computes only those that are kept, axis by
axis when the kernel separates: at least 5 times as fast for both filters, forward and adjoint. Both use circular
boundaries and keep the same pixels; the results must agree first.

    python benchmarks/downsample_is_faster_than_deepinv.py       prints a table, writes the JSON beside this file

deepinv needs its own environment, because it brings torchvision:

    python -m venv bench && bench/bin/pip install -e . deepinv==0.5.0 && bench/bin/python benchmarks/downsample_…
"""

import importlib.util
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from obverse.operators import Downsample

FACTOR, SHAPE, GATE = 4, (3, 512, 512), 5.0
ROUNDS = 25


def main() -> int:
    if importlib.util.find_spec("deepinv") is None:
        print("deepinv is not installed here; run this in its own environment:", file=sys.stderr)
        print("  python -m venv bench && bench/bin/pip install -e . deepinv==0.5.0", file=sys.stderr)
        return 2
    import deepinv

    x = torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(0))
    rows = []
    for name in ("gaussian", "bicubic"):
        theirs = deepinv.physics.Downsampling(
            img_size=SHAPE, filter=name, factor=FACTOR, padding="circular", device="cpu"
        )
        kernel = theirs.filter[0, 0].flip((0, 1))  # theirs correlates, ours convolves
        ours, difference = matched(kernel, theirs, x)
        y = ours(x)
        jobs = {
            "forward": (lambda ours=ours: ours(x), lambda theirs=theirs: theirs.A(x)),
            "adjoint": (lambda ours=ours, y=y: ours.adjoint(y), lambda theirs=theirs, y=y: theirs.A_adjoint(y)),
        }
        for job, (mine, other) in jobs.items():
            a, b = timed(mine, other)
            rows.append(
                {
                    "filter": f"{name} {kernel.shape[0]}×{kernel.shape[1]}",
                    "job": job,
                    "obverse_ms": round(a, 3),
                    "deepinv_ms": round(b, 3),
                    "ratio": round(b / a, 1),
                    "relative_difference": difference[job],
                }
            )
    print(
        f"{'filter':<16}{'job':<10}{'obverse':>10}{'deepinv':>10}{'ratio':>8}   median ms of {ROUNDS} alternating runs"
    )
    for row in rows:
        print(
            f"{row['filter']:<16}{row['job']:<10}{row['obverse_ms']:>10.2f}{row['deepinv_ms']:>10.2f}{row['ratio']:>7.1f}×"
            f"   same result to {row['relative_difference']:.0e}"
        )
    passed = all(row["ratio"] >= GATE for row in rows)
    print(f"×{FACTOR}, both filters, forward and adjoint, at least {GATE:g}× faster: {'yes' if passed else 'NO'}")
    versions = {"torch": torch.__version__, "deepinv": deepinv.__version__, "python": platform.python_version()}
    machine = {"cores": os.cpu_count(), "threads": torch.get_num_threads()}
    result = {"gate": GATE, "passed": passed, "rows": rows, "versions": versions, "machine": machine}
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    return 0 if passed else 1


def matched(kernel: torch.Tensor, theirs, x: torch.Tensor) -> tuple[Downsample, dict[str, float]]:
    """Our operator with their filter and the phase that they keep, and the relative differences of the results."""
    expected = theirs.A(x)
    best: tuple[Downsample, float] | None = None
    for phase in range(FACTOR):
        ours = Downsample(SHAPE, FACTOR, kernel, "circular", phase)
        difference = float((ours(x) - expected).norm() / expected.norm())
        if best is None or difference < best[1]:
            best = ours, difference
    assert best is not None and best[1] < 1e-5, f"the two must compute the same, they differ by {best}"
    adjoint = theirs.A_adjoint(expected)
    back = float((best[0].adjoint(expected) - adjoint).norm() / adjoint.norm())
    assert back < 1e-5, f"the two adjoints must compute the same, they differ by {back}"
    return best[0], {"forward": best[1], "adjoint": back}


def timed(*jobs: Callable[[], object]) -> list[float]:
    """Median milliseconds of each job; the jobs alternate, so that the machine's other load falls on all alike."""
    times: list[list[float]] = [[] for _ in jobs]
    for round_ in range(ROUNDS + 3):
        for job, sink in zip(jobs, times):
            start = time.perf_counter()
            job()
            if round_ >= 3:
                sink.append((time.perf_counter() - start) * 1e3)
    return [statistics.median(sink) for sink in times]


if __name__ == "__main__":
    sys.exit(main())
