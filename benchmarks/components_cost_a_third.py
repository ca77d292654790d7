"""Claim: leading components of a posterior cost a third of the published evaluations, and are nearer than draws.

Exact denoisers, so that the truth is known: a Gaussian field of 48² and a mixture of eight Gaussians on 24² pixels.

Denoising. Ours is block Krylov on σ²J (`Tweedie`), against subspace iteration as published (K directions, a sweep of K
evaluations, λ the column norms): the sweeps after which it captures as much variance as ours does for given products.
A product Jv is one evaluation where J is symmetric by design, as in a gradient-step network, and two where it is made
symmetric (Jv and Jᵀv); both counts are given.

Inpainting (50 %) and deblurring. Five components of `LocalGaussian` at its matched level, everything counted, against
those of the covariance of 100 diffusion draws (MMPS) with the same denoiser.

    python benchmarks/components_cost_a_third.py      prints tables, writes the JSON beside this file
"""

import json
import time
from pathlib import Path

import torch
from posteriors_beside_the_truth import case, linear
from torch import Tensor

import obverse as ob

K, BUDGETS, SWEEPS = 5, (20, 30, 40, 60, 80), 200
NOISE = {"denoising": 0.3, "inpainting": 0.1, "deblurring": 0.1}


def main() -> None:
    torch.set_num_threads(1)
    rows = {"denoising": [], "linear": []}
    for prior in ("field 48²", "mixture 24²"):
        law, shape = denoiser(prior)
        rows["denoising"] += denoising(prior, law, shape)
        rows["linear"] += [row for name in ("inpainting", "deblurring") for row in linear_rows(prior, law, shape, name)]
    versions = {"torch": torch.__version__, "obverse": ob.__version__, "threads": 1}
    Path(__file__).with_suffix(".json").write_text(json.dumps({**rows, **versions}, indent=1) + "\n")


def denoiser(prior: str):
    if prior.startswith("field"):
        shape = (1, 48, 48)
        return ob.priors.GaussianField.power_law(shape, exponent=3.0, dtype=torch.float64), shape
    shape = (1, 24, 24)
    problem = ob.Problem(linear("denoising", shape), ob.noise.Gaussian(0.3))
    return case("mixture", shape, problem)[0], shape


def truth_of(law, y: Tensor, problem: ob.Problem) -> Tensor:
    """Σ, dense."""
    if isinstance(law, ob.priors.GaussianMixture):
        return law.posterior(y, problem).covariance
    shape = problem.operator.image_shape
    n = torch.Size(shape).numel()
    unit = torch.eye(n, dtype=torch.float64).reshape(n, *shape)
    share = (law.denoise(unit, 1.0) - law.denoise(0 * unit[:1], 1.0)).flatten(1)  # S (S + 1)⁻¹
    prior = torch.linalg.solve(torch.eye(n, dtype=torch.float64) - share, share)
    A = problem.operator(unit).flatten(1).mT
    evidence = A @ prior @ A.mT + problem.noise.sigma**2 * torch.eye(len(A), dtype=torch.float64)
    return prior - prior @ A.mT @ torch.linalg.solve(evidence, A @ prior)


def missed(directions: Tensor, truth: Tensor) -> float:
    """1 − tr(VᵀΣV)/Σ λ_i."""
    V = torch.linalg.qr(directions.flatten(1).double().mT).Q
    return max(1 - float((V.mT @ truth @ V).trace() / torch.linalg.eigvalsh(truth)[-K:].sum()), 1e-16)


def denoising(prior: str, law, shape: tuple[int, ...]) -> list[dict]:
    sigma = NOISE["denoising"]
    problem = ob.Problem(ob.operators.Identity(shape, dtype=torch.float64), ob.noise.Gaussian(sigma))
    y = problem.simulate(law.sample(1, seed=2)[0].double(), seed=3)
    truth = truth_of(law, y, problem)
    jacobian = ob.priors.Jacobian(law, y, sigma)
    V = torch.linalg.qr(torch.randn(len(truth), K, dtype=torch.float64, generator=torch.Generator().manual_seed(0))).Q
    published = []
    for _ in range(SWEEPS):
        V = torch.linalg.qr(jacobian(V.mT.reshape(K, *shape)).flatten(1).mT).Q
        published.append(missed(V.mT.reshape(K, *shape), truth))
    rows = []
    for budget in BUDGETS:
        covariance = ob.posterior.ProductCovariance(
            lambda v: sigma**2 * jacobian(v), shape, dtype=torch.float64, probes=1
        )
        ours = missed(covariance.components(K, products=budget).directions, truth)
        sweeps = next((t + 1 for t, other in enumerate(published) if other <= ours), None)
        theirs = None if sweeps is None else K * sweeps + 1
        rows.append({"prior": prior, "products": budget, "missed": ours, "subspace_evaluations": theirs})
        told = f"more than {K * SWEEPS + 1}" if theirs is None else theirs
        shares = (
            ""
            if theirs is None
            else f"   ratio {(budget + 1) / theirs:.2f}, made symmetric {(2 * budget + 1) / theirs:.2f}"
        )
        print(f"{prior:12} denoising   missed {ours:.1e} after {budget} products; subspace iteration: {told}{shares}")
    return rows


def linear_rows(prior: str, law, shape: tuple[int, ...], name: str) -> list[dict]:
    problem = ob.Problem(linear(name, shape).to(dtype=torch.float64), ob.noise.Gaussian(NOISE[name]))
    y = problem.simulate(law.sample(1, seed=2)[0].double(), seed=3)
    truth = truth_of(law, y, problem)
    leading = torch.linalg.eigvalsh(truth).flip(0)[:K]
    rows = []

    def row(method: str, found: ob.posterior.Components, components: int, evaluations: int, seconds: float) -> None:
        values = float(((found.variances.double() - leading) / leading).abs().max())
        cost = {"products": components, "evaluations": evaluations, "seconds": round(seconds, 1)}
        away = {"missed": missed(found.directions, truth), "values": values}
        rows.append({"prior": prior, "problem": name, "method": method, **away, **cost})
        print(
            f"{prior:12} {name:12}{method:20} missed {away['missed']:.1e}, eigenvalues off {values:.1e}, products for "
            f"the components {components}, all evaluations {evaluations}, {seconds:.1f} s",
            flush=True,
        )

    began = time.perf_counter()
    local = ob.methods.LocalGaussian(law, rank=K, probes=4)(y, problem)
    told = local.diagnostics
    before, seconds = told["evaluations"] + told["products"], time.perf_counter() - began
    row("LocalGaussian", local.components(K), told["components_products"], before, seconds)
    for budget in (300, 500):
        began = time.perf_counter()
        found = local.covariance.components(K, products=budget)
        spent = local.covariance.components_report()["products"]
        total = before - told["components_products"] + spent
        row(f"the same, {budget}", found, spent, total, seconds + time.perf_counter() - began)
    began = time.perf_counter()
    drawn = ob.methods.Diffusion(law, "mmps", samples=100, rank=K)(y, problem)
    spent = drawn.diagnostics["evaluations"]
    row("100 diffusion draws", drawn.components(K), spent, spent, time.perf_counter() - began)
    return rows


if __name__ == "__main__":
    main()
