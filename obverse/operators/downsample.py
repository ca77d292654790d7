"""Fewer, larger pixels: blur, then keep every f-th pixel, without computing the others (polyphase).

    y[m] = (h ∗ x)[f·m + phase]

The phase (f − 1) // 2 makes a data pixel sit at the middle of the f image pixels that it stands for, in the convention
that n pixels have their centre at (n − 1)/2. That is exact when the kernel's size is even for even f and odd for odd f,
as it is for the named kernels; otherwise it is half an image pixel off.

With a circular boundary A Aᴴ is a circular convolution on the coarse grid, whose eigenvalues are the mean of |ĥ|² over
the frequencies that alias onto each other. So with one noise variance

    (w AᴴA + d I)⁻¹ b = (b − Aᴴ (A Aᴴ + (d/w) I)⁻¹ A b) / d.

References: Vaidyanathan, "Multirate systems and filter banks", Prentice Hall 1993. Keys, "Cubic convolution
interpolation for digital image processing", IEEE TASSP 1981. Zhao et al., "Fast single image super-resolution using a
new analytical solution for l2-l2 problems", IEEE TIP 2016.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from .axis_filter import AxisFilter
from .base import LinearOperator, constant_like
from .boundary import extend, fold, require_boundary
from .filters import as_kernel, by_parts, separate
from .inverse import divide_spectrum
from .spectral import transfer_function

__all__ = ["Downsample"]

_KERNELS = ("box", "gaussian", "cubic")
_CONVOLVE = {4: F.conv2d, 5: F.conv3d}
_CONVOLVE_ADJOINT = {4: F.conv_transpose2d, 5: F.conv_transpose3d}


class Downsample(LinearOperator):
    """Blur and keep every f-th pixel.

    Args:
        image_shape: `(C, H, W)` or `(C, D, H, W)`, spatial sizes divisible by the factor.
        factor: a positive integer, or one for each spatial axis.
        kernel: "box" (the mean of each block: detector binning), "gaussian" (standard deviation factor / 2), "cubic"
            (Keys, a = −1/2, stretched by the factor), or a tensor as for `Convolution`: for pixels that are sensitive
            on a part of their width only (their fill factor), a narrower box.
        boundary: "circular", "reflect" or "zero".
        phase: which of the f pixels is kept; (f − 1) // 2 along each axis by default.
        dtype: precision of a named kernel; a tensor brings its own.

    Raises:
        InputError: a size is not divisible by the factor, or the kernel does not fit.

    >>> A = Downsample((1, 2, 4), 2, kernel="box")
    >>> A(torch.arange(8.0).reshape(1, 2, 4))
    tensor([[[2.5000, 4.5000]]])
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        factor: int | Sequence[int],
        kernel: Tensor | str = "cubic",
        boundary: str = "circular",
        phase: int | Sequence[int] | None = None,
        dtype: torch.dtype = torch.float32,
    ):
        image = tuple(image_shape[1:])
        factors = _per_axis(factor, len(image), "factor")
        if any(f < 1 or n % f for n, f in zip(image, factors)):
            raise InputError(
                f"Downsample expects sizes divisible by the factor, got {image} and {factors}; crop the image"
            )
        if isinstance(kernel, str):
            kernel = _named(kernel, factors).to(dtype)
        kernel = as_kernel(kernel, image_shape, "Downsample")
        data = tuple(n // f for n, f in zip(image, factors))
        super().__init__(image_shape, (image_shape[0], *data), kernel.dtype)
        self.factor = factors
        self.kernel = kernel
        self.boundary = require_boundary(boundary, ("circular", "reflect", "zero"), "Downsample")
        self.phase = tuple((f - 1) // 2 for f in factors) if phase is None else _per_axis(phase, len(image), "phase")
        if any(not 0 <= p < f for p, f in zip(self.phase, factors)):
            raise InputError(f"Downsample expects 0 ≤ phase < factor, got phase {self.phase} and factor {factors}")
        self._margins = tuple(
            (k - 1 - k // 2 - p, f * (m - 1) + p + k // 2 - (n - 1))
            for n, m, f, k, p in zip(image, data, factors, kernel.shape[1:], self.phase)
        )
        for n, margins in zip(image, self._margins):
            if boundary == "reflect" and max(margins) > n - 1:
                raise InputError(
                    f"a reflected image of {n} pixels reaches {n - 1} pixels beyond its edge, got a kernel of shape "
                    f"{tuple(kernel.shape[1:])}; crop the kernel"
                )
        self._passes = self._one_dimensional()
        self._coarse = _aliased_power(kernel, image, factors) if boundary == "circular" else None

    def _apply(self, x: Tensor) -> Tensor:
        if x.is_complex():
            return by_parts(self._apply, x)
        if self._passes is not None:
            for one in self._passes:
                x = one._apply(x)
            return x
        extended = extend(x, self._margins, self.boundary)
        folded, weight, groups = self._channels(extended)
        result = _CONVOLVE[weight.ndim](folded, weight, stride=self.factor, groups=groups)
        return result.reshape(*x.shape[: x.ndim - len(self.image_shape)], *self.data_shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        if y.is_complex():
            return by_parts(self._adjoint, y)
        if self._passes is not None:
            for one in reversed(self._passes):
                y = one._adjoint(y)
            return y
        sizes = tuple(n + before + after for n, (before, after) in zip(self.image_shape[1:], self._margins))
        folded, weight, groups = self._channels(y)
        extended = _CONVOLVE_ADJOINT[weight.ndim](folded, weight, stride=self.factor, groups=groups)
        extended = extended.reshape(*y.shape[: 1 - len(self.data_shape)], *sizes)
        return fold(extended, self._margins, self.boundary)

    def norm(self, iterations: int = 200, tolerance: float = 1e-6, seed: int = 0) -> float:
        if self._coarse is not None:
            return float(self._coarse.max().sqrt())
        return super().norm(iterations, tolerance, seed)

    def _solve(self, b: Tensor, damping: Tensor, weight: Tensor | None) -> Tensor | None:
        if self._coarse is None or (weight is not None and weight.numel() != 1):
            return None
        # in float64, because b and what is subtracted from it nearly cancel when the damping is small
        wide = b.to(torch.complex128 if b.is_complex() else torch.float64)
        d = damping.double()
        ratio = d if weight is None else d / weight.double().reshape(())
        coarse = divide_spectrum(self._apply(wide), constant_like(self._coarse, d) + ratio, len(self.factor))
        return ((wide - self._adjoint(coarse)) / d).to(b.dtype)

    def _one_dimensional(self) -> tuple[AxisFilter, ...] | None:
        """One filter for each axis of a separable kernel, the first axis first: it has the longest rows to add."""
        factors = separate(self.kernel[0]) if len(self.kernel) == 1 else None
        if factors is None:
            return None
        passes, shape = [], self.image_shape
        for i, taps in enumerate(factors):
            passes.append(
                AxisFilter(
                    shape,
                    taps.flip(0)[None],
                    i - len(factors),
                    stride=self.factor[i],
                    start=self._margins[i][0],
                    count=self.data_shape[i + 1],
                    boundary=self.boundary,
                )
            )
            shape = passes[-1].data_shape
        return tuple(passes)

    def _channels(self, x: Tensor) -> tuple[Tensor, Tensor, int]:
        weight = constant_like(self.kernel, x).flip(tuple(range(1, self.kernel.ndim)))[:, None]
        groups = len(self.kernel)
        return x.reshape(-1, groups, *x.shape[1 - len(self.image_shape) :]), weight, groups


def _per_axis(value: int | Sequence[int], axes: int, name: str) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, Sequence) else (value,) * axes
    if len(values) != axes or not all(isinstance(v, int) and not isinstance(v, bool) for v in values):
        raise InputError(f"Downsample expects {name} as an integer or {axes} integers, got {value!r}")
    return values


def _aliased_power(kernel: Tensor, image: Sequence[int], factors: Sequence[int]) -> Tensor:
    """Eigenvalues of A Aᴴ in `rfftn` layout: the autocorrelation of the kernel, at the pixels that are kept."""
    axes = tuple(range(-len(image), 0))
    transfer = transfer_function(kernel.double(), image, [0] * len(image))
    autocorrelation = torch.fft.irfftn(transfer.abs().square(), s=tuple(image), dim=axes)
    kept = autocorrelation[(..., *(slice(None, None, f) for f in factors))]
    return torch.fft.rfftn(kept, dim=axes).real.clamp(min=0.0)


def _named(name: str, factors: Sequence[int]) -> Tensor:
    """A named kernel of unit sum, separable, in float64, whose size along each axis is even where the factor is."""
    if name not in _KERNELS:
        raise InputError(f"Downsample expects kernel 'box', 'gaussian', 'cubic' or a tensor, got {name!r}; choose one")
    kernel = torch.ones((), dtype=torch.float64)
    for f in factors:
        count = 1 if f == 1 else f if name == "box" else 4 * f - f % 2
        u = ((torch.arange(count, dtype=torch.float64) - (count - 1) / 2) / f).abs()
        if name == "box":
            taps = torch.ones_like(u)
        elif name == "gaussian":
            taps = torch.exp(-2 * u.square())
        else:
            near = 1.5 * u**3 - 2.5 * u**2 + 1
            far = -0.5 * u**3 + 2.5 * u**2 - 4 * u + 2
            taps = torch.where(u <= 1, near, far)
        kernel = kernel[..., None] * (taps / taps.sum())
    return kernel
