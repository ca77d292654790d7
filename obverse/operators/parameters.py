"""The differentiable constants of an operator, such as a blur kernel that is being estimated.

An operator built from tensors that require gradients keeps their graph. Some of its constants may be computed from
others (a transfer function from a kernel). A derivative with respect to all of them at once is that with respect to
independent copies, which autograd then carries on to where each came from; none is counted twice.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .base import Operator, tensors_of

__all__ = ["differentiable_tensors", "with_tensors"]


def differentiable_tensors(operator: Operator) -> tuple[Tensor, ...]:
    """The constants that require gradients, each once, in the order of the operator's attributes."""
    return tuple({id(tensor): tensor for tensor in tensors_of(operator) if tensor.requires_grad}.values())


def with_tensors(operator: Operator, old: Sequence[Tensor], new: Sequence[Tensor]) -> Any:
    """A copy of the operator in which each tensor of `old` is the one of `new`."""
    return _replaced(operator, {id(before): after for before, after in zip(old, new, strict=True)})


def _replaced(value: Any, instead: dict[int, Tensor]) -> Any:
    if isinstance(value, Tensor):
        return instead.get(id(value), value)
    if isinstance(value, tuple) and any(isinstance(member, Operator | Tensor) for member in value):
        return tuple(_replaced(member, instead) for member in value)
    if not isinstance(value, Operator):
        return value
    copy = object.__new__(type(value))
    for name, member in value.__dict__.items():
        object.__setattr__(copy, name, _replaced(member, instead))
    return copy
