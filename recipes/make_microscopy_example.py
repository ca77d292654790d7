"""Make the bundled microscopy examples from the data folder: small crops, with their optics, PSF and reference.

    OBVERSE_DATA=../shared/data python recipes/make_microscopy_example.py

microtubules (2-D): widefield and SIM pictures of one field (BioSR). The pixel size, aperture and wavelength are not in
the files; 62.6 nm, 1.3 and 525 nm are those of the published set-up, and they fit the ratio of the two pictures'
spectra, whose supports end at 0.31 and 0.62 cycles per pixel. The SIM picture lies 0.28 pixels off, from its binning,
and is moved by that. grid (3-D): a vertical grid and beads (Haase); the PSF is the mean of four beads.
"""

import os
from pathlib import Path

import numpy as np

from obverse.instruments import beads
from obverse.io import tiff
from obverse.volume import Volume

OUTPUT = Path(__file__).parents[1] / "obverse" / "instruments" / "examples"
CROP = (slice(130, 386), slice(130, 386))
PIXEL = 0.0626  # um
SHIFT = (-0.2835, -0.2796)  # pixels, from the phase of the cross spectrum below 0.15 cycles per pixel
OPTICS = {"numerical_aperture": 1.3, "refractive_index": 1.515}


def shifted(image: np.ndarray, shift: tuple[float, float]) -> np.ndarray:
    y, x = (np.fft.fftfreq(n) for n in image.shape)
    phase = np.exp(2j * np.pi * (shift[0] * y[:, None] + shift[1] * x[None]))
    return np.fft.ifft2(np.fft.fft2(image) * phase).real


def microtubules(folder: Path) -> None:
    widefield = tiff.read(folder / "biosr/microtubules_wf_noise9.tif").array
    sim = shifted(tiff.read(folder / "biosr/microtubules_gt.tif").array.astype(float), SHIFT)
    for name, array, note in (
        ("microtubules", widefield, "widefield, single exposure"),
        ("microtubules_sim", sim, "structured illumination, moved by 0.28 pixels"),
    ):
        metadata = {
            "name": f"microtubules, {note}",
            "description": "BioSR, figshare 13264793, CC BY 4.0; crop of 256 x 256 pixels",
            "channels": [{"name": "microtubules", "emission_nm": 525.0}],
            "objective": OPTICS,
        }
        crop = Volume(array[CROP].astype(np.float32), "YX", (PIXEL, PIXEL), ("um", "um"), metadata=metadata)
        tiff.write(crop, OUTPUT / f"{name}.ome.tif")


def grid(folder: Path) -> None:
    stack = tiff.read(folder / "deconv3d/haase_DeconvolutionSampleVerticalGrid1AU-crop.tif")
    tiff.write(stack, OUTPUT / "grid.ome.tif", dtype="uint8")
    psf, count = beads.average(tiff.read(folder / "deconv3d/haase_Bead_Image1_crop.tif"), reach_nm=(1000, 350, 350))
    print(f"PSF: mean of {count} beads, shape {psf.shape}")  # noqa: T201
    tiff.write(psf, OUTPUT / "grid_psf.ome.tif")


def main() -> None:
    folder = Path(os.environ["OBVERSE_DATA"]) / "microscopy"
    OUTPUT.mkdir(exist_ok=True)
    microtubules(folder)
    grid(folder)
    total = sum(p.stat().st_size for p in OUTPUT.glob("*.tif"))
    print(f"{total / 1e6:.2f} MB")  # noqa: T201
    assert total < 1_600_000


if __name__ == "__main__":
    main()
