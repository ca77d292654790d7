"""Claim: products with a denoiser's Jacobian take half to two thirds of the time of autograd's double backward.

½(J + Jᵀ)v at 64² and 128² by the shipped grey denoisers, on one core, three ways: `priors.Jacobian`; the same graph
with torch's own convolutions; and `torch.func.linearize` with `torch.func.vjp`, which is no slower for the plain
network and does not help the gradient-step one. For that, whose J is symmetric, all ways multiply by Jᵀ alone. The
products agree to rounding.

    python benchmarks/jacobian_products_are_faster.py       prints a table, writes the JSON beside this
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

import obverse as ob
from obverse.priors import Denoiser, GradientStep, Jacobian, jacobian

NAMES, SIDES, LEVELS, COUNT, ROUNDS = ("natural-gray", "natural-gray-gradient"), (64, 128), (0.03, 0.1), 4, 3


class Ordinary:
    """Stands for `frozen_convolutions` and does nothing."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


def by_hand(denoiser: Denoiser, x: Tensor, sigma: float) -> Callable[[Tensor], Tensor]:
    def denoise(z: Tensor) -> Tensor:
        return denoiser.denoise(z, sigma)

    _, back = torch.func.vjp(denoise, x)
    if isinstance(denoiser, GradientStep):
        return lambda v: torch.stack([back(each)[0] for each in v])
    _, ahead = torch.func.linearize(denoise, x)
    return lambda v: torch.stack([(back(each)[0] + ahead(each)) / 2 for each in v])


def seconds(product: Callable[[Tensor], Tensor], v: Tensor) -> float:
    """Processor seconds of one product, the least of a few rounds."""
    product(v[:1])
    taken = []
    for _ in range(ROUNDS):
        began = time.process_time()
        product(v)
        taken.append((time.process_time() - began) / len(v))
    return min(taken)


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    for name in NAMES:
        denoiser = ob.priors.load(name)
        for side in SIDES:
            generator = torch.Generator().manual_seed(0)
            x = ob.priors.GaussianField.power_law((1, side, side), 2.0, variance=0.05, mean=0.5).sample(1, seed=0)[0]
            for level in LEVELS:
                z = (x + level * torch.randn(x.shape, generator=generator)).float()
                v = torch.randn(COUNT, *z.shape, generator=generator)
                ours = Jacobian(denoiser, z, level)
                with mock.patch.object(jacobian, "frozen_convolutions", Ordinary):
                    plain = Jacobian(denoiser, z, level)
                ways = {"obverse": ours, "autograd": plain}
                try:
                    ways["torch.func"] = by_hand(denoiser, z, level)
                except RuntimeError as error:  # torch.func does not follow autograd.grad inside of a network
                    print(f"{name}: torch.func says: {str(error).splitlines()[0]}")
                answers = [way(v) for way in ways.values()]
                apart = max(float((a - answers[0]).norm() / answers[0].norm()) for a in answers[1:])
                assert apart < 1e-4, apart
                times = {way: round(1e3 * seconds(product, v), 1) for way, product in ways.items()}
                rows.append({"prior": name, "side": side, "level": level, "milliseconds": times, "apart": apart})
                print(f"{name:22} {side:4}² σ = {level:4}: " + ", ".join(f"{k} {t} ms" for k, t in times.items()))
    content = {"rows": rows, "torch": torch.__version__, "obverse": ob.__version__, "threads": 1}
    Path(__file__).with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
