"""What a user says of a field's rotation, checked: angles, exposures, wavelengths and transmission."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InputError
from .arguments import as_numbers
from .base import require_finite

__all__ = ["as_angles", "as_exposures", "as_transmission", "as_wavelengths"]


def as_angles(degrees: float | Sequence[float] | Tensor, name: str) -> tuple[float, ...]:
    what = f"FieldRotation expects {name}"
    angles = as_numbers(degrees, what, torch.float64).detach().cpu().reshape(-1)
    require_finite(angles, what)
    if not len(angles):
        raise InputError(f"{what}, one for each frame, got none")
    return tuple(angles.tolist())


def as_exposures(degrees: float | Sequence[float] | Tensor | None, count: int) -> tuple[float, ...]:
    if degrees is None:
        return (0.0,) * count
    exposures = as_angles(degrees, "exposure_degrees")
    if len(exposures) not in (1, count):
        raise InputError(f"FieldRotation expects one exposure_degrees or {count}, got {len(exposures)}; see its help")
    return exposures * count if len(exposures) == 1 else exposures


def as_wavelengths(wavelengths: Sequence[float] | Tensor | None, channels: tuple[int, ...]) -> tuple[float, ...] | None:
    if wavelengths is None:
        return None
    lengths = as_angles(wavelengths, "wavelengths")
    if (len(lengths),) != (channels or (1,)) or min(lengths) <= 0:
        raise InputError(
            f"FieldRotation expects a positive wavelength for each PSF, got {lengths} for {(channels or (1,))[0]}; "
            "check the order of the axes"
        )
    return lengths


def as_transmission(transmission: Tensor | Sequence[Sequence[float]] | None, dtype: torch.dtype) -> Tensor | None:
    if transmission is None:
        return None
    table = as_numbers(transmission, "FieldRotation expects a transmission", dtype).detach().clone()
    require_finite(table, "FieldRotation expects a transmission")
    if table.ndim != 2 or len(table) != 2 or table.shape[1] < 2 or not bool((table[0].diff() > 0).all()):
        raise InputError(
            f"FieldRotation expects a transmission (2, n) of rising distances and factors, n ≥ 2, got shape "
            f"{tuple(table.shape)}; sort it by distance"
        )
    if not bool((table[1] >= 0).all()):
        raise InputError(f"FieldRotation expects a transmission of at least zero, got {float(table[1].min()):g}")
    return table
