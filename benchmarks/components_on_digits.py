"""Claim: a network's five components hold what the posterior of a digit is unsure of, with the variance that it has.

On the 400 test digits of recipes/make_digits_data.py: under white noise of 0.5, and without their upper six rows.

    removed     share of the error's norm that goes with its part along the five components, 1 − ‖e − UUᵀe‖/‖e‖
    captured    the same of the squared error, over all digits: Σ‖Uᵀe‖²/Σ‖e‖²
    ratio k     mean square of the error along component k over the variance stated for it (1 is best)
    pixels, components     share within 90 % intervals
    score       log density of the truth, nats per pixel
    seconds     of CPU

"others' components" is a control: each digit with the components of the next one, which hold less.

Beside the network, on the same digits: a conditional autoencoder where its weights are given; and, with the training
digits and a little white noise (its level from the validation digits) as the prior, of which everything is known,
`LocalGaussian`, the covariance of 100 exact draws, and that of 100 draws by diffusion. The network and the autoencoder
were trained on those digits too, but may generalise from them; the prior knows nothing else.

    python benchmarks/components_on_digits.py WEIGHTS_OF_DENOISING WEIGHTS_OF_INPAINTING [AUTOENCODER_OF_INPAINTING]
        prints its rows, writes the JSON and a picture for each task, components_on_digits_TASK.png, beside this file
"""

import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import obverse as ob
from obverse.errors import NumericsError
from obverse.learning.images import as_unit, read_images
from obverse.learning.recipe import data_folder
from obverse.learning.simulation import Simulation
from obverse.noise.base import stream
from obverse.solvers.result import Status

RANK, NINETY = 5, 1.6448536
COUNT, FEWER = 400, 100  # digits, and those for methods that take about a second each
TASKS = {
    "denoising": ({"kind": "Identity"}, {"kind": "Gaussian", "sigma": 0.5}),
    "inpainting": (
        {"kind": "Mask", "mask": {"file": "digits/masks.npz", "key": "top"}},
        {"kind": "Gaussian", "sigma": 0.05},
    ),
}
Method = Callable[[Tensor, ob.Problem], ob.Posterior]


def main() -> None:
    files, autoencoder = sys.argv[1:3], sys.argv[3:]
    rows, beside = [], Path(__file__)
    prior, level = training_digits()
    denoiser = Neighbours(prior.means, level)
    for task, file in zip(TASKS, files, strict=True):
        methods: dict[str, Method] = {"component network": ob.methods.ComponentNetwork.load(file)}
        if task == "inpainting" and autoencoder:
            methods["conditional autoencoder"] = ob.methods.ConditionalVAE.load(autoencoder[0])
        found = items(task, COUNT)
        rows += [{"task": task, "digits": COUNT, **row} for row in measured(methods, found)]
        local = ob.methods.LocalGaussian(denoiser, rank=RANK, probes=64)
        methods = {
            "training digits, LocalGaussian": local,
            "training digits, 100 exact draws": lambda y, problem: drawn(prior.posterior(y, problem).sample(100)),
            "training digits, 100 diffusion draws": ob.methods.Diffusion(denoiser, "mmps", samples=100, rank=RANK),
        }
        rows += [{"task": task, "digits": FEWER, **row} for row in measured(methods, found[:FEWER])]
        network = ob.methods.ComponentNetwork.load(file)
        picture(network, items(task, 6)).save(beside.with_name(f"{beside.stem}_{task}.png"))
    versions = {"torch": torch.__version__, "obverse": ob.__version__, "threads": torch.get_num_threads()}
    facts = {"noise of the training digits": level, "rows": rows, **versions}
    beside.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n")


def training_digits() -> tuple[ob.priors.GaussianMixture, float]:
    """The law of a training digit with white noise, of the level under which validation digits are likeliest."""
    known, others = (
        torch.stack([as_unit(image) for image in read_images(data_folder(f"digits/{part}.tif"), 1)]).double()
        for part in ("train", "validation")
    )
    n = known[0].numel()
    laws = {
        level: ob.priors.GaussianMixture(
            torch.ones(len(known)), known, level**2 * torch.eye(n, dtype=torch.float64).expand(len(known), -1, -1)
        )
        for level in (0.1, 0.14, 0.2)
    }
    best = max(laws, key=lambda level: float(laws[level].log_prob(others).mean()))
    return laws[best], best


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The denoiser of that law, by distances alone: E x = Σ r_k (m_k + h²/(h² + σ²)(x − m_k))."""

    means: Tensor
    level: float

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        variance = torch.as_tensor(sigma, dtype=x.dtype).square().reshape(-1, 1) + self.level**2
        means, flat = self.means.flatten(1).to(x), x.reshape(-1, self.means[0].numel())
        distances = flat.square().sum(1, keepdim=True) - 2 * flat @ means.mT + means.square().sum(1)
        nearest = (-distances / (2 * variance)).softmax(1) @ means
        return (nearest + self.level**2 / variance * (flat - nearest)).reshape(x.shape)


def drawn(draws: Tensor) -> ob.Posterior:
    moments = ob.posterior.StreamingMoments(tuple(draws.shape[1:]), RANK)
    moments.update(draws.float())
    done = Status(True, "completed", "Draws were taken.")
    return ob.Posterior(moments.mean.float(), done, covariance=moments.covariance())


def items(task: str, count: int) -> list[tuple[Tensor, Tensor, ob.Problem]]:
    """Truth, measurement and problem of the first test digits."""
    simulation = Simulation(*TASKS[task])
    truths = [as_unit(image) for image in read_images(data_folder("digits/test.tif"), 1)[:count]]
    problems = [simulation.draw(x.shape, stream(9, i)) for i, x in enumerate(truths)]
    return [(x, problem.simulate(x, stream(10, i)), problem) for i, (x, problem) in enumerate(zip(truths, problems))]


def measured(
    methods: Mapping[str, Method], found: list[tuple[Tensor, Tensor, ob.Problem]], counted: Tensor | None = None
) -> list[dict]:
    """A row of figures for each named method, and for its control; `pixels` of those `counted`, or of all."""
    rows = []
    for name, method in methods.items():
        began, answered = time.process_time(), []
        for x, y, problem in found:
            try:
                answered.append((x, method(y, problem)))
            except ob.methods.CovarianceError as error:
                print(f"{name}: {error}", flush=True)
        seconds = (time.process_time() - began) / len(found)
        refused = len(found) - len(answered)
        if len(answered) < 2:
            rows.append({"method": name, "without a covariance": refused, "seconds": round(seconds, 5)})
            continue
        posteriors = [posterior for _, posterior in answered]
        errors = torch.stack([x - posterior.mean for x, posterior in answered]).flatten(1)
        leading = [posterior.components(RANK) for posterior in posteriors]
        U = torch.stack([one.directions.flatten(1) for one in leading])
        variances = torch.stack([one.variances for one in leading])
        std = torch.stack([posterior.std for posterior in posteriors]).flatten(1)
        cost = {"evaluations": posteriors[0].diagnostics.get("evaluations"), "seconds": round(seconds, 5)}
        scores = [density(error, posterior) for error, posterior in zip(errors, posteriors)]
        score = None if None in scores else float(np.mean(np.asarray(scores, dtype=float)))
        first = figures(errors, U, variances, std, counted) | {"score": score, "without a covariance": refused} | cost
        rows += [{"method": name, **first}, {"method": f"{name}, others' components", **share(errors, U.roll(1, 0))}]
        for row in rows[-2:]:
            print(json.dumps(row))
    return rows


def share(errors: Tensor, U: Tensor) -> dict[str, float]:
    along = (U @ errors[..., None])[..., 0]
    left = (errors.square().sum(1) - along.square().sum(1)).clamp_min(0).sqrt() / errors.norm(dim=1)
    return {
        "removed": float(1 - left.mean()),
        "captured": float(along.square().sum() / errors.square().sum()),
    }


def figures(errors: Tensor, U: Tensor, variances: Tensor, std: Tensor, counted: Tensor | None) -> dict:
    scores = (U @ errors[..., None])[..., 0] / variances.sqrt()
    inside = (errors.abs() <= NINETY * std).float()
    pixels = (inside if counted is None else inside[:, counted]).mean(1)
    return share(errors, U) | {
        "psnr": float((-10 * errors.square().mean(1).log10()).mean()),
        "ratios": [round(float(v), 3) for v in scores.square().mean(0)],
        "error over variance": float(errors.square().sum() / std.square().sum()),
        "pixels": float(pixels.mean()),
        "pixels, standard error": float(pixels.std() / math.sqrt(len(pixels))),
        "components": [round(float(v), 4) for v in (scores.abs() <= NINETY).float().mean(0)],
    }


def density(error: Tensor, posterior: ob.Posterior) -> float | None:
    """None where the covariance has next to no variance in some direction, and so no inverse in single precision."""
    covariance, n = posterior.covariance, error.numel()
    try:
        distance = float((error * covariance.solve(error)).sum())
    except NumericsError:
        return None
    return -0.5 * ((distance + covariance.logdet()) / n + math.log(2 * math.pi))


def picture(method: Method, found: list[tuple[Tensor, Tensor, ob.Problem]], size: int = 64) -> Image.Image:
    """A row a digit: truth, data, mean, standard deviation, then mean − 2σ and mean + 2σ along each component."""
    rows = []
    for x, y, problem in found:
        posterior = method(y, problem)
        leading = posterior.components(RANK)
        steps = [(2 * v.sqrt() * u)[0] for v, u in zip(leading.variances, leading.directions)]
        mean = posterior.mean[0]
        panels = [x[0], y[0], mean, 2 * posterior.std[0], *(mean + sign * step for step in steps for sign in (-1, 1))]
        grey = [np.uint8(255 * panel.clamp(0, 1).numpy()) for panel in panels]
        shown = [np.asarray(Image.fromarray(one).resize((size, size), Image.Resampling.BICUBIC)) for one in grey]
        rows.append(np.concatenate([np.pad(one, 2, constant_values=128) for one in shown], 1))
    return Image.fromarray(np.concatenate(rows))


if __name__ == "__main__":
    main()
