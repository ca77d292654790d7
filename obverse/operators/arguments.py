"""Checks of the numbers that operators are built with."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError

__all__ = ["as_numbers", "require_whole"]


def as_numbers(values: Tensor | Sequence[Any] | float, what: str, dtype: torch.dtype | None = None) -> Tensor:
    """Numbers, in whatever they are held, as a tensor; an InputError if they are no numbers.

    Args:
        what: the beginning of the sentence, such as "Rotate expects angles".
        dtype: their type; their own by default, which is float32 for a list of fractions.
    """
    try:
        return torch.as_tensor(values, dtype=dtype)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{what} as numbers, got {values!r}; pass a list of numbers or a tensor") from error


def require_whole(value: object, what: str) -> int:
    """`value` as an integer, if it is one; an InputError otherwise.

    >>> require_whole(3, "Radon expects a number of detectors")
    3
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InputError(f"{what} as a whole number, got {value!r}; round it")
    return int(value)
