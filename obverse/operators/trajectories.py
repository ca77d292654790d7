"""Where in the Fourier domain an image is sampled: radial and spiral trajectories.

Points are (row, column) frequencies in cycles per pixel, between −½ and ½: the pixel's sampling limit. A spoke or an
interleaf turned by the angle θ (radians, from the column axis towards the row axis) lies along (sin θ, cos θ).

References: Winkelmann et al., "An optimal radial profile order based on the golden ratio for time-resolved MRI", IEEE
    TMI 2007.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InputError
from .arguments import as_numbers, require_whole

__all__ = ["golden_angles", "radial", "spiral", "uniform_angles"]

_GOLDEN_ANGLE = math.pi * (math.sqrt(5.0) - 1) / 2
"""111.25°: half a turn divided by the golden ratio, so that any number of successive spokes is spread almost evenly."""


def uniform_angles(count: int, turn: float = math.pi) -> Tensor:
    """`count` angles evenly over `turn` radians: π for spokes through the centre, 2π for spiral interleaves.

    >>> uniform_angles(2)
    tensor([0.0000, 1.5708], dtype=torch.float64)
    """
    return torch.arange(_positive(count, "uniform_angles expects a count"), dtype=torch.float64) * turn / count


def golden_angles(count: int, first: int = 0) -> Tensor:
    """The `count` golden angles from number `first` on, modulo 2π."""
    index = torch.arange(first, first + _positive(count, "golden_angles expects a count"), dtype=torch.float64)
    return torch.remainder(index * _GOLDEN_ANGLE, 2 * math.pi)


def radial(angles: Tensor | Sequence[float], samples: int) -> Tensor:
    """Spokes through the centre: `(len(angles) · samples, 2)` points, spoke by spoke.

    Args:
        angles: of the spokes, `(S,)`, radians.
        samples: on each spoke, at (j − samples // 2) / samples; use at least the image's size, twice it to oversample.

    Example:
        >>> radial(uniform_angles(1), 4)[:, 1]
        tensor([-0.5000, -0.2500,  0.0000,  0.2500], dtype=torch.float64)
    """
    count = _positive(samples, "radial expects a number of samples")
    radius = (torch.arange(count, dtype=torch.float64) - count // 2) / count
    return _turned(angles, radius, torch.zeros_like(radius))


def spiral(angles: Tensor | Sequence[float], samples: int, turns: float) -> Tensor:
    """Archimedean spirals from the centre to radius ½: `(len(angles) · samples, 2)` points, interleaf by interleaf.

    The speed is constant away from the centre: the radius grows as the square root of time, so that samples are spread
    evenly over the disc. Its arms are 1 / (2 · turns · len(angles)) apart; an image of N pixels needs 1 / N.

    Args:
        angles: of the interleaves, `(S,)`, radians; evenly over 2π or golden.
        samples: on each interleaf.
        turns: of each interleaf about the centre.
    """
    count = _positive(samples, "spiral expects a number of samples")
    if not turns > 0:
        raise InputError(f"spiral expects a positive number of turns, got {turns:g}; an image of N pixels needs N / 2")
    progress = (torch.arange(count, dtype=torch.float64) / count).sqrt()
    return _turned(angles, 0.5 * progress, 2 * math.pi * turns * progress)


def _turned(angles: Tensor | Sequence[float], radius: Tensor, phase: Tensor) -> Tensor:
    """Points (radius, phase) of one curve, turned by each angle."""
    angles = as_numbers(angles, "a trajectory expects angles in radians", torch.float64)
    if angles.ndim != 1 or not bool(angles.isfinite().all()):
        raise InputError(
            f"a trajectory expects finite angles of shape (S,), got {angles.dtype} of shape {tuple(angles.shape)}; "
            "flatten them, and leave out NaN"
        )
    turned = angles[:, None] + phase.to(angles.device)
    points = radius.to(angles.device)[..., None] * torch.stack([turned.sin(), turned.cos()], -1)
    return points.reshape(-1, 2)


def _positive(count: int, expects: str) -> int:
    count = require_whole(count, expects)
    if count < 1:
        raise InputError(f"{expects} of at least 1, got {count}; measure something")
    return count
