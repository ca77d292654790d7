"""Contrast curves: how faint a source would still be detected, at each distance from the star.

    C(r) = τ(n(r)) s(r) / (η(r) a F),       τ(n) = t_{n−1}-quantile of Φ(level) · √(1 + 1/n)

s(r) is the standard deviation of the sums over apertures of one FWHM at the distance r in the combined residual, n(r)
how many there are, τ the factor of `student_factor` (the level itself in the Gaussian curve), a the sum of the PSF over
that aperture and F the flux of the star in units of the PSF. The throughput η is what the method leaves of a source:
faint sources are put into the cube, a few at a time, and η is by how much the sum over their aperture grows, divided by
their flux times a. It includes the transmission of the coronagraph.

The cube should hold no source: subtract those that are known first (see `NegativeSource`).

References: Mawet et al., "Fundamental limitations of high contrast imaging set by small sample statistics", ApJ 2014.
"""

__all__ = ["ContrastCurve", "contrast_curve"]

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..operators.field_rotation import FieldRotation
from ..posterior.estimate import Estimate
from ..problem import Problem
from .differential_imaging import field_rotation_of
from .small_sample import _looked_up, _reach, aperture_sums, places_at, ring_angles, student_factor

_APART = 3  # FWHM between the sources that are put in at once
_GOLDEN = math.pi * (3 - math.sqrt(5))  # azimuth between neighbours in distance: far from each other for any number
_STARTS = 4  # rings of apertures over which the variance is averaged


@dataclass(frozen=True, eq=False)
class ContrastCurve:
    """Detection limits at a list of distances; all fields are `(n,)`, in float64.

    Args:
        radius: distance from the star in pixels.
        contrast: flux of a source that is just detected, relative to the star's, with Student's law; NaN where nothing
            of a source is left.
        gaussian: the same with the normal law, which is too hopeful near the star.
        noise: standard deviation of the sums over apertures.
        throughput: part of a source's flux that the method leaves.
        spread: standard deviation of the throughput over azimuths, at the radii where it was measured, interpolated.
    """

    radius: Tensor
    contrast: Tensor
    gaussian: Tensor
    noise: Tensor
    throughput: Tensor
    spread: Tensor


@torch.no_grad()
def contrast_curve(
    method: Callable[[Tensor, Problem], Estimate],
    cube: Tensor,
    problem: Problem,
    star_flux: float,
    *,
    level: float = 5.0,
    branches: int = 3,
    brightness: float = 10.0,
    inner_radius: float | None = None,
    fwhm: float | None = None,
) -> ContrastCurve:
    """The faintest sources that `method` would detect in a cube.

    Args:
        method: MedianADI, PrincipalComponentADI, or anything that is called alike and whose image is linear enough.
        cube: `(T, H, W)`, without sources.
        problem: its operator is a FieldRotation.
        star_flux: flux of the star in units of the PSF.
        level: normal deviate that a detection shall be as unlikely as.
        branches: azimuths at which the throughput is measured at each distance.
        brightness: of the sources that are put in, in standard deviations of the noise before the throughput.
        inner_radius: where the curve begins, in pixels; one FWHM by default.
        fwhm: of the PSF in pixels; that of the operator by default.

    Raises:
        InputError: an argument is out of range, or the cube has no room for a ring.
    """
    operator = field_rotation_of(cube, problem, "contrast_curve")
    if cube.ndim != 3:
        raise InputError(
            f"contrast_curve expects one wavelength, a cube (T, H, W), got {tuple(cube.shape)}; choose one"
        )
    if not (star_flux > 0 and level > 0 and brightness > 0 and branches >= 1):
        raise InputError(
            f"contrast_curve expects positive numbers, got star_flux={star_flux}, level={level}, "
            f"brightness={brightness}, branches={branches}"
        )
    width = operator.fwhm if fwhm is None else float(fwhm)
    image = method(cube, problem).image
    sums, outer = aperture_sums(image, width), _reach(image, width, operator.centre)
    inner = width if inner_radius is None else max(float(inner_radius), width)
    if not inner + width < outer:
        raise InputError(
            f"contrast_curve expects room between inner_radius and the edge, got {inner:g} to {outer:g} pixels"
        )
    radii = np.arange(inner, outer, 1.0)
    noise = np.array([_noise(sums, operator, r, width) for r in radii])
    in_aperture = _in_aperture(operator.psf, width)
    places = np.arange(inner, outer, width)
    fluxes = brightness * np.interp(places, radii, noise) / in_aperture
    measured = np.zeros((branches, len(places)))
    for branch in range(branches):
        for first in range(min(_APART, len(places))):
            chosen = range(first, len(places), _APART)
            azimuths = {j: 2 * math.pi * branch / branches + _GOLDEN * j for j in chosen}
            filled = cube
            for j, azimuth in azimuths.items():
                filled = filled + operator.source(_place(operator, places[j], azimuth), fluxes[j]).to(cube)
            grown = aperture_sums(method(filled, problem).image, width) - sums
            for j, azimuth in azimuths.items():
                angle = torch.tensor([azimuth], dtype=torch.float64, device=cube.device)
                left = float(_looked_up(grown, operator.centre, places[j], angle[None]))
                measured[branch, j] = left / (fluxes[j] * in_aperture)
    throughput = np.interp(radii, places, measured.mean(0))
    spread = np.interp(radii, places, measured.std(0, ddof=1) if branches > 1 else np.full(len(places), math.nan))
    unit = noise / (np.where(throughput > 0, throughput, math.nan) * in_aperture * star_flux)
    factors = np.array([student_factor(places_at(float(r), width), level) for r in radii])
    columns = (radii, factors * unit, level * unit, noise, throughput, spread)
    return ContrastCurve(*(torch.from_numpy(np.asarray(column)) for column in columns))


def _noise(sums: Tensor, operator: FieldRotation, radius: float, fwhm: float) -> float:
    """Standard deviation of the apertures of a ring, with the variance averaged over where the first one lies."""
    angles = ring_angles(radius, fwhm, _STARTS).to(sums.device)
    return float(_looked_up(sums, operator.centre, radius, angles).var(1).mean().sqrt())


def _place(operator: FieldRotation, radius: float, azimuth: float) -> tuple[float, float]:
    row, column = operator.centre
    return row + radius * math.sin(azimuth), column + radius * math.cos(azimuth)


def _in_aperture(psf: Tensor, fwhm: float) -> float:
    """Sum of the PSF over a disc of one FWHM about its source, with zeros around it."""
    margin = math.ceil(fwhm)
    sums = aperture_sums(F.pad(psf[None], (margin,) * 4), fwhm)
    return float(sums[psf.shape[0] // 2 + margin, psf.shape[1] // 2 + margin])
