"""Does a posterior mean what it says, and how is it made to? Tests, scores, and guarantees that hold for any method."""

from .calibration import Calibration
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
from .conditional import conditional_coverage, coverage_by_error
from .conformal import conformal_quantile, split_conformal
from .principal_regions import PrincipalRegion, PrincipalRegions, principal_regions
from .risk_control import conformal_risk_control, hoeffding_bentkus, risk_controlling
from .scores import ProperScore, crps, energy_score, interval_score, joint_log_score, log_score
from .shortest import shortest_intervals
from .strata import Strata, seen_share

__all__ = [
    "Calibration",
    "Coverage",
    "Histogram",
    "PrincipalRegion",
    "PrincipalRegions",
    "ProperScore",
    "Scores",
    "Strata",
    "Uniformity",
    "conditional_coverage",
    "conformal_quantile",
    "conformal_risk_control",
    "coverage",
    "coverage_by_error",
    "crps",
    "energy_score",
    "hoeffding_bentkus",
    "interval_score",
    "joint_log_score",
    "log_score",
    "mahalanobis",
    "pc_scores",
    "pit",
    "principal_regions",
    "rank_histogram",
    "risk_controlling",
    "seen_share",
    "shortest_intervals",
    "split_conformal",
    "tarp",
]
