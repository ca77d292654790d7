"""Subtraction of speckles, followed by the search in what is left of them: classical methods that answer as PACO does.

The combined residual is summed in discs of one FWHM. At each place of a ring of radius r the other n − 1 discs, n =
⌊2πr/FWHM⌋, that do not touch it tell the scatter, and

    ratio = (x − mean) / (std · √(1 + 1/(n − 1))),      σ = std · √(1 + 1/(n − 1))

which follows Student's t with n − 2 degrees of freedom where the discs are normal: of 12 discs, a ratio of 5 is a false
alarm a thousand times as often as Gaussian figures say. What is answered as S/N is therefore the normal deviate that is
as rare, and a threshold has the false-alarm rate that is stated for it. The flux is what the subtraction leaves, which
takes part of a source's own.

References: Mawet et al., "Fundamental limitations of high contrast imaging set by small sample statistics", ApJ 2014.
"""

__all__ = ["Subtraction"]

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import ndimage, signal
from torch import Tensor

from ..errors import InputError
from ..methods.detection import Candidate, Detection, candidates_of
from ..methods.small_sample import gaussian_equivalent
from ..operators import FieldRotation
from ..posterior.estimate import Estimate
from ..problem import Problem
from .exoplanet_psf import aperture

_FEWEST = 4  # discs in a ring
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
        image, fwhm, centre = estimate.image[0].double().numpy(), operator.fwhm, operator.centre
        ratio, sigma, flux = small_sample(image, centre, fwhm, self.inner_radius)
        snr = gaussian_equivalent(torch.from_numpy(ratio)[None], fwhm, centre)[0].numpy()
        found = []
        for peak in candidates_of(torch.from_numpy(snr), self.threshold, fwhm):
            row, column = round(peak.y), round(peak.x)
            place = (_FALL * fwhm / peak.snr) ** 2
            covariance = ((float(sigma[row, column]) ** 2, 0.0, 0.0), (0.0, place, 0.0), (0.0, 0.0, place))
            found.append(Candidate(peak.x, peak.y, peak.snr, float(flux[row, column]), covariance))
        maps = {name: torch.from_numpy(values)[None] for name, values in (("snr", snr), ("sigma", sigma))}
        diagnostics = {**estimate.diagnostics, "throughput": "not corrected"}
        return Detection(
            torch.from_numpy(flux)[None], estimate.status, (), diagnostics, **maps, candidates=tuple(found)
        )


def small_sample(
    image: np.ndarray, centre: tuple[float, ...], fwhm: float, inner: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ratio, standard deviation and flux, `(H, W)` each; NaN where a ring has too few discs or leaves the frame.

    Args:
        image: `(H, W)`.
        centre: (row, column).
        fwhm: diameter of a disc, in pixels.
        inner: pixels about the centre that are left out.
    """
    side = 2 * math.ceil(fwhm / 2) + 1
    disc = aperture((side, side), (side // 2, side // 2), fwhm / 2)
    flux = signal.fftconvolve(image, disc, mode="same")
    rows, columns = np.indices(image.shape)
    y, x = rows - centre[0], columns - centre[1]
    radius, theta = np.hypot(y, x), np.arctan2(y, x)
    outer = min(*centre, *(n - 1 - c for n, c in zip(image.shape, centre))) - fwhm / 2
    places = np.floor(2 * np.pi * radius / fwhm).astype(int)
    searched = (radius >= inner) & (radius <= outer) & (places >= _FEWEST)
    snr, sigma = np.full(image.shape, np.nan), np.full(image.shape, np.nan)
    for n in np.unique(places[searched]):
        at = searched & (places == n)
        turns = theta[at][:, None] + 2 * np.pi * np.arange(1, n) / n
        r = radius[at][:, None]
        # The next disc on either side may hold half of a source, and its ring of negative flux.
        others = ndimage.map_coordinates(flux, [centre[0] + r * np.sin(turns), centre[1] + r * np.cos(turns)], order=1)
        sigma[at] = others.std(1, ddof=1) * math.sqrt(1 + 1 / (n - 1))
        snr[at] = (flux[at] - others.mean(1)) / np.maximum(sigma[at], 1e-30)
    return snr, sigma, np.where(np.isfinite(snr), flux, np.nan)
