"""A variational autoencoder as the prior: Markov chains in its latent variables.

    p(z | y) ∝ N(z; 0, I) e^{−Φ(z)},      Φ(z) = −log p(y | z)                        (`latent_likelihood`)
    z' = √(1 − β²) z + β ξ,  ξ ~ N(0, I),      accepted with probability min(1, e^{(Φ(z) − Φ(z'))/T})
    neighbours T < T' swap with probability min(1, e^{(1/T − 1/T')(Φ(z_T) − Φ(z_T'))})

The preconditioned Crank–Nicolson proposal leaves the prior as it is, so that data alone decide on acceptance, in any
dimension. Every chain carries a ladder of temperatures, 1 < T₂ < …, whose hot rungs go from mode to mode and hand down
what they find: one rung only gives chains that stay in the mode where they fell. β, for an acceptance of a quarter, and
the ladder, for swaps of a quarter, are adapted during the burn-in alone; then the kernel is fixed and its law is the
posterior exactly. Images are known from z up to a Gaussian (`latent_likelihood`), so their mean and variance given z
are streamed, not draws: Σ = Cov E[x | z, y] + E Cov[x | z, y]. The support is what the decoder can make, give or take
its variance: look at chi².

References: Cotter, Roberts, Stuart, White, "MCMC methods for functions: modifying old algorithms to make them faster",
Statistical Science 2013. Miasojedow, Moulines, Vihola, "An adaptive parallel tempering algorithm", J. Computational and
Graphical Statistics 2013. Holden, Pereyra, Zygalakis, "Bayesian imaging with data-driven priors encoded by neural
networks", SIAM J. Imaging Sciences 2022.
"""

__all__ = ["LatentSampling"]

import dataclasses
import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import torch
from torch import Tensor

from .. import networks
from ..errors import InputError
from ..noise.base import stream
from ..posterior import Posterior, StreamingMoments
from ..problem import Problem
from .base import Callback
from .chains import Chained, ChainState, check_chains, gathered, projections_like, run_chains
from .latent_likelihood import LatentLikelihood
from .trained import Ranged, require_range

_WANTED = 0.25  # acceptance of proposals, and of swaps
_DECAY = 0.6  # of the steps of the adaptation, (step + 1)^−0.6
_FIRST = 0.3  # β before any adaptation
_LEAST = 1e-4  # β
_GAPS = (-10.0, 20.0)  # log (T' − T)


@dataclass
class LadderState(ChainState):
    """Chains in the latent variables, each with its rungs; `x` are the z at T = 1.

    Args:
        z: `(chains, rungs, latent)`.
        potential: Φ of each, `(chains, rungs)`.
        log_step: log β of each, `(chains, rungs)`.
        gaps: log (T_{i+1} − T_i), `(chains, rungs − 1)`.
        within: sum over draws and chains of the variance of x given z, `image_shape`.
        accepted: acceptances at T = 1 after the burn-in.
        swapped: mean probabilities of swaps after the burn-in, summed, `(rungs − 1,)`.
    """

    z: Tensor = field(kw_only=True)
    potential: Tensor = field(kw_only=True)
    log_step: Tensor = field(kw_only=True)
    gaps: Tensor = field(kw_only=True)
    within: Tensor = field(kw_only=True)
    accepted: float = field(default=0.0, kw_only=True)
    swapped: Tensor = field(kw_only=True)

    @property
    def temperatures(self) -> Tensor:
        """T, `(chains, rungs)`."""
        return torch.nn.functional.pad(self.gaps.exp().cumsum(1), (1, 0)) + 1


@dataclass(frozen=True, eq=False)
class LatentSampling(Chained, Ranged):
    """Preconditioned Crank–Nicolson with parallel tempering.

    Args:
        vae: `networks.VAE`, or any decoder with `image_shape`, `latent` and `decode`.
        samples: draws per chain after the burn-in.
        burn_in: steps per chain that are thrown away; by default half of samples × thin.
        chains: each starts at a draw of the prior.
        thin: steps per draw.
        rungs: temperatures of each chain; 1 for none but T = 1.
        rank: factors of the streamed covariance.
        keep_samples: keep the draws of the image in the posterior, for quantile intervals and `sample`.
        max_rhat: largest R-hat called converged.
        min_ess: least effective sample size called converged, over all chains.
        low: value of the image that the decoder knows as 0.
        high: value of the image that it knows as 1.
        seed: chain i has a stream of its own, made from `seed` and i.
        card: what is known of the weights.

    Example:
        >>> import torch, obverse as ob
        >>> vae = ob.networks.VAE((1, 8, 8), latent=2, widths=(4, 8))
        >>> problem = ob.Problem(ob.operators.Identity((1, 8, 8)), ob.noise.Gaussian(0.5))
        >>> posterior = LatentSampling(vae, samples=20, chains=2)(torch.rand(1, 8, 8), problem)
        >>> posterior.status.converged, posterior.diagnostics["likelihood"]  # far too few draws, and it says so
        (False, 'pixels')
    """

    vae: Any
    _: KW_ONLY
    samples: int = 1000
    burn_in: int | None = None
    chains: int = 4
    thin: int = 10
    rungs: int = 6
    rank: int = 16
    keep_samples: bool = False
    max_rhat: float = 1.01
    min_ess: float = 400.0
    low: float = 0.0
    high: float = 1.0
    seed: int = 0
    card: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        require_range(self.low, self.high, "LatentSampling")
        check_chains(self)
        if self.rungs < 1:
            raise InputError(f"LatentSampling expects at least one rung, got {self.rungs}; 6 is usual")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "LatentSampling":
        """With a decoder trained by a recipe with the objective Evidence."""
        return cls(**decoder(path))

    @torch.no_grad()
    def __call__(self, y: Tensor, problem: Problem, callback: Callback | None = None) -> Posterior:
        """Run all chains and gather the posterior.

        Args:
            y: data of exactly the operator's `data_shape`.
            problem: an operator and a noise law.
            callback: told (step, total, mean Φ of the chains).

        Returns:
            A posterior; its status tells whether the chains agree and how many independent draws they are worth.

        Raises:
            InputError: the data or the decoder do not fit.
        """
        return run_chains(self, y, problem, callback, lambda state: float(state.potential[:, 0].mean()))

    @torch.no_grad()
    def states(self, y: Tensor, problem: Problem, state: LadderState | None = None) -> Iterator[LadderState]:
        """The chains step by step; leaving the loop and passing the state later goes on as if never left."""
        likelihood = LatentLikelihood(y, problem, self.vae, self.low, self.high, "LatentSampling")
        state = self._begin(likelihood) if state is None else state
        projections = projections_like(likelihood.like, self.seed)
        larger = max(likelihood.like.numel(), y.numel())
        while state.step < self.total:
            begun, before = time.perf_counter(), likelihood.evaluations
            self._moved(state, likelihood)
            if self.rungs > 1:
                self._swapped(state)
            state.step += 1
            state.x = state.z[:, 0]
            if self.draws_at(state.step):
                means, variances, draws = likelihood.images(state.x, state.white((2, larger), likelihood.like.dtype))
                state.within += variances.double().sum(0)
                state.watch(means, projections, state.potential[:, 0], False)
                if self.keep_samples:
                    state.draws.append(draws)
            state.evaluations += likelihood.evaluations - before
            state.seconds += time.perf_counter() - begun
            yield state

    def posterior(self, state: LadderState, y: Tensor, problem: Problem) -> Posterior:
        """What a state's draws say so far.

        Raises:
            InputError: there are fewer than four draws per chain yet.
        """
        likelihood = LatentLikelihood(y, problem, self.vae, self.low, self.high, "LatentSampling")
        steps = max(state.step - self.warm_up, 1)
        facts = {
            "likelihood": likelihood.words,
            "acceptance": state.accepted / (steps * self.chains),
            "step": state.log_step[:, 0].exp().mean().item(),
            "temperatures": [round(float(value), 3) for value in state.temperatures.mean(0)],
            "swaps": [round(float(value), 3) for value in state.swapped / steps],
        }
        advice = (", or use more rungs", ", or a larger thin")
        found = gathered(self, state, facts, advice)
        mean, within = state.moments.mean.to(likelihood.like), state.within / state.moments.count
        chi2 = float(problem.chi2(mean, y))
        covariance = state.moments.covariance(within=within)
        diagnostics = {**found.diagnostics, "chi2": chi2}
        return dataclasses.replace(found, image=mean, covariance=covariance, diagnostics=diagnostics)

    def _begin(self, likelihood: LatentLikelihood) -> LadderState:
        generators = [stream(self.seed, i) for i in range(self.chains)]
        like = next(iter(self.vae.parameters()), likelihood.like)
        starts = [torch.randn(self.rungs, self.vae.latent, generator=own, dtype=like.dtype) for own in generators]
        z = torch.stack(starts).to(like.device)
        potential = likelihood.potential(z.flatten(0, 1)).reshape(self.chains, self.rungs)
        # At the hottest rung the data move the prior's draws by about one unit of log density.
        hottest = potential.std(1, keepdim=True).clamp_min(2.0) if self.rungs > 1 else torch.ones_like(potential)
        ladder = hottest ** torch.linspace(0, 1, self.rungs, dtype=potential.dtype, device=z.device)
        like = likelihood.like
        return LadderState(
            step=0,
            x=z[:, 0],
            generators=generators,
            moments=StreamingMoments(tuple(like.shape), self.rank, dtype=like.dtype, device=like.device),
            z=z,
            potential=potential,
            log_step=torch.full_like(potential, math.log(_FIRST)),
            gaps=ladder.diff().log(),
            within=torch.zeros_like(like, dtype=torch.float64),
            swapped=torch.zeros(self.rungs - 1, dtype=potential.dtype, device=z.device),
            evaluations=likelihood.evaluations,
        )

    def _moved(self, state: LadderState, likelihood: LatentLikelihood) -> None:
        """A proposal for every rung of every chain."""
        noise = state.white((self.rungs, self.vae.latent + 1), state.z.dtype)
        step = state.log_step.exp()[..., None].to(state.z)
        proposed = (1 - step.square()).clamp_min(0).sqrt() * state.z + step * noise[..., :-1]
        potential = likelihood.potential(proposed.flatten(0, 1)).reshape(state.potential.shape)
        chance = ((state.potential - potential) / state.temperatures).exp().clamp_max(1).nan_to_num(0.0)
        taken = _uniform(noise[..., -1]) < chance
        state.z = torch.where(taken[..., None], proposed, state.z)
        state.potential = torch.where(taken, potential, state.potential)
        if state.step < self.warm_up:
            rate = (state.step + 1) ** -_DECAY
            state.log_step = (state.log_step + rate * (chance - _WANTED)).clamp(math.log(_LEAST), 0.0)
        else:
            state.accepted += float(taken[:, 0].sum())

    def _swapped(self, state: LadderState) -> None:
        """Swaps of every second pair of neighbours, in turn the odd and the even ones."""
        inverse = 1 / state.temperatures
        gain = (inverse[:, :-1] - inverse[:, 1:]) * (state.potential[:, :-1] - state.potential[:, 1:])
        chance = gain.exp().clamp_max(1)
        pairs = torch.arange(self.rungs - 1, device=gain.device)
        turn = pairs % 2 == state.step % 2
        taken = turn & (_uniform(state.white((self.rungs - 1,), chance.dtype)) < chance)
        below = torch.nn.functional.pad(taken, (0, 1))
        order = torch.arange(self.rungs, device=gain.device) + below.long() - below.roll(1, 1).long()
        state.potential = state.potential.gather(1, order)
        state.z = state.z.gather(1, order[..., None].expand_as(state.z))
        if state.step < self.warm_up:
            rate = (state.step + 1) ** -_DECAY
            state.gaps = (state.gaps + rate * turn * (chance - _WANTED)).clamp(*_GAPS)
        else:
            state.swapped = state.swapped + chance.mean(0)


def decoder(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The autoencoder in a file of weights, and its card, as arguments of a method.

    Raises:
        InputError: the weights are those of something else.
        FormatError: the file is damaged.
    """
    network, card = networks.load(path)
    if not isinstance(network, networks.VAE):
        raise InputError(f"expected weights of a VAE in {path}, got those of a {type(network).__name__}")
    return {"vae": network, "card": card}


def _uniform(normal: Tensor) -> Tensor:
    """Uniform numbers from standard normal ones."""
    return torch.special.ndtr(normal)
