"""The non-uniform Fourier sum by gridding, in plain torch: the twin of finufft, for GPUs and where finufft is missing.

    y(k) = Σ_r x(r) exp(−2πi k·r),    r = n − N // 2,    k in cycles per pixel

is Φ(r / K)-corrected, transformed by an FFT of K ≥ 2 N points along each axis, and interpolated with the Kaiser–Bessel
kernel φ of w points,

    y(k) ≈ Σ_l φ(K k − l) Σ_r [x(r) / Φ(r / K)] exp(−2πi l·r / K),
    φ(t) = I₀(β √(1 − (2t/w)²)),    Φ(ξ) = w sinh(√(β² − (π w ξ)²)) / √(β² − (π w ξ)²),

one factor for each axis. The adjoint carries out the adjoint of each step, so that the pair is exact to rounding for
any w; w sets how close both are to the sum.

References:
    Fessler, Sutton, "Nonuniform fast Fourier transforms using min-max interpolation", IEEE TSP 2003.
    Beatty, Nishimura, Pauly, "Rapid gridding reconstruction with a minimal oversampling ratio", IEEE TMI 2005 (β).
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from .boundary import good_size

__all__ = ["adjoint_by_gridding", "forward_by_gridding"]

_OVERSAMPLING = 2
_LARGEST_GATHER = 1 << 21
"""Values gathered from the fine grid at a time: 32 MB in complex128."""


def forward_by_gridding(x: Tensor, points: Tensor, accuracy: float) -> Tensor:
    """Σ_r x(r) exp(−2πi k·r) for complex images `(B, *grid)` at points `(M, axes)`: `(B, M)`."""
    grid = tuple(x.shape[1:])
    width, fine = _sizes(grid, accuracy)
    spread = x.new_zeros((len(x), *fine))
    spread[(slice(None), *_places(grid, fine, x.device))] = x * _correction(grid, fine, width, x)
    transform = torch.fft.fftn(spread, dim=_axes(grid)).flatten(1)
    pieces = [
        (transform[:, index.flatten()].reshape(len(x), *index.shape) * weight).sum(-1)
        for index, weight in _neighbours(points, fine, width, x)
    ]
    return torch.cat(pieces, 1) if pieces else x.new_zeros((len(x), 0))


def adjoint_by_gridding(y: Tensor, points: Tensor, grid: Sequence[int], accuracy: float) -> Tensor:
    """Σ_m y_m exp(+2πi k_m·r) for complex samples `(B, M)`: images `(B, *grid)`."""
    width, fine = _sizes(grid, accuracy)
    spread = y.new_zeros((len(y), math.prod(fine)))
    start = 0
    for index, weight in _neighbours(points, fine, width, y):
        values = y[:, start : start + len(index), None] * weight
        spread.index_add_(1, index.flatten(), values.flatten(1))
        start += len(index)
    transform = torch.fft.ifftn(spread.reshape(-1, *fine), dim=_axes(grid), norm="forward")
    return transform[(slice(None), *_places(grid, fine, y.device))] * _correction(grid, fine, width, y)


def _sizes(grid: Sequence[int], accuracy: float) -> tuple[int, tuple[int, ...]]:
    """Points of the kernel, and the fine grid. Each further point gains a decimal digit."""
    width = max(3, math.ceil(-math.log10(accuracy)) + 1)
    return width, tuple(good_size(max(_OVERSAMPLING * n, width)) for n in grid)


def _axes(grid: Sequence[int]) -> tuple[int, ...]:
    return tuple(range(-len(grid), 0))


def _shape(constant: Tensor, axis: int, axes: int) -> Tensor:
    """A vector along one of the grid's axes."""
    return constant.reshape(-1, *(1,) * (axes - 1 - axis))


def _places(grid: Sequence[int], fine: Sequence[int], device: torch.device) -> list[Tensor]:
    """Where the image's pixels lie on the fine grid, with r = 0 at its origin."""
    return [
        _shape((torch.arange(n, device=device) - n // 2) % size, i, len(grid))
        for i, (n, size) in enumerate(zip(grid, fine))
    ]


def _beta(width: int) -> float:
    return math.pi * math.sqrt((width * (1 - 0.5 / _OVERSAMPLING)) ** 2 - 0.8)


def _correction(grid: Sequence[int], fine: Sequence[int], width: int, like: Tensor) -> Tensor:
    """1 / Φ on the image's pixels, in the real precision of `like`."""
    total = torch.ones((), dtype=torch.float64)
    beta = _beta(width)
    for i, (n, size) in enumerate(zip(grid, fine)):
        frequency = (torch.arange(n, dtype=torch.float64) - n // 2) / size
        root = (beta**2 - (math.pi * width * frequency) ** 2).sqrt()  # positive: |frequency| ≤ 1/4
        transform = width * torch.sinh(root) / root * math.exp(-beta)
        total = total / _shape(transform, i, len(grid))
    return total.to(device=like.device, dtype=like.real.dtype)


def _neighbours(points: Tensor, fine: Sequence[int], width: int, like: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """For blocks of points: flat indices of the fine grid's points around each, `(m, width^axes)`, and weights."""
    beta = _beta(width)
    block = max(1, _LARGEST_GATHER // (len(like) * width ** len(fine)))
    sizes = torch.tensor(fine, device=points.device)
    steps = torch.arange(width, device=points.device)
    for some in points.detach().double().split(block):
        place = torch.remainder(some, 1.0) * sizes
        first = (place - width / 2).ceil()
        distance = (first - place)[..., None] + steps  # in [−width/2, width/2]
        inside = (1 - (2 * distance / width) ** 2).clamp(min=0).sqrt()
        kernel = (torch.special.i0e(beta * inside) * torch.exp(beta * (inside - 1))).to(like.real.dtype)
        nearest = (first[..., None].long() + steps) % sizes[:, None]
        index, weight = nearest[:, 0], kernel[:, 0]
        for axis, size in enumerate(fine[1:], start=1):
            index = (index[:, :, None] * size + nearest[:, axis, None, :]).flatten(1)
            weight = (weight[:, :, None] * kernel[:, axis, None, :]).flatten(1)
        yield index, weight
