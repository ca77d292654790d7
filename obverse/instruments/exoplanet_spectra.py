"""What several wavelengths add to a search: their list, the spectra to look for, and the spectra that were found.

The flux of a source in channel l is in the cube's counts, and so is the star's, F_l. A spectrum to look for is given
as contrasts c_l to the star in any unit: its fluxes are then in proportion to c_l F_l, with F_l of the PSF's picture.
"""

__all__ = ["library_of", "spectrum_rows", "wavelengths_of", "widths_note", "write_spectra"]

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..io import columns
from ..methods.detection import Candidate
from ..operators.full_width import full_width_at_half_maximum

if TYPE_CHECKING:
    from .exoplanet_settings import Settings

_SHORTEST, _LONGEST = 0.1, 100.0  # µm, between which a star's picture is taken
_NARROWING = 0.9  # of the width of the first channel's PSF: the last one's, if it is narrower, is another channel's


def wavelengths_of(settings: "Settings", channels: int) -> list[float] | None:
    """The wavelength of each channel in µm.

    Raises:
        InputError: there are none of several channels, or not one for each, or they do not rise, or are not in µm.
    """
    if settings.wavelengths is None:
        if channels > 1:
            raise InputError(
                f"a sequence of {channels} channels expects their wavelengths, got none; pass --set wavelengths=FILE"
            )
        return None
    found = columns.numbers(settings.wavelengths, 1, "the wavelengths")
    name = settings.wavelengths.name
    if len(found) != channels:
        raise InputError(
            f"a sequence expects one wavelength for each of its channels, {channels}, got {len(found)} in {name}"
        )
    if found.min() < _SHORTEST or found.max() > _LONGEST:
        raise InputError(
            f"a sequence expects wavelengths in µm, from {_SHORTEST:g} to {_LONGEST:g}, got {found.min():g} to "
            f"{found.max():g} in {name}; convert them"
        )
    if not (np.diff(found) > 0).all():
        raise InputError(
            f"a sequence expects wavelengths that rise from channel to channel, got "
            f"{', '.join(f'{w:g}' for w in found)} in {name}; sort the channels of cube, PSF and wavelengths alike"
        )
    return found.tolist()


def widths_note(psf: np.ndarray, wavelengths: Sequence[float] | None) -> tuple[str, ...]:
    """A sentence if the PSF gets narrower with the wavelength, which no telescope's does."""
    if psf.ndim == 2 or wavelengths is None or len(wavelengths) < 2:
        return ()
    first, last = (full_width_at_half_maximum(torch.from_numpy(psf[k])) for k in (0, -1))
    if last > _NARROWING * first:
        return ()
    return (
        f"The PSF is {first:.2f} pixels wide at {wavelengths[0]:g} µm and {last:.2f} at {wavelengths[-1]:g} µm, where "
        "it should grow with the wavelength: see whether the channels of PSF and sequence are in the same order.",
    )


def library_of(settings: "Settings", facts: Mapping[str, Any]) -> Tensor | None:
    """Relative fluxes to look for, `(G, L)`, in the cube's counts: a contrast that is the same everywhere by default.

    Raises:
        InputError: the file does not fit the channels, or a spectrum is nowhere positive.
    """
    channels = facts["channels"]
    if settings.spectra is None:
        return None if channels == 1 else _fluxes(np.ones((1, channels)), facts)
    if channels == 1:
        raise InputError("spectra expect a sequence of several wavelengths, got one; leave them out")
    contrasts = columns.numbers(settings.spectra, channels, "the spectra")
    if not ((contrasts >= 0).all() and (contrasts.sum(1) > 0).all()):
        raise InputError(
            "the spectra expect contrasts of at least zero, and one above it in each row, got others in "
            f"{settings.spectra.name}"
        )
    return _fluxes(contrasts, facts)


def _fluxes(contrasts: np.ndarray, facts: Mapping[str, Any]) -> Tensor:
    fluxes = contrasts * np.asarray(facts["psf_flux"])
    return torch.from_numpy(fluxes / fluxes.mean(1, keepdims=True))


def spectrum_rows(candidate: Candidate, facts: Mapping[str, Any]) -> list[dict[str, float]]:
    """One mapping for each channel: wavelength, flux and its deviation; contrasts where the star's fluxes are known."""
    rows = []
    stars = facts.get("star_fluxes") or [None] * len(candidate.spectrum)
    values = zip(facts["wavelengths"], candidate.spectrum, candidate.spectrum_deviation, stars, strict=True)
    for wavelength, flux, deviation, star in values:
        row = {"wavelength": wavelength, "flux": flux, "flux_std": deviation}
        rows.append(row | ({"contrast": flux / star, "contrast_std": deviation / star} if star else {}))
    return rows


def write_spectra(path: Path, rows: Sequence[Mapping[str, Any]], unit: str, metadata: Mapping[str, Any]) -> Path:
    """The spectra of all candidates as one table, a row for each candidate and channel."""
    lines = [
        {"candidate": number, "x": row["x"], "y": row["y"], **entry}
        for number, row in enumerate(rows, 1)
        for entry in row.get("spectrum", ())
    ]
    table = {name: [line[name] for line in lines] for name in lines[0]}
    units = {"x": "pix", "y": "pix", "wavelength": "um"} | ({"flux": unit, "flux_std": unit} if unit else {})
    return columns.write_ecsv(path, table, units, {**metadata, "candidate": "its row in candidates.ecsv, from 1"})
