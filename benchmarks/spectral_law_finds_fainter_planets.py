"""Claim: a law of pixels and channels together finds planets that channels by themselves do not, with S/N N(0, 1).

Sequences are simulated with path differences that are the same at all wavelengths (`simulated_sequence`): what a
spectrograph behind one coronagraph has to first order. For each seed one without planets and one with four of the same
contrast in all channels:

1. spread of S/N off the star without planets, and its maximum;
2. S/N at the planets, by `PACO` (each channel by itself), by `SpectralPACO` (together), and by both on a sequence whose
   channels are from different seeds, so that they share no speckles: the control, where nothing can be gained;
3. flux of the planets beside the truth, in standard deviations as stated.

    OMP_NUM_THREADS=1 python benchmarks/spectral_law_finds_fainter_planets.py [SEEDS]
"""

import json
import math
import platform
import sys
import time
from pathlib import Path

import torch

from obverse.instruments.exoplanet_simulation import Planet, simulated_sequence
from obverse.methods import PACO, SpectralPACO
from obverse.noise import Gaussian
from obverse.operators import FieldRotation
from obverse.problem import Problem

WAVELENGTHS = (1.0, 1.15, 1.3, 1.45)
SIZE, FRAMES, ARC = 41, 16, 70.0
PLACES = (
    (7.0, 40.0, 1.0e-5),
    (10.0, 160.0, 7e-6),
    (13.0, 270.0, 5e-6),
    (15.0, 20.0, 4e-6),
)  # pixels, degrees, contrast


def main() -> None:
    torch.set_num_threads(1)
    seeds = range(int(sys.argv[1]) if len(sys.argv) > 1 else 4)
    planets = [
        Planet(20 + r * math.cos(math.radians(a)), 20 + r * math.sin(math.radians(a)), (c,) * len(WAVELENGTHS))
        for r, a, c in PLACES
    ]
    empty = [sequence((), seed) for seed in range(len(seeds) + len(WAVELENGTHS) - 1)]
    problem = problem_of(empty[0])
    light = float(empty[0].psf.sum((1, 2)).mean())
    searches = {"by channels": PACO(threshold=4.5), "together": SpectralPACO(threshold=4.5)}
    rows: dict[str, dict[str, list[float]]] = {}
    for seed in seeds:
        added = sequence(planets, seed).cube - empty[seed].cube
        strangers = torch.stack([empty[seed + k].cube[k] for k in range(len(WAVELENGTHS))])
        cases = [(name, search, empty[seed].cube) for name, search in searches.items()]
        cases += [("together, no common speckles", searches["together"], strangers)]
        cases += [("by channels, no common speckles", searches["by channels"], strangers)]
        for name, search, cube in cases:
            row = rows.setdefault(name, {"std": [], "maximum": [], "snr": [], "pull": [], "seconds": []})
            began = time.process_time()
            without, found = search(cube, problem), search(cube + added, problem)
            row["seconds"].append((time.process_time() - began) / 2)
            known = without.snr[without.covered]
            row["std"].append(float(known.std()))
            row["maximum"].append(float(known.max()))
            for planet in planets:
                y, x = round(planet.y), round(planet.x)
                row["snr"].append(float(found.snr[0, y - 1 : y + 2, x - 1 : x + 2].max()))
                near = [c for c in found.candidates if math.hypot(c.x - planet.x, c.y - planet.y) < 1]
                row["pull"] += [(c.flux - planet.contrast[0] * light) / math.sqrt(c.covariance[0][0]) for c in near[:1]]
        print(seed, {name: [round(v, 1) for v in row["snr"][-4:]] for name, row in rows.items()}, flush=True)
    table = {name: summed(row) for name, row in rows.items()}
    for name, row in table.items():
        print(f"{name:34s}", {key: round(value, 2) for key, value in row.items()})
    record = {"machine": platform.processor(), "torch": torch.__version__, "seeds": len(seeds), "rows": table}
    Path(__file__).with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def summed(row: dict[str, list[float]]) -> dict[str, float]:
    snr, pull = torch.tensor(row["snr"]), torch.tensor(row["pull"])
    return {
        "snr_std_without": float(torch.tensor(row["std"]).mean()),
        "snr_maximum_without": max(row["maximum"]),
        "snr_mean_at_planets": float(snr.mean()),
        "found_of_all": float((snr >= 5).double().mean()),
        "fluxes": len(pull),
        "pull_mean": float(pull.mean()) if len(pull) else math.nan,
        "pull_std": float(pull.std()) if len(pull) > 1 else math.nan,
        "cpu_seconds_a_search": float(torch.tensor(row["seconds"]).mean()),
    }


def sequence(planets, seed):
    return simulated_sequence(planets, wavelengths=WAVELENGTHS, frames=FRAMES, size=SIZE, arc=ARC, seed=seed)


def problem_of(made) -> Problem:
    psf = made.psf / made.psf.sum((1, 2), keepdim=True)
    shape = (len(psf), SIZE, SIZE)
    lengths = made.wavelengths.tolist()
    return Problem(FieldRotation(shape, made.degrees, psf, wavelengths=lengths, dtype=torch.float64), Gaussian(1.0))


if __name__ == "__main__":
    main()
