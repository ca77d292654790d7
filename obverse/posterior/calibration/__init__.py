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
from .scores import ProperScore, crps, energy_score, interval_score, joint_log_score, log_score

__all__ = [
    "Coverage",
    "Histogram",
    "ProperScore",
    "Scores",
    "Uniformity",
    "coverage",
    "crps",
    "energy_score",
    "interval_score",
    "joint_log_score",
    "log_score",
    "mahalanobis",
    "pc_scores",
    "pit",
    "rank_histogram",
    "tarp",
]
