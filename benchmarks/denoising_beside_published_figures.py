"""Denoising of photographs by every shipped prior, beside the figures that were published for others.

White noise of standard deviation 15, 25 and 50 (of 255), neither clipped nor rounded, one fixed draw an image; PSNR
with peak 255 of the unrounded result, averaged over images. Grey: CBSD68 turned grey by luma, and Set12. Colour:
CBSD68.

Published figures, as their papers and the repositories of DnCNN and DPIR state them: BM3D, CBM3D (Dabov et al. 2007),
DnCNN (Zhang et al. 2017), FFDNet (Zhang et al. 2018), DRUNet (Zhang et al. 2021).

Needs OBVERSE_DATA.
"""

import json
import os
import sys
import time
from pathlib import Path

import torch

import obverse
from obverse.learning.data import as_unit, read_images

LEVELS = (15, 25, 50)
SETS = {"CBSD68": "natural/cbsd68", "Set12": "natural/set12"}
PUBLISHED = {
    ("CBSD68", 1): {
        "BM3D": (31.07, 28.57, 25.62),
        "DnCNN": (31.72, 29.23, 26.23),
        "DRUNet": (31.91, 29.48, 26.59),
    },
    ("Set12", 1): {"BM3D": (32.37, 29.97, 26.72), "DnCNN": (32.86, 30.44, 27.18), "DRUNet": (33.25, 30.94, 27.90)},
    ("CBSD68", 3): {
        "CBM3D": (33.52, 30.71, 27.38),
        "CDnCNN": (33.90, 31.24, 27.95),
        "FFDNet": (33.87, 31.21, 27.96),
        "DRUNet": (34.30, 31.69, 28.51),
    },
}
ASKED = {"natural-gray": ("CBSD68", 25, 29.1)}


def main() -> None:
    """Evaluate the priors named on the command line, or all that are shipped."""
    cards = obverse.priors.available()
    names = sys.argv[1:] or list(cards)
    path = Path(__file__).with_suffix(".json")
    rows = [row for row in (json.loads(path.read_text())["rows"] if path.exists() else []) if row["prior"] not in names]
    for name in names:
        prior = obverse.priors.load(name)
        channels = cards[name].get("channels", 1)
        for label, folder in SETS.items():
            if (label, channels) in PUBLISHED:
                figures, seconds = evaluate(prior, folder, channels)
                rows.append({"prior": name, "set": label, "channels": channels, "psnr": figures, "seconds": seconds})
                print(row_text(name, label, channels, tuple(figures)), f"  {seconds:.0f} s", flush=True)
    for (label, channels), others in PUBLISHED.items():
        for name, figures in others.items():
            print(row_text(f"{name} (published)", label, channels, figures))
    reached = {
        name: figures["psnr"][LEVELS.index(level)] >= asked
        for name, (label, level, asked) in ASKED.items()
        for figures in rows
        if (figures["prior"], figures["set"]) == (name, label)
    }
    print("asked for and reached:", reached)
    versions = {"torch": torch.__version__, "threads": torch.get_num_threads()}
    path.write_text(
        json.dumps({"levels": LEVELS, "rows": rows, "reached": reached, "versions": versions}, indent=1) + "\n"
    )


def row_text(name: str, label: str, channels: int, figures: tuple[float, ...]) -> str:
    kind = "colour" if channels == 3 else "grey"
    return f"{name:32} {label:8} {kind:7}" + "".join(f"{value:8.2f}" for value in figures)


def evaluate(prior: "obverse.priors.Denoises", folder: str, channels: int) -> tuple[list[float], float]:
    """Mean PSNR at each level, and the seconds that all took."""
    images = [as_unit(image) for image in read_images(Path(os.environ["OBVERSE_DATA"]) / folder, channels)]
    began, figures = time.perf_counter(), []
    for level in LEVELS:
        sigma, decibels = level / 255, []
        for number, x in enumerate(images):
            noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(number))
            with torch.no_grad():
                error = prior.denoise(x + sigma * noise, sigma) - x
            decibels.append(float(-10 * error.double().square().mean().log10()))
        figures.append(round(sum(decibels) / len(decibels), 3))
    return figures, round(time.perf_counter() - began, 1)


if __name__ == "__main__":
    main()
