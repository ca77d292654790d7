"""The noise level at which a denoiser best stands for the prior of a problem: that of the data's own message.

    α = tr(∂D/∂z)/n at level σ:    the denoiser knows the image to the variance σ²α on average, so that the prior alone
                                   has the precision p = (1/α − 1)/σ²
    v = tr (AᴴWA + p)⁻¹/n          variance that the data leave with such a prior
    σ⁻² ← 1/v − p                  what the data must have said, were it said as a noisy image

The fixed point is where data and denoiser agree on the average variance: expectation propagation with messages of one
variance, or VAMP. In white noise with A = 1 it is the noise of the data, after one step.

References: Rangan, Schniter, Fletcher, "Vector approximate message passing", IEEE Trans. Inf. Theory 2019. Minka,
"Expectation propagation for approximate Bayesian inference", UAI 2001.
"""

__all__ = ["matched_level", "working_point"]

import math

import torch
from torch import Tensor

from ..operators.base import LinearOperator
from ..priors.denoiser import Denoiser, Denoises
from ..priors.jacobian import Jacobian
from ..problem import Problem
from .base import Callback
from .plug_and_play import PlugAndPlay

_ROUNDS, _CLOSE = 8, 0.05  # of the iteration; relative change at which it ends
_PROBES = 4  # random signs for a trace: pixels average, so that a few do
_TOLERANCE, _EVALUATIONS = 1e-3, 100  # of plug-and-play
_SOLVES = 1e-3


def working_point(
    denoiser: Denoises,
    y: Tensor,
    problem: Problem,
    sigma: float,
    callback: Callback | None = None,
    start: Tensor | None = None,
) -> tuple[Tensor, Tensor, int]:
    """Plug-and-play's image x at level σ, z = x − σ² ∇f(x) with D(z, σ) ≈ x, and the denoiser's evaluations."""
    method = PlugAndPlay(
        denoiser,
        "admm",
        sigma=sigma,
        weight=1.0,
        iterations=_EVALUATIONS,
        acceleration="anderson",
        tolerance=_TOLERANCE,
        start=start,
    )
    found = method(y, problem, callback=callback)
    return found.image, found.image - sigma**2 * problem.gradient(found.image, y), found.diagnostics["evaluations"]


def matched_level(
    denoiser: Denoises, y: Tensor, problem: Problem, seed: int = 0, callback: Callback | None = None
) -> tuple[float, list[float]]:
    """σ, and the levels on the way to it.

    Args:
        denoiser: with a differentiable `denoise`.
        y: one measurement.
        problem: a linear operator and a law of independent data.
        seed: of the probes.
        callback: of plug-and-play.
    """
    operator = problem.operator
    assert isinstance(operator, LinearOperator)
    low, high = denoiser.sigma_range if isinstance(denoiser, Denoiser) else (0.0, math.inf)
    # 49/255 of the range is where plug-and-play begins; without a range, the noise of the data in the image's units
    span = denoiser.high - denoiser.low if isinstance(denoiser, Denoiser) else None
    generator = torch.Generator().manual_seed(seed)
    shape = operator.image_shape
    probes = (torch.randint(0, 2, (_PROBES, *shape), generator=generator) * 2 - 1).to(y.real if y.is_complex() else y)
    weight = problem.fisher_weight(None, y)
    curvature = float(operator.norm()) ** 2 * float(weight.mean())
    sigma = 0.1 * span if span is not None else 2 / math.sqrt(curvature)
    ladder, start = [sigma], None
    for _ in range(_ROUNDS):
        start, z, _ = working_point(denoiser, y, problem, sigma, callback, start)
        weight = problem.fisher_weight(start)
        share = float((probes * Jacobian(denoiser, z, sigma)(probes)).mean())
        share = min(max(share, 0.02), 0.98)
        precision = (1 / share - 1) / sigma**2
        left = torch.stack([operator.solve(probe, precision, weight, tolerance=_SOLVES) for probe in probes])
        message = 1 / float((probes * left).mean()) - precision
        fresh = min(max(message**-0.5 if message > 0 else high, low, sigma / 3), high, 3 * sigma)
        change, sigma = abs(math.log(fresh / sigma)), fresh
        ladder.append(sigma)
        if change <= _CLOSE:
            break
    return sigma, ladder
