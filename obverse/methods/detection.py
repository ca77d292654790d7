"""What a search for point sources answers with: maps of flux, its error and their ratio, and the candidates in them.

    S/N(p) = f(p)/σ(p),    f the flux of a source at p, σ its standard deviation where there is none

A candidate is a local maximum of S/N above a threshold. Where S/N is N(0, 1) off the sources, a threshold τ raises a
false alarm in a fraction 1 − Φ(τ) of independent pixels: 2.9e-7 at τ = 5. Its place between the pixels is the vertex of
the parabola through the maximum and its two neighbours along each axis: exact for a paraboloid, and biased towards the
pixel by a few hundredths where the peak is as narrow as two pixels.
"""

__all__ = ["Candidate", "Detection", "Peak", "candidates_of"]

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import InputError
from ..posterior.estimate import Estimate

_SYMMETRY = 1e-6  # of the geometric mean of the two variances: rounding, not another convention


class Peak(NamedTuple):
    """A maximum of a map: column, row, and height."""

    x: float
    y: float
    snr: float


@dataclass(frozen=True)
class Candidate:
    """A point source that was found, and how well its flux and place are known.

    Args:
        x: its column in the derotated image, in pixels.
        y: its row.
        snr: its signal-to-noise ratio.
        flux: in units of the PSF that was searched for.
        covariance: of (flux, x, y): three rows of three.
        spectrum: its flux in each channel, where there are several; empty where they were not measured.
        spectrum_deviation: the standard deviation of each.

    Raises:
        InputError: a value is not finite, or the covariance is not a covariance.

    Example:
        >>> found = Candidate(52.0, 50.0, 7.5, 30.0, ((16.0, 0.0, 0.0), (0.0, 0.01, 0.0), (0.0, 0.0, 0.01)))
        >>> found.separation((50.0, 50.0)), found.angle((50.0, 50.0))
        (2.0, 0.0)
    """

    x: float
    y: float
    snr: float
    flux: float
    covariance: tuple[tuple[float, ...], ...]
    spectrum: tuple[float, ...] = ()
    spectrum_deviation: tuple[float, ...] = ()

    def __post_init__(self):
        if not all(map(math.isfinite, (self.x, self.y, self.snr, self.flux))):
            raise InputError(
                f"a Candidate expects finite numbers, got x={self.x}, y={self.y}, snr={self.snr}, flux={self.flux}; "
                "leave out what lies where nothing was measured"
            )
        if len(self.spectrum) != len(self.spectrum_deviation) or not all(
            map(math.isfinite, (*self.spectrum, *self.spectrum_deviation))
        ):
            raise InputError(
                f"a Candidate expects finite fluxes and one deviation for each, got {self.spectrum} and "
                f"{self.spectrum_deviation}; leave both empty where they were not measured"
            )
        matrix = self.covariance
        if len(matrix) != 3 or any(len(row) != 3 for row in matrix):
            raise InputError(f"a Candidate expects a covariance of (flux, x, y), 3 × 3, got {matrix}")
        scale = [math.sqrt(v) if v >= 0 and math.isfinite(v) else math.nan for v in (matrix[i][i] for i in range(3))]
        for i in range(3):
            for j in range(3):
                limit = scale[i] * scale[j] * (1 + _SYMMETRY)
                even = abs(matrix[i][j] - matrix[j][i]) <= _SYMMETRY * scale[i] * scale[j]
                if not (abs(matrix[i][j]) <= limit and even):
                    raise InputError(
                        f"a Candidate expects a symmetric covariance with finite variances of at least zero and "
                        f"correlations of at most one, got {matrix}"
                    )

    def separation(self, centre: Sequence[float]) -> float:
        """Distance from `centre` (row, column), in pixels."""
        row, column = centre
        return math.hypot(self.x - column, self.y - row)

    def angle(self, centre: Sequence[float]) -> float:
        """Position angle about `centre` (row, column) in degrees from 0 to 360: anticlockwise from +x, rows upward."""
        row, column = centre
        return math.degrees(math.atan2(self.y - row, self.x - column)) % 360.0


@dataclass(frozen=True, eq=False)
class Detection(Estimate):
    """Maps of a search for point sources, and the candidates above its threshold.

    A pixel where no source could be searched for is NaN in all three maps.

    Args:
        image: flux of a source at each pixel, `(1, H, W)`, in units of the PSF.
        snr: signal-to-noise ratio, `(1, H, W)`.
        sigma: standard deviation of the flux, `(1, H, W)`.
        candidates: strongest first.

    Raises:
        InputError: the maps differ in shape or in the pixels that they cover, cover none, or hold infinite values.

    Example:
        >>> from obverse.solvers.result import Status
        >>> flux = torch.tensor([[[1.0, float("nan")]]])
        >>> Detection(flux, Status(True, "closed-form", "exact"), snr=flux / 0.5, sigma=0.5 * flux).covered
        tensor([[[ True, False]]])
    """

    _: KW_ONLY
    snr: Tensor
    sigma: Tensor
    candidates: tuple[Candidate, ...] = ()

    def __post_init__(self) -> None:
        maps = {"image": self.image, "snr": self.snr, "sigma": self.sigma}
        for name, values in maps.items():
            if values.ndim != 3 or len(values) != 1 or values.shape != self.image.shape:
                raise InputError(
                    f"a Detection expects maps (1, H, W) of one shape, got {name} of {tuple(values.shape)} beside an "
                    f"image of {tuple(self.image.shape)}"
                )
            if bool(values.isinf().any()):
                raise InputError(
                    f"a Detection expects finite maps, got infinite {name}; set NaN where nothing is known"
                )
        unknown = self.image.isnan()
        if not all(torch.equal(values.isnan(), unknown) for values in maps.values()):
            raise InputError("a Detection expects NaN at the same pixels of image, snr and sigma, got different ones")
        if bool(unknown.all()):
            raise InputError(
                "a Detection expects some pixel that is covered, got NaN everywhere; check centre and mask"
            )
        object.__setattr__(self, "history", tuple(self.history))
        object.__setattr__(self, "diagnostics", dict(self.diagnostics))

    @property
    def covered(self) -> Tensor:
        """Where a source could be searched for, `(1, H, W)`, boolean."""
        return ~self.image.isnan()


def candidates_of(snr: Tensor, threshold: float, fwhm: float) -> tuple[Peak, ...]:
    """Local maxima of a map of at least `threshold`, strongest first, no two closer than `fwhm`.

    Args:
        snr: the map, `(1, H, W)` or `(H, W)`; NaN where it is not known.
        threshold: the least height of a peak's pixel.
        fwhm: full width at half maximum of the PSF in pixels: of two maxima closer than this the higher one stays.

    Returns:
        Peaks, each the vertex of a parabola along each axis, at most half a pixel from its pixel along each. The height
            is that of the pixel, which the threshold was compared with.

    Raises:
        InputError: the map has another shape, or the threshold or width are out of range.

    Example:
        >>> candidates_of(torch.tensor([[0.0, 1.0, 0.0], [1.0, 6.0, 3.0], [0.0, 1.0, 0.0]]), 5.0, 2.0)
        (Peak(x=1.125, y=1.0, snr=6.0),)
    """
    image = snr[0] if snr.ndim == 3 and len(snr) == 1 else snr
    if image.ndim != 2:
        raise InputError(f"candidates_of expects a map (1, H, W) or (H, W), got {tuple(snr.shape)}; pass one map")
    if not (math.isfinite(threshold) and math.isfinite(fwhm) and fwhm > 0):
        raise InputError(
            f"candidates_of expects a finite threshold and a positive fwhm, got {threshold} and {fwhm}; 5 is usual"
        )
    image = image.detach().double().cpu()
    known = torch.where(image.isnan(), -math.inf, image)
    padded = torch.nn.functional.pad(known, (1, 1, 1, 1), value=-math.inf)
    height, width = known.shape
    shifts = [(i, j) for i in range(3) for j in range(3) if (i, j) != (1, 1)]
    around = torch.stack([padded[i : i + height, j : j + width] for i, j in shifts]).amax(0)
    rows, columns = torch.nonzero((known >= around) & (known >= threshold), as_tuple=True)
    order = torch.argsort(known[rows, columns], descending=True, stable=True)
    peaks: list[Peak] = []
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        x = column + _vertex(*padded[row + 1, column : column + 3].tolist())
        y = row + _vertex(*padded[row : row + 3, column + 1].tolist())
        if all(math.hypot(x - peak.x, y - peak.y) >= fwhm for peak in peaks):
            peaks.append(Peak(x, y, float(known[row, column])))
    return tuple(peaks)


def _vertex(before: float, peak: float, after: float) -> float:
    """Where the parabola through three values, the middle one the highest, has its vertex; 0 beside the unknown."""
    curvature = 2 * peak - before - after
    return 0.5 * (after - before) / curvature if 0 < curvature < math.inf else 0.0
