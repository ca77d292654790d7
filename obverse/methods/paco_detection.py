"""PACO over whole frames: filter every patch once, turn the filtered maps, and sum them.

With the template h centred on each pixel n there are maps a_t(n) and b_t(n) (see `patch_statistics`), and a source at φ
on the sky, whose place in frame t is φ_t, has S/N = Σ_t b_t(φ_t) / √(Σ_t a_t(φ_t)). To be N(0, 1) off the sources this
needs four things beyond a and b.

Turning. Interpolation that averages neighbours takes variance from b; Fourier interpolation of b or a rings where their
size changes by orders of magnitude near the star. So z = b/√a, of the same variance everywhere, is turned by three
unitary shears (`Rotate`), and a, which is positive and varies slowly, by bilinear weights:

    b_t(φ_t) = √(a_t(φ_t)) · (R z_t)(φ),    variance a_t(φ_t)

Leaving out. b_t and a_t come from the law that the other frames teach.

Dispersion. C is known from T frames only, and b then varies by κ a with κ > 1: 1.2 where ρ is near one, 2 where T is
near K. κ(n) is the mean of b²/a over the frames and over a window as wide as a patch; a and b are divided by it.

Mean. A source that moves by less than its width in the whole sequence is in m too, and noise as well: with b's from
frames s and t correlated by −ψ/(T − 1), ψ(|n − n'|) the correlation of z at two places in one frame (measured),

    variance of Σ b = T/(T − 1) Σ_s (1 − f_s) a_s(φ_s),    f_s = (1/T) Σ_t ψ(|φ_s − φ_t|)

This is the precision of the flux. It falls to zero towards the star, where nothing turns.

The dispersion takes frames to be independent: speckles that last for several frames make S/N wider than N(0, 1), which
`robust_deviation` measures on the map itself.

References: as in `patch_statistics`.
"""

__all__ = ["MAD", "FilteredFrames", "derotated", "filtered_frames", "robust_deviation"]

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..operators import Rotate
from .patch_statistics import Patches, PatchStatistics, seen_pixels

_BAND_BYTES = 64 * 2**20  # of working memory for the patches of a band of rows
_ARRAYS = 6  # of the size of a band's patches that are alive at once
MAD = 1.4826  # standard deviation of a normal law over its median absolute deviation


@dataclass(frozen=True, eq=False)
class FilteredFrames:
    """Maps of the tests of every patch, in the frames' own orientation.

    Args:
        precision: a, `(T, H, W)`, or `(1, H, W)` where all frames have the same.
        score: b, `(T, H, W)`.
        shrinkage: ρ, `(H, W)`.
        dispersion: κ by which both were divided, `(H, W)`; 1 without calibration.
        rounds: of the fixed point of the scales, the most that a patch took.
    """

    precision: Tensor
    score: Tensor
    shrinkage: Tensor
    dispersion: Tensor
    rounds: int

    @property
    def normalised(self) -> Tensor:
        """z = b/√a, and zero where no source can be seen: `(T, H, W)`."""
        known = self.precision > 0
        return torch.where(known, self.score / torch.where(known, self.precision, 1.0).sqrt(), 0.0)


def filtered_frames(
    cube: Tensor, psf: Tensor, radius: int, *, left_out: bool, frame_scales: bool = False
) -> FilteredFrames:
    """Test every patch of a cube `(T, H, W)` for the PSF `(h, w)`, a band of rows after the other."""
    frames, height, width = cube.shape
    patches = Patches(cube, seen_pixels(cube), radius)
    template = sampled(psf, patches.offsets)
    columns = torch.arange(width, device=cube.device)
    size = len(template) * (_ARRAYS * frames + 4 * len(template)) * width * cube.element_size()
    band = max(1, _BAND_BYTES // size)
    pieces, rounds = [], 0
    for first in range(0, height, band):
        rows = torch.arange(first, min(first + band, height), device=cube.device)
        grid = torch.cartesian_prod(rows, columns)
        values, seen = patches.at(grid[:, 0], grid[:, 1])
        law = PatchStatistics.learned(values, seen, frame_scales)
        b, a = (law.left_out if left_out else law.tested)((template * seen)[..., None])
        scale = (a[:, 0, 0] / law.weights).mean(-1, keepdim=True)  # the mean over the frames left out
        precision = scale * law.weights if frame_scales else scale
        maps = (precision.mT, b[:, 0].mT, law.shrinkage[None])
        pieces.append([m.reshape(len(m), len(rows), width) for m in maps])
        rounds = max(rounds, law.rounds)
    precision, score, rho = (torch.cat(parts, 1) for parts in zip(*pieces))
    shown = FilteredFrames(precision, score, rho[0], torch.ones_like(rho[0]), rounds)
    if not left_out:
        return shown
    power = shown.normalised.square().mean(0)
    kappa = windowed(power, (precision > 0).all(0).to(power), radius)
    return FilteredFrames(precision / kappa, score / kappa, rho[0], kappa, rounds)


def derotated(
    maps: FilteredFrames,
    degrees: Sequence[float],
    centre: tuple[float, float],
    *,
    overlap: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Σ b on the sky, its variance, and the fraction of the frames that see each place: three maps `(H, W)`.

    Args:
        degrees: pa_t, one for each frame.
        centre: (row, column) of the star.
        overlap: whether the variance knows of the noise that the mean over the frames takes away.
    """
    z = maps.normalised
    frames, height, width = z.shape
    turned = Rotate(z.shape, degrees, centre=centre, dtype=z.dtype)(z)
    angles = torch.tensor([math.radians(a) for a in degrees], dtype=z.dtype, device=z.device)
    correlation = noise_correlation(z, (maps.precision > 0).all(0)) if overlap else None
    score = variance = seen = z.new_zeros(height, width)
    away = [torch.arange(n, dtype=z.dtype, device=z.device) - c for n, c in zip((height, width), centre)]
    distance = (away[0][:, None].square() + away[1].square()).sqrt()
    for t in range(frames):
        precision = maps.precision[min(t, len(maps.precision) - 1)]
        both = torch.stack([precision, (precision > 0).to(precision)])
        a, inside = _turned_positive(both, float(angles[t]), away, centre)
        score = score + torch.where(a > 0, torch.where(a > 0, a, 1.0).sqrt() * turned[t], 0.0)
        if correlation is not None:
            lost = lost_to_mean(correlation, distance, angles - angles[t])
            a = a * (1 - lost) * (frames / (frames - 1))
        variance, seen = variance + a, seen + inside
    return score, variance, seen / frames


def robust_deviation(snr: Tensor, distance: Tensor, width: float) -> Tensor:
    """Standard deviation of S/N about the star, as a map: from the median absolute deviation in rings.

    Args:
        snr: `(H, W)`, NaN where not known.
        distance: from the star in pixels, `(H, W)`.
        width: of a ring in pixels; rings lie at every half of it, with linear interpolation between them.
    """
    values, known = snr.detach(), snr.detach().isfinite()
    middles = torch.arange(0.0, float(distance[known].max()) + width, width / 2).to(distance)
    levels = []
    for middle in middles:
        # widened where a ring is short, so that it holds some tens of independent values
        half = width / 2 * max(1.0, 3.0 * width / max(float(middle), width))
        ring = values[known & ((distance - middle).abs() <= half)]
        levels.append(MAD * (ring - ring.median()).abs().median() if len(ring) > 1 else values.new_tensor(math.nan))
    found = torch.stack(levels)
    found = torch.where(found > 0, found, found[found > 0].median())
    place = (distance / (width / 2)).clamp(max=len(middles) - 1.001)
    below = place.floor().long()
    return torch.lerp(found[below], found[below + 1], place - below)


def sampled(psf: Tensor, offsets: Tensor) -> Tensor:
    """The PSF about its pixel (h // 2, w // 2) at whole offsets `(K, 2)`, zero beyond its array: `(K,)`."""
    reach = int(offsets.abs().max())
    padded = torch.nn.functional.pad(psf, (reach,) * 4)
    middle = torch.tensor([n // 2 + reach for n in psf.shape], device=psf.device)
    rows, columns = (offsets + middle).unbind(1)
    return padded[rows, columns]


def windowed(values: Tensor, weight: Tensor, radius: int) -> Tensor:
    """Weighted mean of images `(*, H, W)` over squares of 2 radius + 1 pixels; 1 where nothing has weight."""
    side = 2 * radius + 1

    def total(image: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(image[None], side, 1, radius)[0]

    mass = total(weight)
    known = mass > 0.5 / side**2
    mean = total(values * weight) / torch.where(known, mass, 1.0)
    return torch.where(known & (mean > 0), mean, 1.0)


def noise_correlation(z: Tensor, seen: Tensor) -> Tensor:
    """ψ at distances of 0, 1, 2, … pixels, the mean over directions, places and frames; zero at the last."""
    size = [2 * n for n in z.shape[1:]]
    mask = seen.to(z.dtype)
    power = sum(torch.fft.rfft2(frame * mask, s=size).abs().square() for frame in z)
    product = torch.fft.irfft2(power, s=size)
    pairs = torch.fft.irfft2(torch.fft.rfft2(mask, s=size).abs().square(), s=size).round() * len(z)
    lags = [torch.fft.fftfreq(n, 1 / n, dtype=z.dtype, device=z.device) for n in size]
    lag = (lags[0][:, None].square() + lags[1].square()).sqrt().flatten()
    count = min(z.shape[1:]) // 2
    near = lag < count
    product, pairs = product.flatten()[near], pairs.flatten()[near]
    below, part = _between(lag[near])
    sums = z.new_zeros(2, count + 1)
    for index, weight in ((below, 1 - part), (below + 1, part)):
        sums = sums.index_add(1, index, torch.stack([product, pairs]) * weight)
    value = sums[0] / sums[1].clamp(min=1.0)
    value = value / value[0]
    return torch.cat([value[:-1], value.new_zeros(1)])


def lost_to_mean(correlation: Tensor, distance: Tensor, angles: Tensor) -> Tensor:
    """f at each distance from the star: the mean of ψ over chords of the given angles."""
    last = len(correlation) - 1
    radii = torch.arange(0.0, float(distance.max()) + 2.0, 0.5).to(distance)
    chord = (2 * radii[:, None] * (angles / 2).sin().abs()).clamp(max=last - 1e-6)
    below, part = _between(chord)
    mean = torch.lerp(correlation[below], correlation[below + 1], part).mean(1)
    place = 2 * distance
    below = place.long()
    return torch.lerp(mean[below], mean[below + 1], place - below)


def _between(distance: Tensor) -> tuple[Tensor, Tensor]:
    """The whole number below a distance, and the part of the way to the next in terms of its square: ψ is a parabola
    near zero, and lines between the pixels would lose what a source moves by."""
    below = distance.floor()
    return below.long(), (distance.square() - below.square()) / (2 * below + 1)


def _turned_positive(
    maps: Tensor, angle: float, away: list[Tensor], centre: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Maps `(2, H, W)` turned by `angle` (radians, anticlockwise with rows upward), bilinear, zero beyond the frame."""
    up, right = away[0][:, None], away[1]
    rows = centre[0] + up * math.cos(angle) - right * math.sin(angle)
    columns = centre[1] + right * math.cos(angle) + up * math.sin(angle)
    places = torch.stack([columns, rows], -1)
    size = torch.tensor([maps.shape[2], maps.shape[1]], dtype=maps.dtype, device=maps.device)
    grid = (2 * places + 1) / size - 1
    first, second = torch.nn.functional.grid_sample(maps[None], grid[None], align_corners=False)[0]
    return first, second
