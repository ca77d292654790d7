"""Which search finds planets that were put into sequences of frames, and do its fluxes and places hold?

1,000 sources in real and simulated sequences of frames (`planet_sequences`), unseen by any choice that was made.
Every method searches the same sequences. Peaks of its S/N map between one FWHM and the last whole ring are right within
one FWHM of a source, which counts once; one threshold runs over all sequences of a family. The area is that of found
over false (`DetectionCurve`), its error the deviation of 400 bootstraps over sequences. Maps of subtraction methods are
small-sample S/N as normal deviates, which one threshold suits best. Principal components and LLSG leave out one FWHM
about the star; their components are as many as give the largest area on six sequences of each family that are not
counted (`choose`).

Sources of at least 8 σ, found or not, are measured by `fit_source`, from the pixel next to them: errors over the
deviations that are stated and over the Cramér–Rao bound, and how often its intervals and those of `source_posterior`
hold. (Of sources that were chosen by their S/N the flux is too high on average, whatever measures it.)

    export OBVERSE_DATA=../shared/data OMP_NUM_THREADS=1
    python studies/planet_detection.py choose FOLDER             components of the subtraction methods
    python studies/planet_detection.py train FOLDER "naco;simulated 80;…" SEED...        deep PACO
    python studies/planet_detection.py run FOLDER ["PACO;annular PCA;…" [FIRST LAST]]    what is there is not done again
    python studies/planet_detection.py fit FOLDER
    python studies/planet_detection.py judge FOLDER                   writes the JSON and the figure beside this
"""

import functools
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from planet_sequences import FAMILIES, Sequence, background, deviation, distance_map, problem_of, ring_of, sequence
from planet_table import curve, judge
from torch import Tensor

import obverse as ob
from obverse.instruments.exoplanet_subtraction import Subtraction
from obverse.learning import train_deep_paco
from obverse.methods.paco_posterior import source_posterior
from obverse.methods.paco_source import fit_source
from obverse.methods.sky_channels import CHANNELS

SEQUENCES = 50  # of each family
TRAINING, COUNTS = 6, (2, 4, 7, 10, 15, 22)  # sequences, and numbers of components that are tried on them
KINDS = ("full frame", "annular", "LLSG")  # what components are of
RING = 3.0  # FWHM: width of the rings of annular PCA
GAP, LITTLE = 0.5, 45.0  # FWHM, and the arc in degrees below which half of it has to do: nothing turns by more
SCALES = (3, 4, 5)  # radii of multi-scale PACO
NEVER = 1e6  # threshold: candidates are not measured
SEEDS, PERMUTATIONS = (0, 1), 16  # of deep PACO
MEASURED = 8.0  # σ: least flux of sources that are fitted
DRAWS, CHAINS, LEVELS = 150, 2, (0.68, 0.95)  # of their posteriors
NETWORK = {"kind": "SourceDetector", "inputs": CHANNELS, "widths": [8, 16, 32]}

Maps = Callable[[Sequence, str], Tensor]  # a sequence and its family in, a map of S/N (H, W) out


def subtraction(combine: Callable) -> Maps:
    return lambda drawn, _: Subtraction(combine, 5.0, 0.0)(drawn.cube, drawn.problem).snr[0]


def components(folder: Path, kind: str) -> Maps:
    def maps(drawn: Sequence, family: str) -> Tensor:
        found = read(folder / "components.json")[f"{family}, {kind}"]
        return subtraction(adi(family, found["chosen"], kind))(drawn, family)

    return maps


def adi(family: str, count: int, kind: str) -> Callable:
    operator = problem_of(family).operator
    if kind == "LLSG":
        return ob.methods.LowRankSparseADI(count, inner_radius=operator.fwhm)
    gap = GAP if max(operator.degrees) - min(operator.degrees) > LITTLE else GAP / 2
    width = RING * operator.fwhm if kind == "annular" else None
    return ob.methods.PrincipalComponentADI(count, inner_radius=operator.fwhm, annuli=width, gap=gap)


def deep(folder: Path, seed: int) -> Maps:
    @functools.cache
    def network(family: str) -> torch.nn.Module:
        return ob.networks.load(weights(folder, family, seed))[0]

    def maps(drawn: Sequence, family: str) -> Tensor:
        method = ob.methods.DeepPACO([network(family)], permutations=PERMUTATIONS, threshold=NEVER)
        return method(drawn.cube, drawn.problem).snr[0]

    return maps


def methods_in(folder: Path) -> dict[str, Maps]:
    return {
        "median ADI": subtraction(ob.methods.MedianADI()),
        "PCA": components(folder, "full frame"),
        "annular PCA": components(folder, "annular"),
        "LLSG": components(folder, "LLSG"),
        "PACO": lambda drawn, _: ob.methods.PACO().maps(drawn.cube, drawn.problem)[2][0],
        "multi-scale PACO": lambda drawn, _: ob.methods.PACO(SCALES).maps(drawn.cube, drawn.problem)[2][0],
        **{f"deep PACO, seed {seed}": deep(folder, seed) for seed in SEEDS},
    }


def weights(folder: Path, family: str, seed: int) -> Path:
    return folder / family / f"weights {seed}.safetensors"


def train(folder: Path, families: list[str], seeds: list[int]) -> None:
    """Deep PACO on a sequence without sources: the real one, and of the simulated ones one that is not counted."""
    for seed in seeds:
        for family in families:
            file = weights(folder, family, seed)
            if file.exists():
                continue
            began = time.process_time()
            trained = train_deep_paco(background(family, -1), problem_of(family), seed=seed)
            file.parent.mkdir(parents=True, exist_ok=True)
            (network,) = trained.networks
            ob.networks.save(file, network, {"network": NETWORK, "seconds": time.process_time() - began})
            print(f"{family}, seed {seed}: {time.process_time() - began:.0f} s", flush=True)


def peaks_of(snr: Tensor, drawn: Sequence, family: str) -> dict:
    """Peaks between the two rings: their scores, distances from the star, and the source that each is."""
    operator, (inner, outer) = drawn.problem.operator, ring_of(family)
    known = snr[snr.isfinite()]
    peaks = [
        peak
        for peak in ob.methods.candidates_of(snr, float(known.median()), operator.fwhm)
        if inner <= math.dist((peak.y, peak.x), operator.centre) <= outer
    ]
    which = ob.methods.matched_peaks(peaks, drawn.places, operator.fwhm)
    distances = [math.dist((peak.y, peak.x), operator.centre) for peak in peaks]
    rows = [[peak.snr, r, source, peak.x, peak.y] for peak, r, source in zip(peaks, distances, which)]
    ring = (distance_map(family) >= inner) & (distance_map(family) <= outer) & snr.isfinite()
    away = [math.dist(place, operator.centre) for place in drawn.places]
    return {"peaks": rows, "distances": away, "deviation": float(snr[ring].std())}


def run(folder: Path, methods: list[str], first: int, last: int) -> None:
    """Every method on one sequence of each family, then the next sequence."""
    maps = methods_in(folder)
    for index in range(first, last):
        for family in FAMILIES:
            files = {name: folder / family / name / f"{index}.json" for name in methods}
            if all(file.exists() for file in files.values()):
                continue
            drawn = sequence(family, index)
            for name, file in files.items():
                if file.exists():
                    continue
                began = time.process_time()
                snr = maps[name](drawn, family)
                row = {"seconds": time.process_time() - began, **peaks_of(snr, drawn, family)}
                write(file, row)
            print(f"{family} {index}: {', '.join(files)}", flush=True)


def read(file: Path) -> dict:
    return json.loads(file.read_text()) if file.exists() else {}


def write(file: Path, row: dict) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    half = file.with_suffix(".part")
    half.write_text(json.dumps(row))
    half.rename(file)


def choose(folder: Path) -> None:
    """The area for each number of components, on sequences that are not counted."""
    file = folder / "components.json"
    for family in FAMILIES:
        for kind in KINDS:
            key, known = f"{family}, {kind}", read(file)
            if key in known:
                continue
            areas = dict.fromkeys(COUNTS, 0.0)
            drawn = [sequence(family, -100 - index) for index in range(TRAINING)]
            for count in COUNTS:
                maps = subtraction(adi(family, count, kind))
                areas[count] = round(curve([peaks_of(maps(d, family), d, family) for d in drawn]).area, 3)
            write(file, known | {key: {"chosen": max(areas, key=areas.__getitem__), "areas": areas}})
            print(f"{key}: {areas}", flush=True)


def fit(folder: Path) -> None:
    """Flux and place of the brighter sources."""
    for index in range(SEQUENCES):
        for family in FAMILIES:
            file = folder / family / "fit" / f"{index}.json"
            if file.exists():
                continue
            drawn, operator = sequence(family, index), problem_of(family).operator
            bright = [
                (place, flux)
                for place, flux in zip(drawn.places, drawn.fluxes)
                if flux >= MEASURED * float(deviation(family)[round(math.dist(place, operator.centre))])
            ]
            write(file, {"rows": [measured(drawn.cube, operator, *each) for each in bright]})
            print(f"{family} {index}: {len(bright)} sources measured", flush=True)


def measured(cube: Tensor, operator: ob.operators.FieldRotation, place: tuple[float, float], flux: float) -> dict:
    """A source's errors of flux, x and y, what is stated of them, and whether the posterior's intervals hold."""
    began, radius = time.process_time(), max(1, int(operator.fwhm))
    result = fit_source(cube, operator, (float(round(place[0])), float(round(place[1]))), radius)
    seconds = time.process_time() - began
    truth = torch.tensor([flux, place[1], place[0]], dtype=torch.float64)
    error = torch.tensor([result.flux, result.position[1], result.position[0]], dtype=torch.float64) - truth
    row = {"distance": math.dist(place, operator.centre), "flux": flux, "error": error.tolist(), "seconds": seconds}
    row |= {"converged": result.converged, "covariance": result.covariance, "bound": result.bound}
    if result.converged and result.flux > 0:
        posterior = source_posterior(cube, operator, result, radius, draws=DRAWS, chains=CHAINS)
        ends = [posterior.interval(level) for level in LEVELS]
        row |= {"held": [((low <= truth) & (truth <= high)).tolist() for low, high in (e.unbind(1) for e in ends)]}
        row |= {"rhat": posterior.rhat}
    return row


def main() -> None:
    torch.set_num_threads(1)
    command, *rest = sys.argv[1:]
    if command == "choose":
        choose(Path(rest[0]))
    elif command == "run":
        methods = rest[1].split(";") if len(rest) > 1 else list(methods_in(Path(rest[0])))
        first, last = map(int, rest[2:4]) if len(rest) > 2 else (0, SEQUENCES)
        run(Path(rest[0]), methods, first, last)
    elif command == "train":
        train(Path(rest[0]), rest[1].split(";"), [int(seed) for seed in rest[2:]])
    elif command == "fit":
        fit(Path(rest[0]))
    else:
        judge(Path(rest[0]), Path(__file__))


if __name__ == "__main__":
    main()
