"""Fit the mixture of Gaussians over grey patches of the EPLL prior, and write its weights with their card.

    OBVERSE_DATA=../shared/data python recipes/make_patch_mixture.py OUT.safetensors

Expectation–maximisation on random patches of the BSDS500 training pictures, their means taken off. About a
minute of one CPU core, and as long for the check.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from obverse import networks
from obverse.learning.data import as_unit, read_images
from obverse.learning.mixtures import fit_mixture
from obverse.learning.recipe import data_folder
from obverse.noise.base import stream

ROUNDING = (1 / 255) ** 2 / 12  # variance of rounding to 8 bits
DATA = {
    "train": "natural/bsds500/train",
    "validation": "natural/bsds500/val32",
    "licence": "BSDS500 (Berkeley), non-commercial research and education",
}
LEVEL = 25  # of 255
CHECKED = 8  # validation pictures
CROP = 128  # side of a validation crop


def patches(images: list[torch.Tensor], count: int, side: int, seed: int) -> torch.Tensor:
    """`count` random patches, equally many of each image, without their means: `(count, side²)`."""
    found = []
    for number, image in enumerate(images):
        generator = np.random.default_rng((seed, number))
        share = count // len(images) + (number < count % len(images))
        pixels = as_unit(image)[0].unfold(0, side, 1).unfold(1, side, 1)
        rows, columns = (generator.integers(0, n, share) for n in pixels.shape[:2])
        found.append(pixels[torch.from_numpy(rows), torch.from_numpy(columns)].reshape(share, -1))
    values = torch.cat(found)
    return values - values.mean(1, keepdim=True)


def psnr(network: torch.nn.Module, images: list[torch.Tensor], level: int) -> float:
    """Mean PSNR in dB of the images' central crops."""
    decibels = []
    for number, image in enumerate(images):
        top, left = ((n - CROP) // 2 for n in image.shape[-2:])
        x = as_unit(image)[:, top : top + CROP, left : left + CROP]
        noisy = x + level / 255 * torch.randn(x.shape, generator=stream(1, number))
        error = (network(noisy[None], torch.tensor([level / 255]))[0] - x).square().mean()
        decibels.append(float(-10 * error.log10()))
    return sum(decibels) / len(decibels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--components", type=int, default=128)
    parser.add_argument("--patches", type=int, default=100_000)
    parser.add_argument("--iterations", type=int, default=12)
    parser.add_argument("--side", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()

    began = time.monotonic()
    samples = patches(read_images(data_folder(DATA["train"]), 1), asked.patches, asked.side, asked.seed)

    def report(step: int, steps: int, likelihood: float) -> None:
        print(f"{step}/{steps}: {likelihood:.3f} nats a patch, {time.monotonic() - began:.0f} s", flush=True)  # noqa: T201

    weights, covariances = fit_mixture(
        samples, asked.components, asked.iterations, ROUNDING, asked.seed, callback=report
    )
    network = networks.PatchMixture.of(weights, covariances).requires_grad_(False)
    seconds = time.monotonic() - began
    validation = read_images(data_folder(DATA["validation"]), 1)
    card = {
        "name": asked.output.stem,
        "description": "Mixture of Gaussians over grey patches of photographs, for EPLL",
        "network": {"kind": "PatchMixture", "components": asked.components, "side": asked.side},
        "channels": 1,
        "sigma_range": [2 / 255, 100 / 255],
        "parameters": sum(p.numel() for p in network.parameters()),
        "data": DATA,
        "settings": {name: value for name, value in vars(asked).items() if name != "output"},
        "command": "python recipes/make_patch_mixture.py",
        "seed": asked.seed,
        "steps": asked.iterations,
        "seconds": round(seconds),
        "device": f"cpu, {torch.get_num_threads()} threads",
        "metrics": {f"psnr_{LEVEL}": psnr(network, validation[:CHECKED], LEVEL)},
        "versions": {"torch": torch.__version__},
    }
    networks.save(asked.output, network, card, overwrite=True)
    print(card["metrics"])  # noqa: T201


if __name__ == "__main__":
    main()
