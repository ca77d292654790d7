"""How bright a source must be for PACO to find it with a given S/N: the part of it that the test leaves.

The law of a patch is learned with the source in it, which hides a part of the source, the more the brighter it is: S/N
grows with flux f more slowly than f/σ. So sources of several fluxes are put into a cube, one at a time, at several
azimuths of each distance, and tested where they are (`hypothesis`); with S₀ the S/N of that place without one,

    η(τ) = τ σ / f_τ,     f_τ the flux at which S(f) − S₀ = τ, the mean over azimuths, by linear interpolation

τ σ / η is then the flux of the source itself that is found in half of the cases.

References: as in `patch_statistics`.
"""

__all__ = ["paco_throughput"]

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InputError
from ..operators.field_rotation import FieldRotation
from .source_tests import SourcePatches

_GROWTH = (0.0, 1.0, 1.5, 2.25, 3.5, 6.0, 12.0)  # fluxes that are tried, in units of τ σ
_GOLDEN = math.pi * (3 - math.sqrt(5))  # azimuth between neighbours in distance, so that they see other speckles


@torch.no_grad()
def paco_throughput(
    cube: Tensor,
    operator: FieldRotation,
    radius: int,
    distances: Sequence[float],
    levels: Sequence[float | Sequence[float]] = (5.0,),
    *,
    azimuths: int = 4,
) -> Tensor:
    """η `(levels, distances)`; NaN where twelve times the flux τ σ, τ the least level, does not reach the level.

    Args:
        cube: `operator.data_shape` with one channel, `(T, H, W)`, float64 like the operator and without sources.
        radius: of the patches.
        distances: from the star, in pixels.
        levels: each an S/N that shall be reached, or one for each distance.
        azimuths: at each distance.

    Raises:
        InputError: the cube has several channels, or an argument is out of range.
    """
    if cube.ndim != 3:
        raise InputError(f"paco_throughput expects one wavelength, a cube (T, H, W), got {tuple(cube.shape)}")
    asked = [list(level) if isinstance(level, Sequence) else [level] * len(distances) for level in levels]
    if any(len(each) != len(distances) for each in asked):
        raise InputError(f"paco_throughput expects a level for each of {len(distances)} distances, got {levels}")
    if azimuths < 1 or not asked or not all(level > 0 for each in asked for level in each):
        raise InputError(f"paco_throughput expects positive levels and azimuths, got {levels} and {azimuths}")
    found = torch.full((len(levels), len(distances)), math.nan, dtype=torch.float64)
    for i, distance in enumerate(distances):
        gains, least = [], min(each[i] for each in asked)
        for k in range(azimuths):
            angle = 2 * math.pi * k / azimuths + _GOLDEN * i
            place = (operator.centre[0] + distance * math.sin(angle), operator.centre[1] + distance * math.cos(angle))
            gains.append(_gains(cube, operator, place, radius, least))
        gain = torch.stack(gains).nanmean(0)
        for j, each in enumerate(asked):
            flux = _reached(gain, each[i])  # in units of the least level times σ
            found[j, i] = each[i] / least / flux
    return found


def _gains(cube: Tensor, operator: FieldRotation, place: tuple[float, float], radius: int, level: float) -> Tensor:
    """S − S₀ for each of the fluxes; NaN where no frame has the place, or nothing is known there."""
    unknown = torch.full((len(_GROWTH),), math.nan, dtype=torch.float64)
    try:
        patches = SourcePatches(cube, operator, place, radius)
    except InputError:
        return unknown
    source = patches.source(torch.tensor(place, dtype=torch.float64))
    values, sigma = [], 0.0
    for growth in _GROWTH:
        tests = patches.tests(-growth * level * sigma * source, [source])
        precision = float(tests.response[0, 0, 0] / tests.dispersion[0])
        if not precision > 0:
            return unknown
        values.append(float(tests.score[0, 0] / tests.dispersion[0]) / math.sqrt(precision))
        sigma = sigma or 1 / math.sqrt(precision)  # without a source
    return torch.tensor(values, dtype=torch.float64) - values[0]


def _reached(gain: Tensor, level: float) -> float:
    """The flux at which a gain first reaches a level."""
    for i in range(1, len(_GROWTH)):
        low, high = float(gain[i - 1]), float(gain[i])
        if high >= level:
            return _GROWTH[i - 1] + (_GROWTH[i] - _GROWTH[i - 1]) * (level - low) / (high - low)
    return math.nan
