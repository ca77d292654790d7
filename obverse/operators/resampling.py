"""Sums of an image's values at moved positions, linear in the image and differentiable in the positions.

    y[i, j] = Σ_t w_t x(φ_t(i, j))                                  φ_t a homography, or one φ given by a flow

The derivative of x(φ) in the position is x's interpolation with the derivative of the weights, the same kind of sum
again; so values, adjoint and all derivatives come from two routines, `gather` and its transpose, whose backward passes
call each other. On a CPU with numba they are compiled (`warp_kernels`); elsewhere plain torch (`interpolation`) does
the same, from positions that are stored.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..pages import in_large_pages
from . import interpolation as plain
from .filters import by_parts
from .motion import pixel_grid

__all__ = ["Resampling"]


@dataclass(frozen=True, eq=False)
class Resampling:
    """Where and how planes of `size` are sampled, on a grid of `data_size`.

    Args:
        size: (H, W) of the image.
        data_size: (h, w) of the data.
        interpolation: "bilinear" or "bicubic".
        boundary: "zero", "circular" or "reflect".
        matrices: `(T, 3, 3)` float64 from (row, column, 1) of the data to those of the image, in pixels from the
            corner; None when a flow is given with each call.
        weights: `(T,)` float64.
        orders: of the derivative along rows and columns.
        compiled: use numba where it is installed and fits.
    """

    size: tuple[int, int]
    data_size: tuple[int, int]
    interpolation: str
    boundary: str
    matrices: Tensor | None = None
    weights: Tensor | None = None
    orders: tuple[int, int] = (0, 0)
    compiled: bool = True

    def gather(self, x: Tensor, flow: Tensor | None = None) -> Tensor:
        """Data `(*batch, h, w)` of images `(*batch, H, W)`; `flow` (2, h, w) is the position less the data's pixel."""
        if x.is_complex():
            return by_parts(lambda part: self.gather(part, flow), x)
        planes = x.reshape(-1, *self.size)
        return _call(_Gather, planes, flow, self).reshape(*x.shape[:-2], *self.data_size)

    def scatter(self, y: Tensor, flow: Tensor | None = None) -> Tensor:
        """The transpose of `gather`: `(*batch, h, w)` → `(*batch, H, W)`."""
        if y.is_complex():
            return by_parts(lambda part: self.scatter(part, flow), y)
        planes = y.reshape(-1, *self.data_size)
        return _call(_Scatter, planes, flow, self).reshape(*y.shape[:-2], *self.size)

    def differentiated(self, axis: int) -> "Resampling":
        """The same sum, of the derivative along `axis` of the interpolated image."""
        rows, columns = self.orders
        return replace(self, orders=(rows + 1, columns) if axis == 0 else (rows, columns + 1))


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, flow: Tensor | None, resampling: Resampling) -> Tensor:
        return _run("gather", x, flow, resampling)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor):
        x, flow, ctx.resampling = inputs
        ctx.save_for_backward(x if flow is not None and flow.requires_grad else None, flow)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor):
        (gradient,) = gradients
        x, flow = ctx.saved_tensors
        along_x = _call(_Scatter, gradient, flow, ctx.resampling) if ctx.needs_input_grad[0] else None
        along_flow = _flow_gradient(x, gradient, flow, ctx.resampling) if ctx.needs_input_grad[1] else None
        return along_x, along_flow, None


class _Scatter(torch.autograd.Function):
    @staticmethod
    def forward(y: Tensor, flow: Tensor | None, resampling: Resampling) -> Tensor:
        return _run("scatter", y, flow, resampling)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor):
        y, flow, ctx.resampling = inputs
        ctx.save_for_backward(y if flow is not None and flow.requires_grad else None, flow)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor):
        (gradient,) = gradients
        y, flow = ctx.saved_tensors
        along_y = _call(_Gather, gradient, flow, ctx.resampling) if ctx.needs_input_grad[0] else None
        along_flow = _flow_gradient(gradient, y, flow, ctx.resampling) if ctx.needs_input_grad[1] else None
        return along_y, along_flow, None


def _call(function: type[torch.autograd.Function], planes: Tensor, flow: Tensor | None, resampling: Resampling):
    return function.apply(planes, flow, resampling)


def _flow_gradient(x: Tensor, y: Tensor, flow: Tensor, resampling: Resampling) -> Tensor:
    """The derivative of ⟨y, x(φ)⟩ in the flow."""
    slopes = [_call(_Gather, x, flow, resampling.differentiated(axis)) for axis in range(2)]
    return torch.stack([(y * slope).sum(0) for slope in slopes]).to(flow)


def _run(name: str, planes: Tensor, flow: Tensor | None, resampling: Resampling) -> Tensor:
    planes = planes.detach()
    kernels = _kernels() if planes.device.type == "cpu" and resampling.compiled else None
    rows, columns = resampling.orders
    tables = plain.coefficients(resampling.interpolation, rows), plain.coefficients(resampling.interpolation, columns)
    if kernels is not None:
        return _compiled(kernels, name, planes, flow, resampling, tables)
    result: Tensor | None = None
    for positions, weight in _positions(None if flow is None else flow.detach().to(planes), resampling, planes.device):
        if name == "gather":
            part = plain.gather(planes, positions, tables, resampling.boundary)
        else:
            part = plain.scatter(planes, positions, tables, resampling.boundary, resampling.size)
        result = weight * part if result is None else result.add_(part, alpha=weight)
    assert result is not None
    return result


def _compiled(kernels: Any, name: str, planes: Tensor, flow: Tensor | None, resampling: Resampling, tables: Sequence):
    make, size = (torch.empty, resampling.data_size) if name == "gather" else (torch.zeros, resampling.size)
    result = in_large_pages(make(len(planes), *size, dtype=planes.dtype))
    one = torch.ones(1, dtype=torch.float64)
    matrices = torch.eye(3, dtype=torch.float64)[None] if resampling.matrices is None else resampling.matrices
    weights = one if resampling.weights is None else resampling.weights
    constants = (matrices.numpy(), weights.to(planes).numpy())
    shifts = None if flow is None else flow.detach().to(planes).contiguous().numpy()
    typed = tuple(table.to(planes).numpy() for table in tables)
    run = getattr(kernels, name)
    source, sink = planes.contiguous().numpy(), result.numpy()
    run(source, *constants, shifts, typed, resampling.boundary, sink, torch.get_num_threads())
    return result


def _positions(flow: Tensor | None, resampling: Resampling, device: torch.device):
    """Each term's positions in the image (2, h, w) in float64, and its weight."""
    like = torch.empty(0, dtype=torch.float64, device=device)
    pixels = pixel_grid(resampling.data_size, like)
    if flow is not None:
        yield pixels + flow.to(like), 1.0
        return
    assert resampling.matrices is not None
    count = len(resampling.matrices)
    weights = [1.0] * count if resampling.weights is None else resampling.weights.tolist()
    for matrix, weight in zip(resampling.matrices.to(device), weights):
        moved = torch.tensordot(matrix[:, :2], pixels, 1) + matrix[:, 2, None, None]
        yield moved[:2] / moved[2], weight


@cache
def _kernels() -> Any:
    """The compiled routines, or None where numba is missing."""
    try:
        from . import warp_kernels
    except ImportError:
        return None
    return warp_kernels
