"""Local correlation: what the errors of neighbouring pixels share once the leading components are taken out.

    z = D^-½ (x − U Uᵀ x),      E z(r) z(r+δ) ≈ ρ(δ),  ρ(0) = 1, zero outside a window

ρ is a kernel with few lags, one for all channels, fitted in Fourier to the power of tapered tiles (Welch's estimate)

    E I(f) = Σ_δ a(δ) ρ(δ) e^{−2πi f·δ} = m(f),      ρ = argmin Σ_f (I(f) − m(f))² / m(f)²

(a: the taper's autocorrelation) by reweighted least squares, which maximises Whittle's likelihood. The error is
relative at every frequency: data that know grey levels well leave little power at low frequencies, and the mean of a
region lives on that little. Truncating ρ̂, or tapering it to make it positive, would drown it. Where the spectrum is
negative after all, ρ(0) is raised before ρ is normalised.

References: Whittle, "Estimation and information in stationary time series", Arkiv för Matematik 1953. Welch, "The use
of fast Fourier transform for the estimation of power spectra", IEEE Trans. Audio Electroacoust. 1967. Dahlhaus,
Künsch, "Edge effects and efficient parameter estimation for stationary random fields", Biometrika 1987.
"""

import itertools
import math
from collections.abc import Sequence

import torch
from scipy.fft import next_fast_len
from torch import Tensor

from ..errors import InputError
from ..solvers.linear import cg

__all__ = ["LocalCorrelation", "TileSpectrum", "check_kernel", "fitted_kernel"]

# Lags kept on either side, and sides of the tiles, by number of spatial axes; the last two axes are the wide ones.
_LAGS = {1: (24,), 2: (24, 24), 3: (4, 12, 12)}
_TILE = {1: (128,), 2: (128, 128), 3: (32, 64, 64)}
# A correlation below this is not followed; nor is one below this many standard errors.
_LEAST, _ERRORS = 0.01, 5.0
# Power below this fraction of the mean is fitted as if it were this large.
_FLOOR = 1e-4
_REWEIGHTINGS = 6


class LocalCorrelation:
    """The correlation matrix R of a kernel on a grid: R v = ρ ∗ v, with zeros around the image.

    Args:
        kernel: ρ, odd-sized, `(kh, kw)` or `(kd, kh, kw)`.
        grid: spatial sizes of the image.
    """

    def __init__(self, kernel: Tensor, grid: Sequence[int]):
        self.grid = tuple(grid)
        self._axes = tuple(range(-len(self.grid), 0))
        # Room for half a kernel keeps the two ends of the periodic grid apart.
        self.padded = tuple(_fast(max(m + k // 2, k)) for m, k in zip(self.grid, kernel.shape))
        self._spectrum = torch.fft.rfftn(_embedded(kernel.double(), self.padded)).real.clamp_min(0)
        self._cut = (..., *(slice(0, m) for m in self.grid))

    def apply(self, images: Tensor) -> Tensor:
        """R v for images `(*batch, C, *grid)`."""
        return self._filtered(images, self._spectrum)

    def root(self, white: Tensor) -> Tensor:
        """R^½ applied to white noise `(*batch, C, *padded)`: images with covariance R in every channel."""
        return self._filtered(white, self._spectrum.sqrt())

    def _filtered(self, images: Tensor, spectrum: Tensor) -> Tensor:
        transformed = torch.fft.rfftn(images, s=self.padded, dim=self._axes) * spectrum.to(images)
        return torch.fft.irfftn(transformed, s=self.padded, dim=self._axes)[self._cut]


class TileSpectrum:
    """The power of images in tapered, half-overlapping tiles, gathered a few images at a time.

    Args:
        grid: spatial sizes of the images.
    """

    def __init__(self, grid: Sequence[int]):
        self.grid = tuple(grid)
        self.tile = tuple(min(m, largest) for m, largest in zip(self.grid, _TILE[len(self.grid)]))
        tapers = [_taper(m) for m in self.tile]
        self._axes = tuple(range(-len(self.tile), 0))
        self._window = _product(tapers)
        self.overlap = _product([_overlap(taper) for taper in tapers])
        """a(δ) in FFT order, on the tile."""
        self._sum = torch.zeros(self.tile, dtype=torch.float64)
        self._images, self._tiles, self.pixels = 0, 0, 0

    def add(self, images: Tensor, signs: Tensor | None = None) -> None:
        """Take in zero-mean images `(n, C, *grid)`, or products C z with white `signs` z of the same shape.

        F w (Cz) · conj F w z has the mean of |F w d|² over draws d of covariance C, where C cannot be drawn from.
        """
        flat = images.detach().reshape(-1, *self.grid).to(self._sum)
        other = flat if signs is None else signs.detach().reshape(-1, *self.grid).to(self._sum)
        starts = [_starts(m, t) for m, t in zip(self.grid, self.tile)]
        for corner in itertools.product(*starts):
            cut = (..., *(slice(c, c + t) for c, t in zip(corner, self.tile)))
            part, with_it = (torch.fft.fftn(f[cut] * self._window, dim=self._axes) for f in (flat, other))
            self._sum = self._sum + (part * with_it.conj()).real.sum(0)
            self._tiles += len(flat)
        self._images += len(images)
        self.pixels += flat.numel()

    @property
    def mean(self) -> Tensor:
        """I(f), the mean power of an image and channel; 1 for white noise of variance 1."""
        return self._sum / (max(self._tiles, 1) * self._window.square().sum())

    @property
    def error(self) -> float:
        """Standard error of a correlation in white noise: the taper leaves Σw⁴/(Σw²)² of the pixels' worth."""
        worth = self._window.square().sum().square() / (self._window.pow(4).sum() * self._window.numel())
        return 1 / math.sqrt(float(worth) * max(self.pixels, 1))

    @property
    def total(self) -> Tensor:
        """The power of a channel, summed over images."""
        return self._images * self.mean

    def expected(self, covariance: Tensor) -> Tensor:
        """E I(f) of images whose covariance at lag δ is given on the periodic grid, FFT order."""
        lags = covariance.to(self._sum)
        for axis, (m, t) in enumerate(zip(self.grid, self.tile)):
            kept = torch.cat([torch.arange((t + 1) // 2), torch.arange(m - t // 2, m)])
            lags = lags.index_select(axis, kept)
        return torch.fft.fftn(self.overlap * lags).real.clamp_min(0)


def fitted_kernel(power: Tensor, overlap: Tensor, error: float = 0.0) -> Tensor | None:
    """The correlation kernel of whitened images' power; None where no neighbours are correlated by 1 % or more.

    Args:
        power: I(f) ≥ 0, FFT order, about 1 on average.
        overlap: a(δ), FFT order, 1 at the origin.
        error: standard error of one correlation.

    Returns:
        ρ, odd-sized, float64, with ρ(0) = 1 and a spectrum ≥ 0 at every frequency.
    """
    mean = float(power.mean())
    if not mean > 1e-6:
        return None
    correlation = torch.fft.ifftn(power / mean).real
    radii = _reach(correlation, overlap, _ERRORS * error * float(correlation.square().sum().sqrt()))
    if max(radii) == 0:
        return None
    window = tuple(2 * radius + 1 for radius in radii)
    grid, seen = tuple(power.shape), _centred(overlap, window)
    target = torch.fft.rfftn(correlation).real
    hann = _product([torch.hann_window(m + 2, periodic=False, dtype=torch.float64)[1:-1] for m in window])
    kernel = _centred(correlation, window) / seen * hann

    def projected(spectrum: Tensor) -> Tensor:
        return _centred(torch.fft.irfftn(spectrum, s=grid), window) * seen

    for _ in range(_REWEIGHTINGS):
        model = torch.fft.rfftn(_embedded(kernel * seen, grid)).real
        weight = model.clamp_min(_FLOOR).square().reciprocal()

        def normal(k: Tensor, weight: Tensor = weight) -> Tensor:
            return projected(torch.fft.rfftn(_embedded(k * seen, grid)).real * weight)

        kernel = cg(normal, projected(target * weight), x0=kernel, tolerance=1e-4, max_iterations=100).x
    return _legal(kernel)


def check_kernel(kernel: Tensor, axes: int) -> None:
    """Refuse what is not the correlation kernel of an image with so many spatial axes.

    Raises:
        InputError: its shape is wrong, ρ(0) ≠ 1, it is not symmetric, or its spectrum is negative somewhere.
    """
    if kernel.ndim != axes or not all(m % 2 for m in kernel.shape):
        raise InputError(
            f"a correlation kernel expects {axes} odd sizes such as {(31,) * axes}, got {tuple(kernel.shape)}; pad it"
        )
    wide = kernel.detach().double()
    centre = float(wide[tuple(m // 2 for m in wide.shape)])
    least = float(_fine_spectrum(wide).min()) if bool(wide.isfinite().all()) else math.nan
    symmetric = bool((wide - wide.flip(tuple(range(axes)))).abs().max() <= 1e-5)
    if not (symmetric and abs(centre - 1) <= 1e-5 and least >= -1e-4):
        raise InputError(
            "a correlation kernel expects ρ(0) = 1, ρ(δ) = ρ(−δ) and a spectrum ≥ 0, got "
            f"ρ(0) = {centre:.6g}, {'a symmetric' if symmetric else 'an asymmetric'} one with a least power of "
            f"{least:.3g}; fit it with Covariance.compact"
        )


def _legal(kernel: Tensor) -> Tensor:
    """Symmetric, with a spectrum ≥ 0 and ρ(0) = 1; between two frequencies of the fine grid too, but for rounding."""
    kernel = (kernel + kernel.flip(tuple(range(kernel.ndim)))) / 2
    centre = tuple(m // 2 for m in kernel.shape)
    legal = kernel.clone()
    legal[centre] += max(0.0, -float(_fine_spectrum(kernel).min()))
    return legal / legal[centre]


def _fine_spectrum(kernel: Tensor) -> Tensor:
    return torch.fft.rfftn(_embedded(kernel, [1 if m == 1 else _fast(4 * m) for m in kernel.shape])).real


def _reach(correlation: Tensor, overlap: Tensor, least: float) -> tuple[int, ...]:
    """Per axis: twice the farthest lag with a correlation of 1 %, above `least` as seen through the taper; limited."""
    limits = [min(m // 3, lags) for m, lags in zip(correlation.shape, _LAGS[correlation.ndim])]
    window = tuple(2 * limit + 1 for limit in limits)
    near = _centred(correlation, window).abs() >= (_LEAST * _centred(overlap, window)).clamp_min(least)
    radii = []
    for axis, limit in enumerate(limits):
        others = tuple(a for a in range(near.ndim) if a != axis)
        along = near.any(dim=others) if others else near
        lags = (torch.arange(len(along)) - limit).abs()[along]
        radii.append(min(limit, 2 * int(lags.max())))
    return tuple(radii)


def _embedded(kernel: Tensor, grid: Sequence[int]) -> Tensor:
    """The kernel on a periodic grid, its centre at the origin."""
    padding = [entry for m, k in zip(reversed(grid), reversed(kernel.shape)) for entry in (0, m - k)]
    whole = torch.nn.functional.pad(kernel, padding)
    return torch.roll(whole, [-(k // 2) for k in kernel.shape], tuple(range(kernel.ndim)))


def _centred(lags: Tensor, window: Sequence[int]) -> Tensor:
    """The lags of a window, its centre the origin, out of an array in FFT order."""
    rolled = torch.roll(lags, [k // 2 for k in window], tuple(range(lags.ndim)))
    return rolled[tuple(slice(0, k) for k in window)]


def _fast(m: int) -> int:
    return int(next_fast_len(m, real=True) or m)


def _taper(m: int) -> Tensor:
    """Hann's, which keeps strong frequencies from leaking into weak ones; nothing on an axis too short to have any."""
    return torch.hann_window(m + 2, periodic=False, dtype=torch.float64)[1:-1] if m > 2 else torch.ones(m).double()


def _overlap(taper: Tensor) -> Tensor:
    """Autocorrelation of a taper, 1 at the origin, at the lags of a periodic grid of its length."""
    lags = torch.fft.irfft(torch.fft.rfft(taper, 2 * len(taper)).abs().square(), 2 * len(taper))
    order = torch.arange(len(taper))
    return lags[torch.minimum(order, len(taper) - order)] / taper.square().sum()


def _starts(m: int, tile: int) -> list[int]:
    steps = math.ceil(2 * (m - tile) / tile)
    return [round(step * (m - tile) / steps) for step in range(steps + 1)] if steps else [0]


def _product(factors: Sequence[Tensor]) -> Tensor:
    whole = factors[0]
    for factor in factors[1:]:
        whole = whole[..., None] * factor
    return whole
