"""Decoupled annealing posterior sampling (DAPS): from noise to an image, each level starting afresh from the image.

    for falling levels σ:    x̂ = D(x_σ, σ)
                             x ~ N(x; x̂, r²) p(y | x),  r = σ      exactly (`data_draw`)
                             x_σ' = x + σ' ε                       at the next level; at the last, x is the draw

N(x̂, σ²) stands for the law of the image given x_σ. Its variance is σ²J in truth: where the prior is wider than σ both
agree, and where it is narrower the next levels take back what this one gave too much, so that the draws come out too
wide on few levels and right on many. For a power-law prior and a blur of 1.5 pixels the standard deviations are 8 % too
large on 50 levels, 2 % on 200. Modes apart from each other come with weights that are too even: of eight kinds of
images of 36 pixels, half of them missing, the likeliest came 21 times in 100 on 50 levels and 27 on 200, where 49 are
right; split Gibbs has them right. Each x is drawn exactly, by perturbation and optimisation, where the published
sampler takes some hundred Langevin steps, without acceptance, to much the same law.

A network is told σ, and where the data say nothing x_σ' holds the noise r of x besides. On few levels networks leave
some of it in the image, as grain that no later level takes away. A `spread` r/σ below 1 adds less, and makes the draws
narrower: too narrow as easily as it was too wide.

`ode_steps` > 1 takes x̂ from the probability flow instead, dx/ds = (x − D)/s by Euler's method from σ to σ/50, as
published. It is a draw of the image already, not its mean, and with the variance σ² on top the draws stay too wide, in
the same example by a fifth with 5 steps and by a third with many, on however many levels.

Draws are independent of each other. Noise laws: Gaussian exactly; counts by their curvature at what x̂ predicts.

References: Zhang et al., "Improving diffusion inverse problem solving with decoupled noise annealing", CVPR 2025. Those
of `data_draw`.
"""

__all__ = ["AnnealingState", "DecoupledAnnealing"]

import math
import time
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from ..errors import InputError, NumericsError
from ..noise.base import stream
from ..posterior import Posterior, StreamingMoments
from ..priors.denoiser import Denoises, check_denoiser, value_span
from ..problem import Problem
from .base import Callback, check_item, check_least, described, linear_part, real_image, silent
from .chains import ChainState, projections_like
from .data_draw import DataDraw, data_weight
from .independent import at_once, common_facts, completed
from .plug_and_play_data import DataTerm, smoothest_start
from .schedule import Schedule

_LEVELS, _DEPTH = 100, 50.0  # of the annealing by default; of a probability flow, from σ to σ/50
_ACCURACY = 1e-3  # of the data term, whose norm alone is used


@dataclass
class AnnealingState(ChainState):
    """Where the draws of the present batch are: its levels done are `step`.

    Args:
        first: index of the batch's first draw.
        misfit: sum of χ² over the draws that are finished.
    """

    first: int
    misfit: float = 0.0


@dataclass(frozen=True, eq=False)
class DecoupledAnnealing:
    """Independent draws of a posterior with a denoiser as the prior, for any linear operator.

    Args:
        denoiser: anything with `denoise(x, sigma)`.
        schedule: levels σ; by default 100, from far above the spread of the images down, as far as the denoiser knows.
        ode_steps: evaluations of the denoiser for x̂; 1 takes D itself.
        spread: r/σ of N(x̂, r²), at most 1.
        samples: number of draws, at least 2.
        batch: draws at once; by default as many as some hundred thousand pixels.
        rank: factors of the streamed covariance.
        keep_samples: keep the draws in the posterior.
        seed: draw i has a stream of its own, made from `seed` and i.

    Example:
        >>> import torch, obverse as ob
        >>> field = ob.priors.GaussianField(torch.ones(8, 8), (1, 8, 8))
        >>> problem = ob.Problem(ob.operators.Identity((1, 8, 8)), ob.noise.Gaussian(1.0))
        >>> posterior = DecoupledAnnealing(field, samples=64)(torch.ones(1, 8, 8), problem)
        >>> round(float(posterior.mean.mean()), 1), round(float(posterior.std.mean()), 1)  # ½ and √½
        (0.5, 0.7)
    """

    denoiser: Denoises
    _: KW_ONLY
    schedule: Schedule | None = None
    ode_steps: int = 1
    spread: float = 1.0
    samples: int = 32
    batch: int | None = None
    rank: int = 16
    keep_samples: bool = True
    seed: int = 0

    def __post_init__(self):
        check_denoiser(self.denoiser, "DecoupledAnnealing")
        if not 0 < self.spread <= 1:
            raise InputError(f"DecoupledAnnealing expects a spread above 0 and up to 1, got {self.spread}; 1 is usual")
        check_least(self, samples=2, rank=0, batch=1, ode_steps=1)

    def __call__(self, y: Tensor, problem: Problem, callback: Callback | None = None) -> Posterior:
        """The posterior of one measurement.

        Args:
            y: data of exactly the operator's `data_shape`.
            problem: a linear operator on real images and a law of independent data.
            callback: told (levels done, total over all batches, the present level).

        Raises:
            InputError: the data or the operator do not fit.
            NumericsError: a draw was no longer finite.
        """
        levels, state = self._levels, None
        size = at_once(self.batch, math.prod(problem.operator.image_shape))
        total = math.ceil(self.samples / size) * len(levels)
        for state in self.states(y, problem):
            done = state.first // size * len(levels) + state.step
            (callback or silent)(done, total, levels[state.step - 1])
        assert state is not None
        return self.posterior(state, y, problem)

    @torch.no_grad()
    def states(self, y: Tensor, problem: Problem, state: AnnealingState | None = None) -> Iterator[AnnealingState]:
        """The draws level by level and batch by batch, each state yielded before the next is computed.

        The same state object goes on from level to level. Leaving the loop and calling `states(y, problem, state)`
        later continues as if it had never been left.
        """
        check_item(y, problem, "DecoupledAnnealing")
        operator, levels = linear_part(problem, "DecoupledAnnealing"), self._levels
        zero = real_image(operator, y, "DecoupledAnnealing")
        term = DataTerm(y, problem, None, _ACCURACY)
        start = smoothest_start(term, value_span(self.denoiser)).to(zero)
        state = self._begin(start, 0, None) if state is None else state
        projections, data = projections_like(zero, self.seed), None
        while True:
            if state.step == len(levels):
                if state.first + len(state.x) >= self.samples:
                    return
                state = self._begin(start, state.first + len(state.x), state)
            begun, level = time.perf_counter(), levels[state.step]
            estimate = self._estimate(state, level)
            if data is None or not problem.noise.gaussian:
                data = DataDraw(
                    y, operator, data_weight(term, estimate[0] if problem.noise.gaussian else estimate), 1.0
                )
            noises = state.white(tuple(zero.shape), zero.dtype), state.white(data.noise_shape, y.dtype)
            x = data.conditional(estimate, self.spread * level, *noises)
            state.step += 1
            if not bool(x.isfinite().all()):
                raise NumericsError(
                    f"DecoupledAnnealing expects finite draws, got NaN or infinity at level {state.step} of "
                    f"{len(levels)}; check the denoiser's range"
                )
            if state.step < len(levels):
                state.x = x + levels[state.step] * state.white(tuple(zero.shape), zero.dtype)
            else:
                state.x = x
                state.record(x, (x.reshape(len(x), -1) @ projections).cpu(), self.keep_samples)
                state.misfit += float(problem.chi2(x, y).sum())
            state.seconds += time.perf_counter() - begun
            yield state

    def posterior(self, state: AnnealingState, y: Tensor, problem: Problem) -> Posterior:
        """What the finished draws say so far.

        Raises:
            InputError: fewer than two draws are finished.
        """
        state.flush()
        levels, count = self._levels, sum(map(len, state.traces))
        if count < 2:
            raise InputError(f"a posterior expects at least 2 finished draws, got {count}; run the annealing on")
        misfit = state.misfit / count
        diagnostics = {
            **common_facts(torch.cat(state.traces), levels, misfit),
            "spread": self.spread,
            "evaluations": state.evaluations,
            "seconds": state.seconds,
        }
        draws = torch.cat(state.draws) if state.draws else None
        mean, status = state.moments.mean.to(state.x), completed(count, len(levels), misfit)
        return described(self, mean, status, (), diagnostics, state.moments.covariance(), draws=draws)

    @property
    def _levels(self) -> tuple[float, ...]:
        chosen = Schedule.of(self.denoiser, _LEVELS) if self.schedule is None else self.schedule
        return chosen.known_to(self.denoiser).levels()

    def _estimate(self, state: AnnealingState, level: float) -> Tensor:
        """x̂ of every draw, by Euler's method along falling levels from the present one, the last step being D."""
        if self.ode_steps == 1:
            levels: tuple[float, ...] = (level,)
        else:
            flow = Schedule(level, level / _DEPTH, self.ode_steps, math.inf).known_to(self.denoiser)
            levels = tuple(dict.fromkeys(flow.levels()))  # at the denoiser's lowest level they are one
        x = state.x
        for now, to in zip(levels, (*levels[1:], 0.0), strict=True):
            x = torch.lerp(self.denoiser.denoise(x, now), x, to / now)
            state.evaluations += len(x)
        return x

    def _begin(self, start: Tensor, first: int, state: AnnealingState | None) -> AnnealingState:
        """The next batch, at the first level around `start`."""
        shape = tuple(start.shape)
        last = min(first + at_once(self.batch, start.numel()), self.samples)
        generators = [stream(self.seed, i) for i in range(first, last)]
        if state is None:
            moments = StreamingMoments(shape, self.rank, dtype=start.dtype, device=start.device)
            state = AnnealingState(step=0, x=start[None], generators=generators, moments=moments, first=first)
        state.step, state.first, state.generators = 0, first, generators
        state.x = start[None]
        state.x = start + self._levels[0] * state.white(shape, start.dtype)
        return state
