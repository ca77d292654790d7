"""Subtraction of speckles, followed by the search in what is left of them: classical methods that answer as PACO does.

The combined residual is summed in discs of one FWHM, and each sum set against those of its ring (`small_sample_maps`),
σ being the deviation of a disc from the mean of the others. Of 12 discs, a ratio of 5 is a false alarm a thousand times
as often as Gaussian figures say: what is answered as S/N is therefore the normal deviate that is as rare, and a
threshold has the false-alarm rate that is stated for it. The flux is what the subtraction leaves, which takes part of a
source's own.

References: Mawet et al., "Fundamental limitations of high contrast imaging set by small sample statistics", ApJ 2014.
"""

__all__ = ["Subtraction"]

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..errors import InputError
from ..methods.detection import Candidate, Detection, candidates_of
from ..methods.small_sample import gaussian_equivalent, small_sample_maps
from ..operators import FieldRotation
from ..operators.motion import pixel_grid
from ..posterior.estimate import Estimate
from ..problem import Problem

_FALL = 0.6  # of a FWHM: standard deviation of a place is about that over the S/N, for a Gaussian peak


@dataclass(frozen=True)
class Subtraction:
    """A method that subtracts speckles and combines the frames, made a search.

    Args:
        combine: `combine(y, problem)` gives the combined residual, `(1, H, W)`.
        threshold: S/N of a candidate.
        inner_radius: pixels about the star that are not searched.
    """

    combine: Any
    threshold: float
    inner_radius: float

    @property
    def name(self) -> str:
        """Of the subtraction, for the record."""
        return type(self.combine).__name__

    def __call__(
        self, y: Tensor, problem: Problem, callback: Callable[[int, int | None, float], None] | None = None
    ) -> Detection:
        """Maps and candidates.

        Raises:
            InputError: the operator is no FieldRotation, or there are several channels.
        """
        operator = problem.operator
        if not isinstance(operator, FieldRotation) or operator.image_shape[0] != 1:
            raise InputError(
                f"subtraction expects a sequence of one wavelength, got images {problem.operator.image_shape}; use paco"
            )
        estimate: Estimate = self.combine(y, problem)
        image, fwhm, centre = estimate.image.double(), operator.fwhm, operator.centre
        ratio, sigma, flux = small_sample_maps(image, fwhm, centre)
        rows, columns = pixel_grid(image.shape[1:], image)
        near = (rows - centre[0]).hypot(columns - centre[1]) < self.inner_radius
        snr, sigma, flux = (
            each.masked_fill(near, math.nan) for each in (gaussian_equivalent(ratio, fwhm, centre), sigma, flux)
        )
        found = []
        for peak in candidates_of(snr, self.threshold, fwhm):
            row, column = round(peak.y), round(peak.x)
            place = (_FALL * fwhm / peak.snr) ** 2
            covariance = ((float(sigma[0, row, column]) ** 2, 0.0, 0.0), (0.0, place, 0.0), (0.0, 0.0, place))
            found.append(Candidate(peak.x, peak.y, peak.snr, float(flux[0, row, column]), covariance))
        diagnostics = {**estimate.diagnostics, "throughput": "not corrected"}
        return Detection(flux, estimate.status, (), diagnostics, snr=snr, sigma=sigma, candidates=tuple(found))
