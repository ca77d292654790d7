"""Claim: without a source S/N of PACO exceeds 3, 4 and 5 as rarely as a normal deviate does.

Many sequences of 81² pixels with a narrow PSF (FWHM 2 px), so that a map holds some 1,500 independent values: white
noise, and speckles as wide as the PSF beside it, T = 30 and 61 frames over 80°. Counted are the pixels beyond 3 px from
the star whose S/N is above a level, or below minus that level, among all; the error is that of the mean over sequences,
and no smaller than that of one more pixel. A rate passes within three errors of 2 (1 − Φ), or where it is lower. Half
of the covariance, a peer's error, stands beside: S/N is then √2 too large in the form of the paper.

    OMP_NUM_THREADS=1 python benchmarks/false_alarms_are_as_stated.py [SEQUENCES]
"""

import json
import math
import os
import platform
import sys
import time
from pathlib import Path

import torch
from paco_is_calibrated_and_fast import noise, problem_of

from obverse.methods import PACO

SIZE, WIDTH, RADIUS, ARC = 81, 2.0, 2, 80.0
LEVELS = (3.0, 4.0, 5.0)
SEQUENCES = 400


def main() -> int:
    torch.set_num_threads(1)
    count = int(sys.argv[1]) if len(sys.argv) > 1 else SEQUENCES
    rows = [measured(kind, frames, count) for kind in ("white", "speckles") for frames in (30, 61)]
    passed = all(row["passed"] and row["half rejected"] for row in rows)
    print("passed" if passed else "NOT passed")
    if count >= SEQUENCES:
        result = {
            "rows": rows,
            "passed": passed,
            "versions": {"torch": torch.__version__, "python": platform.python_version()},
            "machine": {"cores": os.cpu_count(), "threads": torch.get_num_threads()},
        }
        Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    return 0 if passed else 1


def measured(kind: str, frames: int, sequences: int) -> dict:
    side = torch.arange(9, dtype=torch.float64) - 4
    psf = torch.exp(-(side[:, None].square() + side.square()) * 4 * math.log(2) / WIDTH**2)
    problem = problem_of(torch.linspace(0, ARC, frames), psf, SIZE)
    place = torch.arange(SIZE, dtype=torch.float64) - SIZE // 2
    away = torch.hypot(place[:, None], place) > 3
    began, maps, wrong = time.process_time(), [], []
    for seed in range(sequences):
        cube = noise(kind, frames, psf, SIZE, seed)
        maps.append(PACO(RADIUS).maps(cube, problem)[2][0][away])
        if seed % 10 == 0:
            wrong.append(math.sqrt(2) * PACO(RADIUS, calibration=None).maps(cube, problem)[2][0][away])
    row: dict = {"kind": kind, "frames": frames, "sequences": sequences, "seconds": time.process_time() - began}
    row |= {"rates": rates(maps), "with half of the covariance": rates(wrong)}
    row["deviation"] = float(torch.cat([m[m.isfinite()] for m in maps]).std())
    row["passed"] = all(each["rate"] <= each["expected"] + 3 * each["error"] for each in row["rates"].values())
    three = row["with half of the covariance"]["3"]
    row["half rejected"] = abs(three["rate"] - three["expected"]) > 3 * three["error"]
    text = ", ".join(
        f"{level}σ {each['rate']:.2e} ± {each['error']:.1e} ({each['expected']:.2e})"
        for level, each in row["rates"].items()
    )
    print(f"{kind:<9} T={frames} deviation {row['deviation']:.3f}  {text}; half: {three['rate']:.2e}", flush=True)
    return row


def rates(maps: list[torch.Tensor]) -> dict[str, dict[str, float]]:
    found = {}
    for level in LEVELS:
        each = torch.stack([(m[m.isfinite()].abs() > level).double().mean() for m in maps])
        pixels = sum(int(m.isfinite().sum()) for m in maps)
        error = max(float(each.std()) / math.sqrt(len(maps)), 1 / pixels)
        found[f"{level:g}"] = {
            "rate": float(each.mean()),
            "error": error,
            "expected": math.erfc(level / math.sqrt(2)),
            "pixels": int(round(float(each.mean()) * pixels)),
        }
    return found


if __name__ == "__main__":
    sys.exit(main())
