"""Claim: of the posteriors from an exact denoiser, each method's error and cost are known, and wrong ones are rejected.

Priors: a Gaussian; a mixture of eight Gaussians, and of eight points with little around them (a data set as the prior),
scaled until the posterior of the case keeps its likeliest component at 0.4 to 0.7. Images of 2 (one row), 100 and 576
pixels; denoising, 50 % inpainting, deblurring, and parallel-beam tomography. Every method that takes a denoiser: its
covariance from the Jacobian, at the level that `LocalGaussian` matches and at a third and three times that level (not
for the mixtures of 576 pixels, where they take minutes each);
Markov chains; diffusion with each guidance. As controls exact draws, the true covariance halved and doubled, its
components shuffled, and its diagonal alone.

    captured    tr(VᵀΣV)/Σ λ_i over the five leading true components, V those found (1 is best)
    values      largest relative error of the five variances
    std         root mean square of the relative error of the standard deviations
    frobenius   ‖Σ̂ − Σ‖/‖Σ‖
    mean        ‖m̂ − m‖/√tr Σ
    cover       pixels of draws of the exact posterior inside the intervals of 50, 80, 90 and 95 %
    p           of 200 exact draws: their z-scores along the five components found, and the size and the law of their
                Mahalanobis distances. Below 1e-3 the posterior is rejected, as are the covariances of few draws, whose
                small variances are not known; for a mixture, which is no Gaussian, so is the exact covariance.
    products    evaluations of the denoiser, products with its Jacobian included; of all draws together

    seconds     of CPU, on one thread

    python benchmarks/posteriors_beside_the_truth.py [2] [100] [576] [gaussian] [mixture] [points] [denoising] …
        prints a table, writes JSON and PNG; the rows of other sizes, priors and problems stay as they are
"""

import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import scipy
import torch
from PIL import Image, ImageDraw
from torch import Tensor

import obverse as ob
from obverse.errors import ObverseError
from obverse.methods.matched_level import WorkingPoint, matched_level

SHAPES = {2: (1, 1, 2), 100: (1, 10, 10), 576: (1, 24, 24)}
PRIORS = ["gaussian", "mixture", "points"]
NOISE = {"denoising": 0.3, "inpainting": 0.2, "deblurring": 0.1, "tomography": 0.5}
LEVELS = {"50": 0.6745, "80": 1.2816, "90": 1.6449, "95": 1.9600}
COMPONENTS, DRAWS, TRUTHS = 8, 200, 200
COLUMNS = ("captured", "values", "std", "frobenius", "mean", *(f"cover_{level}" for level in LEVELS), "p")


def main() -> None:
    torch.set_num_threads(1)
    sizes = [size for size in SHAPES if str(size) in sys.argv[1:]] or list(SHAPES)
    priors = [prior for prior in PRIORS if prior in sys.argv[1:]] or PRIORS
    problems = [name for name in NOISE if name in sys.argv[1:]] or list(NOISE)
    file = Path(__file__).with_suffix(".json")
    rows = json.loads(file.read_text())["rows"] if file.exists() else []
    rows = [r for r in rows if not (r["n"] in sizes and r["prior"] in priors and r["problem"] in problems)]
    print(
        f"{'prior':9}{'n':>4} {'problem':12}{'method':22}" + "".join(f"{c:>10}" for c in COLUMNS) + "  products      s"
    )
    for size in sizes:
        for prior in priors:
            for name in problems:
                if size == 2 and name in ("deblurring", "tomography"):
                    continue
                for row in compared(prior, SHAPES[size], name):
                    rows.append({"prior": prior, "n": size, "problem": name, **row})
                    told(rows[-1])
                versions = {"torch": torch.__version__, "obverse": ob.__version__, "threads": 1, "draws": DRAWS}
                file.write_text(json.dumps({"rows": rows, **versions}, indent=1) + "\n")
    figure(rows).save(file.with_suffix(".png"))


def told(row: dict) -> None:
    head = f"{row['prior']:9}{row['n']:4} {row['problem']:12}{row['method']:22}"
    if "refused" in row:
        print(head + row["refused"])
        return
    cells = "".join(f"{row[c]:10.2e}" if c in ("values", "frobenius", "p") else f"{row[c]:10.3f}" for c in COLUMNS)
    print(f"{head}{cells}{row['products']:10}{row['seconds']:7.1f}", flush=True)


def compared(prior: str, shape: tuple[int, ...], name: str) -> Iterator[dict]:
    """One row a method, on one measurement."""
    problem = ob.Problem(linear(name, shape), ob.noise.Gaussian(NOISE[name]))
    law, y = case(prior, shape, problem)
    exact = law.posterior(y, problem)
    truth = exact.mean.flatten(), exact.covariance, exact.sample(TRUTHS, seed=5).flatten(1)
    for method, run in methods(law, problem, y).items():
        began = time.process_time()
        try:
            found = run(y, problem)
        except ObverseError as error:
            yield {"method": method, "refused": str(error)}
            continue
        spent = {"products": cost(found.diagnostics), "seconds": round(time.process_time() - began, 2)}
        if "ladder" in found.diagnostics:
            spent["level"] = found.diagnostics["sigma"]
        settled = {"converged": found.status.converged, "status": found.status.reason, "target": found.target}
        yield {"method": method, **judged(found.mean.flatten(), found.covariance.dense(), truth), **spent, **settled}
    for method, (mean, covariance) in controls(exact).items():
        yield {"method": method, **judged(mean, covariance, truth), "products": 0, "seconds": 0.0}


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


def methods(law: ob.priors.GaussianMixture, problem: ob.Problem, y: Tensor) -> dict[str, Callable]:
    n, m = law.means[0].numel(), ob.methods
    spread = float(law.covariance.diagonal().mean().sqrt())
    schedule = m.Schedule(10 * spread, 0.01 * spread, 50)
    common = {"rank": min(n, 32), "seed": 0}
    table: dict[str, Callable] = {}
    if isinstance(problem.operator, ob.operators.Identity):
        table["Tweedie"] = m.Tweedie(law, probes=n, rank=min(5, n))
    level = matched_level(WorkingPoint(law, y, problem)).sigma
    levels = {"": None, ", σ/3": level / 3, ", 3σ": 3 * level}
    for label, sigma in levels.items() if n < 576 or len(law.means) == 1 else [("", None)]:
        table["LocalGaussian" + label] = m.LocalGaussian(law, sigma=sigma, tolerance=1e-6, probes=n, rank=min(5, n))
    score = ob.priors.Score(law, 0.05 * spread)
    for kernel in ("myula", "skrock"):
        table[f"Langevin {kernel}"] = m.Langevin(score, kernel=kernel, samples=2000, chains=4, **common)
    table["SplitGibbs"] = m.SplitGibbs(law, samples=DRAWS // 2, chains=4, **common)
    annealing = m.Schedule(3 * spread, 0.02 * spread, 30)
    table["SplitGibbs annealed"] = m.SplitGibbs(law, annealing=annealing, samples=DRAWS // 2, chains=4, **common)
    table["DecoupledAnnealing"] = m.DecoupledAnnealing(law, schedule=schedule, samples=DRAWS, **common)
    for guidance in ("mmps", "tmpd", "pigdm", "diffpir", "ddrm", "dps"):
        table[f"Diffusion {guidance}"] = m.Diffusion(law, guidance, schedule=schedule, samples=DRAWS, **common)
    return table


def controls(exact: ob.priors.GaussianMixture) -> dict[str, tuple[Tensor, Tensor]]:
    mean, covariance = exact.mean.flatten(), exact.covariance
    draws = exact.sample(100, seed=7).flatten(1)
    values, vectors = torch.linalg.eigh(covariance)
    turned = vectors.roll(len(values) // 2, 1)
    return {
        "exact": (mean, covariance),
        "exact, 100 draws": (draws.mean(0), torch.cov(draws.mT)),
        "control Σ/2": (mean, covariance / 2),
        "control 2Σ": (mean, 2 * covariance),
        "control shuffled": (mean, turned * values @ turned.mT),
        "control diagonal": (mean, covariance.diagonal().diag()),
    }


def cost(diagnostics: dict) -> int:
    """Evaluations and products with the Jacobian; all but `LocalGaussian` count both in one figure."""
    return int(diagnostics["evaluations"]) + (int(diagnostics["products"]) if "ladder" in diagnostics else 0)


def judged(mean: Tensor, covariance: Tensor, truth: tuple[Tensor, Tensor, Tensor]) -> dict[str, float]:
    draws, n = truth[2], len(mean)
    mean, covariance = mean.double(), covariance.double()
    std = covariance.diagonal().clamp_min(0).sqrt()
    covers = {f"cover_{k}": float(((draws - mean).abs() <= z * std).double().mean()) for k, z in LEVELS.items()}
    values, vectors = torch.linalg.eigh(covariance)
    scores = ((draws - mean) @ vectors / values.clamp_min(1e-6 * values[-1]).sqrt()).square()
    k = min(5, n)
    tests = [two_sided(float(part.sum()), part.numel()) for part in (scores[:, -k:], scores)]
    # A wrong shape of the right size, such as the diagonal alone, shows in how the distances scatter.
    tests.append(float(scipy.stats.kstest(scores.sum(1).numpy(), scipy.stats.chi2(n).cdf).pvalue))
    return {**errors(mean, covariance, truth), **covers, "p": min(1.0, 3 * min(tests))}


def errors(mean: Tensor, covariance: Tensor, truth: tuple[Tensor, Tensor, Tensor]) -> dict[str, float]:
    true_mean, true, _ = truth
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
    }


def figure(rows: list[dict]) -> Image.Image:
    """Methods × cost: error of the covariance against evaluations, medians over all problems, a panel a prior.

    Errors below 1e-3 are shown there, and `LocalGaussian` at its matched level alone.
    """
    panel, height, margin = 520, 800, 50
    picture = Image.new("RGB", (3 * panel, height), "white")
    draw = ImageDraw.Draw(picture)
    for i, prior in enumerate(("gaussian", "mixture", "points")):

        def at(products: float, error: float, left: int = i * panel) -> tuple[float, float]:
            across = (math.log10(max(products, 100)) - 2) / 3
            up = (math.log10(min(max(error, 1e-3), 10)) + 3) / 4
            return left + margin + across * (panel - 2 * margin), height - margin - up * (height - 2 * margin)

        for decade in range(-3, 2):
            draw.line([at(100, 10**decade), at(1e5, 10**decade)], fill=(225, 225, 225))
            draw.text((i * panel + 8, at(100, 10**decade)[1] - 6), f"1e{decade}", fill="black")
        for decade in range(2, 6):
            draw.text((at(10**decade, 1e-3)[0] - 8, height - margin + 6), f"1e{decade}", fill="black")
        draw.text((i * panel + margin, 8), f"{prior}: |error of covariance| over evaluations", fill="black")
        taken: list[tuple[float, float]] = []
        of_prior = [row for row in rows if row["prior"] == prior and row.get("products", 0) > 0 and row["n"] > 2]
        for method in dict.fromkeys(row["method"] for row in of_prior if "σ" not in row["method"]):
            mine = [row for row in of_prior if row["method"] == method]
            medians = [statistics.median(row[key] for row in mine) for key in ("products", "frobenius")]
            x, y = at(*medians)
            exact = method in ("Tweedie", "LocalGaussian")
            colour = (200, 60, 30) if exact else (30, 90, 190)
            draw.ellipse([x - 3, y - 3, x + 3, y + 3], fill=colour)
            label = method.removeprefix("Diffusion ")
            tops = (y - 6 + 11 * (-1) ** k * ((k + 1) // 2) for k in range(60))  # here, or above or below in turn
            top = next(t for t in tops if all(abs(t - u) > 10 or abs(x - v) > 110 for v, u in taken))
            taken.append((x, top))
            draw.line([x, y, x + 14, top + 6], fill=colour)
            draw.text((x + 16, top), label, fill=colour)
    return picture


def two_sided(square: float, degrees: int) -> float:
    return min(1.0, 2 * float(min(scipy.stats.chi2.cdf(square, degrees), scipy.stats.chi2.sf(square, degrees))))


if __name__ == "__main__":
    main()
