"""Bilevel learning: parameters of an energy such that its minimiser is right, with certificates of accuracy."""

from .hoag import hoag
from .implicit import Bilevel, Hypergradient, LowerSolution, through_minimiser
from .maid import maid
from .pairs import experts_from_pairs, weight_from_pairs
from .record import Iterate, Learned

__all__ = [
    "Bilevel",
    "Hypergradient",
    "Iterate",
    "Learned",
    "LowerSolution",
    "experts_from_pairs",
    "hoag",
    "maid",
    "through_minimiser",
    "weight_from_pairs",
]
