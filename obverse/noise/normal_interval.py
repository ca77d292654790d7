"""The probability that a normal variable falls between two bounds, to full relative precision however small it is.

    log[Φ(b) − Φ(a)] = log Φ(b) + log(1 − e^{log Φ(a) − log Φ(b)}),        on the side of zero where Φ is small

An interval narrower than a thousandth of σ is instead integrated around its middle c, of width h:
    ∫ φ(c + u) du = φ(c) h · sinh(ch/2)/(ch/2) · (1 − h²/24 + …)
"""

import math

import torch
from torch import Tensor

__all__ = ["log_interval"]

_NARROW = 1e-3  # standard deviations


def log_interval(low: Tensor, high: Tensor) -> Tensor:
    """log P(low < z < high) for a standard normal z, in float64; either bound may be infinite.

    Differentiable in both bounds.
    """
    flip = low + high > 0  # false for both infinite
    a, b = torch.where(flip, -high, low), torch.where(flip, -low, high)
    everything = a.isinf() & b.isinf()
    open_below = a.isinf() & ~everything
    width = torch.where(open_below | everything, 1.0, b - a)
    narrow = width < _NARROW
    return torch.where(
        everything,
        0.0,
        torch.where(
            open_below,
            torch.special.log_ndtr(torch.where(open_below, b, 0.0)),
            torch.where(narrow, _narrow(a, b, narrow), _wide(a, b, narrow | open_below | everything)),
        ),
    )


def _wide(a: Tensor, b: Tensor, others: Tensor) -> Tensor:
    a, b = torch.where(others, -1.0, a), torch.where(others, 1.0, b)
    upper = torch.special.log_ndtr(b)
    # far out the two logarithms may round to one number: the bound keeps the result and its slope finite
    return upper + torch.log(-torch.expm1((torch.special.log_ndtr(a) - upper).clamp_max(-1e-15)))


def _narrow(a: Tensor, b: Tensor, narrow: Tensor) -> Tensor:
    a, b = torch.where(narrow, a, 0.0), torch.where(narrow, b, 0.5 * _NARROW)
    centre, width = 0.5 * (a + b), b - a
    t = (0.5 * centre * width).abs()
    small = t < 1e-4
    safe = torch.where(small, 1.0, t)
    bend = torch.where(small, t.square() / 6, safe + torch.log(-torch.expm1(-2 * safe) / (2 * safe)))
    return -0.5 * centre.square() - 0.5 * math.log(2 * math.pi) + width.log() + bend - width.square() / 24
