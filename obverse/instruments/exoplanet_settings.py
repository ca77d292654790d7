"""What a user may say about a sequence of frames of a star, and how planets beside it are searched for."""

__all__ = ["Settings", "files"]

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """What a user may say about a pupil-stabilised sequence and the search in it; null is found out or left out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    angles: Path | None = Field(
        None, description="FITS, text or CSV: for each frame the degrees that turn it back, anticlockwise, y upward"
    )
    psf: Path | None = Field(
        None, description="FITS of the star beside the coronagraph or unsaturated: (y, x), or (λ, y, x)"
    )
    wavelengths: Path | None = Field(None, description="FITS, text or CSV: the wavelength of each channel, in µm")
    spectra: Path | None = Field(
        None,
        description="FITS, text or CSV: a row for each spectrum that paco looks for, its contrast to the star in each "
        "channel, in any unit; the same contrast in all if null",
    )
    joint_channels: bool = Field(
        True,
        description="paco learns the speckles of several wavelengths together, which finds much fainter sources; "
        "false: each channel by itself",
    )
    transmission: Path | None = Field(
        None, description="text or CSV of the coronagraph: distance from the star in pixels, and transmission"
    )
    angle_sign: Literal[1, -1] = Field(1, description="-1 turns the signs of all angles round")
    north_offset: float | Literal["header"] | None = Field(
        None,
        description="degrees to add to every angle so that North is up: 0 if they do that already; header: pupil "
        "offset and true north of the instrument that the header names; null: no angle on the sky is stated",
    )
    exposure_degrees: Annotated[float, Field(ge=0, lt=90)] | Literal["angles"] | None = Field(
        None, description="turn of the sky during a frame; angles: half the way to the frames before and after"
    )
    centre: tuple[float, float] | Literal["measured"] | None = Field(
        None,
        description="the star's (x, y) in pixels from 0; null: (n - 1)/2 along each axis; measured: about which the "
        "mean frame is most symmetric",
    )
    pixel_scale_mas: float | None = Field(None, gt=0, description="milliarcseconds per pixel; from the header if null")
    register_frames: bool = Field(False, description="move the frames, by fractions of a pixel, onto their median")
    reject_frames: bool = Field(True, description="leave out frames that are far less alike than the others")
    repair_pixels: bool = Field(True, description="replace pixels that are sharper spikes than the PSF")
    star_flux: Annotated[float, Field(gt=0)] | Literal["psf"] | None = Field(
        None,
        description="of the star in a circle one FWHM wide, in the cube's counts and exposure; psf: that of the PSF's "
        "file; null: no contrast is stated",
    )
    method: Literal["paco", "deep-paco", "fmmf", "pca", "llsg", "median-adi"] = Field(
        "paco",
        description="paco: statistics of patches; deep-paco: a network on top of them, trained on the frames for some "
        "minutes; fmmf: principal components, and a matched filter for what they leave of a source; pca, "
        "llsg (low rank, sparse and noise) and median-adi: subtraction, with small-sample S/N",
    )
    training_steps: int = Field(300, ge=1, le=100_000, description="of the U-Net of deep-paco")
    components: int = Field(10, ge=1, le=500, description="of pca, fmmf and llsg that are taken off")
    threshold: float = Field(5.0, gt=0, le=100, description="S/N from which a peak is a candidate")
    posterior_draws: int = Field(
        0,
        ge=0,
        le=100_000,
        description="of each candidate's flux and place, by each of four chains (paco, one wavelength): 250 take some "
        "seconds; 0 for none",
    )
    corrected_limits: bool = Field(
        False,
        description="put sources into the frames to learn what part of them is found, and state limits for a source's "
        "own flux (paco, pca, median-adi; one wavelength): some seconds",
    )
    inner_radius: float | None = Field(
        None, ge=0, description="pixels about the star that are not searched; one FWHM if null"
    )


def files(settings: Settings) -> dict[str, Path]:
    """Input files that the settings name, by role."""
    named = {role: getattr(settings, role) for role in ("angles", "psf", "wavelengths", "spectra", "transmission")}
    return {role: path for role, path in named.items() if path is not None}
