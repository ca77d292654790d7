"""Every public operator has an exact adjoint, and this is what it costs: time and memory at a realistic size.

    adjoint error    |⟨A x, y⟩ − ⟨x, Aᴴ y⟩| / max(‖A x‖ ‖y‖, ‖x‖ ‖Aᴴ y‖)         small size, float64
    ms               median time of A(x) and of Aᴴ y                              realistic size, float32
    memory           most that A(x) or Aᴴ y held at once beyond input and output  the same

A non-linear operator is measured through its derivative J at a random image: A(x) is timed, and Jᴴ y. Each operator
runs in a process of its own, forked before anything was computed; memory is the process's peak (Linux only), after a
first call that compiles and plans. "Build" is the time of construction and that first call of both.

Run:  python benchmarks/operators_table.py            (writes docs/operators.md as well)
"""

import ctypes
import json
import math
import multiprocessing
import os
import platform
import statistics
import sys
import time
from pathlib import Path

import torch

from obverse import operators as ops

REPEATS, SECONDS = 9, 2.0  # most repetitions of a call, and the time after which no other begins
ALGEBRA = {"Adjoint", "LinearOperator", "Operator"}
NO_ERROR = 1e-10
GOLDEN = math.pi * (math.sqrt(5) - 1) / 2

CONVENTIONS = {
    "Algebra and masks": "pixels are taken as they come; `Mosaic` keeps one channel a pixel, data `(1, H, W)`.",
    "Blur": "true convolution, the kernel's middle pixel is its centre; `Downsample` blurs and keeps every s-th pixel.",
    "Differences and bases": "forward differences per unit of length, `(axes, C, H, W)`; the bases are orthonormal.",
    "Fourier": "orthonormal, pixel N // 2 is the origin of both spaces; frequencies (row, column) in cycles per pixel.",
    "Tomography": "angles in radians, anticlockwise with y upward; distances in the unit of `spacing`; data "
    "`(C, views, cells)`, integrals over length along lines (Joseph).",
    "Motion": "y(p) = x(φ(p)), shifts in pixels, (row, column), about the image's centre; `Rotate` in degrees, "
    "anticlockwise where rows are shown upward.",
    "Sensing": "patterns of ±1; seeds are part of the operator; `CodedAperture` disperses along the last axis.",
    "Intensities": "data are |B x|², real; the derivative is linear over the real numbers only.",
}


def normal(*shape, seed=0, dtype=torch.float32):
    wide = torch.complex128 if dtype.is_complex else torch.float64
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=wide).to(dtype)


def kernel(size, dtype):
    axis = torch.arange(size, dtype=torch.float64) - size // 2
    g = torch.exp(-(axis**2) / (2 * (size / 6) ** 2))
    k = g[:, None] * g
    return (k / k.sum()).to(dtype)


def angles(count, turn=math.pi):
    return (turn * torch.arange(count, dtype=torch.float64) / count).tolist()


def coils(count, n, dtype):
    return normal(count, n, n, dtype=dtype) / count**0.5


def points(count):
    radius = torch.linspace(-0.49, 0.49, 2 * 64, dtype=torch.float64).repeat(count // 128 + 1)[:count]
    theta = GOLDEN * torch.arange(count, dtype=torch.float64).div(128, rounding_mode="floor")
    return torch.stack([radius * theta.sin(), radius * theta.cos()], 1)


def fan(n, views, dtype):
    return ops.FanBeam(
        (1, n, n), angles(views, 2 * math.pi), 2 * n, source_distance=2.0 * n, detector_distance=2.0 * n, dtype=dtype
    )


def cone(n, views, dtype):
    shape = (2 * n, 2 * n)
    return ops.ConeBeam(
        (1, n, n, n), angles(views, 2 * math.pi), shape, source_distance=3.0 * n, detector_distance=3.0 * n, dtype=dtype
    )


def space_variant(n, size, count, dtype):
    weights = normal(count, n, n).abs().to(dtype)
    return ops.SpaceVariantBlur(kernel(size, dtype).expand(count, -1, -1), weights / weights.sum(0), (1, n, n))


def burst(n, frames, dtype):
    motions = [ops.Motion.rigid([0.01 * k, 0.7 * k, -1.3 * k]) for k in range(frames)]
    return ops.BurstSampling((3, n, n), motions, 2, mosaic="RGGB", dtype=dtype)


def ptychography(n, window, dtype):
    step = window // 4
    corners = [[i, j] for i in range(0, n - window + 1, step) for j in range(0, n - window + 1, step)]
    return ops.Ptychography((1, n, n), normal(window, window, dtype=dtype), corners, dtype)


def aperture(n, bands, dtype):
    return ops.CodedAperture((normal(n, n) > 0).to(dtype), (bands, n, n), dtype=dtype)


def wide(dtype):
    """The complex type of the same precision."""
    return torch.complex64 if dtype == torch.float32 else torch.complex128


# name → (family, operator of a size and precision, small size, realistic size)
TABLE = {
    "Identity": ("Algebra and masks", lambda n, t: ops.Identity((3, n, n), t), 6, 1024),
    "Dense": ("Algebra and masks", lambda n, t: ops.Dense(normal(n * n, n * n, dtype=t), (1, n, n)), 5, 64),
    "Mask": ("Algebra and masks", lambda n, t: ops.Mask(normal(n, n) > 0, (3, n, n), t), 6, 1024),
    "Mosaic": ("Algebra and masks", lambda n, t: ops.Mosaic("RGGB", (3, n, n), t), 6, 1024),
    "Convolution": ("Blur", lambda n, t: ops.Convolution(kernel(min(n - 1, 31) | 1, t), (3, n, n)), 8, 512),
    "Downsample": ("Blur", lambda n, t: ops.Downsample((3, n, n), 4, dtype=t), 32, 512),
    "SpaceVariantBlur": ("Blur", lambda n, t: space_variant(n, min(n // 2, 31) | 1, 9, t), 8, 512),
    "Gradient": ("Differences and bases", lambda n, t: ops.Gradient((1, n, n), dtype=t), 6, 1024),
    "Wavelet": ("Differences and bases", lambda n, t: ops.Wavelet((1, n, n), dtype=t), 32, 1024),
    "Cosine": ("Differences and bases", lambda n, t: ops.Cosine((1, n, n), dtype=t), 6, 1024),
    "Hadamard": ("Differences and bases", lambda n, t: ops.Hadamard((1, n, n), dtype=t), 8, 1024),
    "Fourier": ("Fourier", lambda n, t: ops.Fourier((1, n, n), normal(n, n) > 0, wide(t)), 6, 512),
    "Coils": ("Fourier", lambda n, t: ops.Coils(coils(8, n, wide(t))), 6, 320),
    "NonuniformFourier": (
        "Fourier", lambda n, t: ops.NonuniformFourier(points(n * n), (1, n, n), dtype=wide(t)), 12, 256,
    ),
    "DirectFourier": ("Fourier", lambda n, t: ops.DirectFourier(points(16 * n), (1, n, n), dtype=wide(t)), 6, 128),
    "Radon": ("Tomography", lambda n, t: ops.Radon((1, n, n), angles(n), dtype=t), 8, 512),
    "FanBeam": ("Tomography", lambda n, t: fan(n, n, t), 8, 512),
    "ConeBeam": ("Tomography", lambda n, t: cone(n, n // 2, t), 6, 96),
    "Warp": ("Motion", lambda n, t: ops.Warp((3, n, n), ops.Motion.rigid([0.1, 1.5, -2.2]), dtype=t), 8, 1024),
    "Rotate": ("Motion", lambda n, t: ops.Rotate((3, n, n), 20.0, dtype=t), 8, 512),
    "FieldRotation": (
        "Motion", lambda n, t: ops.FieldRotation((1, n, n), angles(n // 2, 90.0), kernel(7, t), dtype=t), 8, 128,
    ),
    "BurstSampling": ("Motion", lambda n, t: burst(n, 8, t), 8, 512),
    "SinglePixel": ("Sensing", lambda n, t: ops.SinglePixel((1, n, n), n * n // 4, dtype=t), 8, 256),
    "StructuredRandom": ("Sensing", lambda n, t: ops.StructuredRandom((1, n, n), n * n // 4, 2, dtype=t), 8, 512),
    "CodedAperture": ("Sensing", lambda n, t: aperture(n, 28, t), 6, 256),
    "SpectralUnmixing": ("Sensing", lambda n, t: ops.SpectralUnmixing(normal(100, 5, dtype=t), (5, n, n)), 6, 256),
    "PhaseRetrieval": ("Intensities", lambda n, t: ops.PhaseRetrieval(ops.Fourier((1, n, n), dtype=wide(t))), 6, 512),
    "Ptychography": ("Intensities", lambda n, t: ptychography(n, n // 4, wide(t)), 16, 512),
}  # fmt: skip


def exported():
    """Names of the operators that the package hands on."""
    values = ((name, getattr(ops, name)) for name in ops.__all__)
    return [n for n, v in values if isinstance(v, type) and issubclass(v, ops.Operator) and n not in ALGEBRA]


def tensors(operator, seed):
    """A random image and random data."""
    data = getattr(operator, "data_dtype", operator.dtype)
    return (
        normal(*operator.image_shape, seed=seed, dtype=operator.dtype),
        normal(*operator.data_shape, seed=seed + 1, dtype=data),
    )


def adjoint_error(operator):
    x, y = tensors(operator, 1)
    linear = operator if isinstance(operator, ops.LinearOperator) else operator.linearise(tensors(operator, 5)[0])
    forward, back = linear(x), linear.adjoint(y)
    gap = (forward.conj() * y).sum() - (x.conj() * back).sum()
    gap = gap.real if getattr(linear, "real_linear", False) or not (x.is_complex() and y.is_complex()) else gap
    return float(abs(gap) / max(forward.norm() * y.norm(), x.norm() * back.norm()))


class Skewed(ops.Mask):
    """An operator whose adjoint is off by a billionth: the check must see it."""

    def _adjoint(self, y):
        return (1 + 1e-9) * super()._adjoint(y)


def resident(key):
    """VmRSS or VmHWM of this process in MB; None where there is no /proc."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(key + ":")), None)


def extra_memory(call):
    """MB held at once during a call beyond what was there before, its result not counted."""
    try:
        ctypes.CDLL(None).malloc_trim(0)  # gives back what earlier calls freed, or it would be used again unseen
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    except (OSError, AttributeError):
        return None
    before = resident("VmRSS")
    result = call()
    peak = resident("VmHWM")
    return None if before is None or peak is None else max(0.0, peak - before - result.nbytes / 2**20)


def milliseconds(call):
    times, began = [], time.perf_counter()
    while len(times) < REPEATS and (not times or time.perf_counter() - began < SECONDS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def measure(name, pipe):
    """One row; runs in a process of its own."""
    family, make, small, large = TABLE[name]
    torch.set_grad_enabled(False)
    row = {"operator": name, "family": family}
    try:
        row["adjoint_error"] = adjoint_error(make(small, torch.float64))
        start = time.perf_counter()
        operator = make(large, torch.float32)
        x, y = tensors(operator, 1)
        linear = operator if isinstance(operator, ops.LinearOperator) else operator.linearise(x)
        operator(x), linear.adjoint(y)
        row |= {"image": list(operator.image_shape), "data": list(operator.data_shape)}
        row["build_ms"] = 1e3 * (time.perf_counter() - start)
        row |= {"forward_ms": milliseconds(lambda: operator(x)), "adjoint_ms": milliseconds(lambda: linear.adjoint(y))}
        extra = [extra_memory(lambda: operator(x)), extra_memory(lambda: linear.adjoint(y))]
        row["memory_mb"] = None if None in extra else max(filter(None, extra), default=0.0)
    except Exception as error:  # a row that failed says so, and the others are measured
        row["failed"] = f"{type(error).__name__}: {error}"
    pipe.send(row)


def run(name):
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=measure, args=(name, sender))
    process.start()
    sender.close()
    try:
        row = receiver.recv()
    except EOFError:
        row = {"operator": name, "family": TABLE[name][0], "failed": "the process ended without an answer"}
    process.join()
    return row


def cells(row):
    """The row's entries as text."""
    if "failed" in row:
        return [row["operator"], row["failed"][:90], "", "", "", "", ""]
    memory = "" if row["memory_mb"] is None else f"{row['memory_mb']:.0f}"
    shapes = (" × ".join(map(str, row[key])) for key in ("image", "data"))
    times = (f"{row[key]:.3g}" if row[key] < 1000 else f"{row[key]:.0f}" for key in ("forward_ms", "adjoint_ms"))
    return [row["operator"], *shapes, *times, memory, f"{row['adjoint_error']:.0e}"]


def document(record):
    """docs/operators.md."""
    lines = [
        "# Operators",
        "",
        "Made by `benchmarks/operators_table.py`; do not edit. Times are medians after a first call, in float32 or "
        f"complex64, on {record['threads']} threads ({record['machine']}; load of other work {record['load']:.1f}). "
        "Memory is what a call holds at once beyond input and output. The adjoint's error is relative, in float64, at "
        "a small size.",
        "",
        "| operator | image | data | A x, ms | Aᴴ y, ms | memory, MB | adjoint error |",
        "|---|---|---|---|---|---|---|",
    ]
    for family in CONVENTIONS:
        rows = [row for row in record["rows"] if row["family"] == family]
        lines += [f"| **{family}** | | | | | | |"] if rows else []
        lines += ["| " + " | ".join([f"`{c[0]}`", *c[1:]]) + " |" for c in map(cells, rows)]
    lines += [f"| `{name}` | missing from the table | | | | | |" for name in record["missing"]]
    lines += [
        "",
        "## Conventions",
        "Images are `(*batch, C, H, W)` or `(*batch, C, D, H, W)`; see [conventions](conventions.md).",
    ]
    lines += [f"- **{family}**: {text}" for family, text in CONVENTIONS.items()]
    return "\n".join(lines) + "\n"


def main():
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else math.nan
    assert adjoint_error(Skewed(normal(4, 4).double(), (1, 4, 4))) > NO_ERROR, "a wrong adjoint must show"
    missing = [name for name in exported() if name not in TABLE]
    print(f"{'operator':<18} {'image':<18} {'data':<18} {'A x, ms':>9} {'Aᴴy, ms':>9} {'MB':>6} {'error':>7}")
    rows = []
    for name in TABLE:
        if not hasattr(ops, name):
            print(f"{name:<18} not exported")
            continue
        rows.append(run(name))
        c = cells(rows[-1])
        print(f"{c[0]:<18} {c[1]:<18} {c[2]:<18} {c[3]:>9} {c[4]:>9} {c[5]:>6} {c[6]:>7}", flush=True)
    for name in missing:
        print(f"{name:<18} missing from the table")
    wrong = [row["operator"] for row in rows if "failed" in row or row["adjoint_error"] > NO_ERROR]
    record = {
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load": load,
        "missing": missing,
        "rows": rows,
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    docs = Path(__file__).parents[1] / "docs" / "operators.md"
    docs.write_text(document(record))
    assert not wrong, f"no exact adjoint, or failed: {', '.join(wrong)}"


if __name__ == "__main__":
    main()
