"""Regions in the leading components: an ellipsoid or a box that holds the truth's coefficients, all of them together.

    cₖ = uₖᵀ (x − m),   zₖ = cₖ / √λₖ,        ellipsoid: ‖z‖₂ ≤ r        box: maxₖ |zₖ| ≤ r
    r = conformal quantile of ‖z‖ over calibration images        ⇒        P(c ∈ region) ≥ level
    left out by K components:   L_K = ‖e − U Uᵀ e‖² / ‖e‖²,  e = x − m,  between 0 and 1, falling with K

The number K is the least at which the Hoeffding–Bentkus bound of E L_K, from the first half of the images, is at most
β; r comes from the second half, which the choice has not seen. So there are two statements, each of its own kind: the
coefficients lie in the region with probability ≥ level, over calibration and new image; and with probability ≥ 1 − δ
over the first half, at most β of the error's energy lies outside the components, on average over new images. Neither
says that the *image* lies in the region: what the components leave out is not bounded pixel by pixel. In denoising a
few components hold little of the error, and only a large β can be reached.

References: Belhasin, Romano, Freedman, Rivlin, Elad, "Principal uncertainty quantification with spatial correlation
for image restoration problems", IEEE TPAMI 2024.
"""

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from ...errors import FormatError, InputError
from ..covariance import Components
from ..posterior import Posterior
from .calibration import check_target, common_target
from .conformal import conformal_quantile
from .pairs import observed
from .risk_control import check_count, check_delta, hoeffding_bentkus, risk_p_value
from .stored import read_facts, write_facts

__all__ = ["PrincipalRegion", "PrincipalRegions", "principal_regions"]

KINDS = ("ellipsoid", "box")


@dataclass(frozen=True, eq=False)
class PrincipalRegion:
    """The region of one image.

    Args:
        mean: m, `image_shape`.
        components: the leading components, K of them.
        kind: "ellipsoid" or "box".
        radius: r, in standard deviations.
    """

    mean: Tensor
    components: Components
    kind: str
    radius: float

    @property
    def half_widths(self) -> Tensor:
        """r √λₖ, `(K,)`: how far the region reaches along each component, of unit norm, in units of the image."""
        return self.radius * self.components.variances.sqrt()

    @property
    def log_volume(self) -> float:
        """Logarithm of the volume in the K coefficients, with which an ellipsoid and a box can be compared."""
        k = len(self.components.variances)
        unit = k * math.log(2)
        if self.kind == "ellipsoid":
            unit = k / 2 * math.log(math.pi) - math.lgamma(k / 2 + 1)
        return unit + float(self.half_widths.double().log().sum())

    def contains(self, image: Tensor) -> bool:
        """Do the image's coefficients lie in the region?"""
        along, _ = _coefficients(self.components, image - self.mean)
        return _size(along, self.components, len(self.components.variances), self.kind) <= self.radius


@dataclass(frozen=True)
class PrincipalRegions:
    """What was found on calibration images, for the region of any other.

    Args:
        kind: "ellipsoid" or "box".
        components: K.
        computed: number of components to compute, of which the first K are used.
        radius: r, in standard deviations along the components.
        level: probability that the coefficients lie in the region.
        count: images on which r was found.
        left_out: mean share of the error's energy outside the components, on those images.
        left_out_bound: its upper confidence bound, at 1 − delta.
        delta: see there.
        target: of the posteriors.
        guarantee: in words.
    """

    kind: str
    components: int
    computed: int
    radius: float
    level: float
    count: int
    left_out: float
    left_out_bound: float
    delta: float
    target: str
    guarantee: str

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"kind expects one of {', '.join(KINDS)}, got {self.kind!r}; choose one")
        if not 0 < self.radius < math.inf:
            raise InputError(
                f"principal regions expect a finite radius above zero, got {self.radius}; where it is infinite, the "
                "truth lies along a component that is stated to have no variance: ask for fewer components"
            )

    def of(self, posterior: Posterior) -> PrincipalRegion:
        """The region of one posterior.

        Raises:
            InputError: a posterior of another target.
        """
        check_target(posterior, self.target)
        found = posterior.components(self.computed)
        kept = Components(*(part[: self.components] for part in (found.variances, found.directions, found.residuals)))
        return PrincipalRegion(posterior.mean, kept, self.kind, self.radius)

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> Path:
        """Write it as JSON, whole or not at all."""
        facts = {field.name: getattr(self, field.name) for field in fields(self)}
        return write_facts(path, "principal-regions", facts, overwrite)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "PrincipalRegions":
        """Read what was saved.

        Raises:
            InputError: the file cannot be read.
            FormatError: it is of another kind.
        """
        try:
            return cls(**read_facts(path, "principal-regions"))
        except TypeError as error:
            raise FormatError(f"{path} expects saved principal regions, got incomplete facts ({error})") from error


def principal_regions(
    posteriors: Iterable[Posterior],
    truths: Iterable[Tensor],
    level: float = 0.9,
    *,
    kind: str = "ellipsoid",
    components: int = 5,
    left_out: float | None = None,
    delta: float = 0.1,
) -> PrincipalRegions:
    """Calibrate a region for the coefficients along the leading components.

    Args:
        posteriors: one per truth; a generator will do, since only a few numbers of each are kept.
        truths: images `image_shape`.
        level: probability that all coefficients together lie in the region.
        kind: "ellipsoid" is the smaller one for Gaussian errors, "box" gives an interval for each component.
        components: K; or the largest K, where `left_out` is given.
        left_out: β, the share of the error's energy that the components may leave out on average; K is then the least
            with which they do, and half of the images go into its choice.
        delta: probability that the images mislead about the energy left out.

    Raises:
        InputError: too few images, or `left_out` cannot be reached; it says what is.

    Example:
        >>> from obverse.posterior import LowRankDiagonal
        >>> from obverse.solvers.result import Status
        >>> unit = LowRankDiagonal(torch.eye(4)[:, :2], torch.tensor([2.0, 1.0]), torch.ones(4), (1, 2, 2))
        >>> known = Posterior(torch.zeros(1, 2, 2), Status(True, "closed-form", ""), covariance=unit)
        >>> truths = unit.sample(400, torch.Generator().manual_seed(0))
        >>> found = principal_regions([known] * 400, truths, components=2)
        >>> region = found.of(known)
        >>> region.contains(known.mean), region.contains(known.mean + 9), 2.0 < found.radius < 2.3
        (True, False, True)
    """
    if kind not in KINDS:
        raise InputError(f"kind expects one of {', '.join(KINDS)}, got {kind!r}; choose one")
    if components < 1:
        raise InputError(f"principal_regions expects at least one component, got {components}; five are usual")
    check_delta(delta)
    if left_out is not None and not 0 < left_out < 1:
        raise InputError(f"left_out expects a share of the error's energy between 0 and 1, got {left_out}; 0.2 is one")

    def sizes_and_shares(posterior: Posterior, truth: Tensor) -> tuple[list[float], list[float]]:
        found = posterior.components(components)
        along, shares = _coefficients(found, truth - posterior.mean)
        return [_size(along, found, k, kind) for k in range(1, components + 1)], shares

    found, targets = observed(posteriors, truths, sizes_and_shares)
    sizes, lost = [own for own, _ in found], [shares for _, shares in found]
    k, start = components, 0
    if left_out is not None:
        start = len(lost) // 2
        check_count(start, left_out, delta, "calibration images in the first half")
        k = _least_components(lost[:start], left_out, delta)
    radius = conformal_quantile([own[k - 1] for own in sizes[start:]], level)
    count = len(sizes) - start
    outside = math.fsum(own[k - 1] for own in lost[start:]) / count
    bound = hoeffding_bentkus(outside, count, delta)
    guarantee = (
        f"In at least {level:.0%} of new images like the {count} of the calibration, all {k} coefficients lie in the "
        f"{kind}. Of the error's energy {outside:.0%} lay outside the components, and with probability {1 - delta:.0%} "
        f"over calibrations no more than {bound:.0%} does on average; that part is not bounded pixel by pixel."
    )
    target = common_target(targets)
    return PrincipalRegions(kind, k, components, radius, level, count, outside, bound, delta, target, guarantee)


def _coefficients(found: Components, error: Tensor) -> tuple[Tensor, list[float]]:
    """cₖ and the shares of the error's energy that the first 1, 2, … components leave out."""
    wide = error.double().flatten()
    along = found.directions.double().flatten(1) @ wide
    energy = float(wide.square().sum())
    left = 1 - along.square().cumsum(0) / max(energy, 1e-300)
    return along, left.clamp(0, 1).tolist() if energy > 0 else [0.0] * len(along)


def _size(along: Tensor, found: Components, k: int, kind: str) -> float:
    """‖z‖ of the first k coefficients; infinite where one of them has no variance at all."""
    variances = found.variances[:k].double()
    z = along[:k].abs() / variances.sqrt()
    z = torch.where(along[:k] == 0, 0.0, z)
    return float(z.norm() if kind == "ellipsoid" else z.max())


def _least_components(lost: list[list[float]], beta: float, delta: float) -> int:
    """The least K from which on every K is shown to leave out at most β."""
    count = len(lost)
    risks = [math.fsum(own[k] for own in lost) / count for k in range(len(lost[0]))]
    if risk_p_value(risks[-1], count, beta) > delta:
        raise InputError(
            f"left_out expects a share that {len(risks)} components can be shown to reach, got {beta:g}: they leave "
            f"out {risks[-1]:.3g} on average of {count} images, where delta {delta:g} allows at least "
            f"{hoeffding_bentkus(risks[-1], count, delta):.3g}; allow more components or a larger share"
        )
    return next(k + 1 for k, risk in enumerate(risks) if risk_p_value(risk, count, beta) <= delta)
