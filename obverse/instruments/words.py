"""What a user is told of a micrograph: what was understood of it as a short list, and how a method ended.

Methods advise in terms of their own arguments; here the advice is to change a setting that a user has.
"""

__all__ = ["explained", "summary"]

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..solvers.result import Status

_ADVICE = {
    "max-iterations": "raise iterations",
    "stagnation": "accept it, or raise smoothing or weight",
    "ess": "raise samples",
    "rhat": "raise samples",
    "no-covariance": "raise weight or smoothing, which make the problem better conditioned, or give read_noise if it "
    "is larger than was found",
}


def explained(status: Status) -> Status:
    """The status, whose advice is in terms of settings.

    Example:
        >>> explained(Status(False, "max-iterations", "stopped at 0.1; raise max_iterations")).message
        'stopped at 0.1; raise iterations'
    """
    if status.converged or status.reason not in _ADVICE:
        return status
    told = status.message.rpartition(";")[0] or status.message
    return replace(status, message=f"{told}; {_ADVICE[status.reason]}")


def summary(facts: Mapping[str, Any]) -> dict[str, str]:
    """The figures that a user should check before a run, each in a few words with where it comes from.

    Args:
        facts: as `microscopy.characterise` gives them.
    """
    axes, voxel = facts["axes"], facts["voxel_nm"]
    sizes = [f"{axis} {'unknown' if v is None else f'{v:g} nm'}" for axis, v in zip(axes, voxel)]
    if axes[-2:] == "YX" and voxel[-1] == voxel[-2]:
        sizes[-2:] = [sizes[-1].replace("X", "YX", 1)]
    sources = " and ".join(dict.fromkeys(facts["voxel_source"]))
    channels = f", {facts['channels']} channels" if facts["channels"] > 1 else ""
    counted = f"{facts['gain']:.4g} counts per photon" if facts["gain"] > 0 else "0, Gaussian noise"
    return {
        "axes": f"{axes}, {_times(facts['data_shape'])} voxels{channels}",
        "voxel size": f"{', '.join(sizes)}{'' if sources == 'unknown' else f' ({sources})'}",
        "PSF": f"{_optics(facts['psf'])}, {_times(facts['psf']['shape'])} voxels",
        "background": f"{facts['background']:.4g} counts ({facts['background_source']})",
        "gain": f"{counted} ({_short(facts['gain_source'])})",
        "read noise": f"{facts['read_noise']:.4g} counts ({_short(facts['read_noise_source'])})",
        "rank": f"{facts['rank']} components, {facts['probes']} probes",
    }


def _optics(psf: Mapping[str, Any]) -> str:
    if "numerical_aperture" not in psf:
        return str(psf["source"])
    return (
        f"{psf['source']} ({psf['modality']}, NA {psf['numerical_aperture']:g}, {psf['wavelength']:g} nm, index "
        f"{psf['refractive_index']:g})"
    )


def _short(source: str) -> str:
    """A source without its particulars."""
    return source.partition(";")[0]


def _times(sizes: list[int]) -> str:
    return " × ".join(map(str, sizes))
