"""Posterior samples by guided reverse diffusion: from noise to an image, towards what the data say.

    x_s = x + s ε for falling levels s,    m(x_s, s) ≈ E[x | x_s, y] by a `Guidance`

    path "flow"        d(x_s/s)/d(1/s) = m(x_s, s), by the two-step method: all noise is drawn at the start
    path "ancestral"   x' ~ N(m + (s'²/s²)(x_s − m), s'² (s² − s'²)/s²): fresh noise at every level

With the exact m both have the posterior as their limit of fine steps. The first has an error of second order in the
step, the second of first order, and draws that are too narrow. Each draw costs one evaluation of the denoiser a level
and the guidance's products with the Jacobian, and is independent of all others: their effective number is their number.

The walk starts at a draw of the posterior that a Gaussian prior of smooth images has, plus noise of the first level.
With the variance along the widest component found, the diagnostics tell as `start_spread` how wide the start was there
of what it should have been; where the prior allows far more than smooth images, the first level has to make up for it.

References: Song et al., "Score-based generative modeling through stochastic differential equations", ICLR 2021. Karras
et al., "Elucidating the design space of diffusion-based generative models", NeurIPS 2022. Those of `guidance`.
"""

__all__ = ["Diffusion", "GUIDANCES"]

import math
import time
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import InputError, NumericsError
from ..noise.base import stream
from ..posterior import Covariance, Posterior, StreamingMoments
from ..priors.denoiser import check_denoiser, value_span
from ..problem import Problem
from ..solvers.algebra import squared
from .base import Callback, check_item, check_least, described, linear_part, real_image, silent
from .chains import projections_like
from .diffusion_start import SmoothStart
from .guidance import MMPS, TMPD, Guidance, Look, Measured, PiGDM
from .guidance_walks import DDRM, DPS, DiffPIR, Walk
from .independent import at_once, common_facts, completed
from .reverse_diffusion import Flow, white
from .schedule import Schedule

GUIDANCES: dict[str, type[Guidance]] = {
    "mmps": MMPS,
    "tmpd": TMPD,
    "pigdm": PiGDM,
    "diffpir": DiffPIR,
    "dps": DPS,
    "ddrm": DDRM,
}

_NARROW = 0.7  # variance of the start along the widest component over what it should be, below which that shows


@dataclass(frozen=True, eq=False)
class Diffusion:
    """Posterior of a linear problem by diffusion with a denoiser for the prior.

    Args:
        denoiser: anything with `denoise(x, sigma)`, differentiable but for "diffpir" and "ddrm".
        guidance: "mmps", "tmpd", "pigdm", "diffpir", "dps" or "ddrm", or one of these from `methods.guidance` with
            settings of its own.
        schedule: levels; by default those of `Schedule.of`: 20 from a quarter of the range of the images to its 1/255.
        samples: number of draws, at least 2.
        path: "flow" or "ancestral"; "dps" and "ddrm" have walks of their own.
        rank: factors of the streamed covariance.
        batch: draws at once; by default as many as some hundred thousand pixels.
        keep_samples: keep the draws in the posterior.
        seed: draw i has a stream of its own, made from `seed` and i.

    Example:
        >>> import torch, obverse as ob
        >>> field = ob.priors.GaussianField(torch.ones(8, 8), (1, 8, 8))
        >>> problem = ob.Problem(ob.operators.Identity((1, 8, 8)), ob.noise.Gaussian(1.0))
        >>> posterior = Diffusion(field, samples=64)(torch.ones(1, 8, 8), problem)
        >>> round(float(posterior.mean.mean()), 1), round(float(posterior.std.mean()), 1)  # ½ and √½
        (0.5, 0.7)
    """

    denoiser: Any
    guidance: str | Guidance = "mmps"
    _: KW_ONLY
    schedule: Schedule | None = None
    samples: int = 32
    path: Literal["flow", "ancestral"] = "flow"
    rank: int = 16
    batch: int | None = None
    keep_samples: bool = True
    seed: int = 0

    def __post_init__(self):
        check_denoiser(self.denoiser, "Diffusion")
        if not (isinstance(self.guidance, Guidance) or self.guidance in GUIDANCES):
            raise InputError(
                f"Diffusion expects a guidance out of {', '.join(GUIDANCES)}, or an object of `methods.guidance`, got "
                f"{self.guidance!r}"
            )
        if self.path not in ("flow", "ancestral"):
            raise InputError(f'Diffusion expects path "flow" or "ancestral", got {self.path!r}; choose one')
        check_least(self, samples=2, rank=0, batch=1)

    @property
    def _guidance(self) -> Guidance:
        return GUIDANCES[self.guidance]() if isinstance(self.guidance, str) else self.guidance

    def __call__(self, y: Tensor, problem: Problem, callback: Callback | None = None) -> Posterior:
        """The posterior of one measurement.

        Args:
            y: data of exactly the operator's `data_shape`.
            problem: a linear operator on real images and a law of independent data.
            callback: told (steps done, total over all batches, χ² of the mean that the draws move towards).

        Raises:
            InputError: the data do not fit, or the guidance does not know such an operator.
            NumericsError: a draw was no longer finite.
        """
        begun = time.perf_counter()
        check_item(y, problem, "Diffusion")
        zero = real_image(linear_part(problem, "Diffusion"), y, "Diffusion")
        moments = StreamingMoments(tuple(zero.shape), self.rank, dtype=zero.dtype, device=zero.device)
        projections, traces, kept, begun_at = projections_like(zero, self.seed), [], [], []
        evaluations, misfit = 0, 0.0
        schedule = self._schedule()
        for draws, starts, spent in self._batches(y, problem, zero, schedule, callback or silent):
            moments.update(draws)
            traces.append((draws.reshape(len(draws), -1) @ projections).cpu())
            misfit += float(problem.chi2(draws, y).sum())
            begun_at.append(starts)
            evaluations += spent
            if self.keep_samples:
                kept.append(draws)
        guidance, levels, covariance = self._guidance, schedule.levels(), moments.covariance()
        spread = _start_spread(torch.cat(begun_at), covariance, levels[0]) if self.rank else 1.0
        diagnostics = {
            "guidance": type(guidance).__name__,
            **guidance.report(),
            **common_facts(torch.cat(traces), levels, misfit / self.samples),
            "start_spread": spread,
            "evaluations": evaluations,
            "seconds": time.perf_counter() - begun,
        }
        return described(
            self,
            moments.mean.to(zero),
            completed(self.samples, len(levels), misfit / self.samples, ", or guidance='mmps'", _narrow(spread)),
            (),
            diagnostics,
            covariance,
            target=guidance.target,
            draws=torch.cat(kept) if kept else None,
        )

    def _schedule(self) -> Schedule:
        return Schedule.of(self.denoiser) if self.schedule is None else self.schedule.known_to(self.denoiser)

    def _batches(
        self, y: Tensor, problem: Problem, zero: Tensor, schedule: Schedule, callback: Callback
    ) -> Iterator[tuple[Tensor, Tensor, int]]:
        """Finished draws, some at a time, where they began, and what they cost."""
        span = value_span(self.denoiser)
        data = Measured(y, problem, span)
        start, levels = SmoothStart(data.term, span), schedule.levels()
        size = at_once(self.batch, zero.numel())
        firsts = range(0, self.samples, size)
        for number, first in enumerate(firsts):
            generators = [stream(self.seed, i) for i in range(first, min(first + size, self.samples))]
            begin = start.draws(zero, generators)
            begin = begin + levels[0] * white(begin, generators)
            walk = self._walk(data, begin, levels, generators)
            x, spent = begin, 0
            for k, (x, look) in enumerate(walk):
                spent += look.evaluations
                if not bool(x.isfinite().all()):
                    raise NumericsError(
                        f"Diffusion expects finite draws, got NaN or infinity at level {k + 1} of {len(levels)}; check "
                        "the denoiser's range, or take smaller steps"
                    )
                white_residual = squared(look.slope) / torch.where(look.weight > 0, look.weight, 1.0)
                callback(number * len(levels) + k + 1, len(firsts) * len(levels), float(white_residual.mean()))
            yield x, begin, spent

    def _walk(
        self, data: Measured, x: Tensor, levels: tuple[float, ...], generators: list[torch.Generator]
    ) -> Iterator[tuple[Tensor, Look]]:
        """Images at the level after each look, draws at last."""
        guidance = self._guidance
        following = (*levels[1:], 0.0)
        walker = guidance.walk(data, len(levels)) if isinstance(guidance, Walk) else None
        guide = guidance.begin(data) if walker is None else None
        flow = Flow(x / levels[0], levels)
        for level, to in zip(levels, following, strict=True):
            look = Look(self.denoiser, data, x, level, guidance.differentiates)
            if walker is not None:
                x = walker(look, to, white(x, generators))
            else:
                assert guide is not None
                mean = guide(look)
                if to == 0:
                    x = mean
                elif self.path == "flow":
                    flow.advance(mean)
                    x = to * flow.n
                else:
                    kept = (to / level) ** 2
                    x = mean + kept * (x - mean) + to * math.sqrt(1 - kept) * white(x, generators)
            yield x, look


def _narrow(spread: float) -> str:
    """What is wrong with the start, if it was too narrow."""
    told = f"the start had {spread:.2f} of the variance that the widest component needs; start at a higher level"
    return told if spread < _NARROW else ""


def _start_spread(starts: Tensor, covariance: Covariance, level: float) -> float:
    """Variance of the starts along the widest component, over that of the draws with noise of the first level."""
    widest = covariance.components(1)
    along = starts.reshape(len(starts), -1) @ widest.directions.reshape(-1).to(starts)
    return float(along.var() / (widest.variances[0] + level**2))
