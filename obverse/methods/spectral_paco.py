"""PACO through several wavelengths at once: `paco_joint` over whole frames, and the candidates in them.

The channels of a sequence show the same speckles, in places and at a strength that the wavelength gives, and sources
elsewhere: what one channel shows of a speckle tells it in the others. `PACO` learns each channel by itself and joins
only what is left, so that it finds less; it is the one to take where wavelengths are few or far apart.

S/N is divided by its spread in rings about the star (`robust_deviation`): the law holds frames to be independent, which
slow speckles are not.
"""

__all__ = ["SpectralPACO"]

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from ..operators.field_rotation import FieldRotation
from ..operators.motion import pixel_grid
from ..problem import Problem
from ..solvers.result import Status
from .base import Callback, silent
from .detection import Candidate, Detection, Peak, candidates_of
from .paco import PACO
from .paco_detection import FilteredFrames, derotated, robust_deviation
from .paco_joint import joint_frames, joint_spectrum
from .paco_spectral import combined, corrected_maximum

_COVERED = 0.5  # of the frames have to see a place
_RING = 2.0  # widths of the PSF: of the rings whose spread is measured


@dataclass(frozen=True, eq=False)
class SpectralPACO:
    """Search for point sources with the statistics of patches and wavelengths together.

    The problem's operator is a `FieldRotation` that knows its wavelengths; its noise law is not used.

    Args:
        patch_radius: of the patches, in pixels of the frames shrunk to the shortest wavelength; by default the whole
            pixels within one full width at half maximum of that wavelength's PSF.
        threshold: S/N from which a peak is a candidate; 5 is usual.
        spectra: relative fluxes to search for, in units of the channels' PSFs: `(L,)` or a library `(G, L)`, each at
            the cost of all; flat by default.

    Raises:
        InputError: an argument is out of range.
    """

    patch_radius: int | None = None
    threshold: float = 5.0
    spectra: Tensor | None = None

    def __post_init__(self):
        if isinstance(self.patch_radius, tuple):
            raise InputError(f"SpectralPACO expects one patch_radius, got {self.patch_radius}; PACO takes several")
        PACO(self.patch_radius, self.threshold, spectra=self.spectra)  # checks the rest

    @torch.no_grad()
    def __call__(self, cube: Tensor, problem: Problem, *, callback: Callback = silent) -> Detection:
        """Maps of flux, its error and S/N, and the candidates; arguments and result are those of `PACO`.

        A candidate has a flux in each channel, whatever it was searched for with, and their mean is its flux; the
        source's own trace in the law is taken out of them. Its place is the peak's, with the error that a peak as wide
        as the PSF has.

        Raises:
            InputError: the operator is no FieldRotation of two wavelengths or more, or the cube does not fit it.
        """
        began = time.perf_counter()
        operator, radius, library = self._prepared(cube, problem)
        double = cube.double()
        filtered = []
        for done, spectrum in enumerate(library, 1):
            filtered.append(joint_frames(double, operator, radius, spectrum))
            callback(done, len(library), 0.0)
        flux, sigma, snr = _answer(filtered, operator, operator.degrees)
        mirrored = _answer(filtered, operator, [-a for a in operator.degrees])[2]
        candidates = []
        for peak in candidates_of(snr, self.threshold, operator.fwhm):
            candidates.append(self._measured(peak, double, operator, radius))
        known = mirrored[mirrored.isfinite()]
        deviation = float(1.4826 * (known - known.median()).abs().median())
        message = (
            f"every place that at least half of the frames see was tested in all channels together; candidates of at "
            f"least {self.threshold:g} standard deviations: {len(candidates)}; with reversed angles S/N has a spread "
            f"of {deviation:.2f} and reaches {float(known.max()):.1f}"
        )
        diagnostics = {
            "seconds": time.perf_counter() - began,
            "patch_radius": radius,
            "fwhm": operator.fwhm,
            "reversed_deviation": deviation,
            "reversed_maximum": float(known.max()),
            "covered": float(snr.isfinite().double().mean()),
        }
        image, error, ratio = (v.to(cube.dtype)[None] for v in (flux, sigma, snr))
        status = Status(True, "closed-form", message)
        return Detection(image, status, (), diagnostics, snr=ratio, sigma=error, candidates=tuple(candidates))

    def _prepared(self, cube: Tensor, problem: Problem) -> tuple[FieldRotation, int, Tensor]:
        operator = problem.operator
        wavelengths = operator.wavelengths if isinstance(operator, FieldRotation) else None
        if not isinstance(operator, FieldRotation) or wavelengths is None or len(wavelengths) < 2:
            raise InputError(
                f"SpectralPACO expects a FieldRotation of two wavelengths or more, got {operator!r}; give wavelengths, "
                "or use PACO"
            )
        PACO(self.patch_radius, self.threshold, spectra=self.spectra)._prepared(cube, problem)
        operator = operator.to(torch.float64)
        shortest = min(wavelengths)
        # every PSF is as wide as that of the shortest wavelength once it is shrunk
        radius = max(1, int(operator.fwhm * shortest * len(wavelengths) / sum(wavelengths)))
        spectra = torch.ones(len(wavelengths)) if self.spectra is None else self.spectra
        return operator, self.patch_radius or radius, spectra.double().reshape(-1, len(wavelengths))

    def _measured(self, peak: Peak, cube: Tensor, operator: FieldRotation, radius: int) -> Candidate:
        """A peak with its spectrum, whose mean over the channels is its flux."""
        fluxes, errors = joint_spectrum(cube, operator, (peak.y, peak.x), radius)
        place = (operator.fwhm / 2.355 / peak.snr) ** 2
        covariance = ((float(errors.mean()), 0.0, 0.0), (0.0, place, 0.0), (0.0, 0.0, place))
        deviations = errors.diagonal().sqrt().tolist()
        return Candidate(
            peak.x, peak.y, peak.snr, float(fluxes.mean()), covariance, tuple(fluxes.tolist()), tuple(deviations)
        )


def _answer(
    filtered: Sequence[list[FilteredFrames]], operator: FieldRotation, degrees: Sequence[float]
) -> tuple[Tensor, Tensor, Tensor]:
    """Flux, deviation and S/N of the best spectrum at each place."""
    centre, distance = (operator.centre[0], operator.centre[1]), _distance(operator)
    answers = []
    for maps in filtered:
        sums = [derotated(each, degrees, centre, overlap=True) for each in maps]
        seen = torch.stack([s for _, _, s in sums]).amax(0) >= _COVERED
        score = torch.stack([b for b, _, _ in sums])
        variance = torch.stack([torch.where(seen & (s >= _COVERED), v, 0.0) for _, v, s in sums])
        # all tests are of the same factor of the spectrum
        flat = score.new_ones(1, len(sums))
        answers.append(torch.stack([m[0] for m in combined(score, variance, flat, distance, operator.fwhm)]))
    flux, spread, snr = torch.stack(answers, 1)
    best = torch.where(snr.isnan(), -math.inf, snr).argmax(0)
    flux, sigma, snr = (v.gather(0, best[None])[0] for v in (flux, spread.sqrt(), snr))
    snr = corrected_maximum(snr, len(filtered))
    deviation = robust_deviation(snr, distance, _RING * operator.fwhm)
    if operator._throughput is not None:
        throughput = operator._throughput.to(flux)
        flux, sigma = flux / throughput, sigma / throughput
        known = flux.isfinite() & sigma.isfinite()
        flux, sigma, snr = (torch.where(known, v, torch.nan) for v in (flux, sigma, snr))
    return flux, sigma * deviation, snr / deviation


def _distance(operator: FieldRotation) -> Tensor:
    rows, columns = pixel_grid(operator.image_shape[1:], operator.psf)
    return (rows - operator.centre[0]).hypot(columns - operator.centre[1])
