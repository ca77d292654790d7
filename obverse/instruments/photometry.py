"""What one picture tells of itself: its background, its camera's noise, and the power spectrum of what was imaged.

    y = b + h ∗ x + n,       E|Y_f|² = |H_f|² S(|f|) + N

The background b is the level of the darkest places. The spectrum S of the object is read from the data's own: in each
ring of frequency, (Σ|Y|² − N)/Σ|H|² where the blurred object stands out of the noise; beyond, where the microscope
passes nothing, the power law of the outer rings is continued, at least as steep as |f|^−(d+1) in d dimensions: the law
of pieces with sharp edges, which is what total variation describes, and without which pixels finer than the resolution
would be granted unlimited detail. That continuation is an assumption, and the part of the uncertainty that rests on it
is the prior's.
"""

__all__ = ["Noise", "background", "field_spectrum", "noise", "object_range", "object_spectrum", "variation_weight"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.signal.windows import tukey

from ..errors import InputError, NumericsError
from ..noise import estimate, gaussian_sigma

_DARK = 0.002  # quantile of the smoothed picture that is taken for background
_STANDS_OUT = 1.0  # blurred object's power over the noise's, from which a ring counts as seen
_STEEPEST = -6.0  # exponent of the power law that the continuation may have
_RANGE = (0.001, 0.999)  # quantiles that stand for the darkest and the brightest of an object
_PASSED = 1e-4  # mean |H|² of a ring from which it tells of the object, and not of errors in the PSF


@dataclass(frozen=True)
class Noise:
    """Gain and read noise in counts, where they come from, and what should be said of them."""

    gain: float
    read_noise: float
    source: str
    warnings: tuple[str, ...] = ()


def background(image: np.ndarray) -> float:
    """The level of the darkest places: a low quantile of the picture, averaged over 5×5 pixels against noise.

    Args:
        image: `(C, H, W)` or `(C, D, H, W)`.
    """
    smooth = ndimage.uniform_filter(image.astype(float), (1,) * (image.ndim - 2) + (5, 5), mode="reflect")  # type: ignore[arg-type]
    return float(np.quantile(smooth, _DARK))


def noise(image: np.ndarray, dark: float, gain: float | str, read_noise: float | str) -> Noise:
    """The camera's constants: as given, or read from the picture.

    Args:
        image: `(C, H, W)` or `(C, D, H, W)`, in counts.
        dark: the background's level.
        gain, read_noise: numbers, or "auto".
    """
    if not isinstance(gain, str) and not isinstance(read_noise, str):
        return Noise(float(gain), float(read_noise), "given")
    planes = image.reshape(-1, *image.shape[-2:])
    warnings: list[str] = []
    try:
        found = estimate(planes if len(planes) > 1 else planes[0], offset=dark)
        source = found.method
        values = [found.gain, found.read_noise]
        if found.gain == 0:
            warnings.append(
                "The noise does not grow with brightness, so it was taken as Gaussian; if the camera counts photons, "
                "give its gain and read_noise."
            )
        elif found.gain_error > 0.3 * found.gain:
            warnings.append(
                f"The gain is known to {100 * found.gain_error / found.gain:.0f} % only; give gain and read_noise "
                "from the camera's data sheet for a reliable uncertainty."
            )
    except (InputError, NumericsError) as error:
        source = "median residual of smooth pixels"
        values = [0.0, gaussian_sigma(planes if len(planes) > 1 else planes[0])]
        warnings.append(
            f"The noise law could not be read from the picture ({error}); white Gaussian noise was assumed. Give gain "
            "and read_noise if they are known."
        )
    if not isinstance(gain, str):
        values[0] = float(gain)
    if not isinstance(read_noise, str):
        values[1] = float(read_noise)
    step = _quantum(image)
    least = step / np.sqrt(12)
    if values[1] < least:
        values[1] = least  # rounding to whole steps is noise as well
    if values[1] <= 0:
        values[1] = 1e-3 * float(image.max() - image.min())
        warnings.append("No noise was found in the picture; a thousandth of its range was assumed. Give read_noise.")
    return Noise(float(values[0]), float(values[1]), source, tuple(warnings))


def object_spectrum(
    image: np.ndarray, transfer: np.ndarray, noise_variance: float, spacing: Sequence[float]
) -> dict[str, list[float]]:
    """The variance of the object's orthonormal Fourier modes against frequency.

    Args:
        image: `(C, H, W)` or `(C, D, H, W)`, background taken off.
        transfer: |H|² on the same grid, FFT order.
        noise_variance: mean variance of a pixel's noise.
        spacing: pixel size per spatial axis, in any unit.

    Returns:
        `frequency` (cycles per unit of `spacing`) and `power`, in squared units of the image.
    """
    axes = tuple(range(1, image.ndim))
    window = np.ones(())
    for axis in axes:
        n = image.shape[axis]
        taper = tukey(n, 0.5) if n >= 16 else np.ones(n)
        window = window * taper.reshape([n if a == axis else 1 for a in range(1, image.ndim)])
    mean = np.mean(image, axis=axes, keepdims=True)
    power = np.abs(np.fft.fftn((image - mean) * window, axes=axes, norm="ortho")) ** 2 / np.mean(window**2)
    power = power.mean(axis=0)
    radius = _radius(image.shape[1:], spacing)
    step = max(1 / (n * s) for n, s in zip(image.shape[-2:], spacing[-2:]))
    ring = np.rint(radius / step).astype(int).ravel()
    seen_power, passed, number = (np.bincount(ring, v.ravel()) for v in (power, transfer, np.ones_like(power)))
    excess = seen_power - noise_variance * number
    # The mean was taken off and the window leaks: the two coarsest rings say little of the object.
    good = (
        (excess > _STANDS_OUT * noise_variance * number) & (passed > _PASSED * number) & (np.arange(len(number)) >= 2)
    )
    first_lost = int(np.argmin(good[2:])) + 2 if not good[2:].all() else len(good)
    if first_lost < 6:
        raise NumericsError("no more than three rings of frequency stand out of the noise")
    rings = np.arange(2, first_lost)
    value = excess[rings] / passed[rings]
    outer = rings[len(rings) // 2 :]
    slope = np.polyfit(np.log(outer), np.log(value[len(rings) // 2 :]), 1, w=np.sqrt(number[outer]))[0]
    slope = float(np.clip(slope, _STEEPEST, -image.ndim))  # image.ndim is d + 1, with its channel axis
    last = float(np.exp(np.mean(np.log(value[-3:]) + slope * (np.log(rings[-1]) - np.log(rings[-3:])))))
    beyond = np.arange(first_lost, len(number))
    tail = last * (beyond / rings[-1]) ** slope
    frequency = np.concatenate([rings, beyond]) * step
    return {"frequency": frequency.tolist(), "power": np.concatenate([value, tail]).tolist()}


def field_spectrum(spectrum: Mapping[str, Any], shape: Sequence[int], spacing: Sequence[float]) -> np.ndarray:
    """The spectrum found by `object_spectrum` on another grid, FFT order."""
    frequency, power = np.asarray(spectrum["frequency"]), np.asarray(spectrum["power"])
    radius = np.clip(_radius(shape, spacing), frequency[0], frequency[-1])
    return np.exp(np.interp(np.log(radius), np.log(frequency), np.log(power)))


def variation_weight(
    image: np.ndarray, transfer: np.ndarray, spectrum: np.ndarray, noise_variance: float, spacing: Sequence[float]
) -> tuple[float, float]:
    """The Bayesian weight of total variation, and the mean gradient that it follows from.

    The prior exp(−w TV(x)) of N pixels has E[TV] = N/w, so that w = N/E[TV(x) | y] is its maximum-likelihood value. The
    expectation is taken under the Wiener posterior of the fitted spectrum: E|g| ≈ √(|E g|² + π/2 · variance of g).

    Args:
        image: `(C, H, W)` or `(C, D, H, W)`, background taken off.
        transfer, spectrum: |H|² and S on its grid, FFT order.
        noise_variance: of a pixel.
        spacing: of the total variation, per spatial axis.
    """
    axes = tuple(range(1, image.ndim))
    error = spectrum * noise_variance / (transfer * spectrum + noise_variance)
    estimate_ = _wiener(image, transfer, spectrum, noise_variance)
    total = np.zeros_like(estimate_)
    for axis, s in zip(axes, spacing):
        response = np.abs(np.exp(2j * np.pi * np.fft.fftfreq(image.shape[axis])) - 1) ** 2 / s**2
        shape = [-1 if a == axis else 1 for a in axes]
        variance = float(np.mean(error * response.reshape(shape)))
        total += ((np.roll(estimate_, -1, axis) - estimate_) / s) ** 2 + np.pi / 2 * variance
    gradient = float(np.mean(np.sqrt(total)))
    return 1 / gradient, gradient


def object_range(
    image: np.ndarray, transfer: np.ndarray, spectrum: np.ndarray, noise_variance: float
) -> tuple[float, float]:
    """The darkest and brightest of what was imaged, by quantiles of its Wiener estimate that few pixels cannot move.

    A blurred picture is darker at its brightest places than the object was. Arguments as in `variation_weight`.
    """
    mean = np.mean(image, axis=tuple(range(1, image.ndim)), keepdims=True)
    low, high = np.quantile(mean + _wiener(image, transfer, spectrum, noise_variance), _RANGE)
    return min(float(low), 0.0), float(high)


def _wiener(image: np.ndarray, transfer: np.ndarray, spectrum: np.ndarray, noise_variance: float) -> np.ndarray:
    """The posterior mean under a field of this spectrum, less its mean; the blur is taken as symmetric."""
    axes = tuple(range(1, image.ndim))
    response = np.sqrt(transfer) * spectrum / (transfer * spectrum + noise_variance)
    mean = np.mean(image, axis=axes, keepdims=True)
    return np.fft.ifftn(np.fft.fftn(image - mean, axes=axes) * response, axes=axes).real


def _radius(shape: Sequence[int], spacing: Sequence[float]) -> np.ndarray:
    grid = np.meshgrid(*(np.fft.fftfreq(n, s) for n, s in zip(shape, spacing)), indexing="ij")
    return np.sqrt(sum(g**2 for g in grid))


def _quantum(image: np.ndarray) -> float:
    """The step between neighbouring values of a picture of few levels, 0 where there is none to be seen."""
    if image.dtype.kind in "ui":
        return 1.0
    levels = np.unique(image.ravel()[:65536])
    return float(np.min(np.diff(levels))) if 1 < len(levels) < 512 else 0.0
