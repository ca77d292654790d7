"""What the conformance suite needs of an operator: how to make it, and its matrix written out by loops."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from obverse import operators as ops


@dataclass(frozen=True)
class Case:
    """An operator for a given precision, and its dense twin."""

    make: Callable[[torch.dtype], ops.LinearOperator]
    dense: Callable[[], np.ndarray]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    """Positive numbers that float32 holds exactly, so that every precision has the same twin."""
    uniform = torch.rand(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))
    return ((uniform * 256).round() / 256).double() + 0.125
