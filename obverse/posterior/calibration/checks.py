"""Do posteriors mean what they say? Tests on pairs (posterior, truth) in which the truth was drawn from the prior.

    P(x* ∈ interval) = level        F(⟨w, x*⟩) ~ U(0, 1)        rank of x* among draws ~ uniform        zₖ ~ N(0, 1)

One pair is one replicate: pixels of one image are not independent, so standard errors count images, and every image
gets its own random functional unless the caller names one. White-noise functionals see the trace of Σ and hardly its
shape; `pc_scores` and `mahalanobis` see the shape. Each result carries p-values; a small one says "miscalibrated".

References: Talts et al., "Validating Bayesian inference algorithms with simulation-based calibration", 2018. Lemos et
al., "Sampling-based accuracy testing of posterior estimators for general inference", ICML 2023 (TARP).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy
import torch
from torch import Tensor

from ...errors import InputError
from ..covariance import streams
from ..posterior import Posterior
from .pairs import Functional, checked, checked_levels, floats, projected, weights_of

__all__ = ["Coverage", "Histogram", "Scores", "Uniformity"]
__all__ += ["coverage", "mahalanobis", "pc_scores", "pit", "rank_histogram", "tarp"]


@dataclass(frozen=True)
class Coverage:
    """How often intervals held the truth.

    Args:
        levels: nominal probabilities.
        observed: fractions over pixels (or functionals) and images.
        standard_errors: of `observed`, counting images.
        p_values: two-sided, of observed = level.
        count: number of images.
    """

    levels: tuple[float, ...]
    observed: tuple[float, ...]
    standard_errors: tuple[float, ...]
    p_values: tuple[float, ...]
    count: int


@dataclass(frozen=True)
class Uniformity:
    """Values that are uniform on (0, 1) if the posteriors are calibrated, and tests of that.

    Args:
        values: one per image.
        statistic: Kolmogorov–Smirnov: largest distance between their distribution and the uniform one.
        dispersion: mean square of their normal scores: 1 if calibrated, above 1 if over-confident.
        p_value: of the worse of the two (Bonferroni). Kolmogorov–Smirnov alone hardly sees a wrong width.
    """

    values: tuple[float, ...]
    statistic: float
    dispersion: float
    p_value: float

    def expected_coverage(self, levels: Sequence[float]) -> tuple[float, ...]:
        """Fraction of values below each level; equals the level if calibrated (TARP's curve)."""
        values = np.asarray(self.values)
        return tuple(float((values < level).mean()) for level in levels)


@dataclass(frozen=True)
class Histogram:
    """Counts of the truth's rank among draws, flat if calibrated: ∪-shaped if over-confident, ∩-shaped if timid.

    Args:
        counts: per bin.
        expected: count per bin if calibrated.
        statistic: χ².
        p_value: of χ² with one degree of freedom fewer than bins.
    """

    counts: tuple[int, ...]
    expected: float
    statistic: float
    p_value: float


@dataclass(frozen=True)
class Scores:
    """Errors in units of what the posterior expects of them.

    Args:
        values: z-scores `(images, k)`, or Mahalanobis distances squared over n `(images, 1)`.
        mean_square: mean of z², or mean of distance²/n: 1 if calibrated, above 1 if over-confident.
        p_value: two-sided, of the sum of squares against χ².
        p_values: the same for each column.
    """

    values: tuple[tuple[float, ...], ...]
    mean_square: float
    p_value: float
    p_values: tuple[float, ...]


def coverage(
    posteriors: Iterable[Posterior],
    truths: Iterable[Tensor],
    levels: Sequence[float] = (0.5, 0.8, 0.9, 0.95),
    functional: Functional = None,
) -> Coverage:
    """Coverage of central intervals, of pixels or of a linear functional.

    Args:
        posteriors: one per truth; a generator will do.
        truths: images `image_shape`.
        levels: probabilities between 0 and 1.
        functional: weights `(*batch, *image_shape)` of ⟨w, x⟩, a boolean mask of a region, or `posterior → weights`;
            None for all pixels.
    """
    levels = checked_levels(levels)
    rows, count = [], 1
    for posterior, truth in checked(posteriors, truths):
        weights = weights_of(functional, posterior)
        value = projected(truth, weights, posterior)
        count = value.numel()
        ends = [posterior.interval(weights, level) for level in levels]
        rows.append([float(((value >= low) & (value <= high)).double().mean()) for low, high in ends])
    inside = np.asarray(rows)
    if count > 1:
        return coverage_of_shares(inside, levels)
    nominal = np.asarray(levels, dtype=float)
    errors = np.sqrt(nominal * (1 - nominal) / len(inside))
    hits = inside.sum(0).astype(int)
    p_values = [float(scipy.stats.binomtest(int(k), len(inside), p).pvalue) for k, p in zip(hits, nominal)]
    return Coverage(tuple(levels), floats(inside.mean(0)), floats(errors), floats(p_values), len(inside))


def coverage_of_shares(inside: np.ndarray, levels: Sequence[float]) -> Coverage:
    """Coverage from the covered share of every image at every level, `(images, levels)`; p-values are Student's."""
    count = len(inside)
    observed, errors = inside.mean(0), inside.std(0, ddof=1) / math.sqrt(count)
    scores = np.abs(observed - np.asarray(levels)) / np.maximum(errors, 1e-12)
    p_values = 2 * scipy.stats.t.sf(scores, count - 1)
    return Coverage(tuple(levels), floats(observed), floats(errors), floats(p_values), count)


def pit(
    posteriors: Iterable[Posterior], truths: Iterable[Tensor], functional: Functional = None, seed: int = 0
) -> Uniformity:
    """Probability integral transform: the posterior probability of a functional lying below its true value.

    Args:
        posteriors: one per truth.
        truths: images `image_shape`.
        functional: weights, or `posterior → weights`; by default fresh white noise for every image.
        seed: of the white noise.
    """
    values = []
    for (posterior, truth), stream in zip(checked(posteriors, truths), _endless(seed)):
        weights = _weights(functional, posterior, stream)
        true = float((weights * truth).sum())
        if posterior.draws is not None:
            drawn = (posterior.draws * weights).flatten(1).sum(1).double()
            values.append(_randomised_rank(drawn, true, stream))
        else:
            centre, spread = posterior.functional(weights)
            values.append(float(scipy.stats.norm.cdf((true - float(centre)) / float(spread))))
    return _uniformity(values)


def rank_histogram(
    posteriors: Iterable[Posterior],
    truths: Iterable[Tensor],
    *,
    draws: int = 63,
    bins: int = 8,
    functional: Functional = None,
    seed: int = 0,
) -> Histogram:
    """Rank of a functional of the truth among those of posterior draws (simulation-based calibration).

    Args:
        posteriors: one per truth; each must be able to sample.
        truths: images `image_shape`.
        draws: L, independent draws per posterior; L + 1 must be a multiple of `bins`.
        bins: of the histogram.
        functional: weights, or `posterior → weights`; by default fresh white noise for every image.
        seed: of draws and white noise.
    """
    if bins < 2 or (draws + 1) % bins:
        raise InputError(f"rank_histogram expects draws + 1 to be a multiple of bins, got {draws} and {bins}")
    ranks = []
    for (posterior, truth), stream in zip(checked(posteriors, truths), _endless(seed)):
        weights = _weights(functional, posterior, stream)
        drawn = (posterior.sample(draws, stream) * weights).flatten(1).sum(1)
        ranks.append(int((drawn < (weights * truth).sum()).sum()))
    counts = np.bincount(np.asarray(ranks) * bins // (draws + 1), minlength=bins)
    test = scipy.stats.chisquare(counts)
    return Histogram(tuple(int(c) for c in counts), len(ranks) / bins, float(test.statistic), float(test.pvalue))


def tarp(
    posteriors: Iterable[Posterior],
    truths: Iterable[Tensor],
    *,
    references: Iterable[Tensor] | None = None,
    draws: int = 100,
    distance: float = 3.0,
    seed: int = 0,
) -> Uniformity:
    """Tests of accuracy with random points: how many draws are closer to a reference than the truth is?

    A reference must not depend on the truth other than through the data. References that ignore the data have little
    power in high dimension, so by default they are the mean displaced by a draw of the posterior's own error, enlarged.

    Args:
        posteriors: one per truth; each must be able to sample.
        truths: images `image_shape`.
        references: one image per truth, for instance a draw of another posterior; None for the displaced mean.
        draws: per posterior.
        distance: how many times the displacement is enlarged.
        seed: of draws and references.

    Raises:
        InputError: fewer references than truths.
    """
    values = []
    given = iter(references) if references is not None else None
    for (posterior, truth), stream in zip(checked(posteriors, truths), _endless(seed)):
        drawn = posterior.sample(draws + 1, stream)
        if given is None:
            reference, drawn = posterior.mean + distance * (drawn[0] - posterior.mean), drawn[1:]
        else:
            reference, drawn = next(given, None), drawn[1:]
            if reference is None:
                raise InputError(f"tarp expects a reference for every truth, got {len(values)}; draw as many")
        distances = (drawn - reference).flatten(1).double().norm(dim=1)
        values.append(_randomised_rank(distances, float((truth - reference).double().norm()), stream))
    return _uniformity(values)


def pc_scores(posteriors: Iterable[Posterior], truths: Iterable[Tensor], k: int = 5) -> Scores:
    """z-scores of the error along the `k` leading principal components: N(0, 1), independent, if calibrated."""
    rows = []
    for posterior, truth in checked(posteriors, truths):
        found = posterior.components(k)
        along = found.directions.flatten(1) @ (truth - posterior.mean).flatten().to(found.directions)
        rows.append((along / found.variances.sqrt()).double().tolist())
    values = np.asarray(rows)
    squares = (values**2).sum(0)
    return Scores(
        tuple(floats(row) for row in values),
        float((values**2).mean()),
        _two_sided(float(squares.sum()), values.size),
        tuple(_two_sided(float(square), len(values)) for square in squares),
    )


def mahalanobis(posteriors: Iterable[Posterior], truths: Iterable[Tensor]) -> Scores:
    """(x* − m)ᵀ Σ⁻¹ (x* − m) / n of every pair; n times it is χ² with n degrees of freedom if calibrated."""
    ratios, size = [], 1
    for posterior, truth in checked(posteriors, truths):
        error = (truth - posterior.mean).to(posterior.covariance.dtype)
        size = error.numel()
        ratios.append(float((error * posterior.covariance.solve(error)).sum()) / size)
    p_value = _two_sided(size * math.fsum(ratios), size * len(ratios))
    return Scores(tuple((ratio,) for ratio in ratios), float(np.mean(ratios)), p_value, (p_value,))


def _endless(seed: int) -> Iterable[torch.Generator]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield streams(1, generator)[0]


def _weights(functional: Functional, posterior: Posterior, stream: torch.Generator) -> Tensor:
    weights = weights_of(functional, posterior)
    if weights is None:
        weights = torch.randn(posterior.mean.shape, generator=stream, dtype=torch.float64)
    return weights.to(posterior.mean)


def _randomised_rank(drawn: Tensor, true: float, stream: torch.Generator) -> float:
    """(rank + U)/(L + 1): exactly uniform if the true value and the draws are exchangeable."""
    uniform = float(torch.rand((), generator=stream, dtype=torch.float64))
    return (int((drawn < true).sum()) + uniform) / (len(drawn) + 1)


def _uniformity(values: Sequence[float]) -> Uniformity:
    test = scipy.stats.kstest(values, "uniform")
    # A truth far outside has a value of 0 or 1 in floating point; its score is kept finite.
    squares = scipy.stats.norm.ppf(np.clip(values, 1e-300, 1 - 1e-16)) ** 2
    worse = min(float(test.pvalue), _two_sided(float(squares.sum()), len(squares)))
    return Uniformity(tuple(values), float(test.statistic), float(squares.mean()), min(1.0, 2 * worse))


def _two_sided(square: float, degrees: int) -> float:
    return float(min(1.0, 2 * min(scipy.stats.chi2.cdf(square, degrees), scipy.stats.chi2.sf(square, degrees))))
