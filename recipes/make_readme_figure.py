"""The README's figure, from the demo's own output: data, posterior mean, standard deviation and the SIM reference.

.venv/bin/obverse demo -o OUT && .venv/bin/python recipes/make_readme_figure.py OUT docs/microtubules.png
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from obverse.io.safe import read_safetensors
from obverse.posterior import Posterior

CROP = (slice(40, 200), slice(30, 190))
# Magma at nine equal steps, as RGB; between them colours are interpolated.
MAGMA = [(0, 0, 4), (28, 16, 68), (79, 18, 123), (129, 37, 129), (181, 54, 122), (229, 80, 100), (251, 135, 97)]
MAGMA += [(254, 194, 135), (252, 253, 191)]


def shade(image: np.ndarray, colours: list[tuple[int, int, int]]) -> np.ndarray:
    low, high = np.percentile(image, (0.5, 99.7))
    level = ((image - low) / (high - low)).clip(0, 1)
    steps = np.linspace(0, 1, len(colours))
    return np.stack([np.interp(level, steps, [c[i] for c in colours]) for i in range(3)], -1).astype(np.uint8)


def main(folder: Path, target: Path) -> None:
    stored, _ = read_safetensors(folder / "measurement.safetensors")
    posterior = Posterior.load(folder / "posterior.safetensors")
    grey = [(0, 0, 0), (255, 255, 255)]
    panels = [
        shade(stored["data"][0][CROP], grey),
        shade(posterior.mean[0].numpy()[CROP], grey),
        shade(posterior.std[0].numpy()[CROP], MAGMA),
        shade(stored["reference"][0][CROP], grey),
    ]
    gap = np.full((panels[0].shape[0], 4, 3), 255, np.uint8)
    row = np.concatenate([part for panel in panels for part in (panel, gap)][:-1], axis=1)
    target.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(row).resize((row.shape[1] * 3 // 2, row.shape[0] * 3 // 2), Image.Resampling.LANCZOS).save(target)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
