"""Angular differential imaging: subtract what stands still, turn the frames back, combine.

    median             r_t = y_t − median_s y_s
    components         r_t = y_t − Σ_s w_ts y_s        (see `residual_weights`)
    both               image = median_t R(+pa_t) r_t

Speckles stand still with the pupil while sources turn, so that the first step takes away the speckles and some of each
source, and the second brings together what is left of it. How much is left is the throughput, which `contrast_curve`
measures; a flux read off the image is too low by it.

With `annuli` the components are those of one ring at a time, and each frame has its own: of the frames in which a
source of that ring has moved by a part of the PSF's width, so that the source is not among what is subtracted.

These methods state no noise law: they use the problem's operator (its angles, centre and PSF) and not its noise.

References: Marois et al., "Angular differential imaging: a powerful high-contrast imaging technique", ApJ 2006.
Soummer, Pueyo, Larkin, "Detection and characterization of exoplanets and disks using projections on Karhunen–Loève
eigenimages", ApJ 2012. Amara, Quanz, "PynPoint: an image processing package for finding exoplanets", MNRAS 2012. Absil
et al., "Searching for companions down to 2 AU from beta Pictoris using the L'-band AGPM coronagraph on VLT/NACO", A&A
2013.
"""

__all__ = ["MedianADI", "PrincipalComponentADI", "field_rotation_of"]

import math
import time
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from ..errors import InputError
from ..operators.arguments import require_whole
from ..operators.field_rotation import FieldRotation
from ..operators.motion import pixel_grid
from ..operators.rotate import Rotate
from ..posterior.estimate import Estimate
from ..problem import Problem
from ..solvers.result import Status
from .residual_weights import frames_apart, residual_weights


@dataclass(frozen=True)
class MedianADI:
    """Every frame less the median of all, turned back; the median of that.

    Example:
        >>> import obverse as ob
        >>> A = ob.operators.FieldRotation((1, 9, 9), [0.0, 90.0, 180.0], torch.ones(1, 1))
        >>> y = 7.0 + A.source((4.0, 7.0), 5.0)
        >>> image = MedianADI()(y, ob.Problem(A, ob.noise.Gaussian(1.0))).image
        >>> round(float(image[0, 4, 7]), 3), abs(round(float(image.sum()), 3))
        (5.0, 5.0)
    """

    @torch.no_grad()
    def __call__(self, y: Tensor, problem: Problem) -> Estimate:
        """The combined residual.

        Args:
            y: cube `(T, H, W)`, or `(L, T, H, W)`, whose wavelengths are treated one by one.
            problem: its operator is a FieldRotation; its noise law is not used.

        Returns:
            Estimate: image `(1, H, W)` or `(L, H, W)`, in the units of the cube.

        Raises:
            InputError: the cube does not fit the operator, or is not finite.
        """
        began = time.perf_counter()
        operator = field_rotation_of(y, problem, "MedianADI")
        cubes = y if y.ndim == 4 else y[None]
        image = torch.stack([_combined(cube - _median(cube), operator) for cube in cubes])
        return Estimate(image, _STATUS, (), {"seconds": time.perf_counter() - began})


@dataclass(frozen=True)
class PrincipalComponentADI:
    """Every frame less its projection on the leading principal components of the frames, turned back, the median.

    Args:
        components: number of components, at least 1; fewer are taken where there are not as many frames.
        inner_radius: pixels nearer to the star than this stay zero, and take no part.
        annuli: width of the rings that have components of their own, in pixels; None for the whole frame at once.
        gap: with `annuli`, the frames that a frame's components are learnt from are those in which a source in the
            middle of the ring is further away than `gap` times the PSF's full width at half maximum.

    Raises:
        InputError: an argument is out of range.

    Example:
        >>> import obverse as ob
        >>> A = ob.operators.FieldRotation((1, 9, 9), [0.0, 60.0, 120.0, 180.0], torch.ones(1, 1))
        >>> problem = ob.Problem(A, ob.noise.Gaussian(1.0))
        >>> y = torch.rand(9, 9) * torch.tensor([1.0, 2.0, 3.0, 4.0])[:, None, None]
        >>> bool(PrincipalComponentADI(1)(y, problem).image.abs().max() < 1e-5)
        True
    """

    components: int
    _: KW_ONLY
    inner_radius: float = 0.0
    annuli: float | None = None
    gap: float = 0.5

    def __post_init__(self):
        if require_whole(self.components, "PrincipalComponentADI expects a number of components") < 1:
            raise InputError(f"PrincipalComponentADI expects at least one component, got {self.components}; 8 is usual")
        if not (math.isfinite(self.inner_radius) and self.inner_radius >= 0):
            raise InputError(
                f"PrincipalComponentADI expects an inner_radius of at least zero, got {self.inner_radius}; give pixels"
            )
        if self.annuli is not None and not (math.isfinite(self.annuli) and self.annuli >= 1):
            raise InputError(
                f"PrincipalComponentADI expects rings at least one pixel wide, got {self.annuli}; 3 FWHM is usual"
            )
        if not (math.isfinite(self.gap) and self.gap >= 0):
            raise InputError(f"PrincipalComponentADI expects a gap of at least zero, got {self.gap}; 0.5 is usual")

    @torch.no_grad()
    def __call__(self, y: Tensor, problem: Problem) -> Estimate:
        """The combined residual; arguments, result and errors are those of `MedianADI`.

        Raises:
            InputError: in some ring a frame has fewer than two others to learn from.
        """
        began = time.perf_counter()
        operator = field_rotation_of(y, problem, "PrincipalComponentADI")
        cubes = y if y.ndim == 4 else y[None]
        image = torch.stack([_combined(self.residual(cube, operator), operator) for cube in cubes])
        return Estimate(image, _STATUS, (), {"seconds": time.perf_counter() - began})

    def residual(self, cube: Tensor, operator: FieldRotation) -> Tensor:
        """r_t, before the frames are turned back: `(T, H, W)`."""
        residual = torch.zeros_like(cube)
        for pixels, radius in self._regions(operator, cube):
            seen = cube[:, pixels]
            apart = None
            if self.annuli is not None:
                apart = frames_apart(operator.degrees, radius, self.gap * operator.fwhm)
            residual[:, pixels] = seen - residual_weights(seen, self.components, apart).to(seen) @ seen
        return residual

    def _regions(self, operator: FieldRotation, like: Tensor) -> Iterator[tuple[Tensor, float]]:
        """Masks (H, W) of the pixels that are treated together, and the radius in their middle."""
        rows, columns = pixel_grid(operator.image_shape[1:], torch.empty(0, dtype=torch.float64, device=like.device))
        distance = (rows - operator.centre[0]).hypot(columns - operator.centre[1])
        if self.annuli is None:
            yield distance >= self.inner_radius, math.inf
            return
        inner = self.inner_radius
        while inner <= float(distance.max()):
            pixels = (distance >= inner) & (distance < inner + self.annuli)
            if bool(pixels.any()):
                yield pixels, inner + self.annuli / 2
            inner += self.annuli


_STATUS = Status(True, "closed-form", "subtracted, turned back and combined; no iteration is involved")


def field_rotation_of(y: Tensor, problem: Problem, name: str) -> FieldRotation:
    """The problem's operator, once it is known to fit the cube `y`."""
    operator = problem.operator
    if not isinstance(operator, FieldRotation):
        raise InputError(f"{name} expects a problem whose operator is a FieldRotation, got {operator!r}")
    if tuple(y.shape) != operator.data_shape or not y.is_floating_point():
        raise InputError(
            f"{name} expects a floating-point cube of shape {operator.data_shape}, got {tuple(y.shape)} of {y.dtype}; "
            "check the number of angles"
        )
    if not bool(y.isfinite().all()):
        raise InputError(
            f"{name} expects a finite cube, got {int((~y.isfinite()).sum())} NaN or Inf; repair bad pixels"
        )
    return operator


def _combined(residual: Tensor, operator: FieldRotation) -> Tensor:
    """The median of the frames turned back by their angles."""
    derotation = Rotate(residual.shape, operator.degrees, centre=operator.centre, dtype=residual.dtype)
    return _median(derotation(residual))


def _median(frames: Tensor) -> Tensor:
    """The mean of the two middle values where their number is even, of which torch takes the lower."""
    ordered = frames.sort(0).values
    return (ordered[(len(frames) - 1) // 2] + ordered[len(frames) // 2]) / 2
