"""Claim: an unrolled network beats a direct U-Net of as many parameters at deblurring, and loses less by a change.

Both are trained on the eight camera-shake kernels of Levin et al. 2009 and σ = 7.65/255, on BSDS500; the direct one,
whose step is a quarter of the work, for four times as many steps. They are tested with these kernels on centre crops of
CBSD68 in grey, and with the blur stretched or the noise multiplied by 0.8 and 1.2:

    told      the method knows the new kernel and level, but was not trained for them
    untold    the method is given the old ones: the model is wrong

`loses_less` names the changes by which the hybrid's PSNR falls less (or rises more) than the direct network's. Wiener's
filter, which learns nothing, shows how much of a loss lies in the task.

    LEVIN="--set objective.operator.kernels=kernels/levin09_8.npz --set objective.operator.motion=null
           --set objective.operator.gaussian=null"
    obverse train recipes/deblur-unrolled.yaml $LEVIN -o trained/unrolled-levin --set name=unrolled-levin  \\
        --set steps=1200
    obverse train recipes/deblur-direct.yaml $LEVIN -o trained/direct-levin --set name=direct-levin --set steps=4800
    python benchmarks/unrolled_beats_direct.py --weights trained [--quick] [--side 192]
"""

import argparse
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

import obverse as ob
from obverse.learning.blurs import stretched
from obverse.learning.data import as_unit, read_images
from obverse.problem import Problem

SIGMA = 7.65 / 255
FACTORS = (0.8, 1.0, 1.2)
CONDITIONS = {
    "nominal": (1.0, 1.0),
    "width × 0.8": (0.8, 1.0),
    "width × 1.2": (1.2, 1.0),
    "noise × 0.8": (1.0, 0.8),
    "noise × 1.2": (1.0, 1.2),
}
COLOURS = {"unrolled": (200, 60, 30), "direct": (30, 90, 190), "wiener": (120, 120, 120)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights", type=Path, default=Path("trained"), help="folder of the two trainings")
    parser.add_argument("--side", type=int, default=192)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    data = Path(os.environ["OBVERSE_DATA"])
    count = 8 if arguments.quick else 24
    images = [centre(as_unit(image), arguments.side) for image in read_images(data / "natural/cbsd68", 1)[:count]]
    stored = np.load(data / "kernels/levin09_8.npz")
    kernels = [torch.from_numpy(stored[f"k{i}"]).float() for i in range(8)]
    unrolled = ob.methods.Unrolled.load(weights(arguments.weights, "unrolled-levin"))
    direct = ob.methods.Network.load(weights(arguments.weights, "direct-levin"))
    methods = {"unrolled": unrolled, "direct": direct, "wiener": wiener}
    rows = {name: measured(method, images, kernels) for name, method in methods.items()}
    psnr = {told: {name: row[told] for name, row in rows.items()} for told in ("told", "untold")}
    verdicts = {told: verdict(table) for told, table in psnr.items()}
    for told, table in psnr.items():
        print(f"{told:8}" + "".join(f"{condition:>14}" for condition in CONDITIONS))
        for name, row in table.items():
            print(f"{name:8}" + "".join(f"{row[condition]:14.2f}" for condition in CONDITIONS))
        print(f"lead of the hybrid {verdicts[told]['lead']}, loses less in {verdicts[told]['loses_less']}\n")
    record = {
        "psnr": psnr,
        "verdicts": verdicts,
        "images": len(images),
        "side": arguments.side,
        "networks": {"unrolled": facts(unrolled.card), "direct": facts(direct.card)},
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
    }
    arguments.output.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    figure(psnr).save(arguments.output.with_suffix(".png"), optimize=True)


def measured(
    method: "Callable[[Tensor, Problem], ob.posterior.Estimate]", images: list[Tensor], kernels: list[Tensor]
) -> dict[str, dict[str, float]]:
    """PSNR by condition, told and untold."""
    return {
        told: {name: score(method, images, kernels, *change, told == "told") for name, change in CONDITIONS.items()}
        for told in ("told", "untold")
    }


def weights(folder: Path, name: str) -> Path:
    path = folder / name / f"{name}.safetensors"
    if not path.is_file():
        raise SystemExit(f"no {path}: train it first, as the head of this file says")
    return path


def facts(card: dict) -> dict:
    return {key: card[key] for key in ("parameters", "steps", "seconds", "metrics", "seed")}


def score(
    method: "Callable[[Tensor, Problem], ob.posterior.Estimate]",
    images: list[Tensor],
    kernels: list[Tensor],
    width: float,
    noise: float,
    told: bool,
) -> float:
    """Mean PSNR in dB; picture i is blurred by kernel i mod 8."""
    decibels = []
    for number, x in enumerate(images):
        kernel = kernels[number % len(kernels)]
        changed = stretched(kernel, width) if width != 1.0 else kernel
        truth = Problem(ob.operators.Convolution(changed, x.shape), ob.noise.Gaussian(noise * SIGMA))
        assumed = truth if told else Problem(ob.operators.Convolution(kernel, x.shape), ob.noise.Gaussian(SIGMA))
        error = method(truth.simulate(x, seed=number), assumed).image - x
        decibels.append(float(-10 * error.double().square().mean().log10()))
    return round(sum(decibels) / len(decibels), 3)


def wiener(y: Tensor, problem: Problem) -> "ob.posterior.Estimate":
    """The mean under a power law that photographs have on average."""
    field = ob.priors.GaussianField.power_law(problem.operator.image_shape, 2.5, variance=0.06, mean=0.45)
    return ob.methods.MAP(field, weight=1.0)(y, problem)


def verdict(table: dict[str, dict[str, float]]) -> dict:
    """By how many dB the hybrid leads, and in which changes it loses less."""
    lead = {condition: round(table["unrolled"][condition] - table["direct"][condition], 3) for condition in CONDITIONS}
    less = [condition for condition in list(CONDITIONS)[1:] if lead[condition] > lead["nominal"]]
    return {"lead": lead, "loses_less": less, "changes": len(CONDITIONS) - 1}


def centre(x: Tensor, side: int) -> Tensor:
    top, left = ((n - side) // 2 for n in x.shape[-2:])
    return x[:, top : top + side, left : left + side].contiguous()


def figure(psnr: dict[str, dict[str, dict[str, float]]]) -> Image.Image:
    """PSNR over the factor: one panel for each of width and noise, told and untold."""
    wide, high, margin = 300, 220, 44
    picture = Image.new("RGB", (2 * wide, 2 * high + 24), "white")
    draw = ImageDraw.Draw(picture)
    values = [v for table in psnr.values() for row in table.values() for v in row.values()]
    low, top = np.floor(min(values)), np.ceil(max(values))
    for row, (told, table) in enumerate(psnr.items()):
        for column, change in enumerate(("width", "noise")):
            left, upper = column * wide + margin, row * high + 24
            right, lower = (column + 1) * wide - 16, (row + 1) * high - 20
            draw.rectangle((left, upper, right, lower), outline="black")
            draw.text((left, upper - 14), f"PSNR in dB by the factor of {change}, {told}", fill="black")
            for value in np.arange(low, top + 1):
                at = lower - (value - low) / (top - low) * (lower - upper)
                draw.line((left - 3, at, left, at), fill="black")
                draw.text((left - 20, at - 6), f"{value:.0f}", fill="black")
            for name, line in table.items():
                points = []
                for factor in FACTORS:
                    value = line["nominal" if factor == 1.0 else f"{change} × {factor}"]
                    across = left + (factor - 0.75) / 0.5 * (right - left)
                    points.append((across, lower - (value - low) / (top - low) * (lower - upper)))
                    if name == "wiener":
                        draw.text((across - 8, lower + 3), f"{factor}", fill="black")
                draw.line(points, fill=COLOURS[name], width=2)
                for across, at in points:
                    draw.ellipse((across - 3, at - 3, across + 3, at + 3), fill=COLOURS[name])
    for number, (name, colour) in enumerate(COLOURS.items()):
        draw.text((margin + 90 * number, 2 * high + 6), name, fill=colour)
    return picture


if __name__ == "__main__":
    main()
