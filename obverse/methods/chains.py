"""Several Markov chains as one batch: their state, the directions in which they are watched, and what their draws say.

A state goes on from step to step and holds all that is needed to go on: each chain has a random stream of its own, made
from the seed and its number, so that a chain does not depend on how many there are. Mean, variances and low-rank
factors are streamed; single draws are kept on request only. Convergence means R-hat ≤ `max_rhat` and effective sample
size ≥ `min_ess` for every one of a set of random projections, half of them smooth, and for an energy of the state.

References: Vehtari et al., "Rank-normalization, folding, and localization: an improved R-hat", Bayesian Analysis 2021.
"""

__all__ = ["ChainState", "Chained", "check_chains", "dispersed_start", "gathered", "projections_like", "run_chains"]

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..noise.base import stream
from ..posterior import Posterior, StreamingMoments, effective_samples, rhat
from ..problem import Problem
from ..solvers.result import Status
from .base import Callback, check_least, described, real_image
from .target import starting_image


@dataclass
class ChainState:
    """Where the chains are: all that is needed to go on.

    Args:
        step: steps done, burn-in included.
        x: present states, `(chains, *image_shape)`.
        generators: one random stream a chain.
        moments: of the draws after the burn-in.
        traces: of the projections and an energy, one `(chains, functionals)` tensor a draw.
        draws: the draws themselves, if kept.
        pending: draws not yet in `moments`, which takes them in a batch at a time.
        evaluations: gradients, or calls of a denoiser, spent on all chains.
        seconds: spent.
    """

    step: int
    x: Tensor
    generators: list[torch.Generator]
    moments: StreamingMoments
    traces: list[Tensor] = field(default_factory=list, kw_only=True)
    draws: list[Tensor] = field(default_factory=list, kw_only=True)
    pending: list[Tensor] = field(default_factory=list, kw_only=True)
    evaluations: int = field(default=0, kw_only=True)
    seconds: float = field(default=0.0, kw_only=True)

    def white(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Standard normal numbers `(chains, *shape)`, each chain's from its own stream."""
        own = [torch.randn(shape, generator=generator, dtype=dtype) for generator in self.generators]
        return torch.stack(own).to(self.x.device)

    def watch(self, images: Tensor, projections: Tensor, energy: Tensor, keep: bool) -> None:
        """Take in images `(chains, *image_shape)` as one draw of every chain, with their energies `(chains,)`."""
        flat = images.reshape(len(images), -1)
        self.record(images, torch.cat([flat @ projections, energy[:, None].to(flat)], dim=1).cpu(), keep)

    def record(self, images: Tensor, trace: Tensor, keep: bool) -> None:
        """Take in images and a trace of each `(chains, functionals)`."""
        self.traces.append(trace)
        self.pending.append(images)
        if len(self.pending) * len(images) >= _BATCH:
            self.flush()
        if keep:
            self.draws.append(images)

    def flush(self) -> None:
        """Bring `moments` up to date."""
        if self.pending:
            self.moments.update(torch.cat(self.pending))
            self.pending = []


class Chained:
    """A method with `samples` draws a chain, `thin` steps apart, after a `burn_in`."""

    samples: int
    burn_in: int | None
    thin: int

    @property
    def warm_up(self) -> int:
        """Steps of burn-in."""
        return self.samples * self.thin // 2 if self.burn_in is None else self.burn_in

    @property
    def total(self) -> int:
        """Steps per chain."""
        return self.warm_up + self.samples * self.thin

    def draws_at(self, step: int) -> bool:
        """Whether the state after so many steps is a draw."""
        after = step - self.warm_up
        return after > 0 and after % self.thin == 0


def check_chains(settings: Any) -> None:
    """Refuse settings with too few draws, chains or steps.

    Raises:
        InputError: one is too small.
    """
    check_least(settings, samples=4, chains=2, thin=1, rank=0, burn_in=0)


def last_energy(state: ChainState) -> float:
    """Mean energy of the chains at the last draw; not a number before the first."""
    return float(state.traces[-1][:, -1].mean()) if state.traces else math.nan


def run_chains(
    method: Any, y: Tensor, problem: Problem, callback: Callback | None, energy: Callable[..., float] = last_energy
) -> Posterior:
    """All `method.states` to the end, and the posterior of the last; the callback is told an energy of each state."""
    state = None
    for state in method.states(y, problem):
        if callback is not None:
            callback(state.step, method.total, energy(state))
    return method.posterior(state, y, problem)


def dispersed_start(settings: Any, y: Tensor, problem: Problem) -> tuple[Tensor, Tensor, list[torch.Generator]]:
    """The image to start from, every chain's own start around it, and every chain's random stream.

    Starts spread more widely than the posterior, so that agreement between chains means that they forgot them.

    Raises:
        InputError: `settings.start` has another shape than the images, or these are complex.
    """
    name = type(settings).__name__
    zero = real_image(problem.operator, y, name)
    if settings.start is not None and tuple(settings.start.shape) != tuple(zero.shape):
        raise InputError(
            f"{name} expects a start of shape {tuple(zero.shape)}, got {tuple(settings.start.shape)}; crop it"
        )
    image = starting_image(y, problem, zero) if settings.start is None else zero + settings.start.to(zero)
    generators = [stream(settings.seed, i) for i in range(settings.chains)]
    kicks = [torch.randn(zero.shape, generator=generator, dtype=zero.dtype) for generator in generators]
    return image, image + float(image.std()) * torch.stack(kicks).to(image), generators


def gathered(
    settings: Any, state: ChainState, facts: Mapping[str, Any], advice: tuple[str, str], target: str = "posterior"
) -> Posterior:
    """The posterior that a state's draws make so far.

    Args:
        settings: the method; its `chains`, `max_rhat` and `min_ess` are read.
        state: brought up to date.
        facts: what the method itself adds to the diagnostics.
        advice: what to do beyond more draws: where chains disagree, and where they are worth too few draws.
        target: what the spread is a spread of.

    Raises:
        InputError: there are fewer than four draws per chain yet.
    """
    if len(state.traces) < 4:
        raise InputError(f"a posterior expects at least 4 draws per chain, got {len(state.traces)}; run the chains on")
    state.flush()
    traces = torch.stack(state.traces, dim=1).double()
    worst, ess = float(rhat(traces).max()), float(effective_samples(traces).min())
    diagnostics = {
        "rhat": worst,
        "ess": ess,
        "chains": settings.chains,
        "samples": len(state.traces),
        **facts,
        "evaluations": state.evaluations,
        "seconds": state.seconds,
    }
    return described(
        settings,
        state.moments.mean.to(state.x),
        _status(settings, worst, ess, len(state.traces), advice),
        tuple(float(trace[:, -1].mean()) for trace in state.traces),
        diagnostics,
        state.moments.covariance(),
        target,
        draws=torch.cat(state.draws) if state.draws else None,
    )


def _status(settings: Any, worst: float, ess: float, draws: int, advice: tuple[str, str]) -> Status:
    told = f"R-hat is {worst:.3f} and the effective sample size {ess:.0f} after {settings.chains} × {draws} draws"
    if worst <= settings.max_rhat and ess >= settings.min_ess:
        return Status(True, "converged", told)
    apart = not worst <= settings.max_rhat
    wanted = f"wanted are at most {settings.max_rhat} and at least {settings.min_ess:.0f}: draw more samples"
    return Status(False, "rhat" if apart else "ess", f"{told}; {wanted}{advice[0] if apart else advice[1]}")


def projections_like(like: Tensor, seed: int) -> Tensor:
    """Sixteen random unit directions `(n, 16)`: half are white, half smooth, since smooth modes are the slow ones."""
    generator = stream(seed, _OF_PROJECTIONS)
    white = torch.randn((16, *like.shape), generator=generator, dtype=torch.float64)
    axes = tuple(range(2, white.ndim))
    frequency = torch.zeros(white.shape[2:], dtype=torch.float64)
    for axis, size in enumerate(white.shape[2:]):
        shape = [-1 if a == axis else 1 for a in range(frequency.ndim)]
        frequency = frequency + torch.fft.fftfreq(size, dtype=torch.float64).reshape(shape).square() * size**2
    smooth = torch.fft.ifftn(torch.fft.fftn(white[8:], dim=axes) / (1 + frequency), dim=axes).real
    rows = torch.cat([white[:8], smooth]).reshape(16, -1)
    return (rows / rows.norm(dim=1, keepdim=True)).mT.to(like)


# Index of the random stream that makes the projections, far from those of the chains.
_OF_PROJECTIONS = 2**31
# Draws that enter the moments together: one QR factorisation for all of them.
_BATCH = 32
