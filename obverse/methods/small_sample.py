"""Signal-to-noise ratios near a star, where few places are left to learn the noise from.

At a distance r from the star there is room for n = ⌊2πr/FWHM⌋ apertures of one FWHM side by side. Of an aperture whose
sum is x, with mean m and standard deviation s (n − 2 degrees of freedom) of the n₂ = n − 1 others,

    S/N = (x − m) / (s √(1 + 1/n₂))

follows Student's law with n₂ − 1 degrees of freedom where the sums are alike, independent and Gaussian: far heavier
tails than the normal law's near the star. `gaussian_equivalent` gives the normal deviate of the same probability, and
`student_factor` by how many s a source must stand out to be as unlikely a false alarm as a normal deviate of 5.

References: Mawet et al., "Fundamental limitations of high contrast imaging set by small sample statistics", ApJ 2014.
"""

__all__ = [
    "aperture_sums",
    "gaussian_equivalent",
    "places_at",
    "ring_angles",
    "small_sample_maps",
    "small_sample_snr",
    "student_factor",
]

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor

from ..errors import InputError
from ..operators.convolution import Convolution
from ..operators.motion import centre_of, pixel_grid

_FEWEST = 4  # apertures on a ring: two degrees of freedom
_FINER = 32  # samples along each side of a pixel that a disc's edge crosses
_AT_ONCE = 2**20  # apertures that are looked up together


def small_sample_snr(image: Tensor, fwhm: float, centre: Sequence[float] | None = None) -> Tensor:
    """S/N of an aperture at each pixel against the others at its distance from the star.

    Args:
        image: the combined residual, `(1, H, W)`.
        fwhm: of the PSF in pixels: the apertures' diameter.
        centre: (row, column) of the star; ((H − 1)/2, (W − 1)/2) by default.

    Returns:
        `(1, H, W)`; NaN where a ring holds fewer than four apertures or leaves the image.

    Raises:
        InputError: the image is not of that shape or not finite, or no ring has room.

    Example:
        >>> image = torch.randn(1, 31, 31, generator=torch.Generator().manual_seed(0))
        >>> image[0, 15, 24] += 30.0
        >>> snr = small_sample_snr(image, 3.0)
        >>> bool(snr[0, 15, 24] > 8), bool(snr[0, 15, 15].isnan())
        (True, True)
    """
    return small_sample_maps(image, fwhm, centre)[0]


def small_sample_maps(
    image: Tensor, fwhm: float, centre: Sequence[float] | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The S/N of `small_sample_snr`, its denominator s √(1 + 1/n₂), and the apertures' sums x: `(1, H, W)` each.

    All three are NaN at the same pixels; arguments and errors as there.
    """
    sums, centre = aperture_sums(image, fwhm), _centre(image, centre)
    up, right = _from_centre(image, centre)
    distance = up.hypot(right)
    count = (2 * math.pi * distance / fwhm).floor()
    known = (count >= _FEWEST) & (distance <= _reach(image, fwhm, centre))
    if not bool(known.any()):
        raise InputError(
            f"small-sample S/N expects room for a ring of {_FEWEST} apertures, got an image {tuple(image.shape)} and a "
            f"fwhm of {fwhm:g}; give a larger image"
        )
    snr, spread = (torch.full_like(distance, math.nan) for _ in range(2))
    places = torch.nonzero(known)
    most = int(count[known].max())
    for part in places.split(max(1, _AT_ONCE // most)):
        rows, columns = part.unbind(1)
        n, r = count[rows, columns], distance[rows, columns]
        start = torch.atan2(up[rows, columns], right[rows, columns])
        index = torch.arange(1, most, dtype=r.dtype, device=r.device)
        angle = start[:, None] + 2 * math.pi * index / n[:, None]
        others = _looked_up(sums, centre, r[:, None], angle)
        there = index < n[:, None]
        n2 = n - 1
        mean = (others * there).sum(1) / n2
        variance = ((others - mean[:, None]).square() * there).sum(1) / (n2 - 1)
        spread[rows, columns] = (variance * (1 + 1 / n2)).sqrt()
        snr[rows, columns] = (sums[rows, columns] - mean) / spread[rows, columns]
    maps = (snr, spread, sums.where(known, math.nan))
    return tuple(each[None].to(image) for each in maps)  # type: ignore[return-value]


def gaussian_equivalent(snr: Tensor, fwhm: float, centre: Sequence[float] | None = None) -> Tensor:
    """The normal deviates that are as improbable as a map of small-sample S/N: at most as large, and equal far out.

    Args:
        snr: of `small_sample_snr`, `(1, H, W)`, and `fwhm` and `centre` as there.

    Example:
        >>> snr = torch.full((1, 101, 101), 5.0)
        >>> near, far = gaussian_equivalent(snr, 5.0)[0, 50, [55, 98]].tolist()
        >>> round(near, 2), round(far, 2)
        (2.67, 4.54)
    """
    centre = _centre(snr, centre)
    up, right = _from_centre(snr, centre)
    count = (2 * math.pi * up.hypot(right) / fwhm).floor()
    freedom = (count - 2).clamp_min(1).cpu().numpy()
    # the probability of the tail away from zero, so that large values of either sign keep their digits
    tail = stats.t.sf(snr[0].double().abs().cpu().numpy(), freedom)
    deviate = torch.from_numpy(stats.norm.isf(tail)).to(snr.device)
    return torch.where(count >= _FEWEST, deviate * snr[0].sign(), math.nan)[None].to(snr)


def places_at(radius: float, fwhm: float) -> int:
    """How many apertures of one FWHM find room on a circle about the star, both in pixels.

    >>> places_at(4.6, 4.6)
    6
    """
    return math.floor(2 * math.pi * radius / fwhm)


def student_factor(elements: int, level: float = 5.0) -> float:
    """τ such that a source of τ times the standard deviation of `elements` apertures is as unlikely a false alarm as a
    normal deviate of `level`.

    Example:
        >>> [round(student_factor(n), 1) for n in (6, 12, 18, 50, 10000)]
        [34.4, 10.7, 7.9, 5.8, 5.0]
    """
    if elements < 2:
        raise InputError(f"student_factor expects at least two apertures, got {elements}; go further from the star")
    return float(stats.t.isf(stats.norm.sf(level), elements - 1)) * math.sqrt(1 + 1 / elements)


def aperture_sums(image: Tensor, fwhm: float) -> Tensor:
    """Σ of the image over a disc of diameter `fwhm` at each pixel, parts of pixels counted as parts: `(H, W)`, float64.

    The image is mirrored at its edges.
    """
    if image.ndim != 3 or len(image) != 1:
        raise InputError(f"aperture sums expect an image (1, H, W), got {tuple(image.shape)}; pass one image")
    if not bool(image.isfinite().all()):
        raise InputError("aperture sums expect a finite image, got NaN or Inf; fill what is masked with zeros")
    if not (math.isfinite(fwhm) and fwhm > 0):
        raise InputError(f"aperture sums expect a positive fwhm in pixels, got {fwhm}")
    return Convolution(_disc(fwhm / 2).to(image.device), image.shape, "reflect")(image.double())[0]


def ring_angles(radius: float, fwhm: float, starts: int = 1) -> Tensor:
    """Angles in radians of the ⌊2πr/FWHM⌋ apertures of a ring, from `starts` different first ones: `(starts, n)`."""
    count = places_at(radius, fwhm)
    places = torch.arange(count, dtype=torch.float64) + torch.arange(starts, dtype=torch.float64)[:, None] / starts
    return 2 * math.pi * places / count


def _looked_up(sums: Tensor, centre: Sequence[float], radius: Tensor | float, angle: Tensor) -> Tensor:
    """The sums at places between the pixels, by bicubic interpolation: discs of pixels make them smooth enough."""
    rows, columns = centre[0] + radius * angle.sin(), centre[1] + radius * angle.cos()
    height, width = sums.shape
    grid = torch.stack([2 * columns / (width - 1) - 1, 2 * rows / (height - 1) - 1], -1)[None]
    return F.grid_sample(sums[None, None], grid.to(sums), "bicubic", "border", True)[0, 0]


def _disc(radius: float) -> Tensor:
    """The part of each pixel that lies in a disc about the middle one."""
    half = math.ceil(radius)
    size = 2 * half + 1
    fine = (torch.arange(size * _FINER, dtype=torch.float64) + 0.5) / _FINER - size / 2
    inside = (fine[:, None].square() + fine.square() <= radius**2).double()
    return F.avg_pool2d(inside[None], _FINER)[0]


def _reach(image: Tensor, fwhm: float, centre: Sequence[float]) -> float:
    """Radius of the largest ring whose apertures lie in the image."""
    return min(min(c + 0.5, n - 0.5 - c) for c, n in zip(centre, image.shape[1:])) - fwhm / 2


def _centre(image: Tensor, centre: Sequence[float] | None) -> tuple[float, ...]:
    return centre_of(image.shape[1:]) if centre is None else tuple(float(c) for c in centre)


def _from_centre(image: Tensor, centre: Sequence[float]) -> tuple[Tensor, Tensor]:
    rows, columns = pixel_grid(image.shape[1:], torch.empty(0, dtype=torch.float64, device=image.device))
    return rows - centre[0], columns - centre[1]
