"""What is known after the data: mean, covariance, samples, what they claim to be and how well they hold."""

from .aleatoric import SumCovariance, with_aleatoric
from .calibration import (
    Calibration,
    PrincipalRegions,
    Strata,
    conditional_coverage,
    conformal_risk_control,
    coverage,
    coverage_by_error,
    crps,
    energy_score,
    interval_score,
    joint_log_score,
    log_score,
    mahalanobis,
    pc_scores,
    pit,
    principal_regions,
    rank_histogram,
    risk_controlling,
    seen_share,
    shortest_intervals,
    split_conformal,
    tarp,
)
from .covariance import Components, Covariance
from .density import Density, DirectionalMoments
from .diagnostics import effective_samples, region_errors, rhat, standard_error
from .estimate import Estimate
from .low_rank import LowRankDiagonal
from .mixture import MixtureCovariance, combine
from .posterior import TARGETS, Posterior
from .precision import PrecisionCovariance
from .preconditioner import circulant_preconditioner
from .product import ProductCovariance
from .range_space import RangeSpaceErrors, range_space_errors
from .spread import spread_covariance
from .stationary import StationaryCovariance
from .streaming import StreamingMoments
from .updated import UpdatedCovariance

__all__ = [
    "UpdatedCovariance",
    "RangeSpaceErrors",
    "SumCovariance",
    "range_space_errors",
    "spread_covariance",
    "with_aleatoric",
    "ProductCovariance",
    "TARGETS",
    "Components",
    "Covariance",
    "Density",
    "DirectionalMoments",
    "Estimate",
    "LowRankDiagonal",
    "MixtureCovariance",
    "Posterior",
    "PrecisionCovariance",
    "StationaryCovariance",
    "StreamingMoments",
    "Calibration",
    "PrincipalRegions",
    "Strata",
    "conditional_coverage",
    "conformal_risk_control",
    "coverage_by_error",
    "crps",
    "energy_score",
    "interval_score",
    "joint_log_score",
    "log_score",
    "principal_regions",
    "risk_controlling",
    "seen_share",
    "shortest_intervals",
    "split_conformal",
    "circulant_preconditioner",
    "combine",
    "coverage",
    "effective_samples",
    "mahalanobis",
    "pc_scores",
    "pit",
    "rank_histogram",
    "region_errors",
    "rhat",
    "standard_error",
    "tarp",
]
