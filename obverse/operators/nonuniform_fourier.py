"""Fourier transform at arbitrary frequencies: non-Cartesian magnetic resonance imaging, radio interferometry.

    y_m = s Σ_n x[n] exp(−2πi k_m·(n − N // 2)),      k in cycles per pixel,    s = 1/√(number of pixels) or 1

The image's pixel N // 2 is the origin, as in `Fourier`: with s = 1/√N and the points k = (j − N // 2) / N the two are
equal. Frequencies are periodic with period 1; those in [−½, ½) are the ones that the pixels resolve.

The Gram operator AᴴWA is Toeplitz, so that it costs one pair of FFTs of twice the image's size whatever the number of
samples (`toeplitz`). Its kernel needs one adjoint sum; it is kept, outside the immutable operator, for the last weight.

Interferometry: a baseline (u, v) in wavelengths and pixels of `a` radians give k = a·(v, u), in this order because the
axes are (row, column). With East to the left and North up, l = −a (column − N // 2) and m = −a (row − N // 2), and the
sign above is that of V = Σ I exp(+2πi (u l + v m)). Use scaling="none". A sky whose centre is (N − 1) / 2 instead
differs by the phase exp(πi (k_row + k_column)) for even N, which closure quantities do not see.

References:
    Barnett, Magland, af Klinteberg, "A parallel nonuniform fast Fourier transform library based on an 'exponential of
        semicircle' kernel", SIAM J. Sci. Comput. 2019.
    Fessler et al., "Toeplitz-based iterative image reconstruction for MRI", IEEE TSP 2005.
"""

import math
import threading
import weakref
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InputError
from .base import LinearOperator, constant_like, require_finite
from .nonuniform_transform import Transform, adjoint_sum, forward_sum, require_engine
from .toeplitz import toeplitz_eigenvalues, toeplitz_product

__all__ = ["NonuniformFourier", "require_points", "require_scaling"]

_ACCURACY = {torch.complex64: 1e-6, torch.complex128: 1e-9}
"""Default accuracy: what the rounding of sums leaves in single precision, and a good deal less than noise in double."""


class NonuniformFourier(LinearOperator):
    """Complex images `(C, H, W)` or `(C, D, H, W)` to their Fourier transform at M points, `(C, M)`.

    Args:
        points: `(M, 2)` as (row, column) or `(M, 3)` as (depth, row, column) frequencies, in cycles per pixel. If they
            require a gradient, results are differentiable in them.
        image_shape: `(C, H, W)` or `(C, D, H, W)`.
        scaling: "orthonormal" (s = 1/√pixels, as `Fourier`) or "none" (s = 1, as a sum of fluxes).
        accuracy: relative error allowed; 1e-6 for complex64 and 1e-9 for complex128 data by default. Forward and
            adjoint stay each other's adjoint to rounding, whatever the accuracy.
        engine: "finufft" (CPU), "torch" (own gridding, any device), or "auto": finufft on CPUs where it is installed.
        dtype: torch.complex64 or torch.complex128.

    Raises:
        InputError: points are not finite or have another number of axes than the image, or an option is unknown.

    Example:
        >>> points = torch.tensor([[0.0, 0.0], [0.5, 0.25]])
        >>> A = NonuniformFourier(points, (1, 4, 4))
        >>> A(torch.ones(1, 4, 4, dtype=torch.complex64)).abs().round(decimals=3)
        tensor([[4., 0.]])
    """

    def __init__(
        self,
        points: Tensor,
        image_shape: Sequence[int],
        *,
        scaling: str = "orthonormal",
        accuracy: float | None = None,
        engine: str = "auto",
        dtype: torch.dtype = torch.complex64,
    ):
        require_points(points, image_shape, dtype, "NonuniformFourier")
        require_engine(engine, "NonuniformFourier")
        if accuracy is not None and not 0 < accuracy < 1:
            raise InputError(f"NonuniformFourier expects an accuracy between 0 and 1, got {accuracy:g}; try 1e-6")
        super().__init__(image_shape, (image_shape[0], len(points)), dtype)
        self.points = points if points.requires_grad else points.detach().clone()
        self.scaling = require_scaling(scaling, "NonuniformFourier")
        self.accuracy = accuracy
        self.engine = engine
        grid = self.image_shape[1:]
        self._scale = 1 / math.sqrt(math.prod(grid)) if scaling == "orthonormal" else 1.0

    def _apply(self, x: Tensor) -> Tensor:
        grid = self.image_shape[1:]
        sums = forward_sum(x.reshape(-1, *grid), self.points, self._transform(), self._accuracy_for(x))
        return self._scale * sums.reshape(*x.shape[: -len(grid)], len(self.points))

    def _adjoint(self, y: Tensor) -> Tensor:
        samples = (self._scale * y).reshape(-1, len(self.points))
        image = adjoint_sum(samples, self.points, self._transform(), self._accuracy_for(y))
        return image.reshape(*y.shape[:-1], *self.image_shape[1:])

    def _gram(self, x: Tensor, weight: Tensor | float | None) -> Tensor:
        scalar = not isinstance(weight, Tensor) or weight.numel() == 1
        wanted = torch.is_grad_enabled() and (
            self.points.requires_grad or (isinstance(weight, Tensor) and not scalar and weight.requires_grad)
        )
        varies = isinstance(weight, Tensor) and not scalar and weight.ndim > 2
        if wanted or varies:
            return super()._gram(x, weight)
        kept = _memory(self).kernel(self, None if scalar else weight, x)  # type: ignore[arg-type]
        product = toeplitz_product(x, constant_like(kept, x))
        if weight is None or not scalar:
            return product
        return (weight.reshape(()) if isinstance(weight, Tensor) else weight) * product

    def norm(self, iterations: int = 200, tolerance: float = 1e-6, seed: int = 0) -> float:
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(self.image_shape, generator=generator, dtype=torch.complex128)
        x = x.to(dtype=self.dtype, device=self.points.device)
        value = 0.0
        with torch.no_grad():
            for _ in range(iterations):
                x = self._gram(x / x.norm(), None)
                previous, value = value, math.sqrt(float(x.norm()))
                if value == 0.0 or abs(value - previous) <= tolerance * value:
                    break
        return value

    def _accuracy_for(self, values: Tensor) -> float:
        return _ACCURACY[values.dtype] if self.accuracy is None else self.accuracy

    def _transform(self) -> Transform:
        return _memory(self).transform


class _Memory:
    """What an operator's points are worth keeping: plans, and the Toeplitz kernel of the last weight."""

    def __init__(self, operator: NonuniformFourier):
        self.version = _version(operator.points)
        self.transform = Transform(operator.points, operator.image_shape[1:], operator.engine)
        self._unweighted: Tensor | None = None
        self._weighted: tuple[Tensor, int, Tensor] | None = None

    def kernel(self, operator: NonuniformFourier, weight: Tensor | None, like: Tensor) -> Tensor:
        """Eigenvalues of the embedded Gram operator, in float64; equal calls give equal results, kept or not."""
        if weight is None:
            if self._unweighted is None:
                ones = torch.ones((1, len(operator.points)), dtype=torch.complex128, device=like.device)
                self._unweighted = _eigenvalues(operator, ones)
            return self._unweighted
        last = self._weighted
        if last is not None and last[0] is weight and last[1] == _version(weight):
            return last[2]
        rows = weight.detach().expand(*_leading(weight), len(operator.points)).to(torch.complex128)
        result = _eigenvalues(operator, rows.reshape(-1, len(operator.points)).to(like.device))
        if _version(weight) is not None:
            self._weighted = weight, weight._version, result
        return result


_MEMORIES: "weakref.WeakKeyDictionary[NonuniformFourier, _Memory]" = weakref.WeakKeyDictionary()
_LOCK = threading.Lock()


def _memory(operator: NonuniformFourier) -> _Memory:
    """Kept as long as the operator lives and its points have not been changed in place."""
    with _LOCK:
        found = _MEMORIES.get(operator)
        if found is None or found.version != _version(operator.points):
            found = _MEMORIES[operator] = _Memory(operator)
        return found


def _version(tensor: Tensor) -> int | None:
    """How often a tensor was changed in place; None if torch does not count."""
    return None if tensor.is_inference() else tensor._version


def _leading(weight: Tensor) -> tuple[int, ...]:
    return tuple(weight.shape[:-1]) or (1,)


def _eigenvalues(operator: NonuniformFourier, weights: Tensor) -> Tensor:
    grid = operator.image_shape[1:]
    accuracy = min(operator._accuracy_for(weights), _ACCURACY[weights.dtype])  # computed once, used often
    lags = Transform(operator.points, [2 * n - 1 for n in grid], operator.engine).adjoint(weights, accuracy)
    return toeplitz_eigenvalues(operator._scale**2 * lags, grid)


def require_points(points: Tensor, image_shape: Sequence[int], dtype: torch.dtype, name: str):
    """An InputError unless the points, image and type fit each other."""
    if not dtype.is_complex:
        raise InputError(f"{name} works on complex images, got dtype {dtype}; use torch.complex64 or complex128")
    if len(image_shape) not in (3, 4):
        raise InputError(f"{name} expects an image_shape (C, H, W) or (C, D, H, W), got {tuple(image_shape)}")
    require_finite(points, f"{name} expects points")
    axes = len(image_shape) - 1
    if points.is_complex() or points.ndim != 2 or points.shape[1] != axes:
        raise InputError(
            f"{name} expects real points of shape (M, {axes}) in cycles per pixel for images {tuple(image_shape)}, "
            f"got {points.dtype} {tuple(points.shape)}; put one frequency in each row"
        )
    if len(points) == 0:
        raise InputError(f"{name} expects at least one point, got none; pass the frequencies that were measured")


def require_scaling(scaling: str, name: str) -> str:
    if scaling not in ("orthonormal", "none"):
        raise InputError(f"{name} expects scaling 'orthonormal' or 'none', got {scaling!r}; choose one")
    return scaling
