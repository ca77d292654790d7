"""Has a sampler converged, how much is it worth, and how good is a compact form?

    R̂ = √((N−1)/N + B/(N W)),     N_eff = M N / τ,     τ = 1 + 2 Σ_t ρ_t,     s.e.(mean) = sd / √N_eff

Chains are split in half, so that a trend shows as a disagreement between chains; ranks are mapped to normal scores, so
that heavy tails do not hide it; R̂ is the larger of that of the draws and that of their distance from the median.
Autocorrelations ρ_t come from one FFT and are summed up to where Geyer's initial monotone sequence ends.

References: Vehtari, Gelman, Simpson, Carpenter, Bürkner, "Rank-normalization, folding, and localization: an improved
R-hat", Bayesian Analysis 2021. Geyer, "Practical Markov chain Monte Carlo", Statistical Science 1992.
"""

import math

import numpy as np
import scipy
import torch
from scipy.special import ndtri
from torch import Tensor

from ..errors import InputError
from .covariance import Covariance

__all__ = ["effective_samples", "region_errors", "rhat", "standard_error"]


def rhat(draws: Tensor) -> Tensor:
    """Rank-normalised split R̂; below 1.01 is good, and constant draws give NaN.

    Args:
        draws: `(chains, draws, *quantities)`, at least 4 draws; one chain will do, since it is split.

    Returns:
        R̂ of each quantity, `(*quantities,)`, float64.
    """
    values, shape = _values(draws)
    halves = _split(values)
    folded = np.abs(halves - np.median(halves, axis=(0, 1)))
    worst = np.maximum(_potential_scale_reduction(_scores(halves)), _potential_scale_reduction(_scores(folded)))
    return torch.from_numpy(worst).reshape(shape)


def effective_samples(draws: Tensor, kind: str = "bulk") -> Tensor:
    """How many independent draws the chains are worth.

    Args:
        draws: `(chains, draws, *quantities)`, at least 4 draws.
        kind: "bulk", of rank-normalised draws, says whether the chains mix; "mean" is for the error of the mean.

    Returns:
        Effective sample size of each quantity, `(*quantities,)`, float64.
    """
    if kind not in ("bulk", "mean"):
        raise InputError(f"kind expects 'bulk' or 'mean', got {kind!r}; choose one")
    values, shape = _values(draws)
    halves = _split(values)
    return torch.from_numpy(_effective(_scores(halves) if kind == "bulk" else halves)).reshape(shape)


def standard_error(draws: Tensor) -> Tensor:
    """Monte-Carlo standard error of the mean over all chains and draws, `(*quantities,)`, float64."""
    values, shape = _values(draws)
    spread = values.std(axis=(0, 1), ddof=1)
    return torch.from_numpy(spread / np.sqrt(_effective(_split(values)))).reshape(shape)


def _values(draws: Tensor) -> tuple[np.ndarray, tuple[int, ...]]:
    if draws.ndim < 2 or draws.shape[1] < 4:
        raise InputError(f"draws expects (chains, draws, *quantities), 4 draws or more, got {tuple(draws.shape)}")
    array = draws.detach().cpu().double().numpy()
    if not np.isfinite(array).all():
        raise InputError("draws expects finite values, got NaN or infinity: a chain diverged; use a smaller step")
    return array.reshape(*array.shape[:2], -1), tuple(draws.shape[2:])


def _split(values: np.ndarray) -> np.ndarray:
    """Each chain as two; the middle draw of an odd number is left out."""
    half = values.shape[1] // 2
    return np.concatenate([values[:, :half], values[:, -half:]])


def _scores(values: np.ndarray) -> np.ndarray:
    """Normal scores of the ranks over all chains (Blom's offsets)."""
    pooled = values.reshape(-1, values.shape[2])
    return ndtri((scipy.stats.rankdata(pooled, axis=0) - 0.375) / (len(pooled) + 0.25)).reshape(values.shape)


def _potential_scale_reduction(values: np.ndarray) -> np.ndarray:
    length = values.shape[1]
    within = values.var(axis=1, ddof=1).mean(0)
    between = length * values.mean(1).var(axis=0, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sqrt((between / within + length - 1) / length)


def _effective(values: np.ndarray) -> np.ndarray:
    chains, length, quantities = values.shape
    centred = values - values.mean(1, keepdims=True)
    padded = 2 ** math.ceil(math.log2(2 * length))
    power = np.abs(np.fft.rfft(centred, padded, axis=1)) ** 2
    covariance = np.fft.irfft(power, padded, axis=1)[:, :length] / length
    within = covariance[:, 0].mean(0) * length / (length - 1)
    total = within * (length - 1) / length + (values.mean(1).var(axis=0, ddof=1) if chains > 1 else 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        correlation = 1 - (within - covariance.mean(0)) / total
    # Three draws of slack at the end: their autocovariances rest on a handful of products.
    pairs = max((length - 3) // 2, 1)
    correlation[0] = 1
    sums = correlation[: 2 * pairs].reshape(pairs, 2, quantities).sum(1)
    ended = np.maximum.accumulate(sums < 0, axis=0)
    monotone = np.minimum.accumulate(np.where(ended, 0, sums), axis=0)
    # The even term after the last positive pair still helps antithetic chains (Stan's and arviz' convention).
    stop = np.minimum((~ended).sum(0), pairs - 1)
    after = np.maximum(correlation[2 * stop, np.arange(quantities)], 0) * ended[-1]
    tau = np.maximum(-1 + 2 * monotone.sum(0) + after, 1 / np.log10(chains * length))
    return np.where(total > 0, chains * length / tau, np.nan)


def region_errors(compact: Covariance, full: Covariance, regions: int = 32, seed: int = 0) -> Tensor:
    """How far a compact form is off where it matters: relative errors of the variances of random regions' means.

        wᵀ Σ_compact w / wᵀ Σ w − 1,      w the mean over a box of one channel, from 2 pixels a side to half the image

    Args:
        compact: for instance `full.compact(16)`.
        full: of the same image.
        regions: number of boxes; sides are log-uniform, places uniform.
        seed: of the boxes.

    Returns:
        One error per region, `(regions,)`: 0.1 says that the variance is 10 % too large.
    """
    shape = full.image_shape
    if compact.image_shape != shape:
        raise InputError(f"region_errors expects covariances of one image, got {compact.image_shape} and {shape}")
    generator = np.random.default_rng(seed)
    weights = torch.zeros(regions, *shape, dtype=full.dtype, device=full.device)
    for own in weights:
        side = math.exp(generator.uniform(math.log(2), math.log(max(2.0, max(shape[1:]) / 2))))
        sides = [min(m, round(side)) for m in shape[1:]]
        corner = [int(generator.integers(m - s + 1)) for m, s in zip(shape[1:], sides)]
        box = (int(generator.integers(shape[0])), *(slice(c, c + s) for c, s in zip(corner, sides)))
        own[box] = 1 / math.prod(sides)
    exact, found = ((weights * kind.matvec(weights)).flatten(1).sum(1) for kind in (full, compact))
    return found / exact - 1
