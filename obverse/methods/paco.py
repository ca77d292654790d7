"""PACO: point sources beside a star, from the statistics of patches learned on the very frames.

The background of every patch is a Gaussian law with a mean and a covariance of its own (`patch_statistics`). Against it
each place on the sky is tested along the way that the field's rotation takes a source there (`paco_detection`), with
patches of one size or several (`paco_scales`); what is found is measured again without its own trace in the background
(`paco_source`); channels are combined (`paco_spectral`).

References: Flasseur, Denis, Thiébaut, Langlois, "Exoplanet detection in angular differential imaging by statistical
learning of the nonstationary patch covariances. The PACO algorithm", A&A 2018.
"""

__all__ = ["PACO"]

import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from ..errors import InputError
from ..operators.field_rotation import FieldRotation
from ..operators.motion import pixel_grid
from ..problem import Problem
from ..solvers.result import Status
from .base import Callback, silent
from .detection import Candidate, Detection, Peak, candidates_of
from .paco_detection import MAD, FilteredFrames, derotated, filtered_frames, robust_deviation
from .paco_scales import joined_scales
from .paco_source import fit_source
from .paco_spectral import combined, corrected_maximum
from .source_spectrum import nearest_spectrum, source_spectrum

_CALIBRATIONS = ("leave-one-out", "robust", None)
_COVERED = 0.5  # of the frames have to see a place
_FEWEST = 4  # frames
_RING = 2.0  # widths of the PSF: of the rings whose spread "robust" measures


@dataclass(frozen=True, eq=False)
class PACO:
    """Search for point sources with patch covariances.

    The problem's operator is a `FieldRotation`; its noise law is not used, since noise and speckles are learned.

    Args:
        patch_radius: of the patches, in pixels; by default the whole pixels within one full width at half maximum of
            the PSF. More pixels than frames leave little to learn from. Several radii are joined in one test of each
            place (`joined_scales`), at the cost of each; what is found is measured again with the first.
        threshold: S/N from which a peak is a candidate; 5 is usual.
        calibration: what makes S/N N(0, 1) where there is no source. "leave-one-out": each frame is tested by the law
            of the others, and the spread of such tests is measured. "robust": the form of the paper, divided by the
            spread of its S/N in rings about the star. None: the form of the paper as it is, whose S/N is too small.
        frame_scales: give each frame of a patch its own scale, which takes bad frames back.
        spectra: of cubes with L channels, the relative fluxes to search for, in units of the channels' PSFs: `(L,)` or
            a library `(G, L)`; flat by default. A candidate's flux is the factor of the spectrum that fits it best.

    Raises:
        InputError: an argument is out of range.

    Example:
        >>> import obverse as ob
        >>> y, x = torch.meshgrid(torch.arange(-3.0, 4.0), torch.arange(-3.0, 4.0), indexing="ij")
        >>> A = ob.operators.FieldRotation((1, 25, 25), torch.linspace(0, 90, 20), torch.exp(-(x**2 + y**2) / 2))
        >>> noise = torch.randn(20, 25, 25, generator=torch.Generator().manual_seed(0))
        >>> found = PACO()(noise + A.source((12.0, 20.0), 3.0), ob.Problem(A, ob.noise.Gaussian(1.0)))
        >>> [(round(c.x), round(c.y)) for c in found.candidates]
        [(20, 12)]
    """

    patch_radius: int | tuple[int, ...] | None = None
    threshold: float = 5.0
    _: KW_ONLY
    calibration: str | None = "leave-one-out"
    frame_scales: bool = False
    spectra: Tensor | None = None

    def __post_init__(self):
        radii = self.patch_radius if isinstance(self.patch_radius, tuple) else (self.patch_radius,)
        whole = all(type(radius) is int and radius >= 1 for radius in radii) and len(radii) == len(set(radii)) > 0
        if not whole and self.patch_radius is not None:
            raise InputError(
                f"PACO expects a whole patch_radius of at least 1 pixel, or several different ones, got "
                f"{self.patch_radius!r}; None takes the PSF's"
            )
        if not math.isfinite(self.threshold):
            raise InputError(f"PACO expects a finite threshold, got {self.threshold}; 5 is usual")
        if self.calibration not in _CALIBRATIONS:
            raise InputError(f"PACO expects a calibration among {_CALIBRATIONS}, got {self.calibration!r}; choose one")
        if self.spectra is not None and (self.spectra.ndim not in (1, 2) or not bool(self.spectra.isfinite().all())):
            raise InputError(
                f"PACO expects finite spectra (L,) or (G, L), got shape {tuple(self.spectra.shape)}; "
                "give one number for each channel"
            )

    @torch.no_grad()
    def __call__(self, cube: Tensor, problem: Problem, *, callback: Callback = silent) -> Detection:
        """Maps of flux, its error and S/N, and the candidates, each with its flux and place.

        Args:
            cube: `problem.operator.data_shape`; a pixel that is NaN in some frame is not used.
            callback: told of (channels done, channels, 0.0).

        Returns:
            Detection. The maps' flux is that of the test, too small where a source is; a candidate's flux, place and
                covariance are those of `characterise`, and its S/N that of the map. Diagnostics hold the spread of S/N
                over the frame, and the spread and the largest S/N with the angles reversed, where no source adds up.

        Raises:
            InputError: the operator is no FieldRotation, or the cube does not fit it.
        """
        began = time.perf_counter()
        operator, radius = self._prepared(cube, problem)
        filtered = self._filtered(cube, operator, callback)
        flux, sigma, snr = self._answer(filtered, operator, operator.degrees)
        mirrored = self._answer(filtered, operator, [-a for a in operator.degrees])[2]
        peaks = candidates_of(snr, self.threshold, operator.fwhm)
        candidates = [self._candidate(peak, cube, operator, radius, flux, sigma) for peak in peaks]
        diagnostics = {
            "seconds": time.perf_counter() - began,
            "patch_radius": radius if self.patch_radius is None else self.patch_radius,
            "fwhm": operator.fwhm,
            "snr_deviation": _spread(snr),
            "reversed_deviation": _spread(mirrored),
            "reversed_maximum": float(mirrored[mirrored.isfinite()].max()),
            "covered": float(snr.isfinite().double().mean()),
            "shrinkage": float(torch.stack([f.shrinkage.median() for f in filtered]).mean()),
            "dispersion": float(torch.stack([f.dispersion.median() for f in filtered]).mean()),
            "scale_rounds": max(f.rounds for f in filtered),
            "refined": sum(refined for _, refined in candidates),
        }
        message = (
            f"every place that at least half of the frames see was tested; candidates of at least "
            f"{self.threshold:g} standard deviations: {len(peaks)}; with reversed angles S/N has a spread of "
            f"{diagnostics['reversed_deviation']:.2f} and reaches {diagnostics['reversed_maximum']:.1f}"
        )
        maps = (v.to(cube.dtype)[None] for v in (flux, sigma, snr))
        image, error, ratio = maps
        return Detection(
            image,
            Status(True, "closed-form", message),
            (),
            diagnostics,
            snr=ratio,
            sigma=error,
            candidates=tuple(candidate for candidate, _ in candidates),
        )

    def maps(self, cube: Tensor, problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
        """Flux, its standard deviation and S/N, each `(1, H, W)`, with gradients to the cube; arguments as for a call.

        NaN where fewer than half of the frames see a place.
        """
        operator, _ = self._prepared(cube, problem)
        flux, sigma, snr = self._answer(self._filtered(cube, operator, silent), operator, operator.degrees)
        return flux.to(cube.dtype)[None], sigma.to(cube.dtype)[None], snr.to(cube.dtype)[None]

    def characterise(self, cube: Tensor, problem: Problem, position: tuple[float, float]) -> Candidate:
        """Flux and place of the source near a position, with the background learned without it.

        Args:
            position: (row, column) on the sky, within about half the PSF's width of the source.

        Returns:
            Candidate: its S/N is its flux over the flux's standard deviation.

        Raises:
            InputError: no source of positive flux is found within one width of the PSF, or an argument is not as above.
        """
        operator, radius = self._prepared(cube, problem)
        found = self._fitted(cube, operator, radius, position)
        if found is None:
            raise InputError(
                f"PACO found no source of positive flux within {operator.fwhm:.1f} pixels of {tuple(position)}; start "
                "from a candidate of the S/N map"
            )
        return found

    def _prepared(self, cube: Tensor, problem: Problem) -> tuple[FieldRotation, int]:
        operator = problem.operator
        if not isinstance(operator, FieldRotation):
            raise InputError(
                f"PACO expects a FieldRotation, got {type(operator).__name__}; build one from angles and PSF"
            )
        if tuple(cube.shape) != operator.data_shape or not cube.is_floating_point():
            raise InputError(
                f"PACO expects one floating-point cube of shape {operator.data_shape}, got {tuple(cube.shape)} of "
                f"{cube.dtype}; check the order of its axes"
            )
        if cube.shape[-3] < _FEWEST:
            raise InputError(f"PACO expects at least {_FEWEST} frames to learn from, got {cube.shape[-3]}; add frames")
        if self.spectra is not None and self.spectra.shape[-1] != operator.image_shape[0]:
            raise InputError(
                f"PACO expects spectra of {operator.image_shape[0]} channels, got {self.spectra.shape[-1]}; "
                "give one number for each"
            )
        operator = operator.to(torch.float64)
        return operator, self._radii(operator)[0]

    def _radii(self, operator: FieldRotation) -> tuple[int, ...]:
        if self.patch_radius is None:
            return (max(1, int(operator.fwhm)),)
        return self.patch_radius if isinstance(self.patch_radius, tuple) else (self.patch_radius,)

    def _filtered(self, cube: Tensor, operator: FieldRotation, callback: Callback) -> list[FilteredFrames]:
        """Of every channel, and in it of every radius."""
        double = cube.double()
        channels, planes = (double[None], operator.psf[None]) if cube.ndim == 3 else (double, operator.psf)
        filtered = []
        left_out = self.calibration == "leave-one-out"
        for done, (plane, frames) in enumerate(zip(planes, channels), 1):
            for radius in self._radii(operator):
                maps = filtered_frames(frames, plane, radius, left_out=left_out, frame_scales=self.frame_scales)
                filtered.append(maps)
            callback(done, len(channels), 0.0)
        return filtered

    def _answer(
        self, filtered: list[FilteredFrames], operator: FieldRotation, degrees: Sequence[float]
    ) -> tuple[Tensor, ...]:
        """Flux, standard deviation and S/N, `(H, W)` each, NaN where not covered."""
        centre = (operator.centre[0], operator.centre[1])
        left_out = self.calibration == "leave-one-out"
        rows, columns = pixel_grid(operator.image_shape[1:], operator.psf)
        distance = (rows - centre[0]).hypot(columns - centre[1])
        turned = [derotated(maps, degrees, centre, overlap=left_out) for maps in filtered]
        sizes = len(filtered) // operator.image_shape[0]
        sums = [joined_scales(turned[i : i + sizes], distance, operator.fwhm) for i in range(0, len(turned), sizes)]
        seen = torch.stack([s for _, _, s in sums]).amin(0) >= _COVERED
        score, variance = (torch.stack(parts) for parts in list(zip(*sums))[:2])
        spectra = self._library(len(score), score)
        flux, spread, snr = combined(score, torch.where(seen, variance, 0.0), spectra, distance, operator.fwhm)
        best = torch.where(snr.isnan(), -math.inf, snr).argmax(0, keepdim=True)
        flux, sigma, snr = (v.gather(0, best)[0] for v in (flux, spread.sqrt(), snr))
        snr = corrected_maximum(snr, len(spectra))
        if not bool(snr.isfinite().any()):
            raise InputError(
                "PACO expects places that half of the frames see and where the field turns, got none; check the "
                "angles, the centre and which pixels have values"
            )
        if operator._throughput is not None:
            throughput = operator._throughput.to(flux)
            flux, sigma = flux / throughput, sigma / throughput
            known = flux.isfinite() & sigma.isfinite()
            flux, sigma, snr = (torch.where(known, v, torch.nan) for v in (flux, sigma, snr))
        if self.calibration == "robust":
            deviation = robust_deviation(snr, distance, _RING * operator.fwhm)
            sigma, snr = sigma * deviation, snr / deviation
        return flux, sigma, snr

    def _library(self, channels: int, like: Tensor) -> Tensor:
        if self.spectra is None:
            return like.new_ones(1, channels)
        return self.spectra.to(like).reshape(-1, channels)

    def _candidate(
        self, peak: Peak, cube: Tensor, operator: FieldRotation, radius: int, flux: Tensor, sigma: Tensor
    ) -> tuple[Candidate, bool]:
        """A peak measured again, or as the maps have it where that fails; and whether it was."""
        found = self._fitted(cube, operator, radius, (peak.y, peak.x))
        if found is not None:
            return dataclasses.replace(found, snr=peak.snr), True
        row, column = round(peak.y), round(peak.x)
        place = (operator.fwhm / 2.355 / peak.snr) ** 2  # of a peak as wide as a Gaussian PSF, in white noise
        variances = (float(sigma[row, column]) ** 2, place, place)
        covariance = tuple(tuple(variances[i] if i == j else 0.0 for j in range(3)) for i in range(3))
        return Candidate(peak.x, peak.y, peak.snr, float(flux[row, column]), covariance), False

    def _fitted(
        self, cube: Tensor, operator: FieldRotation, radius: int, position: tuple[float, float]
    ) -> Candidate | None:
        double, spectrum = cube.detach().double(), None
        start = (float(position[0]), float(position[1]))
        if cube.ndim == 4:
            library = self._library(len(cube), operator.psf)
            spectrum = library[0]
            if len(library) > 1:
                spectrum = nearest_spectrum(library, *source_spectrum(double, operator, start, radius))
        fit = fit_source(double, operator, start, radius, spectrum=spectrum, frame_scales=self.frame_scales)
        moved = math.hypot(fit.position[0] - start[0], fit.position[1] - start[1])
        if not fit.converged or moved > operator.fwhm or fit.flux <= 0 or fit.covariance[0][0] <= 0:
            return None
        row, column = fit.position
        measured = () if cube.ndim == 3 else source_spectrum(double, operator, fit.position, radius)
        return Candidate(column, row, fit.flux / math.sqrt(fit.covariance[0][0]), fit.flux, fit.covariance, *measured)


def _spread(snr: Tensor) -> float:
    """Standard deviation of a map by its median absolute deviation."""
    values = snr[snr.isfinite()]
    return float(MAD * (values - values.median()).abs().median())
