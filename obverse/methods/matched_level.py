"""The noise level at which a denoiser best stands for the prior of a problem: that of the data's own message.

    α = tr(∂D/∂z)/n at level σ:    the denoiser knows the image to the variance σ²α on average, so that the prior alone
                                   has the precision p = (1/α − 1)/σ²
    v = tr (AᴴWA + p)⁻¹/n          variance that the data leave with such a prior
    σ⁻² ← 1/v − p                  what the data must have said, were it said as a noisy image

The fixed point is where data and denoiser agree on the average variance: expectation propagation with messages of one
variance, or VAMP. In white noise with A = 1 it is the noise of the data, after one step.

One average stands for all directions, which is too much where A hides what the image has little of: for ×4
super-resolution of photographs the level comes out at 0.6 of the range, with ten times the variance that there is.
There, choose the level on images whose truth is known (`studies/posterior_coverage.py levels`).

References: Rangan, Schniter, Fletcher, "Vector approximate message passing", IEEE Trans. Inf. Theory 2019. Minka,
"Expectation propagation for approximate Bayesian inference", UAI 2001.
"""

__all__ = ["Matched", "WorkingPoint", "matched_level"]

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..operators.base import LinearOperator
from ..posterior import Estimate
from ..priors.denoiser import Denoiser, Denoises
from ..priors.jacobian import Jacobian
from ..problem import Problem
from .base import Callback
from .plug_and_play import PlugAndPlay
from .plug_and_play_data import DataTerm

_ROUNDS, _CLOSE = 8, 0.05  # of the iteration; relative change at which it ends
_FARTHEST = 3.0  # factor by which a level may change in one round
_PROBES = 4  # random signs for a trace: pixels average, so that a few do
_TOLERANCE, _EVALUATIONS = 1e-3, 100  # of plug-and-play
_ACCURACY = 1e-4  # of linear systems


class WorkingPoint:
    """Where plug-and-play rests, and the data around it.

    Args:
        denoiser: with `denoise`.
        y: one measurement.
        problem: a linear operator and a law of independent data.

    Attributes:
        data: the data term, whose slope and curvature are those that plug-and-play sees: bounded for counts.
    """

    def __init__(self, denoiser: Denoises, y: Tensor, problem: Problem):
        self.denoiser, self.y, self.problem = denoiser, y, problem
        self.data = DataTerm(y, problem, None, _ACCURACY)
        self.evaluations = 0

    def find(
        self, sigma: float, callback: Callback | None = None, start: Tensor | None = None
    ) -> tuple[Estimate, Tensor]:
        """The image x at level σ, and z = x − σ² ∇f(x), for which D(z, σ) ≈ x."""
        method = PlugAndPlay(
            self.denoiser,
            "admm",
            sigma=sigma,
            weight=1.0,
            iterations=_EVALUATIONS,
            acceleration="anderson",
            tolerance=_TOLERANCE,
            start=start,
        )
        found = method(self.y, self.problem, callback=callback)
        self.evaluations += found.diagnostics["evaluations"]
        return found, found.image - sigma**2 * self.data.gradient(found.image)

    def weight(self, x: Tensor) -> Tensor:
        """W at an image: the curvature of −log p in the data's expectation."""
        curvature = self.data.law.curvature(self.problem.operator(x))
        return torch.as_tensor(curvature, dtype=x.dtype, device=x.device)


@dataclass(frozen=True)
class Matched:
    """A level, and how it was found.

    Args:
        sigma: the level.
        ladder: levels on the way, the last being σ.
        settled: whether the last two agree; levels stop at the ends of what the denoiser knows.
    """

    sigma: float
    ladder: list[float]
    settled: bool


def matched_level(point: WorkingPoint, seed: int = 0, callback: Callback | None = None) -> Matched:
    """σ for a problem and a denoiser whose `denoise` can be differentiated.

    Args:
        point: of the measurement.
        seed: of the probes.
        callback: of plug-and-play.

    Raises:
        NumericsError: a linear system could not be solved.
    """
    operator, denoiser = point.problem.operator, point.denoiser
    assert isinstance(operator, LinearOperator)
    known = isinstance(denoiser, Denoiser)
    low, high = denoiser.sigma_range if known else (0.0, math.inf)
    # A tenth of the range is where photographs are usually restored; without a range, the noise of the data.
    sigma = min(max(0.1 * (denoiser.high - denoiser.low) if known else 2 * point.data.level, low), high)
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (_PROBES, *operator.image_shape), generator=generator) * 2 - 1
    probes = signs.to(point.y.real if point.y.is_complex() else point.y)
    ladder, start, settled = [sigma], None, False
    for _ in range(_ROUNDS):
        found, z = point.find(sigma, callback, start)
        start, weight = found.image, point.weight(found.image)
        share = float((probes * Jacobian(denoiser, z, sigma)(probes)).mean())
        share = min(max(share, 0.02), 0.98)
        precision = (1 / share - 1) / sigma**2
        left = torch.stack([operator.solve(probe, precision, weight, tolerance=1e-3) for probe in probes])
        message = 1 / float((probes * left).mean()) - precision
        fresh = message**-0.5 if message > 0 else math.inf
        fresh = min(max(fresh, sigma / _FARTHEST), sigma * _FARTHEST)
        fresh = min(max(fresh, low), high)
        settled, sigma = abs(math.log(fresh / sigma)) <= _CLOSE, fresh
        ladder.append(sigma)
        if settled:
            break
    return Matched(sigma, ladder, settled)
