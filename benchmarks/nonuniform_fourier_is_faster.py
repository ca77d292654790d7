"""`NonuniformFourier` against torchkbnufft: a radial acquisition of 1e5 samples of a 256² image, in the same run.

Speed is compared at equal accuracy, since torchkbnufft's table makes 7e-4 of error with its defaults: once there, and
once near 1e-6, which torchkbnufft reaches in double precision with 7 points and a table of 2¹⁹ entries a pixel. Each
error is against the exact sum: forward at 500 of the points; adjoint of samples that vanish except at those; Gram
against ours in double precision at 1e-13, itself checked against both. Ours must be no less accurate, and forward and
adjoint at least 5 times as fast. The Gram operator is one pair of FFTs in both, so that no such factor can be had.

    python benchmarks/nonuniform_fourier_is_faster.py       prints a table, writes the JSON beside this file

torchkbnufft needs its own environment (see README.md here): bench/bin/pip install -e ".[nufft]" torchkbnufft
"""

import importlib.util
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from obverse.operators import DirectFourier, NonuniformFourier, golden_angles, radial

SIZE, SPOKES, CHECKED, GATE, ROUNDS = 256, 391, 500, 5.0, 15
LEVELS = {
    # torchkbnufft's options and precision; our precision is single, and our accuracy
    "its default": ({"numpoints": 6, "table_oversamp": 2**10}, torch.complex64, 1e-4),
    "near 1e-6": ({"numpoints": 7, "table_oversamp": 2**19}, torch.complex128, 1e-6),
}


def main() -> int:
    missing = [name for name in ("torchkbnufft", "finufft") if importlib.util.find_spec(name) is None]
    if missing:
        print(f"{' and '.join(missing)} not installed here; run this in its own environment:", file=sys.stderr)
        print('  python -m venv bench && bench/bin/pip install -e ".[nufft]" torchkbnufft', file=sys.stderr)
        return 2
    import finufft
    import torchkbnufft

    points, shape = radial(golden_angles(SPOKES), SIZE), (1, SIZE, SIZE)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, dtype=torch.complex128, generator=generator)
    checked = torch.randperm(len(points), generator=generator)[:CHECKED]
    y = torch.zeros(1, len(points), dtype=torch.complex128)
    y[:, checked] = torch.randn(1, CHECKED, dtype=torch.complex128, generator=generator)
    truth = references(points, shape, checked, x, y)

    rows = []
    for level, (options, precision, accuracy) in LEVELS.items():
        ours = NonuniformFourier(points, shape, scaling="none", accuracy=accuracy)
        mine = {"forward": (ours, x), "adjoint": (ours.adjoint, y), "gram": (ours.gram, x)}
        theirs = kaiser_bessel(torchkbnufft, points, options, precision)
        for job, (function, value) in mine.items():
            other, kind = theirs[job]
            given, theirs_given = value.to(torch.complex64), value[None].to(kind)
            errors = [
                error(function(given), truth[job], job, checked),
                error(other(theirs_given)[0], truth[job], job, checked),
            ]
            a, b = timed(lambda f=function, v=given: f(v), lambda f=other, v=theirs_given: f(v))
            rows.append(
                {
                    "level": level,
                    "job": job,
                    "obverse_ms": round(a, 3),
                    "torchkbnufft_ms": round(b, 3),
                    "ratio": round(b / a, 1),
                    "obverse_error": float(f"{errors[0]:.2g}"),
                    "torchkbnufft_error": float(f"{errors[1]:.2g}"),
                }
            )
    print(f"{'accuracy':<13}{'job':<9}{'obverse':>9}{'torchkbnufft':>14}{'ratio':>8}    errors: obverse, torchkbnufft")
    for row in rows:
        print(
            f"{row['level']:<13}{row['job']:<9}{row['obverse_ms']:>9.2f}{row['torchkbnufft_ms']:>14.2f}"
            f"{row['ratio']:>7.1f}×    {row['obverse_error']:.1e}  {row['torchkbnufft_error']:.1e}"
        )
    accurate = all(row["obverse_error"] <= row["torchkbnufft_error"] for row in rows)
    passed = accurate and all(row["ratio"] >= GATE for row in rows if row["job"] != "gram")
    print(f"median ms of {ROUNDS} alternating runs; {len(points)} points, {SIZE}²")
    print(f"no less accurate, forward and adjoint at least {GATE:g}× faster: {'yes' if passed else 'NO'}")
    versions = {
        "torch": torch.__version__,
        "finufft": finufft.__version__,
        "torchkbnufft": torchkbnufft.__version__,
        "python": platform.python_version(),
    }
    machine = {"cores": os.cpu_count(), "threads": torch.get_num_threads()}
    result = {"gate": GATE, "passed": passed, "rows": rows, "versions": versions, "machine": machine}
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    return 0 if passed else 1


def references(points: Tensor, shape: tuple[int, ...], checked: Tensor, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """The exact sums; and the Gram product by a transform that is shown to equal them to 1e-12."""
    exact = DirectFourier(points[checked], shape, scaling="none", dtype=torch.complex128)
    truth = {"forward": exact(x), "adjoint": exact.adjoint(y[:, checked])}
    fine = NonuniformFourier(points, shape, scaling="none", accuracy=1e-13, dtype=torch.complex128)
    samples = fine(x)
    assert error(samples, truth["forward"], "forward", checked) < 1e-12
    assert error(fine.adjoint(y), truth["adjoint"], "adjoint", checked) < 1e-12
    return truth | {"gram": fine.adjoint(samples)}


def kaiser_bessel(library, points: Tensor, options: dict[str, int], precision: torch.dtype):
    """torchkbnufft's three jobs, each with the type of its images; the Gram product is in single precision."""
    size, real = (SIZE, SIZE), torch.empty((), dtype=precision).real.dtype
    omega = (2 * math.pi * points).T.to(real).contiguous()
    forward = library.KbNufft(size, dtype=precision, **options)
    adjoint = library.KbNufftAdjoint(size, dtype=precision, **options)
    kernel = library.calc_toeplitz_kernel(omega, size, **options).to(torch.complex64)
    toeplitz = library.ToepNufft()
    return {
        "forward": (lambda x: forward(x, omega), precision),
        "adjoint": (lambda y: adjoint(y, omega), precision),
        "gram": (lambda x: toeplitz(x, kernel), torch.complex64),
    }


def error(result: Tensor, truth: Tensor, job: str, checked: Tensor) -> float:
    if job == "forward":
        result = result[:, checked]
    return float((result - truth).norm() / truth.norm())


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
