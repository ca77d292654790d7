"""What is known after the data: mean, covariance, samples, what they claim to be and how well they hold."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .calibration import coverage, mahalanobis, pc_scores, pit, rank_histogram, tarp
    from .covariance import Components, Covariance
    from .diagnostics import effective_samples, region_errors, rhat, standard_error
    from .estimate import Estimate
    from .low_rank import LowRankDiagonal
    from .mixture import MixtureCovariance, combine
    from .posterior import TARGETS, Posterior
    from .precision import PrecisionCovariance
    from .preconditioner import circulant_preconditioner
    from .stationary import StationaryCovariance
    from .streaming import StreamingMoments

__all__ = [
    "TARGETS",
    "Components",
    "Covariance",
    "Estimate",
    "LowRankDiagonal",
    "MixtureCovariance",
    "Posterior",
    "PrecisionCovariance",
    "StationaryCovariance",
    "StreamingMoments",
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

_HOME = {
    "TARGETS": "posterior",
    "Components": "covariance",
    "Covariance": "covariance",
    "Estimate": "estimate",
    "LowRankDiagonal": "low_rank",
    "MixtureCovariance": "mixture",
    "Posterior": "posterior",
    "PrecisionCovariance": "precision",
    "StationaryCovariance": "stationary",
    "StreamingMoments": "streaming",
    "circulant_preconditioner": "preconditioner",
    "combine": "mixture",
    "coverage": "calibration",
    "effective_samples": "diagnostics",
    "mahalanobis": "calibration",
    "pc_scores": "calibration",
    "pit": "calibration",
    "rank_histogram": "calibration",
    "region_errors": "diagnostics",
    "rhat": "diagnostics",
    "standard_error": "diagnostics",
    "tarp": "calibration",
}


def __getattr__(name: str):
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module 'obverse.posterior' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__():
    return sorted(__all__)
