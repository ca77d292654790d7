"""Convolutions whose weights stand still, differentiable any number of times at one convolution a derivative.

    y = W x,      back: g ↦ Wᵀ g,      back of that: v ↦ W v,      and so on

Autograd's derivative of a convolution's derivative takes the gradient in the weights along, wanted or not: half to two
thirds of the time of a product Jv, and of any product with the Jacobian of a gradient-step network, whose graph holds
derivatives already. Here the way back is a convolution of the same kind, and so is the way back from there.
"""

__all__ = ["frozen_convolutions"]

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_KINDS = {  # with their arguments after (input, weight)
    **dict.fromkeys((torch.conv1d, torch.conv2d, torch.conv3d), ("bias", "stride", "padding", "dilation", "groups")),
    **dict.fromkeys(
        (torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d),
        ("bias", "stride", "padding", "output_padding", "groups", "dilation"),
    ),
}


class frozen_convolutions(TorchFunctionMode):
    """Within it, convolutions with weights that need no gradient are of this kind; values and derivatives are the same.

    The graph that is built within may be differentiated outside. Others are left as they are: those whose weights are
    learned, with padding by name, without a batch axis, or under autocast.

    Example:
        >>> net = torch.nn.Conv2d(1, 1, 3, padding=1, bias=False).requires_grad_(False)
        >>> with frozen_convolutions():
        ...     y = net(torch.ones(1, 1, 4, 4, requires_grad=True))
        >>> y.grad_fn.name()
        '_FrozenConvolutionBackward'
    """

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        named = {} if kwargs is None else kwargs
        if func not in _KINDS or torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"):
            return func(*args, **named)
        given = {**dict(zip(("input", "weight", *_KINDS[func]), args, strict=False)), **named}
        x, weight, bias = given["input"], given["weight"], given.get("bias")
        if weight.requires_grad or isinstance(given.get("padding"), str) or x.ndim != weight.ndim:
            return func(*args, **named)
        stride, padding, dilation, left_over = (
            _each(given.get(key, least), weight.ndim - 2)
            for key, least in (("stride", 1), ("padding", 0), ("dilation", 1), ("output_padding", 0))
        )
        groups, transposed = given.get("groups", 1), "output_padding" in _KINDS[func]
        form = _Form(stride, padding, dilation, left_over, groups, transposed)
        y = _FrozenConvolution.apply(x, weight, form)
        return y if bias is None else y + bias.reshape(-1, *(1,) * (weight.ndim - 2))


def _each(value: int | tuple[int, ...], axes: int) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * axes if len(values) == 1 else values


@dataclass(frozen=True)
class _Form:
    """How a convolution steps; of its adjoint too."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    output_padding: tuple[int, ...]
    groups: int
    transposed: bool

    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:
        rest = (self.stride, self.padding, self.dilation, self.transposed, self.output_padding, self.groups)
        return torch.convolution(x, weight, None, *rest)

    def adjoint(self, before: torch.Size, after: torch.Size, taps: torch.Size) -> "_Form":
        """Of the convolution that turned maps of size `before` into maps of size `after`."""
        if self.transposed:
            left_over = (0,) * len(self.stride)
        else:
            reached = zip(after, self.stride, self.padding, self.dilation, taps, strict=True)
            covered = ((m - 1) * step - 2 * pad + gap * (k - 1) + 1 for m, step, pad, gap, k in reached)
            left_over = tuple(n - c for n, c in zip(before, covered, strict=True))
        return _Form(self.stride, self.padding, self.dilation, left_over, self.groups, not self.transposed)


class _FrozenConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, form: _Form) -> Tensor:
        y = form(x, weight)
        ctx.save_for_backward(weight)
        ctx.adjoint = form.adjoint(x.shape[2:], y.shape[2:], weight.shape[2:])
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return _FrozenConvolution.apply(grads[0], weight, ctx.adjoint), None, None  # type: ignore[return-value]
