"""Claim: the spread over a network's weights covers far less of the truth than it says; the aleatoric term mends that.

Denoising of grey crops of BSDS500's test images at σ = 25/255 by small networks, each trained in minutes. The share of
pixels within their intervals, and the deviation over the error (1 is right), root mean squares over all crops:

    ensemble       four networks from four seeds                                       mean of Tweedie's σ²J of each
    dropout        eight draws of one network trained with dropout, rate 0.05          σ²J of the network without it
    laplace        the last layer's weights, linearised, fitted to 24 training crops   white errors of the size found
    weights: epistemic alone, target "epistemic"        total: with the aleatoric term, target "posterior"

Beside them Tweedie of one network, which has no spread of weights; and the bootstrap of one, as a law of its error.

    for s in 0 1 2 3; do obverse train recipes/small-gray.yaml -o trained/member$s --set seed=$s; done
    obverse train recipes/small-gray-dropout.yaml -o trained/dropout
    python benchmarks/weights_are_not_the_posterior.py --weights trained [--crops 16] [--side 32]
"""

import argparse
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

import obverse as ob
from obverse.learning.data import as_unit, read_images
from obverse.posterior import Estimate, Posterior
from obverse.solvers.result import Status

SIGMA, DRAWS = 25 / 255, 8
LEVELS = (0.5, 0.8, 0.9, 0.95)
COLOURS = {"ensemble": (200, 60, 30), "dropout": (30, 90, 190), "laplace": (30, 140, 60)}
Answer = Callable[[Tensor, ob.Problem], Posterior]


@dataclass(frozen=True, eq=False)
class Denoise:
    """A denoising network as a method: its image, with nothing said of its error."""

    network: torch.nn.Module

    def reconstruct(self, y: Tensor, problem: ob.Problem) -> Tensor:
        return ob.priors.Denoiser(self.network).denoise(y, SIGMA)

    @torch.no_grad()
    def __call__(self, y: Tensor, problem: ob.Problem) -> Estimate:
        return Estimate(self.reconstruct(y, problem), Status(True, "completed", "The network was run once."))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights", type=Path, default=Path("trained"), help="folder of the trainings")
    parser.add_argument("--crops", type=int, default=16)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    nets, cards = networks(arguments.weights)
    test = pictures("test", arguments.crops, arguments.side)
    problem = ob.Problem(ob.operators.Identity(test[0].shape), ob.noise.Gaussian(SIGMA))
    rows = []
    print(
        f"{'method':26}{'PSNR':>7}{'std/error':>11}"
        + "".join(f"{level:9.0%}" for level in LEVELS)
        + "     ±  rank  s/crop"
    )
    for name, answer in methods(nets, pictures("train", 24, 48)).items():
        row = {"method": name, **figures(answer, test, problem)}
        rows.append(row)
        cells = "".join(f"{value:9.3f}" for value in row["coverage"])
        print(
            f"{name:26}{row['psnr']:7.2f}{row['std_over_error']:11.2f}{cells}{row['standard_error_90']:6.3f}"
            f"{row['rank'] if row['rank'] is not None else '-':>6}{row['seconds']:8.2f}",
            flush=True,
        )
    facts = {"levels": LEVELS, "crops": arguments.crops, "side": arguments.side, "trainings": cards}
    versions = {"torch": torch.__version__, "obverse": ob.__version__, "threads": torch.get_num_threads()}
    arguments.output.write_text(json.dumps({"rows": rows, **facts, **versions}, indent=1, ensure_ascii=False) + "\n")
    figure(rows).save(arguments.output.with_suffix(".png"), optimize=True)


def networks(folder: Path) -> tuple[dict[str, torch.nn.Module], dict[str, dict]]:
    nets, cards = {}, {}
    names = {f"member{i}": "small-gray" for i in range(4)} | {"dropout": "small-gray-dropout"}
    for name, weights in names.items():
        path = folder / name / f"{weights}.safetensors"
        if not path.is_file():
            raise SystemExit(f"no {path}: train it first, as the head of this file says")
        nets[name], card = ob.networks.load(path)
        cards[name] = {key: card[key] for key in ("parameters", "steps", "seconds", "metrics", "seed")}
    return nets, cards


def methods(nets: dict[str, torch.nn.Module], training: list[Tensor]) -> dict[str, Answer]:
    """Every method by name; the epistemic part and the whole of each."""

    def tweedie(net: torch.nn.Module) -> ob.methods.Tweedie:
        return ob.methods.Tweedie(ob.priors.Denoiser(net), rank=1, probes=32)

    members = [nets[f"member{i}"] for i in range(4)]
    moves = [ob.transforms.Shift(), ob.transforms.Rotate90(), ob.transforms.Flip()]
    single = Denoise(members[0])
    found: dict[str, Answer] = {
        "ensemble, weights": ob.methods.Ensemble([Denoise(net) for net in members]),
        "ensemble, total": ob.methods.Ensemble([tweedie(net) for net in members], aleatoric=True),
    }
    found["dropout, weights"] = dropout = ob.methods.WeightSampling(Denoise(nets["dropout"]), draws=DRAWS)
    found["dropout, total"] = together(dropout, tweedie(nets["dropout"]))
    seen = ob.Problem(ob.operators.Identity(training[0].shape), ob.noise.Gaussian(SIGMA))
    items = [(x, seen.simulate(x, seed=1000 + i), seen) for i, x in enumerate(training)]
    laplace = ob.methods.LinearisedLaplace.fit(single, items)
    found["laplace, weights"] = laplace
    found["laplace, total"] = together(laplace, lambda y, p: laplace.error**2)
    found["one network, Tweedie"] = tweedie(members[0])
    found["bootstrap, parametric"] = ob.methods.EquivariantBootstrap(single, draws=40)
    found["bootstrap, equivariant"] = ob.methods.EquivariantBootstrap(single, moves, draws=40)
    return found


def together(spread: Answer, aleatoric: Callable[[Tensor, ob.Problem], Posterior | float]) -> Answer:
    return lambda y, problem: ob.posterior.with_aleatoric(spread(y, problem), aleatoric(y, problem))


def figures(answer: Answer, test: list[Tensor], problem: ob.Problem) -> dict:
    began = time.perf_counter()
    inside, errors, variances = [], [], []
    rank = None
    for number, x in enumerate(test):
        found = answer(problem.simulate(x, seed=number), problem)
        error, std = (found.mean - x).double(), found.std.double()
        inside.append([float((error.abs() <= _quantile(level) * std).double().mean()) for level in LEVELS])
        errors.append(error.square().mean())
        variances.append(std.square().mean())
        rank = getattr(found.covariance, "rank", None)
    coverage, mse = torch.tensor(inside), torch.stack(errors)
    return {
        "target": found.target,
        "psnr": float(-10 * mse.log10().mean()),
        "std_over_error": float((torch.stack(variances).mean() / mse.mean()).sqrt()),
        "coverage": [round(value, 4) for value in coverage.mean(0).tolist()],
        "standard_error_90": float(coverage[:, 2].std() / len(test) ** 0.5),
        "rank": rank,
        "seconds": round((time.perf_counter() - began) / len(test), 3),
    }


def _quantile(level: float) -> float:
    return math.sqrt(2) * float(torch.erfinv(torch.tensor(level, dtype=torch.float64)))


def pictures(kind: str, count: int, side: int) -> list[Tensor]:
    """Centre crops of the first pictures of a part of BSDS500."""
    images = [as_unit(x) for x in read_images(Path(os.environ["OBVERSE_DATA"]) / "natural/bsds500" / kind, 1)[:count]]
    corners = [[(n - side) // 2 for n in x.shape[-2:]] for x in images]
    return [x[:, i : i + side, j : j + side].contiguous() for x, (i, j) in zip(images, corners)]


def figure(rows: list[dict]) -> Image.Image:
    """Coverage over the level stated; on the diagonal it is right. Thin: weights alone, thick: total."""
    side, margin = 340, 40
    picture = Image.new("RGB", (side + 2 * margin + 120, side + 2 * margin), "white")
    draw = ImageDraw.Draw(picture)

    def at(level: float, value: float) -> tuple[float, float]:
        return margin + level * side, margin + (1 - value) * side

    draw.rectangle((*at(0, 1), *at(1, 0)), outline="black")
    draw.line((at(0, 0), at(1, 1)), fill=(170, 170, 170))
    draw.text((margin, 8), "share of pixels inside, over the level stated", fill="black")
    for tick in (0.0, 0.5, 0.9):
        draw.text((at(tick, 0)[0] - 8, margin + side + 4), f"{tick:g}", fill="black")
        draw.text((10, at(0, tick)[1] - 6), f"{tick:g}", fill="black")
    for row in rows:
        name, _, part = row["method"].partition(", ")
        if name in COLOURS:
            points = [at(level, value) for level, value in zip((0.0, *LEVELS), (0.0, *row["coverage"]))]
            draw.line(points, fill=COLOURS[name], width=2 if part == "total" else 1)
    for number, (name, colour) in enumerate(COLOURS.items()):
        draw.text((side + margin + 14, margin + 18 * number), name, fill=colour)
    draw.text((side + margin + 14, margin + 90), "thin: weights\nthick: total", fill="black")
    return picture


if __name__ == "__main__":
    main()
