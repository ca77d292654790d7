"""Blur of a 512² RGB image by a 31×31 kernel: the engine that `Convolution` chooses against both of deepinv's.

deepinv's user picks between convolution in space (`Blur`) and by Fourier transforms (`BlurFFT`); the claim is that the
choice made here is at least as fast as the better of the two, forward and adjoint, with equal results.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path

import deepinv
import torch

from obverse.operators import Convolution

SHAPE, SIZE, REPEATS = (3, 512, 512), 31, 41


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, *SHAPE, generator=generator)
    kernel = torch.rand(SIZE, SIZE, generator=generator)
    kernel /= kernel.sum()
    ours = Convolution(kernel, SHAPE, boundary="circular")
    space = deepinv.physics.Blur(filter=kernel[None, None], padding="circular")
    fourier = deepinv.physics.BlurFFT(img_size=SHAPE, filter=kernel[None, None])
    y = ours(x)
    # deepinv's two paths place an even or odd kernel alike; the results are compared before the times
    for theirs in (space, fourier):
        gap = float((theirs(x) - y).norm() / y.norm())
        assert gap < 1e-5, f"{type(theirs).__name__} differs by {gap:.1e}"
    jobs: dict[str, dict[str, Callable[[], object]]] = {
        "forward": {
            "obverse": lambda: ours(x),
            "deepinv, space": lambda: space(x),
            "deepinv, Fourier": lambda: fourier(x),
        },
        "adjoint": {
            "obverse": lambda: ours.adjoint(y),
            "deepinv, space": lambda: space.A_adjoint(y),
            "deepinv, Fourier": lambda: fourier.A_adjoint(y),
        },
    }
    rows, passed = [], True
    for job, rivals in jobs.items():
        times = medians(rivals)
        best = min(value for name, value in times.items() if name != "obverse")
        passed = passed and times["obverse"] <= best
        rows.append({"job": job, "milliseconds": times, "ratio": round(best / times["obverse"], 2)})
        print(f"{job:10}", *(f"{name} {value:.2f} ms" for name, value in times.items()), f"{rows[-1]['ratio']}×")
    print(f"at least as fast as the better of deepinv's paths: {'yes' if passed else 'NO'}")
    versions = {"torch": torch.__version__, "deepinv": deepinv.__version__, "threads": torch.get_num_threads()}
    Path(__file__).with_suffix(".json").write_text(
        json.dumps({"passed": passed, "rows": rows, "versions": versions}, indent=1) + "\n"
    )


def medians(rivals: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median milliseconds of each, taking turns."""
    times: dict[str, list[float]] = {name: [] for name in rivals}
    for repeat in range(REPEATS + 3):
        for name, job in rivals.items():
            begun = time.perf_counter()
            job()
            if repeat >= 3:
                times[name].append(time.perf_counter() - begun)
    return {name: round(1e3 * sorted(values)[len(values) // 2], 3) for name, values in times.items()}


if __name__ == "__main__":
    main()
