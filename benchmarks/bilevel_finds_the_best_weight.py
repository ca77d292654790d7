"""Bilevel learning finds the best weight of total variation with fewer products than a grid search.

    min_θ ½‖x̂(θ) − x*‖²,      x̂(θ) = argmin_x ½‖x − y‖² + e^θ TV_ν(x),      σ = 25/255, ν = 0.02, float64

Crops of photographs from the validation set. MAID proves every decrease; HOAG shrinks its errors at a fixed rate; the
grid solves the lower level for 33 weights a tenth of a decade apart, each from the last one's solution, as exactly as
the bilevel methods end. The work is counted in gradients of the lower level and products with its Hessian, which cost
about the same. MAID's intervals are checked for overlap, and all three must agree on the loss.

Run:  OBVERSE_DATA=... python benchmarks/bilevel_finds_the_best_weight.py [crops]
"""

import json
import os
import platform
import sys
import time
from pathlib import Path

import torch

from obverse.learning.bilevel import hoag, maid, weight_from_pairs
from obverse.learning.images import as_unit, read_images
from obverse.noise.base import stream

SIZE, NOISE, SMOOTHING = 48, 25 / 255, 0.02
START, TOLERANCE = -5.0, 1e-2  # log weight, and the gradient of the loss called zero
GRID = torch.linspace(-6.0, 1.4, 33, dtype=torch.float64)
ACCURACY = 1e-3  # of the grid's solves


def pairs(count):
    """Central crops of the first photographs, with noise."""
    folder = Path(os.environ["OBVERSE_DATA"]) / "natural/bsds500/val32"
    for k, image in enumerate(read_images(folder, 1)[:count]):
        top, left = (image.shape[-2] - SIZE) // 2, (image.shape[-1] - SIZE) // 2
        clean = as_unit(image[:, top : top + SIZE, left : left + SIZE]).double()
        yield clean, clean + NOISE * torch.randn(clean.shape, generator=stream(0, k), dtype=torch.float64)


def by_grid(problem):
    best, gradients, start = None, 0, None
    for theta in GRID:
        solved = problem.solve(theta, ACCURACY, start)
        start, gradients = solved.x, gradients + solved.gradients
        if best is None or solved.value < best[1]:
            best = float(theta), solved.value
    return {"theta": best[0], "loss": best[1], "solves": len(GRID), "gradients": gradients, "products": 0}


def by(method, problem, **settings):
    learned = method(problem, torch.tensor(START, dtype=torch.float64), tolerance=TOLERANCE, **settings)
    last = learned.history[-1]
    pairs_of_steps = list(zip(learned.history, learned.history[1:], strict=False))
    return {
        "theta": float(learned.theta),
        "loss": last.value,
        "low": last.low,
        "high": last.high,
        "steps": len(learned.history) - 1,
        "certified_steps": sum(after.high < before.low for before, after in pairs_of_steps),
        "solves": last.solves,
        "gradients": last.gradients,
        "products": last.products,
        "converged": learned.status.converged,
    }


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 4
    rows = []
    print(
        f"{'crop':>4} {'method':<6} {'weight':>8} {'loss':>9} {'steps':>6} {'certified':>9} {'solves':>7} {'work':>6} "
        f"{'s':>6}"
    )
    for crop, (clean, noisy) in enumerate(pairs(count)):
        problem = weight_from_pairs(clean, noisy, SMOOTHING)
        methods = {
            "grid": lambda p=problem: by_grid(p),
            "hoag": lambda p=problem: by(hoag, p, accuracy=0.1, decay=0.7),
            "maid": lambda p=problem: by(maid, p, accuracy=0.1),
        }
        for name, call in methods.items():
            began = time.process_time()
            row = {"crop": crop, "method": name, **call(), "seconds": time.process_time() - began}
            row["work"] = row["gradients"] + row["products"]
            rows.append(row)
            print(
                f"{crop:4d} {name:<6} {torch.tensor(row['theta']).exp():8.4f} {row['loss']:9.5f} "
                f"{row.get('steps', 0):6d} {row.get('certified_steps', 0):9d} {row['solves']:7d} {row['work']:6d} "
                f"{row['seconds']:6.2f}",
                flush=True,
            )
        grid, found = rows[-3], rows[-2:]
        for row in found:
            assert row["loss"] <= 1.005 * grid["loss"], f"{row['method']} missed the best weight of crop {crop}"
        assert found[1]["certified_steps"] == found[1]["steps"]
    record = {
        "size": SIZE,
        "noise": NOISE,
        "smoothing": SMOOTHING,
        "tolerance": TOLERANCE,
        "seconds": "CPU time of one thread",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "rows": rows,
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
