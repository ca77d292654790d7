"""The figures of a finished run, all computed from the arrays that are stored, so anyone can compute them again."""

from typing import Any

import numpy as np

from ..volume import Volume
from .assemble import Assembly

__all__ = ["compare"]


def compare(data: np.ndarray, assembly: Assembly, reference: Volume | None) -> dict[str, Any]:
    """chi² of the data, and, with a reference, how close data and image come to it.

    `psnr` (dB) is of the image after the gain and offset that fit it best to the reference, since two instruments count
    in different units; its peak is the reference's range. `correlation` figures are Pearson's.
    """
    residual = (data.astype(np.float64) - assembly.prediction) / assembly.noise_std
    figures: dict[str, Any] = {"chi2": float(np.mean(residual**2))}
    if reference is not None:
        truth = np.asarray(reference.image(), dtype=np.float64)
        figures["psnr_before"] = _fitted_psnr(data, truth)
        figures["psnr"] = _fitted_psnr(assembly.image, truth)
        figures["correlation_before"] = _correlation(data, truth)
        figures["correlation"] = _correlation(assembly.image, truth)
    return figures


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.reshape(-1).astype(np.float64), b.reshape(-1))[0, 1])


def _fitted_psnr(image: np.ndarray, truth: np.ndarray) -> float:
    """PSNR after the best linear fit: its squared error is (1 − r²) of the truth's variance."""
    error = (1 - _correlation(image, truth) ** 2) * truth.var()
    return float(10 * np.log10((truth.max() - truth.min()) ** 2 / max(error, np.finfo(float).tiny)))
