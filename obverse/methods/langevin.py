"""Sampling a posterior with an explicit prior by Langevin dynamics: MYULA and SK-ROCK.

    p_λ(x | y) ∝ exp(−f(x) − Σ_i g_i^λ(x)),      g^λ(x) = min_u g(u) + ‖u − x‖²/(2λ),     ∇g^λ = (x − prox_{λg}(x))/λ

Smooth parts (likelihood, Gaussian field, smoothed total variation) enter by their gradient; every other part,
positivity included, by its Moreau envelope, so that images slightly outside a constraint are possible. The kernels are
not corrected by acceptance: they sample a law near p_λ, which tends to it as the step shrinks. The diagnostics
give the factor by which a Gaussian mode of typical and of largest curvature comes out too wide or narrow
(`kernels.stationary_variance`): MYULA's stiff modes are too wide, SK-ROCK's too narrow, slow modes are right in both.

With a denoiser in place of an energy, `prior=priors.Score(denoiser, sigma)`, this is PnP-ULA, or PnP-SK-ROCK; the law
is then that of the prior smoothed by white noise of that level, which the diagnostics name. Networks need a tail, as
a sum with `priors.Box`, whose envelope pulls back what has left their range. Chains are watched by random projections
and by the energy −log p(x | y); by the likelihood alone where the prior's own value is not known.

Noise laws: Gaussian exactly. With counting noise the gradient has no useful Lipschitz constant, so `likelihood="auto"`
takes the Gaussian whose variance is that of the data predicted at the start, and once more half-way through the
burn-in; `likelihood="exact"` uses the law itself (Poisson–Gaussian only), with a step chosen from its Fisher
information, and stops if a chain diverges.

References: Durmus, Moulines, Pereyra, "Efficient Bayesian computation by proximal Markov chain Monte Carlo", SIAM J.
Imaging Sciences 2018. Pereyra, Vargas Mieles, Zygalakis, "Accelerating proximal Markov chain Monte Carlo by using an
explicit stabilized method", SIAM J. Imaging Sciences 2020. Laumont et al., "Bayesian imaging using plug & play priors:
when Langevin meets Tweedie", SIAM J. Imaging Sciences 2022.
"""

__all__ = ["Langevin", "LangevinState"]

import math
import time
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from typing import Literal

import torch
from torch import Tensor

from ..errors import InputError, NumericsError
from ..posterior import Posterior, StreamingMoments
from ..priors.base import Prior
from ..problem import Problem
from .base import Callback, check_item
from .chains import Chained, ChainState, check_chains, dispersed_start, gathered, projections_like, run_chains
from .kernels import Kernel, stationary_variance
from .plan import plan
from .target import Target


@dataclass
class LangevinState(ChainState):
    """Where the chains are, and how they move.

    Args:
        kernel: how they move.
        step_size: δ.
        bend: largest curvature of the likelihood and the smooth parts of the prior, measured where the chains were.
        noise_weight: inverse noise variances in use, where the likelihood is a Gaussian standing in for counting noise.
        burn_in_mean: running mean over chains and the first half of the burn-in.
    """

    kernel: Kernel
    step_size: float
    bend: float
    noise_weight: Tensor | None
    burn_in_mean: Tensor


@dataclass(frozen=True)
class Langevin(Chained):
    """Markov chain Monte Carlo for an explicit prior.

    Args:
        prior: any prior with a gradient or a proximal operator, or a sum of such.
        kernel: "skrock" (several gradients a step, far longer steps) or "myula".
        samples: draws per chain after the burn-in.
        burn_in: steps per chain that are thrown away; by default half of samples × thin.
        chains: at least 2, so that R-hat means something; they run as one batch.
        thin: steps per draw.
        step: δ; by default ½ of 1/(L + 1/λ) for MYULA, and for SK-ROCK the smaller of half the stability limit and the
            inverse of the typical curvature, beyond which most modes would come out too narrow.
        smoothing: λ of the Moreau envelopes; by default 1/L of the smooth part.
        stages: gradients per SK-ROCK step, S ≥ 2; by default the fewest that make the step stable, at most 15.
        damping: η of SK-ROCK.
        weight: multiplies the prior's energy.
        likelihood: "auto" or "exact", see above; matters for counting noise only.
        rank: factors of the streamed covariance.
        keep_samples: keep the draws in the posterior, for quantile intervals and `sample`.
        max_rhat: largest R-hat called converged.
        min_ess: least effective sample size called converged, over all chains.
        start: an image to start from, `image_shape`; by default a damped least-squares image.
        seed: chain i has a stream of its own, made from `seed` and i.

    Example:
        >>> from obverse import noise, operators, priors, problem
        >>> p = problem.Problem(operators.Identity((1, 8, 8)), noise.Gaussian(1.0))
        >>> method = Langevin(prior=priors.TotalVariation(), samples=20, burn_in=10, chains=2)
        >>> posterior = method(torch.ones(1, 8, 8), p)
        >>> posterior.status.converged, sorted(posterior.diagnostics)[:3]  # far too few draws, and it says so
        (False, ['chains', 'ess', 'evaluations'])
    """

    prior: Prior
    _: KW_ONLY
    kernel: Literal["myula", "skrock"] = "skrock"
    samples: int = 1000
    burn_in: int | None = None
    chains: int = 4
    thin: int = 1
    step: float | None = None
    smoothing: float | None = None
    stages: int | None = None
    damping: float = 0.05
    weight: float = 1.0
    likelihood: Literal["auto", "exact"] = "auto"
    rank: int = 16
    keep_samples: bool = False
    max_rhat: float = 1.01
    min_ess: float = 400.0
    start: Tensor | None = None
    seed: int = 0

    def __post_init__(self):
        if self.kernel not in ("myula", "skrock"):
            raise InputError(f"Langevin expects kernel 'myula' or 'skrock', got {self.kernel!r}; choose one of them")
        if self.likelihood not in ("auto", "exact"):
            raise InputError(
                f"Langevin expects likelihood 'auto' or 'exact', got {self.likelihood!r}; choose one of them"
            )
        check_chains(self)
        for name in ("step", "smoothing", "weight"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise InputError(f"Langevin expects a positive {name}, got {value}; leave it out to have it chosen")

    def __call__(self, y: Tensor, problem: Problem, callback: Callback | None = None) -> Posterior:
        """Run all chains and gather the posterior.

        Args:
            y: data of exactly the operator's `data_shape`.
            problem: an operator and a noise law.
            callback: told (step, total, mean energy of the chains).

        Returns:
            A posterior; its status tells whether the chains agree and how many independent draws they are worth.

        Raises:
            InputError: the data or the prior do not fit.
            NumericsError: a chain diverged.
        """
        return run_chains(self, y, problem, callback)

    def states(self, y: Tensor, problem: Problem, state: LangevinState | None = None) -> Iterator[LangevinState]:
        """The chains step by step, each state yielded before the next is computed.

        The same state object goes on from step to step. Leaving the loop and calling `states(y, problem, state)` later
        continues as if it had never been left.
        """
        check_item(y, problem, "Langevin")
        state = self._begin(y, problem) if state is None else state
        target = self._target(y, problem, state.noise_weight, bend=state.bend)
        projections = projections_like(state.x[0], self.seed)
        while state.step < self.total:
            begun = time.perf_counter()
            noise = state.white(tuple(state.x.shape[1:]), state.x.dtype)
            state.x = state.kernel(state.x, target.gradient, state.step_size, noise)
            state.step += 1
            state.evaluations += state.kernel.stages * self.chains
            if not bool(state.x.isfinite().all()):
                raise NumericsError(
                    f"Langevin expects finite states, got NaN or infinity at step {state.step} with a step size of "
                    f"{state.step_size:.2e}; choose a smaller step, or likelihood='auto' for counting noise"
                )
            if state.step <= self.warm_up // 2:
                state.burn_in_mean = state.burn_in_mean + (state.x.mean(0) - state.burn_in_mean) / state.step
                if state.step == self.warm_up // 2:
                    target = self._retune(state, y, problem)
            if self.draws_at(state.step):
                state.watch(state.x, projections, target.energy(state.x), self.keep_samples)
            state.seconds += time.perf_counter() - begun
            yield state

    def _retune(self, state: LangevinState, y: Tensor, problem: Problem) -> Target:
        """Half-way through the burn-in: noise variances at the chains' mean, and a step for where the chains are."""
        if state.noise_weight is not None:
            state.noise_weight = problem.weight(state.burn_in_mean)
        target = self._target(y, problem, state.noise_weight, state.x[0])
        state.bend = target.bend
        state.kernel, state.step_size = plan(self, target, state.x)
        return target

    def posterior(self, state: LangevinState, y: Tensor, problem: Problem) -> Posterior:
        """What a state's draws say so far.

        Raises:
            InputError: there are fewer than four draws per chain yet.
        """
        target = self._target(y, problem, state.noise_weight, bend=state.bend)
        stiff = torch.tensor([target.typical_curvature(state.x), target.lipschitz], dtype=torch.float64)
        factors = stationary_variance(state.kernel, state.step_size, stiff) * stiff
        facts = {
            "likelihood": target.words,
            "prior": target.prior_words,
            "step": state.step_size,
            "stages": state.kernel.stages,
            "smoothing": target.smoothing,
            "variance_factor": {"typical": float(factors[0]), "stiffest": float(factors[1])},
        }
        longer = ", or use kernel='skrock', whose steps are longer"
        advice = (longer, longer) if self.kernel == "myula" else (", allow a longer burn-in, or more stages", "")
        return gathered(self, state, facts, advice, "tempered" if target.tempered else "posterior")

    def _target(
        self,
        y: Tensor,
        problem: Problem,
        noise_weight: Tensor | None,
        point: Tensor | None = None,
        bend: float | None = None,
    ) -> Target:
        prior = self.prior if self.weight == 1.0 else self.weight * self.prior
        return Target(y, problem, prior, self.smoothing, noise_weight, point=point, bend=bend)

    def _begin(self, y: Tensor, problem: Problem) -> LangevinState:
        image, x, generators = dispersed_start(self, y, problem)
        if self.likelihood == "exact" and not problem.noise.signed:
            raise InputError(
                f"likelihood='exact' expects a law with a bounded slope, got {type(problem.noise).__name__}, which is "
                "steep without bound at rates near zero; use likelihood='auto', or PoissonGaussian noise"
            )
        exact = self.likelihood == "exact" or problem.noise.gaussian
        noise_weight = None if exact else problem.weight(image)
        target = self._target(y, problem, noise_weight, x[0])
        kernel, step_size = plan(self, target, x)
        return LangevinState(
            step=0,
            x=x,
            generators=generators,
            moments=StreamingMoments(tuple(image.shape), self.rank, dtype=image.dtype, device=image.device),
            kernel=kernel,
            step_size=step_size,
            bend=target.bend,
            noise_weight=noise_weight,
            burn_in_mean=torch.zeros_like(image),
        )
