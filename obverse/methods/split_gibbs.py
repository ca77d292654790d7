"""Split Gibbs sampling: data and prior by turns, each exactly, the prior by a denoiser's reverse diffusion.

    x | u, y    a Gaussian draw, exact for every linear operator (`data_draw`)
    u | x       a draw of the image u given x = u + ρ ε, by `reverse_diffusion` from level ρ

The draws kept are u: their prior is the denoiser's own, and what ρ changes is the noise of the data,

    ρ² λ_max(AᴴFA) ≤ 0.9     coupled: noise F⁻¹ as it is. The chain's law is the posterior, whatever ρ.
    beyond                   split: noise F⁻¹ + ρ² AAᴴ, as published. The bias vanishes with ρ, and so does the pace.

(x, the other half of the split chain, has the data's own noise and a prior smoothed by ρ, so that white noise of level
ρ stays wherever the data say little.) A small ρ moves slowly through what the data leave open. So ρ may start high and
fall along a schedule during the burn-in, after which it stays: the annealed sampler known as PnP-DM.

What else is biased: reverse diffusion on a finite number of levels, and what is narrower than its last one, of which
the mean is drawn. Noise laws: Gaussian exactly; counting noise by the Gaussian whose variance is that of the data
predicted at the start, and once more half-way through the burn-in.

References: Coeurdoux, Dobigeon, Chainais, "Plug-and-play split Gibbs sampler: embedding deep generative priors in
Bayesian inference", IEEE TIP 2024. Vono, Dobigeon, Chainais, "Split-and-augmented Gibbs sampler: application to
large-scale inference problems", IEEE TSP 2019. Wu et al., "Principled probabilistic imaging using diffusion models as
plug-and-play priors", NeurIPS 2024 (PnP-DM). Those of `data_draw`.
"""

__all__ = ["SplitGibbs", "SplitState"]

import time
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from ..errors import InputError, NumericsError
from ..posterior import Posterior, StreamingMoments
from ..priors.denoiser import Denoises, check_denoiser, check_level, known_levels
from ..problem import Problem
from .base import Callback, check_item, linear_part
from .chains import Chained, ChainState, check_chains, dispersed_start, gathered, projections_like, run_chains
from .data_draw import DataDraw, data_weight
from .plug_and_play_data import DataTerm
from .reverse_diffusion import reverse_diffusion
from .schedule import Schedule

_COUPLING = 0.8  # ρ² λ_max(AᴴFA) where ρ is not given: coupled, with a margin
_LEVELS, _DEPTH = 10, 20.0  # of reverse diffusion, from ρ to ρ/20
_ACCURACY = 1e-3  # of the data term, whose norm alone is used


@dataclass
class SplitState(ChainState):
    """Where the chains are, and the data as they see them.

    Args:
        rho: final ρ.
        weight: F, the information of each datum, in use.
        bend: λ_max(AᴴFA).
    """

    rho: float
    weight: Tensor
    bend: float


@dataclass(frozen=True, eq=False)
class SplitGibbs(Chained):
    """Markov chains that sample a posterior with a denoiser as the prior, for any linear operator.

    Args:
        denoiser: anything with `denoise(x, sigma)`.
        rho: ρ in units of the image, within the levels that the denoiser knows; by default the largest at which the
            chain has no bias from it, or the lowest level that the denoiser knows if that is more.
        annealing: levels along which ρ falls to `rho` during the burn-in, one a step; None keeps ρ as it is.
        reverse: `steps` and `low` of reverse diffusion; by default 10 levels down to ρ/20.
        samples: draws per chain after the burn-in.
        burn_in: steps per chain that are thrown away; by default those of the annealing, or half as many as are kept.
        chains: at least 2, so that R-hat means something; they run as one batch.
        thin: steps per draw.
        rank: factors of the streamed covariance.
        keep_samples: keep the draws in the posterior, for quantile intervals and `sample`.
        max_rhat: largest R-hat called converged.
        min_ess: least effective sample size called converged, over all chains.
        start: an image to start from, `image_shape`; by default a damped least-squares image.
        seed: chain i has a stream of its own, made from `seed` and i.

    Example:
        >>> from obverse import noise, operators, priors, problem
        >>> field = priors.GaussianField(torch.ones(8, 8), (1, 8, 8))
        >>> p = problem.Problem(operators.Identity((1, 8, 8)), noise.Gaussian(1.0))
        >>> posterior = SplitGibbs(field, samples=50)(torch.ones(1, 8, 8), p)
        >>> posterior.diagnostics["coupling"], round(float(posterior.std.mean()), 1)  # √½
        ('exact', 0.7)
    """

    denoiser: Denoises
    _: KW_ONLY
    rho: float | None = None
    annealing: Schedule | None = None
    reverse: Schedule | None = None
    samples: int = 200
    burn_in: int | None = None
    chains: int = 4
    thin: int = 1
    rank: int = 16
    keep_samples: bool = False
    max_rhat: float = 1.01
    min_ess: float = 400.0
    start: Tensor | None = None
    seed: int = 0

    def __post_init__(self):
        check_denoiser(self.denoiser, "SplitGibbs")
        if self.rho is not None:
            check_level(self.rho, self.denoiser, "SplitGibbs expects a rho")
        check_chains(self)
        if self.annealing is not None and self.warm_up < self.annealing.steps:
            raise InputError(
                f"SplitGibbs expects a burn_in of at least the {self.annealing.steps} levels of the annealing, got "
                f"{self.burn_in}; leave it out"
            )

    def __call__(self, y: Tensor, problem: Problem, callback: Callback | None = None) -> Posterior:
        """Run all chains and gather the posterior.

        Args:
            y: data of exactly the operator's `data_shape`.
            problem: a linear operator on real images and a law of independent data.
            callback: told (step, total, mean of −log p(y | u) over the chains at the last draw).

        Returns:
            A posterior; its status tells whether the chains agree and how many independent draws they are worth, its
            diagnostics what is known of the bias.

        Raises:
            InputError: the data or the operator do not fit.
            NumericsError: a chain diverged.
        """
        return run_chains(self, y, problem, callback)

    @property
    def warm_up(self) -> int:
        """Steps of burn-in."""
        return super().warm_up if self.annealing is None or self.burn_in is not None else self.annealing.steps

    @torch.no_grad()
    def states(self, y: Tensor, problem: Problem, state: SplitState | None = None) -> Iterator[SplitState]:
        """The chains step by step, each state yielded before the next is computed.

        The same state object goes on from step to step. Leaving the loop and calling `states(y, problem, state)` later
        continues as if it had never been left.
        """
        check_item(y, problem, "SplitGibbs")
        operator = linear_part(problem, "SplitGibbs")
        state = self._begin(y, problem) if state is None else state
        data = DataDraw(y, operator, state.weight, state.bend)
        projections = projections_like(state.x[0], self.seed)
        falling = () if self.annealing is None else self.annealing.known_to(self.denoiser).levels()
        while state.step < self.total:
            begun = time.perf_counter()
            rho = max(falling[state.step], state.rho) if state.step < len(falling) else state.rho
            x = self._given_image(data, state, rho)
            reverse = self._reverse(rho)
            state.x = reverse_diffusion(self.denoiser, x, rho, state.generators, reverse)
            state.step += 1
            state.evaluations += self.chains * len(reverse.below(rho))
            if not bool(state.x.isfinite().all()):
                raise NumericsError(
                    f"SplitGibbs expects finite states, got NaN or infinity at step {state.step} with rho = {rho:.2e}; "
                    "check the denoiser's range"
                )
            if state.step == self.warm_up // 2 and not problem.noise.gaussian:
                state.weight = data_weight(DataTerm(y, problem, None, _ACCURACY), state.x.mean(0))
                data = DataDraw(y, operator, state.weight)
                state.bend = data.bend
            if self.draws_at(state.step):
                state.watch(state.x, projections, data.energy(state.x), self.keep_samples)
            state.seconds += time.perf_counter() - begun
            yield state

    def posterior(self, state: SplitState, y: Tensor, problem: Problem) -> Posterior:
        """What a state's draws say so far.

        Raises:
            InputError: there are fewer than four draws per chain yet.
        """
        data = DataDraw(y, linear_part(problem, "SplitGibbs"), state.weight, state.bend)
        coupled, levels = data.couples(state.rho), self._reverse(state.rho).below(state.rho)
        gaussian = problem.noise.gaussian
        facts = {
            "likelihood": "gaussian" if gaussian else "gaussian, with the variance at the predicted mean",
            "rho": state.rho,
            "coupling": "exact" if coupled else "split",
            "noise_factor": 1.0 if coupled else 1 + state.rho**2 * state.bend,
            "levels": len(levels),
            "lowest_level": levels[-1],
        }
        faster = ", or anneal from a high rho" if self.annealing is None else ", or anneal more slowly"
        return gathered(self, state, facts, (faster, faster))

    def _given_image(self, data: DataDraw, state: SplitState, rho: float) -> Tensor:
        """x | u, y of every chain."""
        noise = state.white(tuple(state.x.shape[1:]), state.x.dtype)
        if data.couples(rho):
            return data.coupled(state.x, rho, noise)
        return data.conditional(state.x, rho, noise, state.white(data.noise_shape, data.y.dtype))

    def _reverse(self, rho: float) -> Schedule:
        chosen = Schedule(rho, rho / _DEPTH, _LEVELS) if self.reverse is None else self.reverse
        return chosen.known_to(self.denoiser)

    def _begin(self, y: Tensor, problem: Problem) -> SplitState:
        image, x, generators = dispersed_start(self, y, problem)
        weight = data_weight(DataTerm(y, problem, None, _ACCURACY), image)
        bend = DataDraw(y, linear_part(problem, "SplitGibbs"), weight).bend
        low, high = known_levels(self.denoiser)
        rho = min(max((_COUPLING / bend) ** 0.5, low), high) if self.rho is None else self.rho
        return SplitState(
            step=0,
            x=x,
            generators=generators,
            moments=StreamingMoments(tuple(image.shape), self.rank, dtype=image.dtype, device=image.device),
            rho=rho,
            weight=weight,
            bend=bend,
        )
