"""Are the intervals of a micrograph's pixels right: on fields that set the weight, on others, and near the borders?

Micrographs are simulated from pictures taken as truth: blurred with a widefield PSF (NA 1.3, 525 nm, 62.6 nm pixels),
with the Poisson and read noise that were estimated on the real widefield image of BioSR. Each is reconstructed by the
whole microscopy instrument (background, noise and prior estimated from the simulated data) and compared with the truth.

`tuned` are the three crops of the SIM image of microtubules on which WEIGHT and SMOOTHING of the instrument were set;
`held_out` are other crops of it and other structures: cells (W2S, means of 400 frames), membranes
(BBBC034), nuclei (BBBC038), HeLa cells. They are binned 2×2, which makes up for the blur of their own microscopes, and
brought to the brightness of the SIM image. `border` is the band of 6 pixels along the edges of a field. The weights
times 0.25 and 2 are the negative control: their coverage must be wrong, or nothing is measured here.

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
TUNED = ((120, 120), (300, 330), (60, 280))
HELD_OUT = ((200, 60), (330, 180))  # of the same picture, apart from those
OTHERS = {  # file below microscopy/, channel, corner in the binned picture
    "w2s 099_0": ("w2s/avg400_099_0.tif", None, (70, 70)),
    "w2s 100_1": ("w2s/avg400_100_1.tif", None, (80, 90)),
    "w2s 085_1": ("w2s/avg400_085_1.tif", None, (100, 60)),
    "membranes": ("cells/bbbc034_aics_c0.tif", None, (200, 220)),
    "nuclei": ("cells/dsb2018_nuclei_512.tif", None, (80, 80)),
    "hela": ("cells/hela_cells_3ch.tif", 0, (90, 120)),
}
SIZE, REACH, BAND = 80, 40, 6
CONTROLS = (0.25, 2.0)  # of the weight that the instrument chooses


def truths(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Truths with their surroundings, tuned and held out, all of one mean and peak brightness."""
    sim = np.maximum(tiff.read(folder / "biosr/microtubules_gt.tif").array.astype(float), 0)

    def cut(picture: np.ndarray, corner: tuple[int, int]) -> np.ndarray:
        return picture[tuple(slice(c - REACH, c + SIZE + REACH) for c in corner)]

    tuned = {f"microtubules {corner}": cut(sim, corner) for corner in TUNED}
    held = {f"microtubules {corner}": cut(sim, corner) for corner in HELD_OUT}
    bright = np.quantile(sim, 0.999)
    for name, (file, channel, corner) in OTHERS.items():
        picture = tiff.read(folder / file, channel=channel).image()[0].astype(float)
        picture = picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2]
        part = cut(picture.reshape(picture.shape[0] // 2, 2, -1, 2).mean(axis=(1, 3)), corner)
        dark = np.quantile(picture, 0.01)
        held[name] = np.maximum(part - dark, 0) * bright / (np.quantile(part, 0.999) - dark)
    return tuned, held


def simulate(wide: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Truth and data of one field; blurred with its true surroundings, so that borders are as in life."""
    h = gibson_lanni((2 * REACH + 1,) * 2, (PIXEL, PIXEL), numerical_aperture=APERTURE, wavelength=WAVELENGTH)
    shape = tuple(a + b - 1 for a, b in zip(wide.shape, h.shape))
    blurred = np.fft.irfft2(np.fft.rfft2(wide, shape) * np.fft.rfft2(h, shape), shape)
    inner = (slice(2 * REACH, 2 * REACH + SIZE),) * 2
    rng = np.random.default_rng(seed)
    mean = np.maximum(blurred[inner], 0)
    data = OFFSET + GAIN * rng.poisson(mean / GAIN) + READ_NOISE * rng.standard_normal(mean.shape)
    return wide[REACH : REACH + SIZE, REACH : REACH + SIZE] + OFFSET, data


def reconstruct(data: np.ndarray, factor: float = 1.0, **options) -> tuple[np.ndarray, np.ndarray]:
    """Image and standard deviation; `factor` multiplies the weight that the instrument chose."""
    volume = Volume(data.astype(np.float32), "YX", (PIXEL, PIXEL), ("nm", "nm"))
    settings = microscopy.Settings(
        numerical_aperture=APERTURE, wavelength_nm=WAVELENGTH, refractive_index=1.515, probes=32, **options
    )
    measurement = microscopy.measure(volume, settings)
    measurement.facts["prior"]["weight"] *= factor  # type: ignore[index]
    result = microscopy.method(measurement, settings)(measurement.y, measurement.problem)
    image = microscopy.restore(result.image, measurement).array
    return image, microscopy.restore(result.std, measurement, is_std=True).array


def figures(fields: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]) -> dict:
    """Coverage and closeness over fields of (truth, data, image, standard deviation)."""
    truth, data, image, std = (np.stack(part) for part in zip(*fields))
    z = np.abs(image - truth) / std
    inner = np.zeros(z.shape, bool)
    inner[:, BAND:-BAND, BAND:-BAND] = True
    low, high = np.quantile(truth, [1 / 3, 2 / 3], axis=(1, 2), keepdims=True)
    thirds = [truth < low, (truth >= low) & (truth < high), truth >= high]
    frc = [[resolution.frc(a, t, PIXEL).resolution for a in (d, i)] for t, d, i, _ in fields]

    def coverage(where: np.ndarray, half_width: float = 1.6449) -> float:
        return round(float(np.mean(z[where] < half_width)), 4)

    return {
        "coverage_50": coverage(z >= 0, 0.6745),
        "coverage_90": coverage(z >= 0),
        "coverage_90_interior": coverage(inner),
        "coverage_90_border": coverage(~inner),
        "coverage_90_dark_middle_bright": [coverage(third) for third in thirds],
        "rms_z": float(np.sqrt(np.mean(z**2))),
        "rms_error": float(np.sqrt(np.mean((image - truth) ** 2))),
        "error_std_correlation": _agreement(np.abs(image - truth), std),
        "correlation_before": float(np.mean([np.corrcoef(t.ravel(), d.ravel())[0, 1] for t, d, _, _ in fields])),
        "correlation": float(np.mean([np.corrcoef(t.ravel(), i.ravel())[0, 1] for t, _, i, _ in fields])),
        "frc_nm_before": float(np.mean([f[0] for f in frc])),
        "frc_nm": float(np.mean([f[1] for f in frc])),
    }


def _agreement(error: np.ndarray, std: np.ndarray) -> float | None:
    """Correlation of error and standard deviation; None where the latter is the same everywhere."""
    if np.ptp(std) <= 1e-5 * std.max():
        return None
    return float(np.corrcoef(error.ravel(), std.ravel())[0, 1])


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(os.environ.get("OBVERSE_DATA", "")) / "microscopy"
    if not (folder / "biosr").is_dir():
        sys.exit("set OBVERSE_DATA to the folder that holds microscopy/biosr")
    results: dict[str, dict] = {}
    for group, pictures in zip(("tuned", "held_out"), truths(folder)):
        pairs = {name: simulate(wide, seed) for seed, (name, wide) in enumerate(pictures.items())}
        results[group] = {}
        for method in ("laplace", "gaussian"):
            done = {name: (*pair, *reconstruct(pair[1], method=method)) for name, pair in pairs.items()}
            results[group][method] = figures(list(done.values()))
            print(group, method, results[group][method], flush=True)
            each = {name: figures([field]) for name, field in done.items()}
            results[group][f"{method}_coverage_90_by_field"] = {k: v["coverage_90"] for k, v in each.items()}
            print(results[group][f"{method}_coverage_90_by_field"], flush=True)
        if group == "tuned":
            for factor in CONTROLS:
                fields = [(*pair, *reconstruct(pair[1], factor, method="laplace")) for pair in pairs.values()]
                results[group][f"control, laplace with weight times {factor:g}"] = figures(fields)
                print(group, factor, results[group][f"control, laplace with weight times {factor:g}"], flush=True)
    Path(__file__).with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
