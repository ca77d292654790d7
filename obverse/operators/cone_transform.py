"""Line integrals of volumes along any set of rays, by Joseph's method, as a differentiable pair.

A ray crosses the planes n of voxels across the axis along which it advances fastest (counted in voxels). In each plane
the volume is interpolated bilinearly, with zeros beyond its faces, and every sample stands for the same length ℓ:

    y = ℓ Σ_n Σ_{jk} b(p_n − j) b(q_n − k) x[n, j, k],       b(t) = max(1 − |t|, 0)

The adjoint spreads y with the same weights: it is exact to rounding, whichever engine computes it. The engines are
compiled loops on CPUs where numba is installed (`cone_kernels`), and plain torch, which goes through the rays in
pieces. Neither keeps weights: memory is that of volume and data.

References: Joseph, "An improved algorithm for reprojecting rays through pixel images", IEEE TMI 1982.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError

__all__ = ["ENGINES", "Rays", "adjoint_ray_transform", "ray_transform", "require_engine"]

ENGINES = ("auto", "numba", "torch")
_LARGEST_PIECE = 1 << 19
"""Samples that the torch engine interpolates at a time."""
_THREADS_FROM = 1 << 18
"""Samples: below this, handing rays to threads costs more than they save."""
_TIE = 1.0 + 1e-9
"""Rays at 45 degrees fall on the same side whatever the rounding."""


@dataclass(frozen=True, eq=False)
class Rays:
    """From one source in each view to the pixels of a flat detector.

    Args:
        frames: `(views, 4, 3)`, float64, in voxels (z, y, x), voxel 0 at 0: source, pixel (0, 0), step to the next row
            of the detector, step to the next column.
        detector: rows, columns.
        grid: voxels (D, H, W).
        spacing: voxel size along each axis.
        engine: one of `ENGINES`.
    """

    frames: np.ndarray
    detector: tuple[int, int]
    grid: tuple[int, int, int]
    spacing: tuple[float, float, float]
    engine: str = "auto"


def ray_transform(x: Tensor, rays: Rays) -> Tensor:
    """Integrals of real volumes `(B, D, H, W)` along the rays: `(B, views, rows, columns)`."""
    return _Forward.apply(x, rays)  # type: ignore[return-value]


def adjoint_ray_transform(y: Tensor, rays: Rays) -> Tensor:
    """Its adjoint: `(B, views, rows, columns)` → `(B, D, H, W)`."""
    return _Adjoint.apply(y, rays)  # type: ignore[return-value]


def require_engine(engine: str, name: str) -> None:
    """An InputError if there is no such engine, or numba is asked for and missing."""
    if engine not in ENGINES:
        raise InputError(f"{name} expects engine {', '.join(map(repr, ENGINES))}, got {engine!r}; choose one")
    if engine == "numba" and find_spec("numba") is None:
        raise InputError(f"{name} with engine='numba' needs numba, which is not installed; install it or use 'auto'")


class _Linear(torch.autograd.Function):
    """A linear map of the first argument; the second is the rays."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.rays = inputs[1]


class _Forward(_Linear):
    @staticmethod
    def forward(x: Tensor, rays: Rays) -> Tensor:
        return _project(x, rays)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        return _Adjoint.apply(gradients[0], ctx.rays), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return _Forward.apply(tangents[0], ctx.rays)

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, rays: Rays) -> Any:
        return _mapped(_Forward, x.movedim(in_dims[0], 0), rays), 0


class _Adjoint(_Linear):
    @staticmethod
    def forward(y: Tensor, rays: Rays) -> Tensor:
        return _back_project(y, rays)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        return _Forward.apply(gradients[0], ctx.rays), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return _Adjoint.apply(tangents[0], ctx.rays)

    @staticmethod
    def vmap(info: Any, in_dims: Any, y: Tensor, rays: Rays) -> Any:
        return _mapped(_Adjoint, y.movedim(in_dims[0], 0), rays), 0


def _mapped(function: type[_Linear], x: Tensor, rays: Rays) -> Tensor:
    flat = function.apply(x.flatten(0, 1), rays)
    return flat.unflatten(0, x.shape[:2])  # type: ignore[union-attr]


def _compiled(values: Tensor, rays: Rays) -> bool:
    possible = values.device.type == "cpu" and values.dtype in (torch.float32, torch.float64)
    return rays.engine != "torch" and possible and find_spec("numba") is not None


def _threads(rays: Rays, batch: int) -> int:
    samples = batch * len(rays.frames) * rays.detector[0] * rays.detector[1] * max(rays.grid)
    return torch.get_num_threads() if samples >= _THREADS_FROM else 1


def _project(x: Tensor, rays: Rays) -> Tensor:
    padded = F.pad(x.detach(), (1,) * 6)
    if _compiled(x, rays):
        from .cone_kernels import project

        y = x.new_empty((len(x), len(rays.frames), *rays.detector))
        project(padded.numpy(), rays.frames, np.array(rays.spacing), y.numpy(), _threads(rays, len(x)))
        return y
    flat = padded.flatten(1)
    y = x.new_zeros((len(x), len(rays.frames), rays.detector[0] * rays.detector[1]))
    for view, which, index, weight in _pieces(rays, x):
        values = flat[:, index.flatten()].reshape(len(x), *index.shape) * weight
        y[:, view, which] += values.sum((1, 2))
    return y.unflatten(-1, rays.detector)


def _back_project(y: Tensor, rays: Rays) -> Tensor:
    padded = y.new_zeros((len(y), *(n + 2 for n in rays.grid)))
    if _compiled(y, rays):
        from .cone_kernels import back_project

        data = y.detach().contiguous().numpy()
        back_project(data, rays.frames, np.array(rays.spacing), padded.numpy(), _threads(rays, len(y)))
    else:
        flat, data = padded.flatten(1), y.detach().flatten(2)
        for view, which, index, weight in _pieces(rays, y):
            values = data[:, view, None, None, which] * weight
            flat.index_add_(1, index.flatten(), values.flatten(1))
    return padded[:, 1:-1, 1:-1, 1:-1].contiguous()


def _pieces(rays: Rays, like: Tensor) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
    """View, pixels `(P,)`, and padded voxels and weights `(4, planes, P)`, a few planes at a time."""
    device = like.device
    shape = tuple(n + 2 for n in rays.grid)
    strides = (shape[1] * shape[2], shape[2], 1)
    spacing = torch.tensor(rays.spacing, dtype=torch.float64, device=device)
    rows, columns = rays.detector
    pixels = torch.arange(rows * columns, device=device)
    row, column = (pixels // columns)[:, None], (pixels % columns)[:, None]
    for view, frame in enumerate(torch.as_tensor(rays.frames, device=device)):
        direction = frame[1] - frame[0] + row * frame[2] + column * frame[3]
        for axis, which in enumerate(_by_axis(direction)):
            if not len(which):
                continue
            across = [i for i in range(3) if i != axis]
            d = direction[which]
            slope = d[:, across] / d[:, axis, None]
            start = frame[0, across] + 1 - (frame[0, axis] + 1) * slope
            length = (d * spacing).square().sum(1).sqrt() / d[:, axis].abs()
            step = max(1, _LARGEST_PIECE // (len(which) * max(1, len(like))))
            for plane in torch.arange(1, shape[axis] - 1, device=device).split(step):
                position = start + slope * plane[:, None, None]
                top = torch.tensor([shape[i] - 1.0 for i in across], dtype=torch.float64, device=device)
                inside = ((position >= 0) & (position <= top)).all(-1)
                corner = torch.minimum(position.clamp_min(0).floor(), top - 1)
                f, corner = position - corner, corner.long()
                one, other = strides[across[0]], strides[across[1]]
                base = plane[:, None] * strides[axis] + corner[..., 0] * one + corner[..., 1] * other
                index, weight = [], []
                for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
                    index.append(base + i * one + j * other)
                    weight.append((f[..., 0] if i else 1 - f[..., 0]) * (f[..., 1] if j else 1 - f[..., 1]))
                kept = torch.stack(weight) * (inside * length)
                yield view, which, torch.stack(index), kept.to(like.dtype)


def _by_axis(direction: Tensor) -> list[Tensor]:
    """Numbers of the rays that advance fastest along z, y and x."""
    z, y, x = direction.abs().unbind(1)
    steep = z > _TIE * torch.maximum(y, x)
    wide = ~steep & (x > _TIE * y)
    return [mask.nonzero().flatten() for mask in (steep, ~steep & ~wide, wide)]
