"""A source's flux and place from a negative copy: subtract a model of it from the cube until nothing is left.

    minimise over (f, p)    Σ_{q near the source} [ mean_t (residual of cube − f · source(p))_t at φ_t(q) ]²

The residual is that of annular principal components, computed afresh from each trial cube, so that what the method
takes away of a source biases neither flux nor place. q runs over the pixels of a disc on the sky, φ_t takes them to
frame t.
The minimum is found by Gauss–Newton steps with derivatives by differences.

The errors are not those of a noise model: speckles are neither white nor Gaussian. The source found is subtracted, one
of its flux is put in at each of several other azimuths at its distance, and fitted in the same way. Errors of flux and
of place, along and across the radius, are turned to the source's own azimuth; their mean square is the covariance, so
that a bias counts as error.

References: Lagrange et al., "A giant planet imaged in the disk of the young star β Pictoris", Science 2010. Marois,
Macintosh, Véran, "Exoplanet imaging with LOCI processing: photometry and astrometry with the new SOSIE pipeline",
Proc. SPIE 2010. Wertz et al., "VLT/SPHERE robust astrometry of the HR8799 planets at milliarcsecond-level accuracy",
A&A 2017.
"""

__all__ = ["NegativeSource", "SourceFit"]

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..operators.arguments import as_numbers, require_whole
from ..operators.field_rotation import FieldRotation
from ..operators.motion import pixel_grid
from ..problem import Problem
from ..solvers.result import Status
from .detection import Candidate
from .differential_imaging import field_rotation_of
from .residual_weights import frames_apart, residual_weights

_RING = 4.0  # FWHM: width of the ring that is treated
_STEPS = 25  # Gauss–Newton steps at most
_MOVED = 1e-3  # pixels, and part of the flux: a smaller step ends the search
_DIFFERENCE = (1e-2, 1e-2, 1e-2)  # part of the flux, pixels, pixels: small beside the PSF, large beside rounding
_FARTHEST = 0.5  # FWHM that one step may move


@dataclass(frozen=True, eq=False)
class SourceFit:
    """A source, and how a method errs with sources like it.

    Args:
        candidate: the source; its S/N is flux over the flux's standard error.
        errors: (flux, along the radius, across it), found minus true, of each source that was put in: `(n, 3)`.
        status: how the fit of the source ended, and how many of the others did not converge.
        evaluations: how often principal components were computed.
    """

    candidate: Candidate
    errors: Tensor
    status: Status
    evaluations: int

    @property
    def bias(self) -> Tensor:
        """The mean of the errors: `(3,)`."""
        return self.errors.mean(0)


@dataclass(frozen=True)
class NegativeSource:
    """Flux and place of a source by a negative copy in the data.

    Args:
        components: principal components that are subtracted from the source's ring.
        injections: other azimuths at which errors are measured, at least 3.
        aperture: radius in FWHM of the disc in which the residual is made small.
        gap: as for PrincipalComponentADI.

    Raises:
        InputError: an argument is out of range.
    """

    components: int
    _: KW_ONLY
    injections: int = 12
    aperture: float = 1.5
    gap: float = 0.5

    def __post_init__(self):
        if require_whole(self.components, "NegativeSource expects a number of components") < 1:
            raise InputError(f"NegativeSource expects at least one component, got {self.components}; 8 is usual")
        if require_whole(self.injections, "NegativeSource expects a number of injections") < 3:
            raise InputError(f"NegativeSource expects at least three injections, got {self.injections}; 12 is usual")
        if not 0 < self.aperture <= _RING / 2 or not (math.isfinite(self.gap) and self.gap >= 0):
            raise InputError(
                f"NegativeSource expects an aperture up to {_RING / 2:g} FWHM and a gap of at least zero, got "
                f"{self.aperture} and {self.gap}"
            )

    @torch.no_grad()
    def __call__(self, y: Tensor, problem: Problem, start: Sequence[float] | Tensor) -> SourceFit:
        """The source near a place.

        Args:
            y: cube `(T, H, W)`.
            problem: its operator is a FieldRotation; its noise law is not used.
            start: (row, column) of the source on the sky, to a fraction of the PSF's width.

        Raises:
            InputError: the cube does not fit the operator, or no source is near the start.
        """
        operator = field_rotation_of(y, problem, "NegativeSource").to(dtype=torch.float64)
        assert isinstance(operator, FieldRotation)
        if y.ndim != 3:
            raise InputError(f"NegativeSource expects one wavelength, a cube (T, H, W), got {tuple(y.shape)}")
        cube = y.double()
        place = as_numbers(start, "NegativeSource expects a start (row, column)", torch.float64).tolist()
        found, converged, used = self._fitted(cube, operator, place)
        if not found[0] > 0:
            raise InputError(
                f"NegativeSource expects a source near {tuple(place)}, got a flux of {found[0]:.3g}; check the start"
            )
        empty = cube - operator.source(found[1:], found[0])
        up, right = (p - c for p, c in zip(found[1:], operator.centre))
        radius, azimuth = math.hypot(up, right), math.atan2(up, right)
        errors, failed = [], 0
        for j in range(1, self.injections + 1):
            angle = azimuth + 2 * math.pi * j / (self.injections + 1)
            sin, cos = math.sin(angle), math.cos(angle)
            truth = [operator.centre[0] + radius * sin, operator.centre[1] + radius * cos]
            other, fine, count = self._fitted(empty + operator.source(truth, found[0]), operator, truth)
            down, across = other[1] - truth[0], other[2] - truth[1]
            errors.append((other[0] - found[0], across * cos + down * sin, down * cos - across * sin))
            used, failed = used + count, failed + (not fine)
        table = torch.tensor(errors, dtype=torch.float64)
        sin, cos = math.sin(azimuth), math.cos(azimuth)
        # (flux, along, across) → (flux, x, y)
        axes = torch.tensor([[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]], dtype=torch.float64)
        turned = table @ axes.mT
        covariance = turned.mT @ turned / len(turned)
        rows = tuple(tuple(row) for row in covariance.tolist())
        candidate = Candidate(found[2], found[1], found[0] / math.sqrt(rows[0][0]), found[0], rows)
        return SourceFit(candidate, table, _status(converged, failed, self.injections), used)

    def _fitted(self, cube: Tensor, operator: FieldRotation, start: list[float]) -> tuple[list[float], bool, int]:
        """(flux, row, column), whether the steps became small, and how many residuals were computed."""
        left = _Residual(cube, operator, start, self)
        none = left((0.0, *start))
        trial = float(none.abs().max()) / float(operator.psf.max())
        for _ in range(2):  # the response to flux is not linear: a second trial at the first one's answer
            response = none - left((trial, *start))
            strength = float(response.square().sum())
            trial = trial * float((none * response).sum()) / strength if strength > 0 else 0.0
            if trial <= 0:
                return [trial, *start], False, left.count
        point, longest = [trial, *start], _FARTHEST * operator.fwhm
        for _ in range(_STEPS):
            value = left(point)
            steps = (_DIFFERENCE[0] * abs(point[0]), *_DIFFERENCE[1:])
            columns = [(left([p + h * (i == j) for j, p in enumerate(point)]) - value) / h for i, h in enumerate(steps)]
            move = torch.linalg.lstsq(torch.stack(columns, 1), -value[:, None]).solution[:, 0].tolist()
            shrink = min(
                1.0, longest / max(math.hypot(move[1], move[2]), 1e-30), abs(point[0] / (2 * move[0] or 1e-30))
            )
            point = [p + shrink * m for p, m in zip(point, move)]
            if math.hypot(move[1], move[2]) < _MOVED and abs(move[0]) < _MOVED * abs(point[0]):
                return point, True, left.count
        return point, False, left.count


class _Residual:
    """What is left near a place of the sky after a trial source was subtracted from its ring of a cube."""

    def __init__(self, cube: Tensor, operator: FieldRotation, place: list[float], method: NegativeSource):
        self.operator, self.components, self.count = operator, method.components, 0
        rows, columns = pixel_grid(operator.image_shape[1:], cube)
        radius = math.hypot(*(p - c for p, c in zip(place, operator.centre)))
        distance = (rows - operator.centre[0]).hypot(columns - operator.centre[1])
        self.ring = (distance - radius).abs() <= _RING / 2 * operator.fwhm
        self.seen = cube[:, self.ring]
        self.apart = frames_apart(operator.degrees, radius, method.gap * operator.fwhm)
        near = torch.nonzero((rows - place[0]).hypot(columns - place[1]) <= method.aperture * operator.fwhm)
        tracks = torch.stack([operator.positions(pixel.double()) for pixel in near], 1)  # (T, pixels, 2)
        scale = tracks.new_tensor([2 / (n - 1) for n in operator.image_shape[1:]])
        self.grid = (tracks * scale - 1).flip(-1)[:, None]

    def __call__(self, point: Sequence[float]) -> Tensor:
        self.count += 1
        flux, *place = point
        frames = self.seen - self.operator.source(place, flux)[:, self.ring] if flux else self.seen
        residual = frames - residual_weights(frames, self.components, self.apart) @ frames
        images = residual.new_zeros(len(residual), 1, *self.ring.shape)
        images[:, 0, self.ring] = residual
        return F.grid_sample(images, self.grid, "bicubic", "zeros", True)[:, 0, 0].mean(0)


def _status(converged: bool, failed: int, injections: int) -> Status:
    others = f"{failed} of the {injections} fits elsewhere did not converge"
    if converged:
        return Status(True, "converged", f"the last step moved the source by less than {_MOVED:g} pixels; {others}")
    message = f"{_STEPS} steps still moved the source by more than {_MOVED:g} pixels; try another start; {others}"
    return Status(False, "max-iterations", message)
