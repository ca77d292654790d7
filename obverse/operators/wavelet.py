"""The orthonormal discrete wavelet transform with periodic boundaries: Wᴴ W = W Wᴴ = I.

One level along one axis, with the scaling filter h and the wavelet filter g[j] = (−1)^j h[L − 1 − j]:

    a[m] = Σ_j h[j] x[2m + j − L/2 + 1],      d[m] = Σ_j g[j] x[2m + j − L/2 + 1]

Along each spatial axis the averages come first and the details behind them; the next level acts on the block of
averages in the corner. Data therefore have the image's shape (Mallat's layout). Axes of one pixel are left alone, so a
signal `(C, 1, N)` gets its one-dimensional transform.

References: Mallat, "A theory for multiresolution signal decomposition", IEEE TPAMI 1989.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InputError
from .axis_filter import AxisFilter
from .base import LinearOperator
from .filters import by_parts
from .taps import scaling_filter

__all__ = ["Wavelet"]

_MOST_LEVELS = 4
"""Levels used unless asked for more: natural images gain nothing measurable beyond."""


class Wavelet(LinearOperator):
    """Orthonormal periodic wavelet transform.

    Args:
        image_shape: `(C, H, W)` or `(C, D, H, W)`; spatial sizes divisible by 2**levels (sizes of 1 are left alone).
        wavelet: "haar", "db2" … "db10", "sym4" … "sym8".
        levels: number of levels; by default as many as the sizes allow, 4 at most.
        dtype: precision of the images.

    Raises:
        InputError: a size is not divisible by 2**levels, or the wavelet is unknown.

    >>> A = Wavelet((1, 4, 4), "haar", levels=1)
    >>> A(torch.ones(1, 4, 4))[0, :2, :2].round(decimals=3)
    tensor([[2., 2.],
            [2., 2.]])
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        wavelet: str = "db4",
        levels: int | None = None,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__(image_shape, image_shape, dtype)
        sizes = self.image_shape[1:]
        self._active = tuple(i - len(sizes) for i, n in enumerate(sizes) if n > 1)
        most = min((_times_even(self.image_shape[dim]) for dim in self._active), default=0)
        if levels is None:
            levels = min(most, _MOST_LEVELS)
        if isinstance(levels, bool) or not isinstance(levels, int) or not 1 <= levels <= most:
            raise InputError(
                f"Wavelet halves each size of {sizes} at each level, which {most} levels allow, got levels={levels}; "
                "pad or crop the image to a multiple of 2**levels"
            )
        self.wavelet = wavelet
        self.levels = levels
        low = scaling_filter(wavelet)
        high = low.flip(0) * torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(len(low) // 2)
        self.bank = torch.stack([low, high]).to(self.real_dtype)
        #: the filters of each level, along each active axis
        self._passes = tuple(f for level in range(levels) for f in self._level(level))

    def _apply(self, x: Tensor) -> Tensor:
        if x.is_complex():
            return by_parts(self._apply, x)
        return self._analyse(x, 0)

    def _adjoint(self, y: Tensor) -> Tensor:
        if y.is_complex():
            return by_parts(self._adjoint, y)
        return self._synthesise(y, 0)

    def norm(self, iterations: int = 200, tolerance: float = 1e-6, seed: int = 0) -> float:
        return 1.0

    def _solve(self, b: Tensor, damping: Tensor, weight: Tensor | None) -> Tensor | None:
        if weight is None or weight.numel() == 1:
            return b / ((1.0 if weight is None else weight.reshape(())) + damping)
        return self._adjoint(self._apply(b) / (weight + damping))

    def _level(self, level: int) -> list[AxisFilter]:
        shape = tuple(
            n >> level if i - len(self.image_shape) in self._active else n for i, n in enumerate(self.image_shape)
        )
        start = self.bank.shape[1] // 2 - 1
        return [
            AxisFilter(shape, self.bank, dim, stride=2, start=start, count=shape[dim] // 2, boundary="circular")
            for dim in self._active
        ]

    def _analyse(self, x: Tensor, level: int) -> Tensor:
        axes = len(self._active)
        for one in self._passes[level * axes : (level + 1) * axes]:
            x = one._apply(x)
        if level + 1 == self.levels:
            return x
        return self._replace_corner(x, self._analyse(self._corner(x), level + 1))

    def _synthesise(self, y: Tensor, level: int) -> Tensor:
        axes = len(self._active)
        if level + 1 < self.levels:
            y = self._replace_corner(y, self._synthesise(self._corner(y), level + 1))
        for one in reversed(self._passes[level * axes : (level + 1) * axes]):
            y = one._adjoint(y)
        return y

    def _corner(self, x: Tensor) -> Tensor:
        for dim in self._active:
            x = x.narrow(dim, 0, x.shape[dim] // 2)
        return x

    def _replace_corner(self, x: Tensor, corner: Tensor) -> Tensor:
        """`x` with another corner block, out of place because autograd still needs the old one."""
        for i, dim in enumerate(self._active):
            half = x.shape[dim] // 2
            rest = x.narrow(dim, half, half)
            for other in self._active[i + 1 :]:
                rest = rest.narrow(other, 0, corner.shape[other])
            corner = torch.cat([corner, rest], dim)
        return corner


def _times_even(n: int) -> int:
    """How often n can be halved.

    >>> _times_even(24)
    3
    """
    return (n & -n).bit_length() - 1
