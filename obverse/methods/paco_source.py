"""PACO for one source: its flux and place between the pixels, free of what it has taught the law of the background.

The law of a patch is learned from frames that the source itself visits, so that its flux is found several times too
small. Here it is learned from what is left without the source. With μ(θ) the cube of a source of θ = (flux, row,
column), d and C the residual and the covariance of the patches of y − μ(θ) about its nearest pixel in each frame,

    G(θ) = Σ_t ∂μ_tᵀ C₋ₜ⁻¹ d_t = 0,     every frame tested by the law of the others

At the true θ the law knows nothing of the source and d_t nothing of C₋ₜ, so that G has mean zero: no bias is left but
that of the noise. θ is found by the steps R⁻¹ G, and at last Newton's with J = −dG/dθ, the change of C among it, by
central differences. With

    R = Σ_t ∂μ_tᵀ C₋ₜ⁻¹ (∂μ_t − mean over the other frames of ∂μ)

κ the mean of b²/a over the patches and frames, and γ the factor by which noise that lasts for several frames adds to
the variance of sums (`source_tests`), G varies by γ κ R, and θ by J⁻¹ γ κ R J⁻ᵀ: the covariance that is reported. Where
frames are independent and C is the truth J = R, γ = 1, and this is the Cramér–Rao bound κ R⁻¹. Speckles that last for
many frames are, where a source hides them, learned less well than elsewhere: J is then half of R, the deviation twice
that of the bound, and so are the errors of injected sources.

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
from .source_tests import SourcePatches

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
    patches = SourcePatches(cube, operator, position, radius)
    source = patches.source(torch.tensor(position, dtype=torch.float64))
    tests = patches.tests(0.0, [source], left_out=left_out)
    precision = (tests.response[:, 0, 0] / tests.dispersion).sum()
    flux = (tests.score[:, 0] / tests.dispersion).sum() / precision
    return float(flux), float((tests.inflation * tests.lasting / precision).sqrt())


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

    Raises:
        InputError: a source at `position` is in no frame.
    """
    level = torch.ones(operator.data_shape[:-3], dtype=torch.float64) if spectrum is None else spectrum
    place = torch.tensor(position, dtype=torch.float64)

    def about(where: Tensor) -> _Search:
        near = (float(where[0]), float(where[1]))
        return _Search(SourcePatches(cube, operator, near, radius, frame_scales), level)

    search = about(place)
    flux, rounds = search.flux_at(place)
    for refined in range(_LINEAR):
        if not flux > 0:
            break
        if 0 < refined < _FREE:
            try:
                search = about(place)
            except InputError:  # it left the frames
                break
        linear = search.linearised(flux, place)
        if int(torch.linalg.cholesky_ex(linear.power).info):  # the frames say nothing of flux or place here
            break
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
            covariance = _in_xy(inverse @ linear.power @ inverse.mT * linear.excess * linear.lasting)
            bound = _in_xy(torch.linalg.inv(linear.power) * linear.excess)
            return FittedSource(flux, (float(place[0]), float(place[1])), covariance, bound, rounds, True)
    return FittedSource(flux, (float(place[0]), float(place[1])), _UNKNOWN, _UNKNOWN, rounds, False)


@dataclass(frozen=True, eq=False)
class _Linear:
    """G/κ and R/κ of (flux, row, column) at one θ, summed over channels; the templates they were taken with, κ of each
    channel, and by how much the correlation of channels, and that of frames, widens the variance."""

    score: Tensor
    power: Tensor
    templates: list[Tensor]
    dispersion: Tensor
    excess: Tensor
    lasting: Tensor


@dataclass(frozen=True, eq=False)
class _Search:
    """The patches about one place, and the spectrum of the source that is looked for in them."""

    patches: SourcePatches
    spectrum: Tensor

    def source(self, place: Tensor) -> Tensor:
        return self.patches.source(place, self.spectrum)

    def score(self, removed: Tensor, linear: _Linear) -> Tensor:
        """G/κ with another source removed."""
        return (self.patches.score(removed, linear.templates) / linear.dispersion[:, None]).sum(0)

    def flux_at(self, place: Tensor) -> tuple[float, int]:
        """The flux of a source at `place`, roughly: steps R⁻¹ G, which are too small rather than too large."""
        source, flux, rounds = self.source(place), 0.0, 0
        while rounds < _FLUX_ROUNDS:
            rounds += 1
            tests = self.patches.tests(flux * source, [source])
            precision = float((tests.response[:, 0, 0] / tests.dispersion).sum())
            if not precision > 0:  # nothing turns there, or all frames see the same
                return math.nan, rounds
            step = float((tests.score[:, 0] / tests.dispersion).sum()) / precision
            flux += step
            if abs(step) < _NEAR * abs(flux) or not flux > 0:
                break
        return flux, rounds

    def linearised(self, flux: float, place: Tensor) -> _Linear:
        """G and R at θ."""
        middle = self.source(place)
        shifts = _DELTA * torch.eye(2, dtype=place.dtype)
        moved = [flux * (self.source(place + shift) - middle) / _DELTA for shift in shifts]
        tests = self.patches.tests(flux * middle, [middle, *moved])
        kappa = tests.dispersion[:, None]
        power = (tests.response / kappa[..., None]).sum(0)
        score = (tests.score / kappa).sum(0)
        power = (power + power.mT) / 2
        return _Linear(score, power, [middle, *moved], tests.dispersion, tests.inflation, tests.lasting)

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
