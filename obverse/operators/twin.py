"""A linear map that a compiled kernel computes and a plain twin in torch differentiates.

    y = K x,    where K x = T x to rounding, and the derivatives of x ↦ T x are taken for those of x ↦ K x

This serves maps whose adjoint nobody calls by itself, such as filtered back-projections: they need no second kernel.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["by_kernel"]

_Map = Callable[[Tensor], Tensor]


def by_kernel(x: Tensor, kernel: _Map, twin: _Map, engine: str = "auto") -> Tensor:
    """`kernel(x)` on CPUs in float32 and float64 where numba is installed, `twin(x)` elsewhere.

    Args:
        x: `(*batch, ...)`; both maps take any leading axes.
        kernel: given contiguous tensors without a graph; it imports what is compiled.
        twin: linear, of operations that torch can differentiate.
        engine: "auto", "numba" or "torch".
    """
    if engine == "torch" or x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64):
        return twin(x)
    try:
        from .. import compiled  # noqa: F401
    except ImportError:
        return twin(x)
    return _ByKernel.apply(x, kernel, twin)  # type: ignore[return-value]


class _ByKernel(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, kernel: _Map, twin: _Map) -> Tensor:
        return kernel(x.detach().contiguous())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        x, ctx.kernel, ctx.twin = inputs
        ctx.shape = x.shape

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        (gradient,) = gradients
        pull = torch.func.vjp(ctx.twin, gradient.new_zeros(ctx.shape))[1]
        return pull(gradient)[0], None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return _ByKernel.apply(tangents[0], ctx.kernel, ctx.twin)

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, kernel: _Map, twin: _Map) -> Any:
        return _ByKernel.apply(x.movedim(in_dims[0], 0), kernel, twin), 0
