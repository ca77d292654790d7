"""The bundled examples: real data that ship with the package, with what is known of their instrument."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError

__all__ = ["Example", "example"]

_FOLDER = Path(__file__).parents[1] / "instruments" / "examples"


@dataclass(frozen=True)
class Example:
    """One bundled data set.

    Args:
        data: the measurement.
        instrument: name of the instrument.
        settings: settings that differ from the instrument's defaults.
        reference: image of the same field by a better instrument, if there is one.
    """

    data: Path
    instrument: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    reference: Path | None = None


_EXAMPLES = {
    "microtubules": Example(
        data=_FOLDER / "microtubules.ome.tif",
        instrument="microscopy",
        reference=_FOLDER / "microtubules_sim.ome.tif",
    ),
    "grid": Example(
        data=_FOLDER / "grid.ome.tif", instrument="microscopy", settings={"psf": _FOLDER / "grid_psf.ome.tif"}
    ),
    "exoplanet": Example(
        data=_FOLDER / "beta_pictoris.fits.gz",
        instrument="exoplanet",
        settings={
            "angles": _FOLDER / "beta_pictoris_angles.fits",
            "psf": _FOLDER / "beta_pictoris_psf.fits",
            "pixel_scale_mas": 27.19,
            # 764 939.6 in a circle of 4.8 pixels, the figure in VIP's tutorial, brought to our FWHM with the PSF.
            "star_flux": 709039.0,
        },
    ),
}


def example(name: str) -> Example:
    """The bundled example called `name`.

    Raises:
        InputError: there is none of that name; the message lists those there are.
    """
    if name not in _EXAMPLES:
        raise InputError(
            f"expected an example out of {', '.join(_EXAMPLES)}, got {name!r}; run `obverse demo microtubules`"
        )
    return _EXAMPLES[name]
