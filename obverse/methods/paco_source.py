"""PACO for one source: its flux and place between the pixels, free of what it has taught the law of the background.

The law of a patch is learned from frames that the source itself visits, so that its flux is found several times too
small. Here it is learned from what is left without the source. With μ(θ) the cube of a source of θ = (flux, row,
column), d and C the residual and the covariance of the patches of y − μ(θ) about its nearest pixel in each frame,

    G(θ) = Σ_t ∂μ_tᵀ C₋ₜ⁻¹ d_t = 0,     every frame tested by the law of the others

At the true θ the law knows nothing of the source and d_t nothing of C₋ₜ, so that G has mean zero: no bias is left but
that of the noise. θ is found by the steps R⁻¹ G, and at last Newton's with J = −dG/dθ, the change of C among it, by
central differences. With

    R = Σ_t ∂μ_tᵀ C₋ₜ⁻¹ (∂μ_t − mean over the other frames of ∂μ)

and κ the mean of b²/a over the patches and frames, G varies by κ R, and θ by J⁻¹ κ R J⁻ᵀ: the covariance that is
reported. Where frames are independent and C is the truth J = R, and this is the Cramér–Rao bound κ R⁻¹. Speckles that
last for many frames are, where a source hides them, learned less well than elsewhere: J is then half of R, the
deviation twice that of the bound, and so are the errors of injected sources.

Channels of a spectrum add their G/κ and R/κ. Their noise is correlated, and the covariance is multiplied by
(Σ_lm r_lm √(P_l P_m)) / Σ P_l, with P_l the precision of the flux and r_lm the correlation of tests in two channels.

References: as in `patch_statistics`. Huber, "The behavior of maximum likelihood estimates under nonstandard
conditions", Berkeley Symposium 1967.
"""

__all__ = ["FittedSource", "fit_source", "hypothesis"]

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from ..operators.field_rotation import FieldRotation
from .patch_statistics import Patches, PatchStatistics, seen_pixels

_FLUX_ROUNDS = 12  # at most, of the flux alone, before the place moves too
_NEAR = 0.1  # of the flux: a step that is smaller ends them
_LINEAR = 6  # times that the derivative is taken
_FREE = 3  # of these times, the nearest pixels are found anew; then they stay, or a place between two might swing
_CHORDS = 4  # steps with one derivative
_STEP = 0.5  # pixels that the place may move in a round
_SMALL = 0.02  # standard deviations: a step that is smaller ends the iteration
_DELTA = 0.1  # pixels of the templates' differences, and standard deviations of those of G
_UNKNOWN = ((math.nan,) * 3,) * 3


@dataclass(frozen=True)
class FittedSource:
    """A source's flux and place.

    Args:
        flux: in units of the operator's PSF.
        position: (row, column) on the sky.
        covariance: of (flux, x, y) with x the column: three rows of three.
        bound: the Cramér–Rao covariance, for independent frames, laid out alike.
        rounds: evaluations of G beside those of derivatives.
        converged: whether the last step was small.
    """

    flux: float
    position: tuple[float, float]
    covariance: tuple[tuple[float, ...], ...]
    bound: tuple[tuple[float, ...], ...]
    rounds: int
    converged: bool


@dataclass(frozen=True, eq=False)
class _Tests:
    """G `(L, J)`, R `(L, J, J)`, κ `(L,)` and the correlation of the channels `(L, L)`."""

    score: Tensor
    response: Tensor
    dispersion: Tensor
    correlation: Tensor


def hypothesis(
    cube: Tensor, operator: FieldRotation, position: tuple[float, float], radius: int, *, left_out: bool = True
) -> tuple[float, float]:
    """Flux and its standard deviation for one place, exactly: the PSF where it is in each frame, and no turned maps.

    The source still is in the law of the background, as it is in the maps: see `fit_source`.

    Args:
        cube: `operator.data_shape`, float64 like the operator.
        position: (row, column) on the sky.
        radius: of the patches.
        left_out: test each frame by the law of the others.
    """
    tests = _tests(cube, operator.source(position)[None], operator, position, radius, left_out)
    precision = (tests.response[:, 0, 0] / tests.dispersion).sum()
    flux = (tests.score[:, 0] / tests.dispersion).sum() / precision
    return float(flux), float((_inflation(tests) / precision).sqrt())


@torch.no_grad()
def fit_source(
    cube: Tensor,
    operator: FieldRotation,
    position: tuple[float, float],
    radius: int,
    *,
    spectrum: Tensor | None = None,
    frame_scales: bool = False,
) -> FittedSource:
    """Flux and place of the source near `position` (row, column), by the iteration above.

    Args:
        cube: `operator.data_shape`, float64 like the operator; a pixel that is NaN in some frame is not used.
        radius: of the patches.
        spectrum: relative flux in each channel, `(L,)`.
        frame_scales: give each frame of a patch its own scale.
    """
    level = torch.ones(operator.data_shape[:-3], dtype=torch.float64) if spectrum is None else spectrum
    search = _Search(cube, operator, radius, level, frame_scales)
    place = torch.tensor(position, dtype=torch.float64)
    flux, rounds = search.flux_at(place)
    for refined in range(_LINEAR):
        if not flux > 0:
            break
        if refined < _FREE:
            nearest = (float(place[0]), float(place[1]))
        linear = search.linearised(flux, place, nearest)
        slope = linear.power if refined < _FREE - 1 else search.slope(flux, linear)
        score, sizes = linear.score, []
        for _ in range(_CHORDS):
            step = torch.linalg.solve(slope, score)
            sizes.append(float((step @ linear.power @ step).sqrt()))
            shift = step[1:] * min(1.0, _STEP / max(float(step[1:].norm()), 1e-12))
            place, flux = place + shift, flux + max(-flux / 2, min(flux, float(step[0])))
            if sizes[-1] < _SMALL or not flux > 0:
                break
            rounds += 1
            score = search.score(flux * search.source(place), linear)
        if slope is not linear.power and sizes[0] < _SMALL:
            inverse = torch.linalg.inv(slope)
            covariance = _in_xy(inverse @ linear.power @ inverse.mT * linear.excess)
            bound = _in_xy(torch.linalg.inv(linear.power) * linear.excess)
            return FittedSource(flux, (float(place[0]), float(place[1])), covariance, bound, rounds, True)
    return FittedSource(flux, (float(place[0]), float(place[1])), _UNKNOWN, _UNKNOWN, rounds, False)


@dataclass(frozen=True, eq=False)
class _Linear:
    """G/κ and R/κ of (flux, row, column) at one θ, summed over channels; the templates and places they were taken with,
    κ of each channel, and by how much the correlation of channels widens the variance."""

    score: Tensor
    power: Tensor
    templates: Tensor
    place: tuple[float, float]
    dispersion: Tensor
    excess: Tensor


@dataclass(frozen=True, eq=False)
class _Search:
    """One cube, and the source of unit flux that is looked for in it."""

    cube: Tensor
    operator: FieldRotation
    radius: int
    spectrum: Tensor
    frame_scales: bool

    def source(self, place: Tensor) -> Tensor:
        return self.operator.source(place, self.spectrum)

    def tests(self, removed: Tensor, templates: Tensor, place: tuple[float, float]) -> _Tests:
        return _tests(self.cube - removed, templates, self.operator, place, self.radius, True, self.frame_scales)

    def score(self, removed: Tensor, linear: _Linear) -> Tensor:
        """G/κ with another source removed."""
        return (self.tests(removed, linear.templates, linear.place).score / linear.dispersion[:, None]).sum(0)

    def flux_at(self, place: Tensor) -> tuple[float, int]:
        """The flux of a source at `place`, roughly: steps R⁻¹ G, which are too small rather than too large."""
        source, where, flux = self.source(place), (float(place[0]), float(place[1])), 0.0
        rounds = 0
        while rounds < _FLUX_ROUNDS:
            rounds += 1
            tests = self.tests(flux * source, source[None], where)
            precision = (tests.response[:, 0, 0] / tests.dispersion).sum()
            step = float((tests.score[:, 0] / tests.dispersion).sum() / precision)
            flux += step
            if abs(step) < _NEAR * abs(flux) or not flux > 0:
                break
        return flux, rounds

    def linearised(self, flux: float, place: Tensor, where: tuple[float, float]) -> _Linear:
        """G and R, in the patches about the pixels nearest to a source at `where`."""
        middle = self.source(place)
        shifts = _DELTA * torch.eye(2, dtype=place.dtype)
        moved = [flux * (self.source(place + shift) - middle) / _DELTA for shift in shifts]
        templates = torch.stack([middle, *moved])
        tests = self.tests(flux * middle, templates, where)
        kappa = tests.dispersion[:, None]
        power = (tests.response / kappa[..., None]).sum(0)
        score = (tests.score / kappa).sum(0)
        return _Linear(score, (power + power.mT) / 2, templates, where, tests.dispersion, _inflation(tests))

    def slope(self, flux: float, linear: _Linear) -> Tensor:
        """J/κ, by central differences along the templates."""
        steps = _DELTA / linear.power.diagonal().sqrt()
        removed = flux * linear.templates[0]
        columns = [
            (self.score(removed - step * along, linear) - self.score(removed + step * along, linear)) / (2 * step)
            for step, along in zip(steps, linear.templates)
        ]
        return torch.stack(columns, 1)


def _in_xy(covariance: Tensor) -> tuple[tuple[float, ...], ...]:
    """A covariance of (flux, row, column) as one of (flux, x, y)."""
    return tuple(map(tuple, covariance[[0, 2, 1]][:, [0, 2, 1]].tolist()))


def _tests(
    cube: Tensor,
    templates: Tensor,
    operator: FieldRotation,
    position: tuple[float, float],
    radius: int,
    left_out: bool,
    frame_scales: bool = False,
) -> _Tests:
    """Tests of templates `(J, *data_shape)` in the patches about a source at `position`, frame by frame."""
    channels = (cube[None], templates[:, None]) if cube.ndim == 3 else (cube, templates)
    frames, height, width = cube.shape[-3:]
    nearest = operator.positions(position).round().long()
    inside = ((nearest >= 0) & (nearest < torch.tensor([height, width]))).all(1)
    if not bool(inside.any()):
        raise InputError(f"PACO expects a position whose source is in some frame, got {position}; see the coverage")
    own, (rows, columns) = torch.nonzero(inside)[:, 0], nearest[inside].unbind(1)
    each = torch.arange(len(own))
    scores, responses, dispersions, values = [], [], [], []
    for data, shapes in zip(channels[0], channels[1].unbind(1)):
        known = seen_pixels(data)
        patches, seen = Patches(data, known, radius).at(rows, columns)
        law = PatchStatistics.learned(patches, seen, frame_scales)
        share = (law.weights / law.weights.sum(-1, keepdim=True))[:, None]
        here, mean = [], []
        for shape in shapes:
            of_source = Patches(shape, known, radius).at(rows, columns)[0]
            here.append(of_source[each, :, own])
            mean.append((of_source * share).sum(-1))
        count, alone = len(here), 1 / (1 - share[each, 0, own])
        b, a = (law.left_out if left_out else law.tested)(torch.stack(here + mean, -1))
        score, precision = b[each, :count, own], a[each, :, :, own]
        scores.append(score.sum(0))
        change = (precision[:, :count, :count] - precision[:, :count, count:]) * alone[:, None, None]
        responses.append(change.sum(0))
        power = a[:, 0, 0]
        z = torch.where(power > 0, b[:, 0] / torch.where(power > 0, power, 1.0).sqrt(), 0.0).flatten()
        dispersions.append(z.square().mean() if left_out else z.new_ones(()))
        values.append(z)
    correlation = torch.corrcoef(torch.stack(values)).reshape(len(values), len(values))
    return _Tests(torch.stack(scores), torch.stack(responses), torch.stack(dispersions), correlation)


def _inflation(tests: _Tests) -> Tensor:
    """By how much the variance exceeds that of independent channels."""
    weight = (tests.response[:, 0, 0] / tests.dispersion).clamp(min=0).sqrt()
    return (weight @ tests.correlation @ weight) / weight.square().sum()
