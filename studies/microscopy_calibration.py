"""Are the intervals of a micrograph's pixels right, and which weight of total variation makes them so?

A micrograph is simulated from a SIM image (BioSR microtubules): blurred with the widefield PSF (NA 1.3, 525 nm, 62.6 nm
pixels), with the Poisson and read noise that were estimated on the real widefield image. Its reconstruction by the
whole microscopy instrument (background, noise, prior estimated from the simulated data) is compared with the truth.

    OBVERSE_DATA=../shared/data python studies/microscopy_calibration.py
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import torch

from obverse.instruments import microscopy, resolution
from obverse.instruments.psf import gibson_lanni
from obverse.io import tiff
from obverse.volume import Volume

PIXEL, APERTURE, WAVELENGTH = 62.6, 1.3, 525.0
GAIN, READ_NOISE, OFFSET = 0.0298, 0.48, 17.0
FIELDS = ((120, 120), (300, 330), (60, 280))
SIZE, REACH = 80, 40
WEIGHTS = (0.25, 0.5, 1.0, 2.0)  # of the weight that the instrument chooses


def simulate(sim: np.ndarray, corner: tuple[int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Truth and data of one field; blurred with its true surroundings, so that borders are as in life."""
    y, x = (slice(c - REACH, c + SIZE + REACH) for c in corner)
    wide = sim[y, x]
    h = gibson_lanni((2 * REACH + 1,) * 2, (PIXEL, PIXEL), numerical_aperture=APERTURE, wavelength=WAVELENGTH)
    shape = tuple(a + b - 1 for a, b in zip(wide.shape, h.shape))
    blurred = np.fft.irfft2(np.fft.rfft2(wide, shape) * np.fft.rfft2(h, shape), shape)
    inner = (slice(2 * REACH, 2 * REACH + SIZE),) * 2
    rng = np.random.default_rng(seed)
    mean = np.maximum(blurred[inner], 0)
    data = OFFSET + GAIN * rng.poisson(mean / GAIN) + READ_NOISE * rng.standard_normal(mean.shape)
    return wide[REACH : REACH + SIZE, REACH : REACH + SIZE] + OFFSET, data


def evaluate(pairs: list, factor: float = 1.0, **options) -> dict:
    """Coverage and closeness of one method; `factor` multiplies the weight that the instrument chose."""
    z, error, std, truths, gains = [], [], [], [], []
    for truth, data in pairs:
        volume = Volume(data.astype(np.float32), "YX", (PIXEL, PIXEL), ("nm", "nm"))
        settings = microscopy.Settings(
            numerical_aperture=APERTURE, wavelength_nm=WAVELENGTH, refractive_index=1.515, probes=32, **options
        )
        measurement = microscopy.measure(volume, settings)
        measurement.facts["prior"]["weight"] *= factor  # type: ignore[index]
        result = microscopy.method(measurement, settings)(measurement.y, measurement.problem)
        image = microscopy.restore(result.image, measurement).array
        spread = microscopy.restore(result.std, measurement, is_std=True).array
        gains.append((truth, data, image))
        z.append(((image - truth) / spread).ravel())
        error.append((image - truth).ravel())
        std.append(spread.ravel())
        truths.append(truth.ravel())
    z, error, std, truth = (np.concatenate(v) for v in (z, error, std, truths))
    low, high = np.quantile(truth, [1 / 3, 2 / 3])
    thirds = [truth < low, (truth >= low) & (truth < high), truth >= high]
    frc = [[resolution.frc(a, t, PIXEL).resolution for a in (d, i)] for t, d, i in gains]
    return {
        "coverage_50": float(np.mean(np.abs(z) < 0.6745)),
        "coverage_90": float(np.mean(np.abs(z) < 1.6449)),
        "coverage_90_dark_middle_bright": [float(np.mean(np.abs(z[t]) < 1.6449)) for t in thirds],
        "rms_z": float(np.sqrt(np.mean(z**2))),
        "rms_error": float(np.sqrt(np.mean(error**2))),
        "error_std_correlation": float(np.corrcoef(np.abs(error), std)[0, 1]),
        "correlation": float(np.mean([np.corrcoef(t.ravel(), i.ravel())[0, 1] for t, _, i in gains])),
        "correlation_before": float(np.mean([np.corrcoef(t.ravel(), d.ravel())[0, 1] for t, d, _ in gains])),
        "frc_nm_before": float(np.mean([f[0] for f in frc])),
        "frc_nm": float(np.mean([f[1] for f in frc])),
    }


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(os.environ.get("OBVERSE_DATA", ""))
    path = folder / "microscopy/biosr/microtubules_gt.tif"
    if not path.is_file():
        sys.exit("set OBVERSE_DATA to the folder that holds microscopy/biosr")
    sim = np.maximum(tiff.read(path).array.astype(float), 0)
    pairs = [simulate(sim, corner, seed) for seed, corner in enumerate(FIELDS)]
    results = {"gaussian": evaluate(pairs, method="gaussian")}
    print("gaussian", results["gaussian"], flush=True)
    for factor in WEIGHTS:
        results[f"laplace, weight {factor:g}"] = evaluate(pairs, factor, method="laplace")
        print(factor, results[f"laplace, weight {factor:g}"], flush=True)
    Path(__file__).with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
