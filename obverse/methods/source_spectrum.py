"""The flux of one source in each channel, free of what it has taught the law of the background.

With the place of the source known, the flux f of a channel is where the test of the cube without it, y − f μ (μ the
cube of a source of unit flux), finds nothing left:

    s(f) = flux of a source in y − f μ, each frame tested by the law of the others (`hypothesis`),    s(f) = 0

s falls by j for each unit of f, j = −ds/df found by central differences. With σ the deviation of s, that of f is σ/|j|,
as in `paco_source`. Each channel's law is learned from that channel alone, so that no spectrum is assumed and no flux
leaks from one channel into another; the errors of two channels are correlated as their speckles are.
"""

__all__ = ["flux_without_trace", "nearest_spectrum", "source_spectrum"]

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..operators.field_rotation import FieldRotation
from .paco_source import hypothesis

_ROUNDS = 8  # of Newton's steps, at most
_SMALL = 0.02  # standard deviations: a step that is smaller ends them
_LEAST = 0.2  # of j, which is 1 where the source has taught the law nothing: below it the step is that of j = 1


@torch.no_grad()
def source_spectrum(
    cube: Tensor, operator: FieldRotation, position: tuple[float, float], radius: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Fluxes of the source at `position` (row, column) in units of the channels' PSFs, and their standard deviations.

    Args:
        cube: `(L, T, H, W)`, float64 like the operator; a pixel that is NaN in some frame is not used.
        radius: of the patches.
    """
    unit = operator.source(position)
    found = []
    for channel, (frames, source) in enumerate(zip(cube, unit)):
        alone = _channel(operator, channel)
        found.append(flux_without_trace(lambda f: hypothesis(frames - f * source, alone, position, radius)))  # noqa: B023
    fluxes, deviations = zip(*found)
    return fluxes, deviations


def flux_without_trace(left: Callable[[float], tuple[float, float]]) -> tuple[float, float]:
    """f with s(f) = 0, and its standard deviation.

    Args:
        left: s and σ for a given f.

    Example:
        >>> flux, sigma = flux_without_trace(lambda f: (0.5 * (3.0 - f), 0.1))
        >>> round(flux, 3), round(sigma, 3)
        (3.0, 0.2)
    """
    flux, slope, sigma = 0.0, 1.0, 0.0
    for turn in range(_ROUNDS):
        rest, sigma = left(flux)
        if turn == 1:  # once the flux is of the right size
            slope = _slope(left, flux, sigma)
        flux += rest / slope
        if turn > 1 and abs(rest) < _SMALL * sigma:
            break
    return flux, sigma / _slope(left, flux, sigma)


def _slope(left: Callable[[float], tuple[float, float]], flux: float, sigma: float) -> float:
    """j, or 1 where it is too small to be found."""
    found = (left(flux - sigma)[0] - left(flux + sigma)[0]) / (2 * sigma)
    return found if found > _LEAST else 1.0


def nearest_spectrum(library: Tensor, flux: Sequence[float], deviation: Sequence[float]) -> Tensor:
    """Of spectra `(G, L)` the one that explains measured fluxes best, with a factor of its own that is positive.

    >>> nearest_spectrum(torch.tensor([[1.0, 1.0], [0.0, 1.0]]), [0.5, 9.0], [1.0, 1.0])
    tensor([0., 1.])
    """
    weight = library.new_tensor(deviation).square().reciprocal()
    product = (library * weight * library.new_tensor(flux)).sum(1)
    return library[int((product / (library.square() * weight).sum(1).sqrt()).argmax())]


def _channel(operator: FieldRotation, channel: int) -> FieldRotation:
    """One wavelength of an operator, with cubes `(T, H, W)`."""
    return FieldRotation(
        (1, *operator.image_shape[1:]),
        operator.degrees,
        operator.psf[channel],
        centre=operator.centre,
        transmission=operator.transmission,
        exposure_degrees=operator.exposure_degrees,
        dtype=operator.dtype,
    )
