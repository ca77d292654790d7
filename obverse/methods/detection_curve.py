"""How well a search finds the sources that were put in: the fraction found against the fraction of what is false.

A peak is right where a source lies within a radius of it; every source is found once, by the highest of its peaks, and
what is left over is false. Lowering one threshold over all maps, with n sources in them,

    true-positive rate = right/n,      false-discovery rate = false/(right + false)

The first rises, the second falls at every right peak. The curve is the upper envelope: at each false-discovery rate f
the largest true-positive rate of all thresholds with at most that rate, which stays where it is beyond the last of
them. Its area over f from 0 to 1 is what object detection calls interpolated average precision, since 1 − f is the
precision. A search that finds all before the first false peak has area 1.

References: Everingham et al., "The PASCAL visual object classes (VOC) challenge", IJCV 2010. Cantalloube et al.,
"Exoplanet imaging data challenge: benchmarking the various image processing methods for exoplanet detection", SPIE
2020.
"""

__all__ = ["DetectionCurve", "detection_curve", "matched_peaks"]

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from .detection import Peak


@dataclass(frozen=True, eq=False)
class DetectionCurve:
    """Rates at every threshold, from the highest down: see `detection_curve`.

    Args:
        threshold: the scores of the peaks, `(n,)`, falling.
        true_positive_rate: of the sources, `(n,)`.
        false_discovery_rate: of the peaks that reach the threshold, `(n,)`.
    """

    threshold: Tensor
    true_positive_rate: Tensor
    false_discovery_rate: Tensor

    @property
    def area(self) -> float:
        """Of the envelope, over false-discovery rates from 0 to 1."""
        rate, level = self._envelope()
        ends = torch.cat([rate, rate.new_ones(1)])
        return float((ends.diff() * level).sum())

    def recovered(self, false_discovery_rate: float) -> float:
        """The largest true-positive rate at a false-discovery rate of at most this."""
        allowed = self.false_discovery_rate <= false_discovery_rate
        return float(self.true_positive_rate[allowed].max()) if bool(allowed.any()) else 0.0

    def _envelope(self) -> tuple[Tensor, Tensor]:
        """False-discovery rates, rising, and the true-positive rate from each to the next."""
        order = torch.argsort(self.false_discovery_rate, stable=True)
        return self.false_discovery_rate[order], self.true_positive_rate[order].cummax(0).values


def detection_curve(scores: Sequence[float] | Tensor, right: Sequence[bool] | Tensor, sources: int) -> DetectionCurve:
    """The curve of peaks from any number of maps, of whose `sources` some are found.

    Args:
        scores: heights of the peaks, comparable from map to map.
        right: whether each is a source; see `matched_peaks`.
        sources: that could be found, in all maps.

    Raises:
        InputError: lengths differ, a score is NaN, or there are fewer sources than right peaks.

    Example:
        >>> curve = detection_curve([9.0, 7.0, 6.0, 4.0], [True, False, True, False], 4)
        >>> curve.true_positive_rate.tolist(), [round(v, 2) for v in curve.false_discovery_rate.tolist()]
        ([0.25, 0.25, 0.5, 0.5], [0.0, 0.5, 0.33, 0.5])
        >>> round(curve.area, 4)  # 0.25 up to a rate of 1/3, 0.5 beyond
        0.4167
    """
    score = torch.as_tensor(scores, dtype=torch.float64).reshape(-1)
    hit = torch.as_tensor(right, dtype=torch.float64).reshape(-1)
    if len(score) != len(hit) or bool(score.isnan().any()):
        raise InputError(f"detection_curve expects one number for each peak, got {len(score)} and {len(hit)}, or NaN")
    if sources < 1 or float(hit.sum()) > sources:
        raise InputError(
            f"detection_curve expects at least as many sources as right peaks, got {sources} and {int(hit.sum())}; "
            "count those that were not found too"
        )
    order = torch.argsort(score, descending=True, stable=True)
    score, hit = score[order], hit[order]
    found = hit.cumsum(0)
    count = torch.arange(1, len(score) + 1, dtype=torch.float64)
    last = torch.ones_like(hit, dtype=torch.bool)  # of peaks of equal height all reach a threshold or none does
    last[:-1] = score[1:] < score[:-1]
    return DetectionCurve(score[last], (found / sources)[last], (1 - found / count)[last])


def matched_peaks(
    peaks: Sequence[Peak], sources: Sequence[tuple[float, float]], radius: float
) -> tuple[int | None, ...]:
    """For each peak the index of the source that it is, or None where it is false.

    Args:
        peaks: in any order; the highest takes the nearest source first.
        sources: (row, column) of each.
        radius: in pixels, within which a peak is a source; the PSF's full width at half maximum is usual.

    Raises:
        InputError: the radius is not a positive number.

    Example:
        >>> peaks = [Peak(5.2, 3.0, 8.0), Peak(7.0, 3.0, 6.0), Peak(20.0, 9.0, 4.0)]
        >>> matched_peaks(peaks, [(3.0, 5.0), (9.0, 21.0)], 4.0)
        (0, None, 1)
    """
    if not (math.isfinite(radius) and radius > 0):
        raise InputError(f"matched_peaks expects a positive radius in pixels, got {radius}; the PSF's width is usual")
    free = dict(enumerate(sources))
    found: dict[int, int] = {}
    for index in sorted(range(len(peaks)), key=lambda i: -peaks[i].snr):
        peak = peaks[index]
        away = {j: math.hypot(peak.y - row, peak.x - column) for j, (row, column) in free.items()}
        nearest = min(away, key=away.__getitem__, default=None)
        if nearest is not None and away[nearest] <= radius:
            found[index] = nearest
            del free[nearest]
    return tuple(found.get(index) for index in range(len(peaks)))
