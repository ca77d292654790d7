"""Claim: gradient-step plug and play lowers its energy at every step, and ends where the energy's gradient vanishes.

Deblurring of eight 128×128 crops of BSDS500's test images, one for each of Levin's camera-shake kernels, with noise of
7.65/255. The energy F(x) = ‖Ax − y‖²/(2σ_n²) + (λ/σ²) g_σ(x) that the log holds is computed again here at the image
returned, and its gradient by autograd through the value of each term, so that a gradient that is not its value's would
show.

    OBVERSE_DATA=../shared/data python -W ignore benchmarks/gradient_step_energy_falls.py [--quick]
"""

import json
import os
import platform
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import obverse as ob

NOISE, SIDE, CORNER, TOLERANCE = 7.65 / 255, 128, 96, 1e-3


def main() -> int:
    if "OBVERSE_DATA" not in os.environ:
        print("set OBVERSE_DATA to the folder of the data", file=sys.stderr)
        return 2
    data = Path(os.environ["OBVERSE_DATA"])
    prior = ob.priors.load("natural-gray-gradient")
    kernels = np.load(data / "kernels/levin09_8.npz")
    rows = []
    print("kernel    blurred    PSNR  steps  all fall   F first    F last  gradient")
    images = sorted((data / "natural/bsds500/test").glob("*.jpg"))
    for name, path in list(zip(sorted(kernels), images))[: _count()]:
        rows.append(_row(name, crop(path), torch.from_numpy(kernels[name]).float(), prior))
        row = rows[-1]
        print(
            f"{name:8}{row['blurred']:9.2f}{row['psnr']:8.2f}{row['steps']:7d}{row['all_fall']!s:>10}"
            f"{row['first']:10.1f}{row['last']:10.1f}{row['gradient']:10.1e}"
        )
    claims = {
        "the energy falls at every step": all(row["all_fall"] for row in rows),
        "the log holds the energy of the image returned": all(row["mismatch"] < 1e-5 for row in rows),
        "every run ends where the gradient vanishes": all(
            row["converged"] and row["gradient"] < 2 * TOLERANCE for row in rows
        ),
    }
    for claim, holds in claims.items():
        print(f"{'holds' if holds else 'FAILS':7}{claim}")
    if "--quick" not in sys.argv:
        versions = {"python": platform.python_version(), "torch": torch.__version__, "threads": torch.get_num_threads()}
        result = {"rows": rows, "claims": claims, "versions": versions}
        Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    return 0 if all(claims.values()) else 1


def _count() -> int:
    return 2 if "--quick" in sys.argv else 8


def _row(name: str, truth: torch.Tensor, kernel: torch.Tensor, prior) -> dict:
    A = ob.operators.Convolution(kernel / kernel.sum(), truth.shape)
    problem = ob.Problem(A, ob.noise.Gaussian(NOISE))
    y = problem.simulate(truth, seed=0)
    result = ob.methods.PlugAndPlay(prior, "gradient-step", tolerance=TOLERANCE, iterations=400)(y, problem)
    sigma, weight = result.diagnostics["sigma"], result.diagnostics["weight"]
    x = result.image.clone().requires_grad_()
    misfit = (A(x) - y).square().sum() / (2 * NOISE**2)
    penalty = weight / sigma**2 * prior.value(x, sigma)
    slopes = [torch.autograd.grad(term, x, retain_graph=True)[0] for term in (misfit, penalty)]
    energy = float(misfit.double() + penalty.double())
    history = result.history
    return {
        "kernel": name,
        "blurred": psnr(y, truth),
        "psnr": psnr(result.image, truth),
        "steps": len(history) - 1,
        "all_fall": all(later < earlier for earlier, later in zip(history, history[1:])),
        "smallest_fall": min(earlier - later for earlier, later in zip(history, history[1:])),
        "first": history[0],
        "last": history[-1],
        "mismatch": abs(energy - history[-1]) / energy,
        "gradient": float((slopes[0] + slopes[1]).norm() / max(s.norm() for s in slopes)),
        "converged": result.status.converged,
        "history": list(history),
    }


def crop(path: Path) -> torch.Tensor:
    image = np.asarray(Image.open(path).convert("L"), dtype=np.float32) / 255
    return torch.from_numpy(image[CORNER : CORNER + SIDE, CORNER : CORNER + SIDE].copy())[None]


def psnr(image: torch.Tensor, truth: torch.Tensor) -> float:
    return float(-10 * (image.detach().clamp(0, 1) - truth).square().mean().log10())


if __name__ == "__main__":
    sys.exit(main())
