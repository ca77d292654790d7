"""Random blurs for training: Gaussian kernels, camera shake, or kernels out of a file.

Camera shake is drawn as a smooth random path: a Brownian motion of the velocity, turned into positions, centred, spread
over the pixels by bilinear weights and softened a little. All kernels are positive, of sum one, and of odd size.

Reference: Boracchi, Foi, "Modeling the performance of image restoration from motion blur", IEEE TIP 2012.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError

__all__ = ["RandomBlur", "gaussian_kernel", "motion_kernel", "stretched"]

_POINTS = 200  # of a path: several for each pixel that it crosses
_PATH_SOFTNESS = 0.6  # pixels, standard deviation


def gaussian_kernel(width: float, size: int) -> Tensor:
    """`(size, size)`, standard deviation `width` in pixels."""
    _require(size, width)
    axis = torch.arange(size, dtype=torch.float64) - size // 2
    profile = (-0.5 * (axis / width).square()).exp()
    kernel = profile[:, None] * profile[None]
    return (kernel / kernel.sum()).float()


def motion_kernel(extent: float, size: int, generator: torch.Generator) -> Tensor:
    """`(size, size)`: a random path whose root-mean-square distance from its middle is `extent` pixels."""
    _require(size, extent)
    noise = torch.randn(_POINTS, 2, generator=generator, dtype=torch.float64)
    start = torch.randn(1, 2, generator=generator, dtype=torch.float64)
    velocity = start + 2.0 * noise.cumsum(0) / math.sqrt(_POINTS)
    path = velocity.cumsum(0)
    path = path - path.mean(0)
    path = extent * path / path.square().sum(1).mean().sqrt()
    return _splat(path, size)


def stretched(kernel: Tensor, factor: float) -> Tensor:
    """A kernel `(k, k)` made wider by `factor`, by bilinear weights, about its middle pixel; of odd size."""
    if not factor > 0:
        raise InputError(f"expected a positive factor to stretch a kernel by, got {factor}")
    weights = kernel.double() / kernel.sum()
    axes = [torch.arange(n, dtype=torch.float64) for n in kernel.shape]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    fine = max(1, math.ceil(2 * factor))  # points for each pixel and axis, so that a stretched kernel has no holes
    shifts = (torch.arange(fine, dtype=torch.float64) + 0.5) / fine - 0.5
    inside = torch.stack(torch.meshgrid(shifts, shifts, indexing="ij"), -1).reshape(1, -1, 2)
    centre = torch.tensor([n // 2 for n in kernel.shape], dtype=torch.float64)
    points = factor * (grid[:, None] - centre + inside)
    size = 2 * math.ceil(factor * max(kernel.shape) / 2 + 1) + 1
    each = weights.reshape(-1, 1).expand(points.shape[:2]) / points.shape[1]
    return _splat(points.reshape(-1, 2), size, each.reshape(-1), softness=0.0)


class RandomBlur:
    """Draws one kernel at a time.

    Args:
        motion: lowest and highest extent of camera shake, pixels, or None.
        gaussian: lowest and highest width of Gaussians, pixels, or None.
        kernels: kernels `(k, k)` to choose from, or None.
        size: side of the kernels drawn, odd.

    The kinds that are given are equally likely.
    """

    def __init__(
        self,
        motion: Sequence[float] | None = None,
        gaussian: Sequence[float] | None = None,
        kernels: Mapping[str, Any] | Sequence[Tensor] | None = None,
        size: int = 25,
    ):
        self.kinds = [k for k, v in {"motion": motion, "gaussian": gaussian, "kernels": kernels}.items() if v]
        if not self.kinds:
            raise InputError("RandomBlur expects motion, gaussian or kernels, got none; give ranges or kernels")
        for limits in (motion, gaussian):
            if limits is not None and not (len(limits) == 2 and 0 < limits[0] <= limits[1]):
                raise InputError(f"RandomBlur expects 0 < lowest <= highest, got {limits}; in pixels")
        _require(size, 1.0)
        self.motion, self.gaussian, self.size = motion, gaussian, size
        self.kernels = list(kernels.values() if isinstance(kernels, Mapping) else kernels or ())

    def draw(self, generator: torch.Generator) -> Tensor:
        which, where = torch.rand(2, generator=generator).tolist()
        kind = self.kinds[int(which * len(self.kinds))]
        if kind == "kernels":
            return self.kernels[int(where * len(self.kernels))].float()
        low, high = (self.motion if kind == "motion" else self.gaussian) or (1.0, 1.0)
        width = low + (high - low) * where
        return gaussian_kernel(width, self.size) if kind == "gaussian" else motion_kernel(width, self.size, generator)


def _splat(points: Tensor, size: int, weights: Tensor | None = None, softness: float = _PATH_SOFTNESS) -> Tensor:
    """A kernel out of points about the origin; what falls outside is dropped."""
    kernel = torch.zeros(size, size, dtype=torch.float64)
    weights = torch.ones(len(points), dtype=torch.float64) if weights is None else weights
    low = (points + size // 2).floor()
    part = points + size // 2 - low
    for row in (0, 1):
        for column in (0, 1):
            i, j = (low[:, 0] + row).long(), (low[:, 1] + column).long()
            share = (part[:, 0] if row else 1 - part[:, 0]) * (part[:, 1] if column else 1 - part[:, 1])
            keep = (i >= 0) & (i < size) & (j >= 0) & (j < size)
            kernel.index_put_((i[keep], j[keep]), (weights * share)[keep], accumulate=True)
    if softness:
        soft = gaussian_kernel(softness, 5).double()
        kernel = torch.nn.functional.conv2d(kernel[None, None], soft[None, None], padding=2)[0, 0]
    return (kernel / kernel.sum()).float()


def _require(size: int, width: float) -> None:
    if size < 1 or size % 2 == 0 or not (width > 0 and math.isfinite(width)):
        raise InputError(f"expected a kernel of odd size and positive width, got size {size}, width {width}")
