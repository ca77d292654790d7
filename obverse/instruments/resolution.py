"""How fine a picture resolves: Fourier ring and shell correlation.

    FRC(q) = Re Σ_{|k|≈q} A_k conj(B_k) / √(Σ|A_k|² Σ|B_k|²)

Two pictures of one object agree at coarse frequencies and stop agreeing where noise begins; the resolution is the
period at which the correlation first falls below 1/7. The second picture may be another acquisition, one by a better
instrument, or, where there is only one, its own split: with noise of variance v and an independent draw n of that
variance,

    y ± n       have independent noise, each of variance 2v.

No linear, shift-invariant filter changes the correlation, so a Wiener filter neither gains nor loses by this measure.
Shared artefacts raise it; a reconstruction should be judged by the correlation of reconstructions of both halves, or
with an independent reference.

References: Saxton, Baumeister, "The correlation averaging of a regularly arranged bacterial cell envelope protein",
J. Microscopy 1982. Nieuwenhuizen et al., "Measuring image resolution in optical nanoscopy", Nature Methods 2013.
Oliveira, Lei, Tibshirani, "Unbiased risk estimation in the normal means problem via coupled bootstrap", 2021.
"""

__all__ = ["FourierCorrelation", "frc", "split"]

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.signal.windows import tukey

from ..errors import InputError

THRESHOLD = 1 / 7
_TAPER = 0.2  # part of each axis over which the window falls to zero, against the jump at the borders


@dataclass(frozen=True)
class FourierCorrelation:
    """A Fourier ring (2-D) or shell (3-D) correlation.

    Args:
        frequency: of each ring, in cycles per unit of the pixel size.
        correlation: at each ring, −1 to 1.
        samples: Fourier coefficients in each ring.
        cutoff: frequency at which the correlation first falls below the threshold; None if it never does.
        threshold: usually 1/7.
    """

    frequency: tuple[float, ...]
    correlation: tuple[float, ...]
    samples: tuple[int, ...]
    cutoff: float | None
    threshold: float

    @property
    def resolution(self) -> float:
        """Smallest period that is resolved, in the unit of the pixel size; of two pixels if all rings correlate."""
        return 1 / (self.cutoff if self.cutoff else self.frequency[-1])


def frc(
    a: np.ndarray, b: np.ndarray, pixel_size: float | Sequence[float] = 1.0, threshold: float = THRESHOLD
) -> FourierCorrelation:
    """Correlation of two pictures, ring by ring.

    Args:
        a, b: pictures (H, W) or stacks (D, H, W) of one shape, registered to a fraction of a pixel.
        pixel_size: one number, or one per axis.
        threshold: of the correlation.

    Raises:
        InputError: shapes differ, an axis has fewer than 8 samples in the plane, or a picture is constant.

    Example:
        >>> noise = np.random.default_rng(0).standard_normal((2, 64, 64))
        >>> frc(noise[0], noise[0]).cutoff is None, frc(noise[0], noise[1]).correlation[20] < 0.5
        (True, True)
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.shape != b.shape or a.ndim not in (2, 3) or min(a.shape[-2:]) < 8:
        raise InputError(f"Fourier ring correlation expects two pictures of one shape, got {a.shape} and {b.shape}")
    size = (pixel_size,) * a.ndim if isinstance(pixel_size, int | float) else tuple(pixel_size)
    if len(size) != a.ndim or not min(size) > 0:
        raise InputError(f"the pixel size expects {a.ndim} positive numbers, got {size}; give one per axis")
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        raise InputError("Fourier ring correlation expects pictures, got a constant one; check the input")
    window = np.ones(())
    for axis, n in enumerate(a.shape):
        shape = [n if k == axis else 1 for k in range(a.ndim)]
        window = window * (tukey(n, 2 * _TAPER).reshape(shape) if n > 8 else 1.0)
    fa, fb = (np.fft.fftn((v - np.average(v, weights=np.broadcast_to(window, v.shape))) * window) for v in (a, b))
    grid = np.meshgrid(*(np.fft.fftfreq(n, s) for n, s in zip(a.shape, size)), indexing="ij")
    radius = np.sqrt(sum(g**2 for g in grid))
    # Rings as wide as the coarsest frequency step of the plane, up to the Nyquist frequency of its coarser axis.
    step = max(1 / (n * s) for n, s in zip(a.shape[-2:], size[-2:]))
    last = int(min(0.5 / s for s in size[-2:]) / step)
    index = np.rint(radius / step).astype(int).ravel()
    inside = index <= last

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(index[inside], values.ravel()[inside], minlength=last + 1)

    energy = np.sqrt(total(np.abs(fa) ** 2) * total(np.abs(fb) ** 2))
    correlation = total((fa * fb.conj()).real) / np.where(energy > 0, energy, 1)
    samples = np.bincount(index[inside], minlength=last + 1)
    frequency = np.arange(last + 1) * step
    return FourierCorrelation(
        tuple(frequency[1:].tolist()),
        tuple(correlation[1:].tolist()),
        tuple(samples[1:].tolist()),
        _first_below(frequency[1:], correlation[1:], samples[1:], threshold),
        threshold,
    )


def split(image: np.ndarray, variance: np.ndarray | float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two pictures with independent noise, each of twice the variance, made of one picture.

    Exact for Gaussian noise; for counts it is close from about ten counts a pixel.

    Args:
        image: the picture.
        variance: of its noise, a number or an array of its shape.
    """
    image = np.asarray(image, float)
    draw = np.random.default_rng(seed).standard_normal(image.shape) * np.sqrt(variance)
    return image + draw, image - draw


def _first_below(frequency: np.ndarray, correlation: np.ndarray, samples: np.ndarray, threshold: float) -> float | None:
    """Where the curve, averaged over three rings by their samples, first crosses the threshold."""
    kernel = np.ones(3)
    smooth = np.convolve(correlation * samples, kernel, "same") / np.convolve(samples, kernel, "same")
    below = np.flatnonzero(smooth < threshold)
    if below.size == 0:
        return None
    i = int(below[0])
    if i == 0:
        return float(frequency[0])
    part = (smooth[i - 1] - threshold) / (smooth[i - 1] - smooth[i])
    return float(frequency[i - 1] + part * (frequency[i] - frequency[i - 1]))
