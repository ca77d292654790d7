"""Shift-invariant blur: convolution with a kernel, under four assumptions about what lies beyond the image.

    y[n] = Σ_j h[j] x[n + c − j],    c = k // 2 along each axis

This is true convolution: the image of a point is the kernel itself, with the kernel's pixel `c` (the middle of an odd
kernel, the origin of an fftshifted one) at the point. The image continues beyond its edges "circular"ly, by
"reflect"ion about the edge pixel's centre, or as "zero"; with "valid" only the pixels that need no continuation are
computed, and the data are smaller. Channels share one kernel or have their own.

Three engines give the same result, and the cheapest is chosen from the sizes: FFT with a cached transfer function,
separable (a kernel of rank one, shared by the channels) and direct. The adjoint is exact for every boundary: it adds
the continued pixels back to where they came from.
"""

from collections.abc import Sequence
from math import prod

import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from .axis_filter import AxisFilter
from .base import LinearOperator, constant_like
from .boundary import extend, fold, good_size, is_smooth, require_boundary
from .filters import as_kernel, by_parts, separate
from .spectral import fourier_filter, laid_out, transfer_function

__all__ = ["Convolution"]

_BOUNDARIES = ("circular", "reflect", "zero", "valid")
_ENGINES = ("auto", "fft", "separable", "direct")


class Convolution(LinearOperator):
    """Convolution with a kernel.

    Args:
        kernel: `(kh, kw)` or `(C, kh, kw)` for images `(C, H, W)`; `(kd, kh, kw)` or `(C, kd, kh, kw)` in 3-D.
        image_shape: `(C, H, W)` or `(C, D, H, W)`.
        boundary: "circular", "reflect", "zero" or "valid" (data smaller by the kernel's size less one).
        engine: "auto", or "fft", "separable", "direct" to choose by hand.

    Raises:
        InputError: the kernel is not finite or does not fit the image.

    Example:
        >>> import torch
        >>> kernel = torch.tensor([[0.0, 1.0, 2.0]])
        >>> A = Convolution(kernel, (1, 1, 4), boundary="zero")
        >>> A(torch.tensor([[[0.0, 1.0, 0.0, 0.0]]])).round().long()
        tensor([[[0, 1, 2, 0]]])
    """

    def __init__(self, kernel: Tensor, image_shape: Sequence[int], boundary: str = "circular", engine: str = "auto"):
        require_boundary(boundary, _BOUNDARIES, "Convolution")
        kernel = as_kernel(kernel, image_shape, "Convolution")
        image, size = tuple(image_shape[1:]), tuple(kernel.shape[1:])
        _require_fit(size, image, boundary)
        data = tuple(n - k + 1 for n, k in zip(image, size)) if boundary == "valid" else image
        super().__init__(image_shape, (image_shape[0], *data), kernel.dtype)
        self.kernel = kernel
        self.boundary = boundary
        self.factors = separate(kernel[0]) if len(kernel) == 1 else None
        self.engine = self._choose(engine)
        centre = tuple(k // 2 for k in size)
        #: the kernel's pixels that reach beyond the near and the far edge of the image
        around = tuple((k - 1 - c, c) for k, c in zip(size, centre))
        self._passes = self._one_dimensional(around) if self.engine == "separable" else ()
        self._otf = self._otf_adjoint = None
        self._grid = ()
        if self.engine != "fft":
            self._margins = () if boundary == "valid" else around
        elif boundary == "circular" and all(map(is_smooth, image)):
            self._margins, self._grid, origin = (), image, centre
        elif boundary == "zero":
            reach = (n + max(pair) for n, pair in zip(image, around))
            self._margins, self._grid, origin = (), tuple(map(good_size, reach)), centre
        else:
            self._margins = () if boundary == "valid" else around
            extended = (n + k - 1 for n, k in zip(data, size))
            self._grid, origin = tuple(map(good_size, extended)), tuple(k - 1 for k in size)
        if self.engine == "fft":
            self._otf = laid_out(transfer_function(kernel, self._grid, origin), len(image))
            self._otf_adjoint = self._otf.conj().resolve_conj()  # stored, or every adjoint would make this copy
        self._spectrum = None
        if boundary == "circular" and self._grid != image:
            self._spectrum = transfer_function(kernel, image, centre)

    def _apply(self, x: Tensor) -> Tensor:
        if x.is_complex():
            return by_parts(self._apply, x)
        for one in self._passes:
            x = one._apply(x)
        if self._passes:
            return x
        extended = extend(x, self._margins, self._extension) if self._margins else x
        if self._otf is not None:
            return fourier_filter(extended, constant_like(self._otf, x), self._grid, self.data_shape[1:])
        folded, weight, groups = self._channels(extended)
        result = _CONVOLVE[weight.ndim](folded, weight, groups=groups)
        return result.reshape(*x.shape[: x.ndim - len(self.image_shape)], *self.data_shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        if y.is_complex():
            return by_parts(self._adjoint, y)
        for one in reversed(self._passes):
            y = one._adjoint(y)
        if self._passes:
            return y
        margins = self._margins or ((0, 0),) * (len(self.image_shape) - 1)
        sizes = tuple(n + before + after for n, (before, after) in zip(self.image_shape[1:], margins))
        if self._otf_adjoint is not None:
            extended = fourier_filter(y, constant_like(self._otf_adjoint, y), self._grid, sizes)
        else:
            folded, weight, groups = self._channels(y)
            extended = _CONVOLVE_ADJOINT[weight.ndim](folded, weight, groups=groups)
            extended = extended.reshape(*y.shape[: 1 - len(self.data_shape)], *sizes)
        return fold(extended, self._margins, self._extension) if self._margins else extended

    def spectrum(self) -> Tensor | None:
        if self._spectrum is None and self.boundary == "circular" and self._otf is not None:
            return self._otf.contiguous()
        return self._spectrum

    @property
    def _extension(self) -> str:
        return "zero" if self.boundary == "valid" else self.boundary

    def _one_dimensional(self, around: Sequence[tuple[int, int]]) -> tuple[AxisFilter, ...]:
        """One filter for each axis of a separable kernel."""
        passes, shape = [], self.image_shape
        for i, factor in enumerate(self.factors or ()):
            start = 0 if self.boundary == "valid" else around[i][0]
            taps, count = factor.flip(0)[None], self.data_shape[i + 1]
            dim = i - len(around)
            passes.append(AxisFilter(shape, taps, dim, start=start, count=count, boundary=self._extension))
            shape = passes[-1].data_shape
        return tuple(passes)

    def _channels(self, x: Tensor) -> tuple[Tensor, Tensor, int]:
        """Images, flipped kernels and groups for a direct convolution; channels that share a kernel join the batch."""
        weight = constant_like(self.kernel, x).flip(tuple(range(1, self.kernel.ndim)))[:, None]
        groups = len(self.kernel)
        return x.reshape(-1, groups, *x.shape[1 - len(self.image_shape) :]), weight, groups

    def _choose(self, engine: str) -> str:
        if engine not in _ENGINES:
            raise InputError(f"Convolution expects engine {', '.join(map(repr, _ENGINES))}, got {engine!r}; choose one")
        if engine == "separable" and self.factors is None:
            raise InputError("the separable engine expects one kernel of rank one, got another; use engine='auto'")
        if engine != "auto":
            return engine
        size = tuple(self.kernel.shape[1:])
        costs = _costs(size, self.image_shape[1:], self.boundary)
        if self.factors is None:
            del costs["separable"]
        return min(costs, key=lambda name: costs[name])


def _require_fit(size: Sequence[int], image: Sequence[int], boundary: str):
    for k, n in zip(size, image):
        if boundary == "valid" and k > n:
            raise InputError(
                f"a valid convolution expects a kernel no larger than the image, got {size} on {image}; crop it"
            )
        if boundary == "reflect" and k // 2 > n - 1:
            raise InputError(
                f"a reflected image of {n} pixels reaches {n - 1} pixels beyond its edge, got a kernel of {k}; crop it"
            )


# Nanoseconds for a pixel on one CPU core, (fixed, for each tap), of which only the ratios matter;
# benchmarks/convolution_chooses_its_engine.py shows how good the choice is.
_COST_FFT = 0.2
_COST_DIRECT = {2: (1.0, 0.17), 3: (60.0, 1.0)}
_COST_SEPARABLE = {2: (3.0, 0.05), 3: (8.0, 0.05)}
_CONVOLVE = {4: F.conv2d, 5: F.conv3d}
_CONVOLVE_ADJOINT = {4: F.conv_transpose2d, 5: F.conv_transpose3d}


def _costs(size: Sequence[int], image: Sequence[int], boundary: str) -> dict[str, float]:
    """Expected time of each engine for a pixel of the image; an FFT costs as the logarithm of its grid."""
    if boundary == "circular" and all(map(is_smooth, image)):
        grid = prod(image)
    else:
        grid = prod(good_size(n + (0 if boundary == "valid" else k - 1)) for n, k in zip(image, size))
    direct, separable = _COST_DIRECT[len(size)], _COST_SEPARABLE[len(size)]
    return {
        "fft": _COST_FFT * grid / prod(image) * max(grid, 2).bit_length(),
        "direct": direct[0] + direct[1] * prod(size),
        "separable": separable[0] + separable[1] * sum(size),
    }
