"""The numbers of a report, derived from stored arrays, and their comparison with the numbers that a run has stated.

With data y, prediction A x̂, noise standard deviation s and N values, the whitened residual is r = (y - A x̂) / s and

    chi2 = (1/N) Σ r²,        ρ(l) = Σ r̃_i r̃_{i+l} / Σ r̃² · N / N(l),      r̃ = r - mean(r)

where N(l) counts the pairs at lag l. White noise keeps 95 % of the lags within ±1.96 / √N(l). With a reference x₀,

    psnr = 10 log10( max(x₀)² / mean (x̂ - x₀)² ),        coverage = share of pixels with |x̂ - x₀| ≤ 1.645 std.

A stated number that differs from the derived one by more than a part in 500 is reported in a sentence.
"""

__all__ = ["Figures", "Whiteness", "compare", "derive", "whiteness"]

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.fft import irfftn, next_fast_len, rfftn

Z90 = 1.6448536269514722
"""Half-width of a normal distribution's central 90 % interval, in standard deviations."""

RELATIVE_TOLERANCE = 2e-3
LAGS = 12


@dataclass(frozen=True)
class Whiteness:
    """Autocorrelation of the whitened residual at small lags."""

    correlation: np.ndarray
    """(2l+1, 2l+1) over lags (dy, dx), at lag 0 along z, averaged over channels."""
    profiles: dict[str, np.ndarray]
    """One row of lags 0..l for each axis ("x", "y", "z")."""
    band: float
    """±95 % limit of white noise at small lags."""
    inside: float
    """Share of the lags (0 excluded) within the band: about 0.95 for white noise."""
    largest: float
    """Correlation of the largest size at any lag but 0, with its sign."""


@dataclass(frozen=True)
class Figures:
    """Everything that the report prints, derived from the stored arrays; None where the arrays are missing."""

    values: dict[str, float]
    """By the key that run.json uses: chi2, residual_mean, residual_std, outliers, mean_std, max_std, psnr, coverage."""
    whiteness: Whiteness | None
    histogram: tuple[np.ndarray, np.ndarray] | None
    """Edges (in noise standard deviations) and density of the whitened residual."""
    residual: np.ndarray | None


def derive(
    mean: np.ndarray,
    std: np.ndarray | None = None,
    data: np.ndarray | None = None,
    prediction: np.ndarray | None = None,
    noise_std: np.ndarray | None = None,
    reference: np.ndarray | None = None,
) -> Figures:
    """Derive every figure that the arrays allow.

    Args:
        mean: reconstruction, (C, H, W) or (C, D, H, W), in data units.
        std: its standard deviation, same shape.
        data, prediction, noise_std: measured values, A·mean and the noise level, same units, one shape.
        reference: what the truth is known to be, shape of the mean.

    Example:
        >>> import numpy as np
        >>> one = np.ones((1, 4, 4))
        >>> derive(one, data=one + 2, prediction=one, noise_std=one).values["chi2"]
        4.0
    """
    values: dict[str, float] = {}
    residual, white, histogram = None, None, None
    if std is not None:
        finite = std[np.isfinite(std)].astype(np.float64)
        values["mean_std"] = float(finite.mean()) if finite.size else float("nan")
        values["max_std"] = float(finite.max()) if finite.size else float("nan")
    if data is not None and prediction is not None and noise_std is not None:
        with np.errstate(divide="ignore", invalid="ignore"):
            residual = (np.asarray(data, np.float64) - prediction) / noise_std
        good = residual[np.isfinite(residual)]
        if good.size:
            values["chi2"] = float(np.mean(good**2))
            values["residual_mean"] = float(good.mean())
            values["residual_std"] = float(good.std())
            values["outliers"] = float(np.mean(np.abs(good) > 5.0))
            white = whiteness(np.where(np.isfinite(residual), residual, 0.0))
            density, edges = np.histogram(good, bins=50, range=(-5.0, 5.0))
            histogram = (edges, density / (good.size * np.diff(edges)))
    if reference is not None:
        error = np.asarray(mean, np.float64) - reference
        square, peak = float(np.mean(error**2)), float(np.max(reference))
        if square > 0 and peak > 0:
            values["psnr"] = 10 * float(np.log10(peak**2 / square))
        if std is not None:
            values["coverage"] = float(np.mean(np.abs(error) <= Z90 * std))
    return Figures(values, white, histogram, residual)


def whiteness(residual: np.ndarray, lags: int = LAGS) -> Whiteness:
    """Measure the autocorrelation of a (C, H, W) or (C, D, H, W) residual up to `lags`, without wrapping round."""
    size = residual.shape[1:]
    reach = tuple(min(lags, n - 1) for n in size)
    padded = [int(next_fast_len(n + r, real=True) or n + r) for n, r in zip(size, reach)]
    axes = tuple(range(1, residual.ndim))
    centred = residual - residual.mean()
    total = np.zeros(padded)
    for channel in centred:
        spectrum = rfftn(channel, padded)
        total = total + np.asarray(irfftn(np.abs(np.asarray(spectrum)) ** 2, padded))
    grid = np.ix_(*[np.arange(-r, r + 1) for r in reach])
    overlap = np.ones([2 * r + 1 for r in reach])
    for axis, (n, r) in enumerate(zip(size, reach)):
        line = n - np.abs(np.arange(-r, r + 1))
        overlap = overlap * line.reshape([-1 if a == axis else 1 for a in range(len(size))])
    power = float(np.mean(centred**2))
    pairs = overlap * residual.shape[0]
    correlation = total[grid] / pairs / power if power > 0 else np.zeros(overlap.shape)
    centre = tuple(reach)
    other = np.ones(correlation.shape, bool)
    other[centre] = False
    z = np.abs(correlation) * np.sqrt(pairs)
    names = "zyx"[-len(axes) :]
    profiles = {}
    for axis, name in enumerate(names):
        index: list[int | slice] = list(centre)
        index[axis] = slice(centre[axis], None)
        profiles[name] = correlation[tuple(index)]
    plane = correlation if correlation.ndim == 2 else correlation[centre[0]]
    inside = float(np.mean(z[other] <= 1.96)) if other.any() else 1.0
    largest = float(max(correlation[other], key=abs)) if other.any() else 0.0
    return Whiteness(plane, profiles, float(1.96 / np.sqrt(residual.size)), inside, largest)


def compare(stated: Mapping[str, object], derived: Mapping[str, float]) -> list[str]:
    """Say in one sentence each where a stated number is not the one that the stored arrays give.

    Example:
        >>> compare({"chi2": 1.0}, {"chi2": 1.5})
        ['run.json states chi2 = 1, but the stored arrays give 1.5: one was changed or miscomputed; trust neither.']
        >>> compare({"chi2": 1.5}, {"chi2": 1.5001})
        []
    """
    found = []
    for key, value in derived.items():
        if key not in stated:
            continue
        claim = stated[key]
        number = isinstance(claim, (int, float)) and not isinstance(claim, bool)
        if number and abs(float(claim) - value) <= RELATIVE_TOLERANCE * max(abs(value), 1e-12):  # type: ignore[arg-type]
            continue
        shown = f"{claim:.6g}" if number else repr(claim)
        found.append(
            f"run.json states {key} = {shown}, but the stored arrays give {value:.6g}: "
            "one was changed or miscomputed; trust neither."
        )
    return found
