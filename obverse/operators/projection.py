"""Projection along a table of rays, differentiable, by compiled kernels where they run and by plain torch elsewhere."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from .base import constant_like
from .filters import by_parts
from .projection_preconditioner import circulant_inverse
from .ray_table import Rays

__all__ = ["AlongRays", "ProjectionGeometry", "backproject", "project"]

_ENGINES = ("auto", "numba", "torch")


@dataclass(frozen=True, eq=False)
class ProjectionGeometry:
    """What a projection needs to know.

    Args:
        rays: the table of rays, in the precision and on the device of the data.
        grid: `(H, W)` of the image.
        engine: "auto", "numba" or "torch".
    """

    rays: Rays
    grid: tuple[int, int]
    engine: str = "auto"


class AlongRays:
    """What the operators that project along rays share; mixed into a `LinearOperator`."""

    image_shape: tuple[int, ...]
    data_shape: tuple[int, ...]
    dtype: torch.dtype
    engine: str

    def _set_rays(self, rays: Rays) -> None:
        if self.engine not in _ENGINES:
            expected = ", ".join(map(repr, _ENGINES))
            raise InputError(f"{type(self).__name__} expects engine {expected}, got {self.engine!r}; choose one")
        self._rays = (*(part.to(_real(self.dtype)) for part in rays[:3]), rays[3])

    @property
    def _grid(self) -> tuple[int, int]:
        return self.image_shape[1], self.image_shape[2]

    def _geometry(self, x: Tensor) -> ProjectionGeometry:
        start, slope, weight, runs = self._rays
        constants = constant_like(start, x), constant_like(slope, x), constant_like(weight, x)
        return ProjectionGeometry((*constants, runs.to(x.device)), self._grid, self.engine)

    def _apply(self, x: Tensor) -> Tensor:
        return by_parts(self._apply, x) if x.is_complex() else project(x, self._geometry(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        return by_parts(self._adjoint, y) if y.is_complex() else backproject(y, self._geometry(y))

    def preconditioner(self, damping: Tensor, weight: Tensor | None) -> Callable[[Tensor], Tensor]:
        """Nearly the inverse of AᴴWA + damping, by FFT: see `projection_preconditioner`."""
        height, width = self._grid
        rays = self._geometry(damping).rays  # they start from the image's centre, whatever its size
        doubled = ProjectionGeometry(rays, (2 * height, 2 * width), self.engine)
        return circulant_inverse(lambda v: backproject(project(v, doubled), doubled), self._grid, damping, weight)

    def _require_data(self, y: Tensor, name: str) -> None:
        if not isinstance(y, Tensor):
            raise InputError(
                f"{type(self).__name__}.{name} expects data as a torch tensor, got {type(y).__name__}; convert them "
                "with torch.as_tensor"
            )
        if tuple(y.shape[-3:]) != self.data_shape or not y.is_floating_point():
            raise InputError(
                f"{type(self).__name__}.{name} expects real data (*batch, {', '.join(map(str, self.data_shape))}), "
                f"got {tuple(y.shape)} {y.dtype}; reshape it"
            )


def project(x: Tensor, geometry: ProjectionGeometry) -> Tensor:
    """Line integrals of `(*batch, H, W)`: `(*batch, views, detectors)`."""
    flat = _Project.apply(x.reshape(-1, *geometry.grid), geometry)
    return flat.reshape(*x.shape[:-2], *flat.shape[1:])  # type: ignore[union-attr]


def backproject(y: Tensor, geometry: ProjectionGeometry) -> Tensor:
    """The adjoint of `project`: `(*batch, views, detectors)` to `(*batch, H, W)`."""
    flat = _Backproject.apply(y.reshape(-1, *y.shape[-2:]), geometry)
    return flat.reshape(*y.shape[:-2], *geometry.grid)  # type: ignore[union-attr]


class _Linear(torch.autograd.Function):
    """A linear map of the first argument; the second is the geometry."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.geometry = inputs[1]


class _Project(_Linear):
    @staticmethod
    def forward(x: Tensor, geometry: ProjectionGeometry) -> Tensor:
        return _engine(x, geometry).project(x.detach().contiguous(), geometry.rays)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        return _Backproject.apply(gradients[0], ctx.geometry), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return _Project.apply(tangents[0], ctx.geometry)

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, geometry: ProjectionGeometry) -> Any:
        return project(x.movedim(in_dims[0], 0), geometry), 0


class _Backproject(_Linear):
    @staticmethod
    def forward(y: Tensor, geometry: ProjectionGeometry) -> Tensor:
        return _engine(y, geometry).backproject(y.detach().contiguous(), geometry.rays, geometry.grid)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        return _Project.apply(gradients[0], ctx.geometry), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return _Backproject.apply(tangents[0], ctx.geometry)

    @staticmethod
    def vmap(info: Any, in_dims: Any, y: Tensor, geometry: ProjectionGeometry) -> Any:
        return backproject(y.movedim(in_dims[0], 0), geometry), 0


def _real(dtype: torch.dtype) -> torch.dtype:
    """The type of a ray's numbers, which stay real where images are complex."""
    return torch.empty((), dtype=dtype).real.dtype


def _engine(x: Tensor, geometry: ProjectionGeometry) -> Any:
    """The module that does the work."""
    from . import projection_reference

    if geometry.engine == "torch" or x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64):
        return projection_reference
    try:
        from . import projection_kernels
    except ImportError:
        return projection_reference
    return projection_kernels
