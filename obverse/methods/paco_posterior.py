"""What is known of a source's flux and place: draws of their posterior, given the law of the background without it.

About the estimate θ̂ of `fit_source`, which is removed from the patches that teach the law and then held fixed, the data
are Gaussian: with s(p) a source of unit flux at p in its own patches, d what is left there of the cube and P_t = C₋ₜ⁻¹,

    ℓ(θ) = κ⁻¹ Σ_t [ Δ_tᵀ P_t d_t − ½ Δ_tᵀ P_t (Δ_t − mean of Δ over the other frames) ],     Δ = f s(p) − f̂ s(p̂)

whose gradient at θ̂ is G/κ = 0 and whose curvature is R/κ. That is the information of frames that are independent, and
of a law that would stay as it is were the source another: where speckles last, errors of injected sources are twice as
large. So the posterior is that of a likelihood of which the curvature is known to be wrong (Ribatet et al. 2012),

    π(θ) ∝ exp ℓ(θ̂ + A (θ − θ̂)),     Aᵀ (R/κ) A = Σ⁻¹,     f ≥ 0 and p within one FWHM of p̂, uniform

with Σ the covariance of `fit_source`, which injections bear out, and A upper triangular. High S/N makes it N(θ̂, Σ), and
in independent frames that of Cramér and Rao; at low S/N it keeps the shape of ℓ: skew, cut off at f = 0, or as wide as
the prior. Beyond one FWHM a source would be another candidate.

Given p the flux is normal, cut off below. So only p is sampled, from the density that is left of ℓ once f is integrated
out, and f is drawn from its own law for each p. The chains alternate between proposals of Student's law with the
covariance of p, independent of where they are, and random walks.

References: Ribatet, Cooley, Davison, "Bayesian inference from composite likelihoods, with an application to spatial
extremes", Statistica Sinica 2012. Tierney, "Markov chains for exploring posterior distributions", Annals of Statistics
1994.
"""

__all__ = ["PlaceDensity", "SourcePosterior", "source_posterior"]

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError, NumericsError
from ..noise.base import stream
from ..operators.field_rotation import FieldRotation
from ..posterior.diagnostics import effective_samples, rhat
from .paco_source import FittedSource
from .source_tests import SourcePatches

_FREEDOM = 5  # of the proposals' Student law: tails beyond those of any posterior here but the widest
_STRETCH = 1.2  # of the proposals' deviations over those of the fit, for the same reason
_WALK = 1.7  # deviations of a random walk's step: 2.4/√2, usual in two dimensions
_BURN_IN = 0.1  # of the draws, before the first that counts: the proposals are good from the start
_DELTA = 0.1  # pixels of the templates' differences


@dataclass(frozen=True, eq=False)
class SourcePosterior:
    """Draws of a source's flux and place.

    Args:
        samples: (flux, x, y) of each draw, `(chains, draws, 3)`, float64.
        rhat: the largest of the three.
        ess: the smallest of the three effective sample sizes.
        accepted: part of the proposals.
    """

    samples: Tensor
    rhat: float
    ess: float
    accepted: float

    def interval(self, level: float = 0.68) -> Tensor:
        """Between the quantiles (1 ∓ level)/2 of flux, x and y: `(3, 2)`."""
        if not 0 < level < 1:
            raise InputError(f"an interval expects a level between 0 and 1, got {level}; 0.68 is usual")
        ends = self.samples.new_tensor([(1 - level) / 2, (1 + level) / 2])
        return self.samples.flatten(0, 1).quantile(ends, 0).mT


@torch.no_grad()
def source_posterior(
    cube: Tensor,
    operator: FieldRotation,
    fit: FittedSource,
    radius: int,
    *,
    draws: int = 250,
    chains: int = 4,
    seed: int = 0,
    spectrum: Tensor | None = None,
    frame_scales: bool = False,
) -> SourcePosterior:
    """Draws about what `fit_source` found with the same arguments.

    Args:
        draws: of each chain.
        seed: of the chains' random streams.

    Raises:
        InputError: the fit did not converge, or there are too few draws or chains.
        NumericsError: the frames tell too little of flux and place.
    """
    if not fit.converged or not fit.flux > 0:
        raise InputError("a posterior expects a fit that converged to a positive flux, got another; see its S/N")
    if draws < 4 or chains < 2:
        raise InputError(f"a posterior expects at least 4 draws of 2 chains, got {draws} of {chains}")
    patches = SourcePatches(cube, operator, fit.position, radius, frame_scales)
    level = torch.ones(operator.data_shape[:-3], dtype=torch.float64) if spectrum is None else spectrum
    density = PlaceDensity(patches, level, fit)
    warm_up = max(1, math.ceil(_BURN_IN * draws))
    samples, accepted = [], 0.0
    for index in range(chains):
        generator = stream(seed, index)
        places, rate = _chain(density, operator.fwhm, warm_up + draws, generator)
        samples.append(torch.stack([density.draw(place, law, generator) for place, law in places[warm_up:]]))
        accepted += rate / chains
    drawn = torch.stack(samples)[..., [0, 2, 1]]
    if not bool(drawn.isfinite().all()):
        raise NumericsError("a posterior expects finite draws, got others: too few frames tell of flux and place")
    return SourcePosterior(drawn, float(rhat(drawn).max()), float(effective_samples(drawn).min()), accepted)


class PlaceDensity:
    """log π of a place once the flux is integrated out, and the law of the flux there.

    Args:
        patches: about the source.
        spectrum: relative flux in each channel.
        fit: the estimate and its covariance.
    """

    def __init__(self, patches: SourcePatches, spectrum: Tensor, fit: FittedSource):
        self.patches, self.spectrum, self.flux = patches, spectrum, fit.flux
        self.place = torch.tensor(fit.position, dtype=torch.float64)
        order = torch.tensor([0, 2, 1])
        self.covariance = torch.tensor(fit.covariance, dtype=torch.float64)[order][:, order]
        source = patches.source(self.place, spectrum)
        self.law = patches.law(fit.flux * source)
        kappa = patches.tests(fit.flux * source, [source]).dispersion
        self.precision = patches.own_precisions(self.law) / kappa[:, None, None, None]
        residual = patches.own_residuals(self.law)
        here, centred = self._seen(source)
        self.left = self._applied(residual)
        self.removed, self.removed_centred = self._applied(here), self._applied(centred)
        shifts = _DELTA * torch.eye(2, dtype=torch.float64)
        slopes = [fit.flux * (patches.source(self.place + e, spectrum) - source) / _DELTA for e in shifts]
        pairs = [(here, centred), *map(self._seen, slopes)]
        power = torch.stack([torch.stack([(g * self._applied(c)).sum() for _, c in pairs]) for g, _ in pairs])
        factor, failed = torch.linalg.cholesky_ex((power + power.mT) / 2, upper=True)
        if int(failed):
            raise NumericsError(
                "a posterior expects frames that tell of flux and place, got too few that do; see the fit"
            )
        wanted = torch.linalg.cholesky(torch.linalg.inv(self.covariance), upper=True)
        self.adjustment = torch.linalg.solve_triangular(factor, wanted, upper=True)  # A

    def __call__(self, place: Tensor) -> tuple[float, Tensor]:
        """log π, and (mean, deviation, least value, offset) of f′ = A₀₀ f + offset, which is normal and cut off."""
        away = place - self.place
        here, centred = self._seen(self.patches.source(self.place + self.adjustment[1:, 1:] @ away, self.spectrum))
        a = (here * self._applied(centred)).sum()
        b = (here * self.left).sum() + self.flux / 2 * (here * self.removed_centred + centred * self.removed).sum()
        offset = (1 - self.adjustment[0, 0]) * self.flux + self.adjustment[0, 1:] @ away
        if not a > 0:
            return -math.inf, torch.stack([b, a, offset])
        mean, deviation = b / a, a.rsqrt()
        log = b * mean / 2 + deviation.log() + torch.special.log_ndtr((mean - offset) / deviation)
        return float(log), torch.stack([mean, deviation, offset])

    def draw(self, place: Tensor, law: Tensor, generator: torch.Generator) -> Tensor:
        """(flux, row, column) with a flux from its law at the place."""
        mean, deviation, offset = law
        share = torch.special.ndtr((mean - offset) / deviation)  # of the normal law above the least flux
        part = torch.rand((), generator=generator, dtype=torch.float64) * share
        flux = (mean - deviation * torch.special.ndtri(part) - offset) / self.adjustment[0, 0]
        return torch.cat([flux.clamp(min=0)[None], place])

    def _seen(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """A source in the frame of each patch, and the same less its mean over the other frames."""
        here = self.patches.own(source)
        return here, here - self.patches.others(source, self.law)

    def _applied(self, values: Tensor) -> Tensor:
        """P/κ."""
        return (self.precision @ values[..., None])[..., 0]


def _chain(
    density: PlaceDensity, reach: float, count: int, generator: torch.Generator
) -> tuple[list[tuple[Tensor, Tensor]], float]:
    """Places with the law of the flux there, and the part of the proposals that was accepted."""
    middle, root = density.place, torch.linalg.cholesky(density.covariance[1:, 1:])

    def white(size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    def far() -> Tensor:
        """A draw of the independent proposals."""
        return middle + _STRETCH * root @ white(2) / white(_FREEDOM).square().mean().sqrt()

    def weight(place: Tensor) -> float:
        """log of their density."""
        scaled = torch.linalg.solve_triangular(_STRETCH * root, (place - middle)[:, None], upper=False)
        return -(_FREEDOM + 2) / 2 * math.log1p(float(scaled.square().sum()) / _FREEDOM)

    here = far()
    while float((here - middle).norm()) >= reach:
        here = far()
    (log, law), kept, accepted = density(here), [], 0
    for _ in range(count):
        for independent in (True, False):
            trial = far() if independent else here + _WALK * root @ white(2)
            chance = math.log(1 - float(torch.rand((), generator=generator, dtype=torch.float64)))
            if float((trial - middle).norm()) >= reach:
                continue
            found, other = density(trial)
            if chance < found - log + (weight(here) - weight(trial) if independent else 0.0):
                here, log, law, accepted = trial, found, other, accepted + 1
        kept.append((here, law))
    return kept, accepted / (2 * count)
