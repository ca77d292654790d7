"""One image of 256² through the shipped grey denoiser: Obverse against deepinv's DRUNet with the very same weights.

The architectures agree, so that the weights are copied into deepinv's class (same widths, same number of blocks) and
both give the same picture, hence the same PSNR. The full-size DRUNet, with fresh weights, shows what a user of the
peer's default pays. `fast` computes the convolutions in bfloat16; its PSNR is measured beside it.
"""

import dataclasses
import json
import time
from pathlib import Path

import deepinv
import torch

import obverse as ob

SIDE, REPEATS, LEVEL = 256, 15, 25 / 255


def main() -> None:
    prior = ob.priors.load("natural-gray")
    description = prior.card["network"]["network"]
    theirs = deepinv.models.DRUNet(
        in_channels=2, out_channels=1, nc=tuple(description["widths"]), nb=description["blocks"], pretrained=None
    )
    ours = prior.network.network.state_dict()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.values(), strict=True)))
    theirs.eval()
    full = deepinv.models.DRUNet(in_channels=1, out_channels=1, pretrained=None).eval()
    fast = dataclasses.replace(prior, fast=True)

    generator = torch.Generator().manual_seed(0)
    truth = ob.priors.GaussianField.power_law((1, SIDE, SIDE), 2.5, 0.05, mean=0.5, dtype=torch.float32).sample(1)[0]
    noisy = truth + LEVEL * torch.randn(truth.shape, generator=generator)

    def peer() -> torch.Tensor:
        """The preconditioning of `networks.Preconditioned` around deepinv's network."""
        deviation, centre = prior.network.deviation, prior.network.centre
        scale = (LEVEL**2 + deviation**2) ** -0.5
        z = (noisy - centre)[None]
        # deepinv appends the level as the last channel, ours has the deviation last: the two maps change places
        maps = torch.full_like(z, scale * LEVEL)
        residual = theirs(torch.cat([scale * z, maps], 1), scale * deviation)
        return (centre + (deviation * scale) ** 2 * z + residual / scale)[0]

    jobs = {
        "obverse": lambda: prior.denoise(noisy, LEVEL),
        "obverse, fast": lambda: fast.denoise(noisy, LEVEL),
        "deepinv, same weights": peer,
        "deepinv, full-size DRUNet": lambda: full(noisy[None], LEVEL)[0],
    }
    times: dict[str, list[float]] = {name: [] for name in jobs}
    pictures = {}
    with torch.no_grad():
        for turn in range(REPEATS + 1):
            for name, job in jobs.items():
                began = time.perf_counter()
                pictures[name] = job()
                if turn:
                    times[name].append(1000 * (time.perf_counter() - began))
    gap = float((pictures["obverse"] - pictures["deepinv, same weights"]).abs().max())
    assert gap < 1e-4, f"the two pictures differ by {gap:.1e}"
    rows = {}
    for name, values in times.items():
        decibels = float(-10 * (pictures[name] - truth).square().mean().log10())
        rows[name] = {"milliseconds": round(sorted(values)[REPEATS // 2], 1), "psnr": round(decibels, 3)}
        shown = f"{rows[name]['psnr']:.3f} dB" if "full" not in name else "(fresh weights)"
        print(f"{name:28}{rows[name]['milliseconds']:9.1f} ms  {shown}")
    versions = {"torch": torch.__version__, "deepinv": deepinv.__version__, "threads": torch.get_num_threads()}
    Path(__file__).with_suffix(".json").write_text(
        json.dumps({"rows": rows, "gap": gap, "versions": versions}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
