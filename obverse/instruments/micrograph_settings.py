"""What a user may say about a micrograph and its reconstruction, and which of it a method uses."""

__all__ = ["PRIORS", "Settings", "chosen_prior", "files", "unused"]

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..priors.shipped import find

# The methods that use a setting; every other setting is used by all of them.
_USERS = {
    "weight": ("laplace", "langevin", "map", "plug-and-play"),
    "prior": ("local-gaussian", "plug-and-play"),
    "smoothing": ("laplace", "langevin"),
    "iterations": ("laplace", "gaussian", "map", "plug-and-play", "richardson-lucy"),
    "rank": ("laplace", "gaussian", "langevin", "local-gaussian"),
    "samples": ("langevin",),
    "probes": ("laplace", "gaussian", "local-gaussian"),
}
# The methods that take a denoiser, and which one unless told: a covariance is best read off a symmetric Jacobian.
PRIORS = {"local-gaussian": "natural-gray-gradient", "plug-and-play": "microscopy"}
_OPTICS = ("numerical_aperture", "wavelength_nm", "modality", "refractive_index", "sample_index", "depth_nm")


class Settings(BaseModel):
    """What a user may say about a micrograph and its reconstruction; "auto" and null are found out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    psf: Path | None = Field(None, description="TIFF of the measured point-spread function; else it is computed")
    numerical_aperture: float | None = Field(None, gt=0, lt=2, description="NA of the objective; from the file if null")
    wavelength_nm: float | None = Field(None, ge=100, le=5000, description="emission wavelength; from the file if null")
    excitation_nm: float | None = Field(None, ge=100, le=5000, description="excitation wavelength, for confocal")
    modality: Literal["widefield", "confocal"] = Field(
        "widefield", description="widefield, or confocal (closed pinhole)"
    )
    refractive_index: float | None = Field(None, ge=1, lt=3, description="of the immersion medium; 1.515 if unknown")
    sample_index: float | None = Field(None, ge=1, lt=3, description="of the sample; that of the immersion if null")
    depth_nm: float = Field(0.0, ge=0, description="of the focal plane below the coverslip")
    pixel_size_nm: float | None = Field(None, gt=0, description="pixel size in the plane; overrules the file")
    z_step_nm: float | None = Field(None, gt=0, description="step between slices; overrules the file")
    axes: str | None = Field(None, description="what the pages of a plain TIFF are, such as ZYX or CYX")
    time: int | None = Field(None, ge=0, description="which time point of a series")
    channel: int | None = Field(None, ge=0, description="which channel; all of them if null")
    image: int | None = Field(None, ge=0, description="which image of an OME-TIFF with several")
    background: float | Literal["auto"] = Field("auto", description="counts where there is no light from the object")
    gain: Annotated[float, Field(ge=0)] | Literal["auto"] = Field(
        "auto", description="counts per detected photon; 0 for Gaussian noise"
    )
    read_noise: Annotated[float, Field(ge=0)] | Literal["auto"] = Field(
        "auto", description="standard deviation without light, in counts"
    )
    method: Literal["laplace", "gaussian", "langevin", "local-gaussian", "map", "plug-and-play", "richardson-lucy"] = (
        Field(
            "laplace",
            description="laplace, gaussian, langevin and local-gaussian give uncertainty; map, plug-and-play and "
            "richardson-lucy do not",
        )
    )
    prior: str = Field(
        "auto",
        description="denoiser of local-gaussian and plug-and-play: a shipped one, or a file of your own weights; auto "
        "is natural-gray-gradient for the one and microscopy for the other",
    )
    weight: float | Literal["auto"] = Field("auto", description="of the prior, per working unit of intensity")
    smoothing: float | Literal["auto"] = Field(
        "auto", description="gradient that the smoothed total variation rounds off"
    )
    iterations: int | None = Field(None, ge=1, le=1_000_000, description="most iterations; the method's own if null")
    rank: Annotated[int, Field(ge=1, le=500)] | Literal["auto"] = Field(
        "auto", description="components of the uncertainty that are stored; 8, or 5 of large images"
    )
    samples: int = Field(1000, ge=20, le=1_000_000, description="draws of a sampler")
    probes: Annotated[int, Field(ge=8, le=100_000)] | Literal["auto"] = Field(
        "auto", description="products spent on marginal variances; 128, or 32 of large images; 16 for local-gaussian"
    )
    padding: int | Literal["auto"] = Field(
        "auto", description="mirrored pixels at each border; the PSF's reach if auto"
    )


def files(settings: Settings) -> dict[str, Path]:
    """Input files that the settings name, by role."""
    named = {} if settings.psf is None else {"psf": settings.psf}
    if settings.method in PRIORS:
        named["prior"] = find(chosen_prior(settings))
    return named


def unused(settings: Settings) -> list[str]:
    """Settings that differ from their defaults and yet change nothing, beside the others that were made.

    Example:
        >>> unused(Settings(method="richardson-lucy", probes=64, iterations=20))
        ['probes']
    """
    given = settings.model_dump(exclude_defaults=True)
    names = [name for name, users in _USERS.items() if settings.method not in users]
    if settings.psf is not None:
        names += [*_OPTICS, "excitation_nm"]
    elif settings.modality != "confocal":
        names.append("excitation_nm")
    return [name for name in given if name in names]


def chosen_prior(settings: Settings) -> str:
    """The denoiser that a method takes: the one named, or that method's own."""
    return PRIORS[settings.method] if settings.prior == "auto" else settings.prior
