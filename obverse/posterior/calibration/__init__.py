"""Does a posterior mean what it says, and how is it made to? Tests, scores, and guarantees that hold for any method."""

from .checks import (
    Coverage,
    Histogram,
    Scores,
    Uniformity,
    coverage,
    mahalanobis,
    pc_scores,
    pit,
    rank_histogram,
    tarp,
)

__all__ = [
    "Coverage",
    "Histogram",
    "Scores",
    "Uniformity",
    "coverage",
    "mahalanobis",
    "pc_scores",
    "pit",
    "rank_histogram",
    "tarp",
]
