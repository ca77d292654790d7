"""Claim: from an exact denoiser, the covariance of a linear problem is exact for Gaussian priors and near for mixtures.

Priors: a Gaussian; a mixture of eight Gaussians, and of eight points with little around them (a data set as the prior),
scaled until the posterior of the case keeps its likeliest component at 0.4 to 0.7. Images of 2 (one row), 100 and 576
pixels; denoising, 50 % inpainting, deblurring, and parallel-beam tomography. `LocalGaussian` at its matched level and,
as controls, at a third and at three times that level, and the covariance of 100 exact draws.

    captured    tr(VᵀΣV)/Σ λ_i over the five leading true components, V those found (1 is best)
    values      largest relative error of the five variances
    std         root mean square of the relative error of the standard deviations
    frobenius   ‖Σ̂ − Σ‖/‖Σ‖
    mean        ‖m̂ − m‖/√tr Σ
    90 %        pixels of draws of the exact posterior within m̂ ± 1.645 σ̂

    python benchmarks/local_gaussian_is_near_the_truth.py            prints a table, writes the JSON beside this file
"""

import json
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

import obverse as ob

SHAPES = {2: (1, 1, 2), 100: (1, 10, 10), 576: (1, 24, 24)}
NOISE = {"denoising": 0.3, "inpainting": 0.2, "deblurring": 0.1, "tomography": 0.5}
COMPONENTS, DRAWS = 8, 100


def main() -> None:
    chosen = [int(size) for size in sys.argv[1:]] or list(SHAPES)
    rows = []
    names = ("captured", "values", "std", "frobenius", "mean", "inside")
    print(
        f"{'prior':9}{'n':>5} {'problem':12}{'method':14}" + "".join(f"{n:>11}" for n in names) + "   products      s"
    )
    for size in chosen:
        for prior in ("gaussian", "mixture", "points"):
            for name in NOISE:
                if size == 2 and name in ("deblurring", "tomography"):
                    continue
                for method, figures in compared(prior, SHAPES[size], name):
                    rows.append({"prior": prior, "n": size, "problem": name, "method": method, **figures})
                    cells = "".join(f"{figures[n]:11.2e}" for n in names)
                    cost = f"{figures['products']:11}{figures['seconds']:7.1f}"
                    print(f"{prior:9}{size:5} {name:12}{method:14}{cells}{cost}")
    versions = {"torch": torch.__version__, "obverse": ob.__version__, "threads": torch.get_num_threads()}
    Path(__file__).with_suffix(".json").write_text(json.dumps({"rows": rows, **versions}, indent=1) + "\n")


def compared(prior: str, shape: tuple[int, ...], name: str):
    """Method and figures, on one measurement."""
    operator, sigma = linear(name, shape), NOISE[name]
    problem = ob.Problem(operator, ob.noise.Gaussian(sigma))
    law, y = case(prior, shape, problem)
    exact = law.posterior(y, problem)
    n = exact.covariance.shape[0]
    truth = exact.mean.flatten(), exact.covariance, exact.sample(200, seed=5).flatten(1)
    began = time.perf_counter()
    matched = ob.methods.LocalGaussian(law, tolerance=1e-6, probes=n, rank=min(5, n))(y, problem)
    yield "matched", figures(matched, truth) | {"level": matched.diagnostics["sigma"], "seconds": since(began)}
    for label, factor in (("level / 3", 1 / 3), ("level × 3", 3.0)):
        began = time.perf_counter()
        level = factor * matched.diagnostics["sigma"]
        other = ob.methods.LocalGaussian(law, sigma=level, tolerance=1e-6, probes=n, rank=min(5, n))(y, problem)
        yield label, figures(other, truth) | {"level": level, "seconds": since(began)}
    draws = exact.sample(DRAWS, seed=7).flatten(1)
    covariance = torch.cov(draws.mT)
    yield "100 draws", errors(draws.mean(0), covariance, truth) | {"products": 0, "seconds": 0.0}


def linear(name: str, shape: tuple[int, ...]):
    if name == "denoising":
        return ob.operators.Identity(shape)
    if name == "inpainting":
        kept = (
            torch.rand(shape, generator=torch.Generator().manual_seed(0)) > 0.5
            if shape[1] > 1
            else torch.tensor([[[1.0, 0.0]]])
        )
        return ob.operators.Mask(kept.double())
    if name == "tomography":
        return ob.operators.Radon(shape, torch.arange(9).double() * torch.pi / 9, dtype=torch.float64)
    axis = torch.arange(-3, 4).double()
    kernel = torch.exp(-0.5 * (axis / 1.2).square())
    kernel = torch.outer(kernel, kernel)
    return ob.operators.Convolution(kernel / kernel.sum(), shape)


def case(prior: str, shape: tuple[int, ...], problem: ob.Problem) -> tuple[ob.priors.GaussianMixture, Tensor]:
    """The law, and data after which its likeliest component has a probability of 0.4 to 0.7."""
    n = shape[1] * shape[2]
    axes = [torch.arange(m).double() for m in shape[1:]]
    grid = torch.cartesian_prod(*axes).reshape(n, 2)
    smooth = torch.exp(-0.5 * (torch.cdist(grid, grid) / 2.5).square()) + 1e-3 * torch.eye(n, dtype=torch.float64)
    factor = torch.linalg.cholesky(smooth)
    generator = torch.Generator().manual_seed(1)
    centres = (factor @ torch.randn(n, COMPONENTS, dtype=torch.float64, generator=generator)).mT.reshape(-1, *shape)
    if prior == "gaussian":
        law = ob.priors.GaussianMixture(torch.ones(1), 0 * centres[:1], 0.05 * smooth[None])
        return law, problem.simulate(law.sample(1, seed=2)[0], seed=3)
    within = 0.02 if prior == "mixture" else 1e-4
    spreads = within * smooth.expand(COMPONENTS, -1, -1) * torch.linspace(0.7, 1.3, COMPONENTS)[:, None, None]
    scale = 1.0
    for _ in range(60):
        law = ob.priors.GaussianMixture(torch.ones(COMPONENTS), scale * centres, spreads)
        y = problem.simulate(law.sample(1, seed=2)[0], seed=3)
        largest = float(law.posterior(y, problem).weights.max())
        if 0.4 <= largest <= 0.7:
            return law, y
        scale *= 0.9 if largest > 0.7 else 1.06
    raise SystemExit(f"{prior} {shape} {problem.operator}: no scale keeps the largest weight between 0.4 and 0.7")


def figures(found: ob.Posterior, truth: tuple[Tensor, Tensor, Tensor]) -> dict:
    return errors(found.mean.flatten(), found.covariance.dense(), truth) | {"products": found.diagnostics["products"]}


def errors(mean: Tensor, covariance: Tensor, truth: tuple[Tensor, Tensor, Tensor]) -> dict[str, float]:
    true_mean, true, draws = truth
    k = min(5, len(true))
    best = torch.linalg.eigvalsh(true).flip(0)[:k]
    values, vectors = torch.linalg.eigh(covariance)
    values, vectors = values.flip(0)[:k], vectors.flip(1)[:, :k]
    std, true_std = covariance.diagonal().clamp_min(0).sqrt(), true.diagonal().sqrt()
    return {
        "captured": float((vectors.mT @ true @ vectors).trace() / best.sum()),
        "values": float(((values - best) / best).abs().max()),
        "std": float((std / true_std - 1).square().mean().sqrt()),
        "frobenius": float((covariance - true).norm() / true.norm()),
        "mean": float((mean - true_mean).norm() / true.trace().sqrt()),
        "inside": float(((draws - mean).abs() <= 1.645 * std).double().mean()),
    }


def since(began: float) -> float:
    return round(time.perf_counter() - began, 2)


if __name__ == "__main__":
    main()
