"""A calibration: factors found on images whose truth is known, applied to the posterior of any other image.

    interval → m + s (interval − m),        Σ → S Σ S,  S = diag(s),        draws → m + S (draws − m)

The calibrated posterior is a posterior like any other: it is shown, stored and cropped as one, and its provenance says
what was done on how many images and what that guarantees. Correlations are kept. What holds, holds for the level that
was calibrated, for images like those it was found on, and on average over them: not for each image or pixel.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from ...errors import FormatError, InputError
from ..posterior import TARGETS, Posterior
from .stored import read_facts, write_facts
from .strata import Strata

__all__ = ["Calibration", "check_target", "common_target"]


@dataclass(frozen=True)
class Calibration:
    """Factors for the spread of a posterior, and what they guarantee.

    Args:
        method: how they were found, for example "split-conformal".
        level: of the intervals that they make right.
        factors: of the standard deviation; one, or one for each stratum.
        count: number of images on which they were found.
        guarantee: a sentence.
        target: of the posteriors on which they were found; they apply to no other.
        strata: which factor each pixel takes; None where there is one.

    Raises:
        InputError: a factor that is not positive and finite, or not one for each stratum.

    Example:
        >>> from obverse.posterior import LowRankDiagonal
        >>> from obverse.solvers.result import Status
        >>> unit = LowRankDiagonal(torch.zeros(4, 0), torch.zeros(0), torch.ones(4), (1, 2, 2))
        >>> known = Posterior(torch.zeros(1, 2, 2), Status(True, "closed-form", ""), covariance=unit)
        >>> calibration = Calibration("split-conformal", 0.9, (1.5,), 99, "In 90 % of new images …")
        >>> calibration.apply(known).std.flatten().tolist()
        [1.5, 1.5, 1.5, 1.5]
    """

    method: str
    level: float
    factors: tuple[float, ...]
    count: int
    guarantee: str
    target: str = "posterior"
    strata: Strata | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "factors", tuple(float(factor) for factor in self.factors))
        expected = 1 if self.strata is None else len(self.strata.names)
        if len(self.factors) != expected or not all(0 < f < math.inf for f in self.factors):
            raise InputError(
                f"a calibration expects {expected} finite factors above zero, got {list(self.factors)}; where nothing "
                "is finite, intervals of zero width missed the truth: floor the standard deviation"
            )
        if self.target not in TARGETS:
            raise InputError(
                f"target expects one of {', '.join(TARGETS)}, got {self.target!r}; name what was calibrated"
            )

    def apply(self, posterior: Posterior) -> Posterior:
        """The same posterior with its spread corrected; it says so in `diagnostics` and `provenance`.

        Raises:
            InputError: it has been calibrated already, or its spread is of another kind.
        """
        if "calibration" in posterior.provenance:
            raise InputError(
                "apply expects a posterior as its method made it, got one that has been calibrated: factors found on "
                "uncalibrated posteriors would count twice; apply one calibration"
            )
        check_target(posterior, self.target)
        facts, moments = self.facts(), posterior.moments
        if self.strata is None:
            scale: float | torch.Tensor = self.factors[0]
            covariance = posterior.covariance.scaled(self.factors[0] ** 2)
        else:
            scale, moments = self._map(posterior, self.strata), None  # a map of scales turns directions
            covariance = posterior.covariance.modulated(scale)
            facts["strata"].pop("map", None)  # as large as the image; it stays with the calibration
        mean, draws = posterior.mean, posterior.draws
        said = {"calibration": self.method, "calibration_images": self.count, "calibration_factors": self.factors}
        return replace(
            posterior,
            covariance=covariance,
            draws=None if draws is None else mean + scale * (draws - mean),
            moments=moments,
            diagnostics={**posterior.diagnostics, **said},
            provenance={**posterior.provenance, "calibration": facts},
        )

    def _map(self, posterior: Posterior, strata: Strata) -> torch.Tensor:
        """The factor of every pixel."""
        labels = strata.labels(posterior)
        if labels.shape != posterior.mean.shape:
            raise InputError(
                f"strata from a map of shape {tuple(labels.shape)} expect an image of that shape, got "
                f"{tuple(posterior.mean.shape)}; calibrate on images of this size"
            )
        return torch.tensor(self.factors, dtype=torch.float64)[labels].to(posterior.mean)

    def facts(self) -> dict[str, Any]:
        """All of it, as plain JSON can hold it."""
        strata = None if self.strata is None else self.strata.facts()
        return {field.name: getattr(self, field.name) for field in fields(self)} | {"strata": strata}

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> Path:
        """Write it as JSON, whole or not at all."""
        return write_facts(path, "calibration", self.facts(), overwrite)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Calibration":
        """Read a saved calibration.

        Raises:
            InputError: the file cannot be read.
            FormatError: it is not one.
        """
        facts = read_facts(path, "calibration")
        try:
            strata = facts.pop("strata")
            return cls(strata=None if strata is None else Strata.from_facts(strata), **facts)
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"{path} expects a saved calibration, got incomplete facts ({error})") from error


def common_target(targets: Sequence[str]) -> str:
    """The target that all posteriors share.

    Raises:
        InputError: they differ.
    """
    kinds = sorted(set(targets))
    if len(kinds) != 1:
        raise InputError(
            f"a calibration expects posteriors of one target, got {' and '.join(kinds)}; calibrate each apart"
        )
    return kinds[0]


def check_target(posterior: Posterior, target: str) -> None:
    """Refuse a posterior whose spread is of another kind than what was calibrated.

    Raises:
        InputError: it is.
    """
    if posterior.target != target:
        raise InputError(
            f"a calibration on posteriors with target {target!r} expects another of them, got one with "
            f"{posterior.target!r}; calibrate on posteriors of that kind"
        )
