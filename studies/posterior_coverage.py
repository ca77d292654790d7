"""Do intervals from a learned prior hold on real pictures, before and after calibration?

Crops of 64² of the 200 test pictures of BSDS500, one a picture, and of micrographs (W2S, means of 400 frames, binned
2×2, 25 crops each), measured by simulation: denoising σ = 25 and 50, 30 % inpainting, deblurring by Levin's first
kernel (σ = 7.65), ×4 super-resolution (σ = 2.55), all of 255. `Tweedie` and `LocalGaussian` with a shipped prior give
mean, standard deviation and five components. The level of `LocalGaussian` is the one at which, over four crops of the
validation pictures (`levels`), variance and squared error are nearest to each other; the level that `matched_level`
finds for super-resolution, 0.6, gives variances ten times the error.

Half of the crops set one factor for each tenth-and-half of the standard deviation (conformal risk control in strata of
uncertainty), the other half say how the 90 % intervals hold: over all pixels, by uncertainty, intensity, edges, what
the operator sees, expected error; and along the components, for which a split conformal factor is set alike.
As controls, the covariance is taken four times too small and too large: calibration has to mend both.

    OBVERSE_DATA=../shared/data python studies/posterior_coverage.py levels TASK SIGMA...
    OBVERSE_DATA=../shared/data python studies/posterior_coverage.py run TASK[,TASK] FOLDER [FIRST LAST]
    OBVERSE_DATA=../shared/data python studies/posterior_coverage.py judge FOLDER           writes the JSON beside this
"""

import dataclasses
import json
import os
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import obverse as ob
from obverse.io import tiff
from obverse.posterior import LowRankDiagonal, Strata
from obverse.posterior.calibration import Coverage, conformal_quantile

SIDE, K, LEVELS = 64, 5, (0.5, 0.8, 0.9, 0.95)
SHAPE = (1, SIDE, SIDE)
TASKS = {  # prior, pictures, level of LocalGaussian
    "denoising 25": ("natural-gray-gradient", "photographs", None),
    "denoising 50": ("natural-gray-gradient", "photographs", None),
    "inpainting": ("natural-gray-gradient", "photographs", 0.06),
    "deblurring": ("natural-gray-gradient", "photographs", 0.15),
    "super-resolution": ("natural-gray-gradient", "photographs", 0.2),
    "micrographs 25": ("microscopy", "micrographs", None),
}


def problem(task: str, data: Path) -> ob.Problem:
    generator = torch.Generator().manual_seed(1)
    if task == "inpainting":
        return ob.Problem(ob.operators.Mask((torch.rand(SHAPE, generator=generator) > 0.3).float()), gaussian(5))
    if task == "deblurring":
        kernel = torch.from_numpy(np.load(data / "kernels/levin09_8.npz")["k0"]).float()
        return ob.Problem(ob.operators.Convolution(kernel / kernel.sum(), SHAPE), gaussian(7.65))
    if task == "super-resolution":
        return ob.Problem(ob.operators.Downsample(SHAPE, 4), gaussian(2.55))
    return ob.Problem(ob.operators.Identity(SHAPE), gaussian(int(task.split()[1])))


def gaussian(level: float):
    return ob.noise.Gaussian(level / 255)


def truth(task: str, index: int, data: Path, part: str = "test") -> Tensor:
    """A crop from 0 to 1."""
    place = np.random.default_rng(index)
    if TASKS[task][1] == "photographs":
        file = sorted((data / "natural/bsds500" / part).glob("*.jpg"))[index]
        picture = np.asarray(Image.open(file).convert("L"), dtype=np.float32) / 255
    else:
        files = sorted((data / "microscopy/w2s").glob("avg400_*.tif"))
        picture = tiff.read(files[index % len(files)]).image()[0].astype(np.float32)
        picture = picture.reshape(picture.shape[0] // 2, 2, -1, 2).mean(axis=(1, 3)) / 255
    y, x = (int(place.integers(n - SIDE + 1)) for n in picture.shape)
    return torch.from_numpy(picture[y : y + SIDE, x : x + SIDE].copy())[None]


def run(tasks: list[str], folder: Path, first: int, last: int, data: Path) -> None:
    """One crop of every task, then the next; what is there is not done again."""
    for index in range(first, last):
        for task in tasks:
            file = folder / task.replace(" ", "-") / f"{index}.safetensors"
            if file.exists() or file.with_suffix(".failed").exists():
                continue
            file.parent.mkdir(parents=True, exist_ok=True)
            x, measured = truth(task, index, data), problem(task, data)
            try:
                found = posterior_of(task, measured.simulate(x, seed=index), measured)
            except ob.methods.CovarianceError as error:
                file.with_suffix(".failed").write_text(str(error))
                continue
            found.save(file)
            print(f"{task} {index}: {-10 * float((found.mean - x).square().mean().log10()):.2f} dB", flush=True)


def choose(task: str, levels: list[float], data: Path) -> None:
    """Variance over squared error at every level, over four crops of the validation pictures."""
    for level in levels:
        variance = error = 0.0
        for index in range(4):
            x, measured = truth(task, index, data, "val32"), problem(task, data)
            found = posterior_of(task, measured.simulate(x, seed=index), measured, level)
            variance += float(found.std.square().mean())
            error += float((found.mean - x).square().mean())
        print(f"{task}, level {level}: variance over squared error {variance / error:.2f}", flush=True)


def posterior_of(task: str, y: Tensor, measured: ob.Problem, level: float | None = None) -> ob.Posterior:
    name, _, chosen = TASKS[task]
    level = chosen if level is None else level
    prior = ob.priors.load(name)
    if level is None:
        found = ob.methods.Tweedie(prior, rank=K, probes=36)(y, measured)
    else:
        method = ob.methods.LocalGaussian(prior, sigma=level, rank=K, probes=36, tolerance=3e-2, max_iterations=60)
        found = method(y, measured)
    components = found.components(K)
    U = components.directions.reshape(K, -1).mT
    compact = LowRankDiagonal.from_marginals(U, components.variances, found.std.square(), SHAPE)
    return dataclasses.replace(found, covariance=compact)


def judge(folder: Path, data: Path) -> None:
    rows = []
    for task in TASKS:
        files = sorted((folder / task.replace(" ", "-")).glob("*.safetensors"), key=lambda file: int(file.stem))
        if len(files) >= 40:
            rows.append({"task": task, "prior": TASKS[task][0], **judged(task, files, data)})
            print(json.dumps(rows[-1], indent=1))
    versions = {"torch": torch.__version__, "obverse": ob.__version__}
    Path(__file__).with_suffix(".json").write_text(json.dumps({"rows": rows, **versions}, indent=1) + "\n")


def judged(task: str, files: list[Path], data: Path) -> dict:
    posteriors = [ob.Posterior.load(file) for file in files]
    truths = [truth(task, int(file.stem), data) for file in files]
    # Every second one, since neighbours in the list are alike.
    setting, fresh = (posteriors[::2], truths[::2]), (posteriors[1::2], truths[1::2])
    groups = Strata("uncertainty", (0.25, 0.5, 0.75, 0.9))
    operator = problem(task, data).operator
    error = [float((p.mean - x).square().mean()) for p, x in zip(posteriors, truths)]
    variance = [float(p.std.square().mean()) for p in posteriors]
    failed = len(list(files[0].parent.glob("*.failed")))
    figures = {
        "crops": len(files),
        "failed": failed,
        "level": TASKS[task][2],
        "not_converged": sum(not p.status.converged for p in posteriors),
        "psnr": float(np.mean([-10 * np.log10(e) for e in error])),
        "variance_over_error": float(np.sum(variance) / np.sum(error)),
        "products": float(np.mean([p.diagnostics.get("products", p.diagnostics["evaluations"]) for p in posteriors])),
        "seconds": float(np.mean([p.diagnostics["seconds"] for p in posteriors])),
    }
    calibrated = {}
    for name, scale in (("", 1.0), (" Σ/4", 0.25), (" 4Σ", 4.0)):
        told = [dataclasses.replace(p, covariance=p.covariance.scaled(scale)) for p in setting[0]]
        other = [dataclasses.replace(p, covariance=p.covariance.scaled(scale)) for p in fresh[0]]
        calibration = ob.posterior.conformal_risk_control(told, setting[1], level=0.9, strata=groups)
        after = [calibration.apply(p) for p in other]
        calibrated[f"before{name}"] = at_ninety(ob.posterior.coverage(other, fresh[1], LEVELS))
        calibrated[f"after{name}"] = at_ninety(ob.posterior.coverage(after, fresh[1], LEVELS))
        if scale == 1.0:
            figures["factors"] = calibration.factors
            seen = [Strata.seen_by(operator)] if task in ("inpainting",) else []
            cuts = [groups, Strata("intensity", (0.25, 0.5, 0.75)), Strata("edges", (0.5, 0.8, 0.95)), *seen]
            for when, those in (("before", other), ("after", after)):
                strata = {}
                for cut in cuts:
                    strata |= ob.posterior.conditional_coverage(those, fresh[1], cut, LEVELS)
                strata |= ob.posterior.coverage_by_error(those, fresh[1], LEVELS)
                figures[f"strata {when}"] = {key: at_ninety(part) for key, part in strata.items()}
    return {**figures, **calibrated, **along_components(setting, fresh)}


def at_ninety(found: Coverage) -> dict[str, float]:
    at = found.levels.index(0.9)
    return {"coverage": round(found.observed[at], 4), "standard_error": round(found.standard_errors[at], 4)}


def along_components(setting, fresh) -> dict:
    """Share of crops whose error along a component is within 1.645 of its deviations, before and after one factor."""

    def scores(pairs) -> np.ndarray:
        return np.abs(np.asarray(ob.posterior.pc_scores(*pairs, k=K).values))

    known, new = scores(setting), scores(fresh)
    factors = [conformal_quantile(list(column), 0.9) / 1.6449 for column in known.T]
    return {
        "components before": [float(v) for v in (new <= 1.6449).mean(0)],
        "components after": [float(v) for v in (new <= 1.6449 * np.asarray(factors)).mean(0)],
        "component factors": [float(v) for v in factors],
    }


def main() -> None:
    data = Path(os.environ["OBVERSE_DATA"])
    torch.set_num_threads(1)
    if sys.argv[1] == "judge":
        judge(Path(sys.argv[2]), data)
    elif sys.argv[1] == "levels":
        choose(sys.argv[2], [float(level) for level in sys.argv[3:]], data)
    else:
        first, last = (int(number) for number in sys.argv[4:6]) if len(sys.argv) > 4 else (0, 200)
        run(sys.argv[2].split(","), Path(sys.argv[3]), first, last, data)


if __name__ == "__main__":
    main()
