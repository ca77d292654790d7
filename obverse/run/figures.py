"""The figures of a finished run, all computed from the arrays that are stored, so anyone can compute them again.

Resolution in the plane is stated by Fourier ring correlation, at 1/7. With a reference, data and image are each
correlated with it. Without, the data are split into two pictures of independent noise, which tells the resolution of
the data only: image and data share their noise, so that their correlation would tell nothing.
"""

from typing import Any

import numpy as np

from ..instruments import resolution
from ..volume import Volume
from .assemble import Assembly

__all__ = ["compare", "resolve"]

_SMALLEST = 32  # pixels a side: fewer rings say nothing
_SPAN = 1e-6  # of the range: what varies less is constant to rounding


def compare(data: np.ndarray, assembly: Assembly, reference: Volume | None) -> dict[str, Any]:
    """chi² of the data where they are predicted, and, with a reference, how close data and image come to it.

    `psnr` (dB) is of the image after the gain and offset that fit it best to the reference, since two instruments count
    in different units; its peak is the reference's range. `correlation` figures are Pearson's.
    """
    figures: dict[str, Any] = {}
    if assembly.prediction is not None and assembly.noise_std is not None:
        residual = (data.astype(np.float64) - assembly.prediction) / assembly.noise_std
        figures["chi2"] = float(np.mean(residual**2))
    if reference is not None:
        truth = np.asarray(reference.image(), dtype=np.float64)
        figures["psnr_before"] = _fitted_psnr(data, truth)
        figures["psnr"] = _fitted_psnr(assembly.image, truth)
        figures["correlation_before"] = _correlation(data, truth)
        figures["correlation"] = _correlation(assembly.image, truth)
    return figures


def resolve(
    data: np.ndarray, assembly: Assembly, reference: Volume | None, pixel_nm: float | None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Fourier ring correlation of a plane: figures for the record, curves for the report; empty where it has no sense.

    Returns:
        `frc_kind` ("reference" or "split"), `frc_before` and, with a reference, `frc_after`: resolved periods in nm, or
        the same with `_pixels` where the pixel size is not known; and the curves `frc_frequency` (cycles per pixel),
        `frc_before`, `frc_after`.
    """
    if data.ndim != 3 or min(data.shape[-2:]) < _SMALLEST or assembly.noise_std is None:
        return {}, {}
    if reference is not None:
        truth = np.asarray(reference.image(), dtype=np.float64)
        pairs = {"frc_before": (data, truth), "frc_after": (assembly.image, truth)}
    else:
        pairs = {"frc_before": resolution.split(data, assembly.noise_std.astype(np.float64) ** 2)}
    if any(np.ptp(plane) <= _SPAN * np.abs(plane).max() for pair in pairs.values() for a in pair for plane in a):
        return {}, {}
    figures: dict[str, Any] = {"frc_kind": "split" if reference is None else "reference"}
    curves: dict[str, np.ndarray] = {}
    for name, (a, b) in pairs.items():
        found = [resolution.frc(x, y) for x, y in zip(a, b)]
        period = float(np.mean([one.resolution for one in found]))
        figures[name if pixel_nm else f"{name}_pixels"] = period * (pixel_nm or 1.0)
        curves["frc_frequency"] = np.asarray(found[0].frequency, dtype=np.float32)
        curves[name] = np.mean([one.correlation for one in found], axis=0).astype(np.float32)
    return figures, curves


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.reshape(-1).astype(np.float64), b.reshape(-1))[0, 1])


def _fitted_psnr(image: np.ndarray, truth: np.ndarray) -> float:
    """PSNR after the best linear fit: its squared error is (1 − r²) of the truth's variance."""
    error = (1 - _correlation(image, truth) ** 2) * truth.var()
    return float(10 * np.log10((truth.max() - truth.min()) ** 2 / max(error, np.finfo(float).tiny)))
