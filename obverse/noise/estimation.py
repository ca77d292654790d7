"""Reading a camera's noise law off one image.

    y = offset + g·Poisson(m/g) + N(0, σ²)    ⇒    variance(level) = g (level − offset) + σ²

The residual of a mask that removes every bilinear surface, [1 −2 1] ⊗ [1 −2 1], has standard deviation 6σ on white
noise. Pixels are sorted by their local 3×3 mean; in each class of level only those of weakest gradient are kept, and
their variance is read from the residuals. Mean, gradient and residual filters are mutually orthogonal, so for white
noise the choice does not bias the variance. A line is fitted to variance against level by iteratively reweighted least
squares, each class weighted by its precision, with Tukey's weight against classes that texture has inflated.

Assumptions: noise independent from pixel to pixel (no demosaicing, denoising, JPEG or rescaling), a lens that blurs by
about a pixel or more, enough smooth places at different levels, exposure range not saturated. One image cannot tell
offset from read noise: only their combination σ² − g·offset shows. When no offset is given, the darkest level is taken
for it, and `read_noise` is the standard deviation there; the variance law is right for either choice.
Three-dimensional stacks are filtered plane by plane.

Measured on five textured photographs and a ramp, blurred by a Gaussian of 1.2 pixels, at four settings of the camera:
gain within 5 %; read noise within 20 % where the brightest pixels' variance is at most 50 σ², else 40 %. Scenes with
texture in single pixels inflate the gain by 10 % to 60 %.

References: Immerkær, "Fast noise variance estimation", CVIU 1996. Foi, Trimeche, Katkovnik, Egiazarian, "Practical
Poissonian–Gaussian noise modeling and fitting for single-image raw-data", IEEE TIP 2008.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from torch import Tensor

from ..errors import InputError, NumericsError
from .base import Noise
from .gaussian import Gaussian
from .poisson import PoissonGaussian

__all__ = ["NoiseEstimate", "estimate", "gaussian_sigma"]

_MASK_NORM = 6.0  # √Σw² of [1 −2 1]⊗[1 −2 1]
_MAD = 0.67449  # median |n| of a standard normal variable
_CLASSES = 24
_FEWEST = 120  # pixels in a class of level: its variance is then known to about 15 %
_TOO_FEW = 6  # classes for a line that can be trusted
_SMOOTHEST = 0.4  # share of a class that is kept, by gradient
_NEIGHBOURHOOD = 9  # pixels a side over which texture is looked for
_SMOOTHEST_PLACES = 0.1  # share of a picture whose places are smooth enough, and
_PLENTY = 3000  # the residuals from which a median is known to 2 %


@dataclass(frozen=True)
class NoiseEstimate:
    """A camera's constants, as read from one image, in the image's units.

    Args:
        gain: units per count; 0 when the variance does not grow with the level.
        read_noise: standard deviation at the level `offset`.
        offset: level that stands for no light.
        gain_error: standard error of `gain`, from the fit.
        levels: mean level of each class of pixels.
        variances: variance found in each class.
        method: how the numbers were found, in words.
    """

    gain: float
    read_noise: float
    offset: float
    gain_error: float
    levels: tuple[float, ...]
    variances: tuple[float, ...]
    method: str

    def law(self) -> Noise:
        """The noise law of the data once `offset` has been subtracted from them."""
        return PoissonGaussian(self.gain, self.read_noise) if self.gain > 0 else Gaussian(self.read_noise)


def estimate(image: np.ndarray | Tensor, offset: float | None = None) -> NoiseEstimate:
    """Gain and read noise from one image.

    Args:
        image: `(H, W)` or `(D, H, W)`, real, at least 32 pixels along H and W, in camera units.
        offset: level of no light, if known; by default the darkest level of the image.

    Raises:
        InputError: the image is too small, constant, complex or not finite.
        NumericsError: too few smooth pixels to fit anything.
    """
    planes = _planes(image, 32)
    level, gradient, residual = _filtered(planes)
    keep = _unsaturated(planes)
    level, gradient, residual = level[keep], gradient[keep], residual[keep]
    if level.size < 4 * _FEWEST:
        raise NumericsError(
            f"estimate needs at least {4 * _FEWEST} unsaturated pixels, got {level.size}; use a larger image, or pass "
            "gain and read noise from the camera's data sheet"
        )
    levels, variances, counts = _classes(level, gradient, residual, _FEWEST)
    if levels.size < _TOO_FEW:
        # A small picture of a few bright things: smaller classes tell of their brightness, with a larger error.
        levels, variances, counts = _classes(level, gradient, residual, _FEWEST // 4)
    if levels.size == 0 or not (variances > 0).any():
        raise NumericsError("estimate found no noise between neighbouring pixels; pass gain and read noise yourself")
    dark = float(levels.min()) if offset is None else float(offset)
    gain, at_dark, error = _line(levels - dark, variances, counts)
    floor = 1e-4 * float(np.median(variances))
    if gain <= 2.0 * error:
        gain, at_dark = 0.0, float(np.average(variances, weights=counts / variances.clip(floor) ** 2))
    where = "the darkest level" if offset is None else "the given level"
    return NoiseEstimate(
        gain=float(gain),
        read_noise=float(np.sqrt(max(at_dark, floor))),
        offset=dark,
        gain_error=float(error),
        levels=tuple(map(float, levels)),
        variances=tuple(map(float, variances)),
        method=f"variance against level of {levels.size} classes of smooth pixels; offset is {where}",
    )


def gaussian_sigma(image: np.ndarray | Tensor) -> float:
    """Standard deviation of white Gaussian noise, from the median absolute residual of the smoothest places.

    On photographs (32 crops of 256×256 of BSDS500) it is within 10 % for 78, 91, 97 and 100 % of them at 5, 10, 15 and
    50 levels of 255, and too high where no place is smooth, at worst 10 levels where there are 5.

    Args:
        image: `(H, W)` or `(D, H, W)`, real, at least 8 pixels along H and W.
    """
    _, gradient, residual = _filtered(_planes(image, 8))
    # The gradient of one pixel is mostly noise; averaged over a neighbourhood it tells texture.
    gradient = ndimage.uniform_filter(gradient, (1, _NEIGHBOURHOOD, _NEIGHBOURHOOD), mode="reflect")  # type: ignore[arg-type]
    share = min(max(_PLENTY / gradient.size, _SMOOTHEST_PLACES), _SMOOTHEST)
    smooth = gradient <= np.quantile(gradient, share)
    return float(np.median(np.abs(residual[smooth])) / _MAD)


def _planes(image: np.ndarray | Tensor, smallest: int) -> np.ndarray:
    array = image.detach().cpu().numpy() if isinstance(image, Tensor) else np.asarray(image)
    if array.ndim not in (2, 3) or min(array.shape[-2:]) < smallest:
        raise InputError(
            f"expected an image (H, W) or a stack (D, H, W) of at least {smallest}×{smallest} pixels, got "
            f"{array.shape}; take one channel, or a larger field"
        )
    if np.iscomplexobj(array) or array.dtype == bool:
        raise InputError(f"expected real intensities, got {array.dtype}; pass the camera's counts")
    array = array.astype(np.float64).reshape(-1, *array.shape[-2:])
    if not np.isfinite(array).all():
        raise InputError("expected finite intensities, got NaN or Inf; crop to the valid field")
    if np.ptp(array) == 0:
        raise InputError("expected an image with noise, got a constant one; check that the file was read rightly")
    return array


def _filtered(planes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Local mean, squared local gradient and residual (unit gain on white noise), each (planes, H−2, W−2)."""
    second, first, mean = (np.array(w, dtype=float) for w in ([1, -2, 1], [-1, 0, 1], [1, 1, 1]))
    residual = _separable(planes, second, second) / _MASK_NORM
    level = _separable(planes, mean, mean) / 9.0
    vertical, horizontal = _separable(planes, first, mean), _separable(planes, mean, first)
    return level, vertical**2 + horizontal**2, residual


def _separable(planes: np.ndarray, down: np.ndarray, across: np.ndarray) -> np.ndarray:
    rows, columns = planes.shape[1] - 2, planes.shape[2] - 2
    part = sum(down[i] * planes[:, i : i + rows] for i in range(3))
    return np.asarray(sum(across[j] * part[:, :, j : j + columns] for j in range(3)))  # type: ignore[index]


def _unsaturated(planes: np.ndarray) -> np.ndarray:
    """Windows without a pixel at the ceiling, if the image has one (many pixels at its largest value)."""
    top = planes == planes.max()
    if top.mean() < 5e-4:
        return np.ones((planes.shape[0], planes.shape[1] - 2, planes.shape[2] - 2), dtype=bool)
    one = np.ones(3)
    return _separable(top.astype(float), one, one) < 0.5


def _classes(
    level: np.ndarray, gradient: np.ndarray, residual: np.ndarray, fewest: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    share = np.linspace(0.0, 1.0, _CLASSES + 1)
    low, high = np.quantile(level, [0.001, 0.999])
    edges = np.unique(np.concatenate([np.quantile(level, share), low + (high - low) * share]))
    index = np.clip(np.searchsorted(edges, level, side="right") - 1, 0, edges.size - 2)
    order = np.argsort(index, kind="stable")
    rows = []
    for members in np.split(order, np.searchsorted(index[order], np.arange(1, edges.size - 1))):
        if members.size < fewest:
            continue
        smooth = members[np.argsort(gradient[members], kind="stable")[: int(_SMOOTHEST * members.size)]]
        rows.append((level[smooth].mean(), _variance(residual[smooth]), smooth.size))
    return tuple(np.array(column) for column in zip(*rows)) if rows else (np.empty(0),) * 3  # type: ignore[return-value]


def _variance(residual: np.ndarray) -> float:
    """Mean square, with the few residuals beyond 3.5 robust standard deviations (edges) left out."""
    scale = np.median(np.abs(residual)) / _MAD
    inner = residual[np.abs(residual) <= 3.5 * scale] if scale > 0 else residual
    return float(np.mean(inner**2)) * (1.0057 if scale > 0 else 1.0)  # 1.0057: what the cut removes from a normal law


def _line(level: np.ndarray, variance: np.ndarray, count: np.ndarray) -> tuple[float, float, float]:
    """Slope, value at level 0 and standard error of the slope of a robust weighted line."""
    if level.size < 3 or np.ptp(level) == 0:
        return 0.0, float(np.average(variance, weights=count)), np.inf
    model = np.full_like(variance, np.average(variance, weights=count))
    robust = np.ones_like(variance)
    design = np.stack([level, np.ones_like(level)], axis=1)
    slope = start = error = 0.0
    for _ in range(30):
        # a mean square of n residuals that overlap has a relative variance of about 4/n
        precision = count / (4.0 * model**2)
        weight = robust * precision
        normal = design.T @ (weight[:, None] * design)
        slope, start = np.linalg.solve(normal, design.T @ (weight * variance))
        deviation = (variance - design @ [slope, start]) * np.sqrt(precision)
        spread = max(np.median(np.abs(deviation)) / _MAD, 1.0)
        robust = np.clip(1.0 - (deviation / (4.685 * spread)) ** 2, 0.0, None) ** 2 + 1e-6
        error = spread * np.sqrt(np.linalg.inv(normal)[0, 0])
        model = np.maximum(design @ [slope, start], 0.05 * np.median(variance))
    return float(slope), float(start), float(error)
