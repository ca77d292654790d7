"""A measurement in the units of a network: white noise, an operator of norm one, images from 0 to 1.

    y ≈ A x,  noise of Fisher information F per datum;    x = low + span·u
    B = F^{1/2} A / c,   c = ‖F^{1/2} A‖,   v = F^{1/2}(y − A low)/(c span)     ⇒     v ≈ B u with noise σ = 1/(c span)

on every real coordinate. So one learned schedule serves any operator, unit and noise law, and a step of 1 is stable.
Where the variance depends on the signal, F is taken at the data. Items of a batch may be measurements by different
operators: one problem for each, and pictures still go through the network together.
"""

__all__ = ["Whitened", "through"]

from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..operators.base import LinearOperator
from ..problem import Problem
from .base import linear_part

_DARKEST = 0.05  # data below this part of their mean count as it where the variance follows the data: it is never zero
_CLOSE = {torch.float32: 1e-4, torch.float64: 1e-10}  # of solves, relative: safely above rounding
_norms: "WeakKeyDictionary[LinearOperator, float]" = WeakKeyDictionary()


class Whitened:
    """Data v, operator B and noise level σ of a batch, `(B, *image_shape)` and `(B, *data_shape)`.

    Args:
        y: data `(*batch, *data_shape)`.
        problem: one problem for all, or a sequence of one for each item along the first of the batch axes.
        low: value of the image that the network sees as 0.
        high: value of the image that the network sees as 1.
        method: who asks, for messages.
        tolerance: relative residual of `solve`, by default 1e-4, in float64 1e-10.

    Raises:
        InputError: the operator is not linear, noise correlated, low ≠ 0 for complex images, or data do not fit.
    """

    def __init__(
        self,
        y: Tensor,
        problem: Problem | Sequence[Problem],
        low: float = 0.0,
        high: float = 1.0,
        *,
        method: str,
        tolerance: float | None = None,
    ):
        problems = [problem] if isinstance(problem, Problem) else list(problem)
        if not isinstance(problem, Problem) and (not problems or len(y) != len(problems)):
            raise InputError(
                f"{method} expects one problem for each item, got {len(problems)} for data {tuple(y.shape)}"
            )
        operator = linear_part(problems[0], method)
        if len({(one.operator.image_shape, one.operator.data_shape) for one in problems}) > 1:
            raise InputError(f"{method} expects problems of one image and data shape in a batch; pass them one by one")
        self.image_shape, self.complex = operator.image_shape, operator.dtype.is_complex
        self.batch = tuple(y.shape[: y.ndim - len(operator.data_shape)])
        self.low, self.span = float(low), float(high) - float(low)
        if self.complex and low != 0:
            raise InputError(f"{method} expects low = 0 for complex images, whose parts have both signs, got {low}")
        for one in problems:
            one._check(y)
        items = y.reshape(-1, *operator.data_shape)
        if not len(items):
            raise InputError(f"{method} expects at least one measurement, got an empty batch")
        share = len(items) // len(problems)
        self._blocks: list[_Block] = []
        for number, one in enumerate(problems):
            linear_part(one, method)
            part = items[number * share : (number + 1) * share]
            pieces = [part] if one.noise.gaussian else part.split(1)
            self._blocks += [_Block(piece, one, self.low, self.span, tolerance) for piece in pieces]
        self._sizes = [len(block.v) for block in self._blocks]
        self.v = torch.cat([block.v for block in self._blocks])
        self.sigma = torch.cat([block.v.real.new_full((len(block.v),), block.sigma) for block in self._blocks])

    def forward(self, u: Tensor) -> Tensor:
        """B u."""
        return self._each(lambda block, one: block.forward(one), u)

    def adjoint(self, r: Tensor) -> Tensor:
        """Bᴴ r."""
        return self._each(lambda block, one: block.adjoint(one), r)

    def gradient(self, u: Tensor) -> Tensor:
        """Bᴴ(B u − v), of ½‖B u − v‖²."""
        return self.adjoint(self.forward(u) - self.v)

    def solve(self, u: Tensor | None, damping: Tensor) -> Tensor:
        """argmin ‖B x − v‖² + damping ‖x − u‖², with u = 0 for None; `damping` `(B,)` is the same within a problem."""
        points = [None] * len(self._sizes) if u is None else u.split(self._sizes)
        found = []
        with torch.autocast(self.v.device.type, enabled=False):
            for block, point, weight in zip(self._blocks, points, damping.split(self._sizes), strict=True):
                found.append(block.solve(point, weight[0]))
        return found[0] if len(found) == 1 else torch.cat(found)

    def chi2(self, u: Tensor) -> float:
        """Mean |residual|² per real coordinate over its variance: about 1 when u explains the data."""
        r = torch.view_as_real(d) if (d := self.forward(u) - self.v).is_complex() else d
        return float((r.flatten(1) / self.sigma[:, None]).square().mean())

    def image(self, u: Tensor) -> Tensor:
        """In the data's units and with their batch axes."""
        return (self.low + self.span * u).reshape(*self.batch, *self.image_shape)

    def _each(self, function: "Callable[[_Block, Tensor], Tensor]", tensor: Tensor) -> Tensor:
        with torch.autocast(self.v.device.type, enabled=False):
            parts = zip(self._blocks, tensor.split(self._sizes), strict=True)
            found = [function(block, part) for block, part in parts]
        return found[0] if len(found) == 1 else torch.cat(found)


class _Block:
    """The items of one problem, or one item where the weights follow the data."""

    def __init__(self, y: Tensor, problem: Problem, low: float, span: float, tolerance: float | None):
        self.operator, self.tolerance = linear_part(problem, "Whitened"), tolerance or _CLOSE.get(y.real.dtype, 1e-4)
        signal = None if problem.noise.gaussian else y[0].clamp_min(_DARKEST * y[0].mean())
        information = problem.fisher_weight(y=signal).to(device=y.device, dtype=y.real.dtype)
        largest = information.max()
        if bool(information.min() == largest):
            information = largest
        c = float(largest.sqrt()) * _norm(self.operator)
        self.root, self.weight, self.sigma = information.sqrt() / c, information / c**2, 1.0 / (c * span)
        if low:
            dtype = y.real.dtype
            y = y - self.operator(torch.full(self.operator.image_shape, low, dtype=dtype, device=y.device))
        self.v = self.root * y / span
        self.back = self.adjoint(self.v)

    def forward(self, u: Tensor) -> Tensor:
        return self.root * self.operator(u)

    def adjoint(self, r: Tensor) -> Tensor:
        return self.operator.adjoint(self.root * r)

    def solve(self, u: Tensor | None, damping: Tensor) -> Tensor:
        b = self.back if u is None else self.back + damping * u
        return self.operator.solve(b, damping, self.weight, tolerance=self.tolerance)


def through(network: Any, x: Tensor, level: Tensor, channels: int, method: str, *stage: int) -> Tensor:
    """`network(*stage, pictures, levels)`, of pictures `(N, channels, H, W)`, on images `(B, *image_shape)`.

    Complex images become two channels, real and imaginary part; the slices of a volume go through one by one, and so do
    the channels of an image where the network has one.
    """
    parts = torch.cat([x.real, x.imag], 1) if x.is_complex() else x
    parts = parts.movedim(2, 1) if parts.ndim == 5 else parts  # (B, D, C, H, W)
    if channels not in (1, parts.shape[-3]):
        raise InputError(
            f"{method} expects images of {channels} channels, as its network has (complex ones count twice), got "
            f"{parts.shape[-3]}; load weights for such images"
        )
    pictures = parts.reshape(-1, channels, *parts.shape[-2:])
    levels = level.repeat_interleave(len(pictures) // len(x))
    like = next(iter(network.parameters()), x.real) if isinstance(network, nn.Module) else x.real
    found = network(*stage, pictures.to(like).contiguous(memory_format=torch.channels_last), levels.to(like))
    found = found.reshape(parts.shape).to(parts.dtype)
    found = found.movedim(1, 2) if found.ndim == 5 else found
    return torch.complex(*found.chunk(2, 1)) if x.is_complex() else found


def _norm(operator: LinearOperator) -> float:
    if operator not in _norms:
        with torch.no_grad():
            _norms[operator] = max(operator.norm(iterations=100, tolerance=1e-4), torch.finfo(operator.real_dtype).tiny)
    return _norms[operator]
