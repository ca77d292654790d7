"""Proper scores: one figure in which a posterior is rewarded for being right and for being sharp; lower is better.

    CRPS = E|X − x| − ½ E|X − X′|                       energy score: the same with ‖·‖₂ of whole images
    log score = −log p(x)                               interval score = (h − l) + 2/α · distance of x from [l, h]

In expectation over truths no posterior scores below the right one, so that of two methods on the same images the one
with the lower score is nearer to it. For N(m, s²), with z = (x − m)/s, CRPS = s (z (2Φ(z) − 1) + 2φ(z) − 1/√π). Of n
draws the mean over pairs i ≠ j stands for E|X − X′| (the fair estimator): the score then has the same expectation
whatever n is. Each image gives one value, and standard errors count images; compare two methods by the differences
of their values.

References: Gneiting, Raftery, "Strictly proper scoring rules, prediction, and estimation", JASA 2007. Ferro, "Fair
scores for ensemble forecasts", Quarterly Journal of the Royal Meteorological Society 2014.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import InputError
from ..covariance import streams
from ..posterior import Posterior
from .pairs import Functional, checked, projected, weights_of

__all__ = ["ProperScore", "crps", "energy_score", "interval_score", "joint_log_score", "log_score"]


@dataclass(frozen=True)
class ProperScore:
    """A score of every image and their mean; lower is better.

    Args:
        values: one per image.
        mean: over images.
        standard_error: of the mean.
    """

    values: tuple[float, ...]
    mean: float
    standard_error: float


def crps(posteriors: Iterable[Posterior], truths: Iterable[Tensor], functional: Functional = None) -> ProperScore:
    """Continuous ranked probability score, mean over pixels or functionals, in units of the image.

    From kept draws where there are any, else of the Gaussian.

    Args:
        posteriors: one per truth.
        truths: images `image_shape`.
        functional: weights, a mask, or `posterior → weights`, for instance `lambda p: p.components(5).directions`;
            None for every pixel.

    Example:
        >>> from obverse.posterior import LowRankDiagonal
        >>> from obverse.solvers.result import Status
        >>> unit = LowRankDiagonal(torch.zeros(4, 0), torch.zeros(0), torch.ones(4), (1, 2, 2))
        >>> known = Posterior(torch.zeros(1, 2, 2), Status(True, "closed-form", ""), covariance=unit)
        >>> round(crps([known] * 2, [torch.zeros(1, 2, 2)] * 2).mean, 6)
        0.233695
    """

    def one(posterior: Posterior, truth: Tensor) -> float:
        weights = weights_of(functional, posterior)
        value = projected(truth, weights, posterior).double()
        if posterior.draws is not None:
            drawn = projected(posterior.draws, weights, posterior).double().sort(0).values
            n = len(drawn)
            order = torch.arange(1 - n, n, 2, dtype=torch.float64).reshape(-1, *[1] * value.ndim)
            return float(((drawn - value).abs().mean(0) - (order * drawn).sum(0) / (n * (n - 1))).mean())
        centre, spread = _marginals(posterior, weights)
        error = value - centre
        z = error / spread.clamp_min(torch.finfo(torch.float64).tiny)
        density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
        # s·z is written as x − m: a pixel without spread then scores its absolute error.
        scores = error * (2 * torch.special.ndtr(z) - 1) + spread * (2 * density - 1 / math.sqrt(math.pi))
        return float(scores.mean())

    return _scored(posteriors, truths, one)


def energy_score(
    posteriors: Iterable[Posterior], truths: Iterable[Tensor], *, draws: int = 100, seed: int = 0
) -> ProperScore:
    """Energy score of whole images, over √n so that it is in units of the image; by the fair estimator.

    It weighs all directions alike and sees correlations weakly: `joint_log_score` sees them, where Σ can be inverted.

    Args:
        posteriors: one per truth; each must be able to sample.
        truths: images `image_shape`.
        draws: per posterior, at least two.
        seed: of the draws; image i has its own stream.
    """
    if draws < 2:
        raise InputError(f"energy_score expects at least two draws, got {draws}; a hundred are usual")
    generator = torch.Generator().manual_seed(seed)

    def one(posterior: Posterior, truth: Tensor) -> float:
        drawn = posterior.sample(draws, streams(1, generator)[0]).flatten(1).double()
        away = (drawn - truth.flatten().double()).norm(dim=1).mean()
        return float(away - torch.pdist(drawn).mean() / 2) / math.sqrt(truth.numel())

    return _scored(posteriors, truths, one)


def log_score(posteriors: Iterable[Posterior], truths: Iterable[Tensor], functional: Functional = None) -> ProperScore:
    """−log of the Gaussian marginal density at the truth, mean over pixels or functionals, in nats.

    Args:
        posteriors: one per truth.
        truths: images `image_shape`.
        functional: as for `crps`.

    Raises:
        InputError: a standard deviation is zero, where the score is infinite.
    """

    def one(posterior: Posterior, truth: Tensor) -> float:
        weights = weights_of(functional, posterior)
        centre, spread = _marginals(posterior, weights)
        if not float(spread.min()) > 0:
            raise InputError(
                "log_score expects standard deviations above zero, got a zero one, where the score is infinite; "
                "use crps, which stays finite"
            )
        z = (projected(truth, weights, posterior).double() - centre) / spread
        return float((z.square() / 2 + spread.log()).mean()) + math.log(2 * math.pi) / 2

    return _scored(posteriors, truths, one)


def joint_log_score(posteriors: Iterable[Posterior], truths: Iterable[Tensor]) -> ProperScore:
    """−log N(x; m, Σ) / n of whole images, in nats per pixel: ½ (log 2π + log det Σ / n + (x − m)ᵀ Σ⁻¹ (x − m) / n).

    Args:
        posteriors: one per truth, with a covariance that has `logdet` and `solve`; `compact(rank)` gives it both.
        truths: images `image_shape`.
    """

    def one(posterior: Posterior, truth: Tensor) -> float:
        error = (truth - posterior.mean).to(posterior.covariance.dtype)
        square = float((error * posterior.covariance.solve(error)).sum(dtype=torch.float64))
        return (math.log(2 * math.pi) + (posterior.covariance.logdet() + square) / error.numel()) / 2

    return _scored(posteriors, truths, one)


def interval_score(
    posteriors: Iterable[Posterior], truths: Iterable[Tensor], level: float = 0.9, functional: Functional = None
) -> ProperScore:
    """Winkler's score of central intervals, mean over pixels or functionals, in units of the image.

    Args:
        posteriors: one per truth.
        truths: images `image_shape`.
        level: of the intervals.
        functional: as for `crps`.
    """

    def one(posterior: Posterior, truth: Tensor) -> float:
        weights = weights_of(functional, posterior)
        value = projected(truth, weights, posterior)
        low, high = posterior.interval(weights, level)
        outside = (low - value).clamp_min(0) + (value - high).clamp_min(0)
        return float((high - low + 2 / (1 - level) * outside).double().mean())

    return _scored(posteriors, truths, one)


def _marginals(posterior: Posterior, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    centre, spread = (posterior.mean, posterior.std) if weights is None else posterior.functional(weights)
    return centre.double(), spread.double()


def _scored(
    posteriors: Iterable[Posterior], truths: Iterable[Tensor], one: Callable[[Posterior, Tensor], float]
) -> ProperScore:
    values = torch.tensor([one(*pair) for pair in checked(posteriors, truths)], dtype=torch.float64)
    error = float(values.std()) / math.sqrt(len(values))
    return ProperScore(tuple(values.tolist()), float(values.mean()), error)
