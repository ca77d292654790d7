"""The engine that `Convolution` chooses is close to the fastest one.

Times the FFT, the direct and the separable engine on one thread for sizes that microscopes and cameras give, and
reports how much slower the chosen one is than the best. The constants of the cost model come from this table.

    python benchmarks/convolution_chooses_its_engine.py       prints a table, writes the JSON beside this file
"""

import json
import math
import sys
import time
from pathlib import Path

import torch

from obverse.operators import Convolution

SHAPES = {
    (1, 128, 128): (3, 5, 9, 15),
    (1, 512, 512): (3, 7, 15, 25),
    (3, 256, 256): (3, 5, 9),
    (1, 32, 128, 128): (3, 5, 9),
}
ROUNDS = 7
GATE = 1.3  # geometric mean of chosen / best
LARGEST_DIRECT = 1000  # taps; beyond, the direct engine takes seconds and tells nothing


def main() -> int:
    torch.set_num_threads(1)
    rows = []
    for shape, sizes in SHAPES.items():
        for k in sizes:
            for boundary in ("circular", "zero"):
                rows.append(measure(shape, k, boundary))
    print(f"{'image':<20}{'kernel':<10}{'boundary':<10}{'fft':>9}{'direct':>9}{'separable':>11}   chosen (ns a pixel)")
    for row in rows:
        times = [f"{row[e]:.1f}" if row[e] else "-" for e in ("fft", "direct", "separable")]
        print(
            f"{row['image']:<20}{row['kernel']:<10}{row['boundary']:<10}{times[0]:>9}{times[1]:>9}{times[2]:>11}"
            f"   {row['chosen']} ({row['ratio']:.2f}× the best)"
        )
    mean = math.exp(sum(math.log(row["ratio"]) for row in rows) / len(rows))
    print(f"geometric mean of chosen / best: {mean:.2f}, at most {GATE} wanted")
    result = {"gate": GATE, "mean_ratio": round(mean, 3), "rows": rows}
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    return 0 if mean <= GATE else 1


def measure(shape: tuple[int, ...], k: int, boundary: str) -> dict:
    """Nanoseconds a pixel of each engine for a separable kernel of size k along each axis."""
    generator = torch.Generator().manual_seed(k)
    kernel = torch.ones(())
    for _ in shape[1:]:
        kernel = kernel[..., None] * torch.rand(k, generator=generator)
    x = torch.rand(shape, generator=generator)
    row: dict = {
        "image": "×".join(map(str, shape)),
        "kernel": "×".join([str(k)] * (len(shape) - 1)),
        "boundary": boundary,
    }
    for engine in ("fft", "direct", "separable"):
        row[engine] = None
        if engine != "direct" or kernel.numel() <= LARGEST_DIRECT:
            A = Convolution(kernel, shape, boundary, engine=engine)
            A(x)
            best = math.inf
            for _ in range(ROUNDS):
                start = time.perf_counter()
                A(x)
                best = min(best, time.perf_counter() - start)
            row[engine] = round(best / x.numel() * 1e9, 2)
    row["chosen"] = Convolution(kernel, shape, boundary).engine
    row["ratio"] = round(row[row["chosen"]] / min(row[e] for e in ("fft", "direct", "separable") if row[e]), 3)
    return row


if __name__ == "__main__":
    sys.exit(main())
