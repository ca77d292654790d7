"""What is added to a search on request: draws of each candidate's flux and place, and how much of a source is found.

A search's maps show what the test finds of a source. Throughput η(r) is what part that is, from sources put into the
frames: with PACO at the S/N of the threshold, at that which the few places near the star ask for, and at that of being
found in 95 % of the cases (`paco_throughput`); with a subtraction, which is linear enough, once for all
(`contrast_curve`). Limits are divided by it, and are then fluxes of the source itself. For PACO the candidates that
were measured are taken out of the frames first.
"""

__all__ = [
    "CERTAIN",
    "QUANTILES",
    "Characterisation",
    "Characterised",
    "additions",
    "posterior_columns",
    "quantiles",
    "throughput_of",
]

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import norm
from torch import Tensor

from ..errors import InputError, NumericsError
from ..methods.contrast_curve import contrast_curve
from ..methods.detection import Candidate, Detection
from ..methods.low_rank_sparse import LowRankSparseADI
from ..methods.paco import PACO
from ..methods.paco_posterior import SourcePosterior, source_posterior
from ..methods.paco_source import fit_source
from ..methods.paco_throughput import paco_throughput
from ..methods.small_sample import places_at, student_factor
from ..operators import FieldRotation
from ..problem import Problem
from .exoplanet_subtraction import Subtraction

_NEAR = 4.0  # FWHM: half steps of distance up to there
CERTAIN = 0.95  # of the sources that the deeper limit asks for
QUANTILES = {"q025": 0.025, "q16": 0.16, "q50": 0.5, "q84": 0.84, "q975": 0.975}


@dataclass(frozen=True, eq=False)
class Characterised(Detection):
    """A search's answer, and what was added to it.

    Args:
        posteriors: of each candidate; None where it was not measured again, or too few frames tell of it.
        throughput: rows of distance in pixels, and η at the threshold, at that for few places, and where 95 % are
            found, `(4, n)`; or None.
    """

    _: KW_ONLY
    posteriors: tuple[SourcePosterior | None, ...] = ()
    throughput: Tensor | None = None


@dataclass(frozen=True)
class Characterisation:
    """A search, and more about what it finds and does not find.

    Args:
        search: PACO or a Subtraction.
        draws: of each candidate by each of four chains; 0 for none.
        limits: whether throughput is measured.
        seed: of the chains.

    Raises:
        InputError: draws or limits are asked of a search that has none.
    """

    search: Any
    draws: int
    limits: bool
    seed: int

    def __post_init__(self):
        if self.draws and not isinstance(self.search, PACO):
            raise InputError(
                "posterior_draws expects method=paco, whose law of the background the draws rest on; leave it out"
            )
        linear = isinstance(self.search, Subtraction) and not isinstance(self.search.combine, LowRankSparseADI)
        if self.limits and not (isinstance(self.search, PACO) or linear):
            raise InputError("corrected_limits expects method paco, pca or median-adi; leave it out")

    @property
    def name(self) -> str:
        """Of the search, for the record."""
        return str(getattr(self.search, "name", type(self.search).__name__))

    def __call__(
        self, y: Tensor, problem: Problem, callback: Callable[[int, int | None, float], None] | None = None
    ) -> Characterised:
        """The search's answer with what was asked for; arguments and errors are the search's.

        Raises:
            InputError: there are several wavelengths.
        """
        operator = problem.operator
        if not isinstance(operator, FieldRotation) or operator.image_shape[0] != 1 or y.ndim != 3:
            raise InputError(
                f"posteriors and throughput expect one wavelength, got data {tuple(y.shape)}; leave posterior_draws "
                "and corrected_limits out"
            )
        found = self.search(y, problem) if callback is None else self.search(y, problem, callback=callback)
        posteriors, empty = [], y.double()
        if isinstance(self.search, PACO):
            double = operator.to(dtype=torch.float64)
            assert isinstance(double, FieldRotation)
            operator, radius = double, int(found.diagnostics["patch_radius"])
            for index, candidate in enumerate(found.candidates):
                posteriors.append(self._posterior(y.double(), operator, candidate, radius, index))
                empty = empty - operator.source((candidate.y, candidate.x), candidate.flux)
            throughput = self._of_paco(empty, operator, radius) if self.limits else None
        else:
            throughput = self._of_subtraction(y, problem) if self.limits else None
        drawn = [p for p in posteriors if p is not None]
        facts = (
            {"posterior_rhat": max(p.rhat for p in drawn), "posterior_ess": min(p.ess for p in drawn)} if drawn else {}
        )
        return Characterised(
            found.image,
            found.status,
            found.history,
            {**found.diagnostics, **facts},
            snr=found.snr,
            sigma=found.sigma,
            candidates=found.candidates,
            posteriors=tuple(posteriors),
            throughput=throughput,
        )

    def _posterior(
        self, cube: Tensor, operator: FieldRotation, candidate: Candidate, radius: int, index: int
    ) -> SourcePosterior | None:
        if not self.draws:
            return None
        scales = self.search.frame_scales
        fit = fit_source(cube, operator, (candidate.y, candidate.x), radius, frame_scales=scales)
        if not fit.converged or not fit.flux > 0:
            return None
        keywords = {"draws": self.draws, "seed": self.seed + index, "frame_scales": scales}
        try:
            return source_posterior(cube, operator, fit, radius, **keywords)
        except NumericsError:  # too few frames tell of it
            return None

    def _of_paco(self, empty: Tensor, operator: FieldRotation, radius: int) -> Tensor:
        distances = _distances(operator)
        threshold = self.search.threshold
        few = [student_factor(places_at(r, operator.fwhm), threshold) for r in distances.tolist()]
        levels = (threshold, few, threshold + float(norm.ppf(CERTAIN)))
        return torch.cat([distances[None], paco_throughput(empty, operator, radius, distances.tolist(), levels)])

    def _of_subtraction(self, y: Tensor, problem: Problem) -> Tensor:
        assert isinstance(self.search, Subtraction)
        curve = contrast_curve(self.search.combine, y, problem, 1.0)
        return torch.stack([curve.radius, *[curve.throughput] * 3]).double()


def _distances(operator: FieldRotation) -> Tensor:
    """From one FWHM to the frame's nearest edge, a FWHM apart, and half of it near the star, where η and the level for
    few places change fast."""
    edge = min(min(c, n - 1 - c) for c, n in zip(operator.centre, operator.image_shape[1:]))
    near = torch.arange(operator.fwhm, min(_NEAR * operator.fwhm, edge), operator.fwhm / 2, dtype=torch.float64)
    return torch.cat([near, torch.arange(_NEAR * operator.fwhm, edge, operator.fwhm, dtype=torch.float64)])


def posterior_columns(samples: np.ndarray, facts: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Draws (flux, x, y), `(n, 3)`, in the terms of the candidates' table: one column for each quantity."""
    flux, x, y = samples.T
    x0, y0 = facts["centre"]
    distance = np.hypot(x - x0, y - y0)
    columns = {"flux": flux, "x": x, "y": y, "separation_pix": distance}
    if facts.get("pixel_scale_arcsec"):
        columns["separation_mas"] = 1000 * facts["pixel_scale_arcsec"] * distance
    theta = np.degrees(np.arctan2(y - y0, x - x0))
    middle = math.degrees(math.atan2(float(np.median(y)) - y0, float(np.median(x)) - x0))
    theta = (theta - middle + 180) % 360 - 180 + middle % 360  # no jump within the draws
    columns["theta"] = theta
    if facts.get("north"):
        columns["pa"] = theta - 90 + (360 if middle % 360 < 90 else 0)
    if facts.get("star_flux"):
        columns["contrast"] = flux / facts["star_flux"]
    return columns


def quantiles(samples: np.ndarray, facts: Mapping[str, Any]) -> dict[str, float]:
    """Of each quantity, by the names of the candidates' table: `flux_q16`, `flux_q50` and so on."""
    return {
        f"{name}_{key}": float(np.quantile(values, level))
        for name, values in posterior_columns(samples, facts).items()
        for key, level in QUANTILES.items()
    }


def throughput_of(result: Detection) -> np.ndarray | None:
    """Rows of distance and η, where they were measured."""
    measured = result.throughput if isinstance(result, Characterised) else None
    return None if measured is None else measured.detach().cpu().double().numpy()


def additions(
    result: Detection, found: Sequence[Candidate], facts: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], list[dict[str, float]]]:
    """The draws of the candidates in `found` as one array by name, and what a row of the table adds for each.

    `candidate_draws` is `(n, 4)`: the candidate's number from 0, flux, x and y.
    """
    rows: list[dict[str, float]] = [{} for _ in found]
    if not isinstance(result, Characterised):
        return {}, rows
    drawn = []
    posteriors = {id(c): p for c, p in zip(result.candidates, result.posteriors)}
    for index, candidate in enumerate(found):
        posterior = posteriors.get(id(candidate))
        if posterior is None:
            continue
        samples = posterior.samples.flatten(0, 1).cpu().numpy()
        rows[index] = quantiles(samples, facts)
        drawn.append(np.concatenate([np.full((len(samples), 1), index), samples], 1))
    return ({"candidate_draws": np.concatenate(drawn).astype(np.float32)} if drawn else {}), rows
