"""The pictures of the `microscopy` prior, from the originals in OBVERSE_DATA/microscopy/cells.

    python recipes/make_microscopy_data.py        writes OBVERSE_DATA/microscopy/prepared/{train,validation}

Each channel is brought to [0, 1] by its 0.1 % and 99.9 % quantiles. Micrographs hold noise of their own, which a
denoiser that was trained on them would keep as if it were detail: so each is halved in size, four pixels to one, until
the noise that `noise.gaussian_sigma` finds is below 1.5/255, at most twice. What is left is far below the noise levels
of training. Training pictures are then cut into overlapping tiles, so that one pass over the data sees as many of
them as their area deserves. Test pictures (BBBC034, W2S, FMD, BioSR) are not touched.
"""

import os
import sys
from pathlib import Path

import numpy as np
import tifffile

from obverse.noise import gaussian_sigma

_SETS = {
    "train": ("dsb2018_nuclei_512", "bbbc022_IXMtest_A02_s9", "human_ht29_d0", "human_ht29_d1", "human_ht29_d2"),
    "validation": ("hela_cells_3ch",),
}
_NOISE = 1.5 / 255
_TILE, _STRIDE = 128, 64


def main() -> None:
    root = Path(os.environ["OBVERSE_DATA"]) / "microscopy"
    for part, names in _SETS.items():
        folder = root / "prepared" / part
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            for number, channel in enumerate(channels(tifffile.imread(root / "cells" / f"{name}.tif"))):
                picture, noise = prepared(channel)
                pieces = tiles(picture)[:: 1 if part == "train" else 16]
                for k, piece in enumerate(pieces):
                    values = np.round(65535 * piece.clip(0, 1)).astype(np.uint16)
                    tifffile.imwrite(folder / f"{name}_{number}_{k:02d}.tif", values)
                left = f"{255 * noise:.2f}/255"
                sys.stdout.write(f"{part} {name} {number}: {picture.shape}, noise {left}, {len(pieces)} files\n")


def channels(image: np.ndarray) -> list[np.ndarray]:
    """The channels of a picture, wherever their axis is."""
    if image.ndim == 2:
        return [image]
    return list(np.moveaxis(image, int(np.argmin(image.shape)), 0))


def prepared(channel: np.ndarray) -> tuple[np.ndarray, float]:
    """In [0, 1], halved until it is clean; and the noise that is left."""
    low, high = np.quantile(channel, [0.001, 0.999])
    picture = (channel.astype(float) - low) / (high - low)
    for _ in range(2):
        if gaussian_sigma(picture) <= _NOISE:
            break
        height, width = (n // 2 for n in picture.shape)
        picture = picture[: 2 * height, : 2 * width].reshape(height, 2, width, 2).mean((1, 3))
    return picture, gaussian_sigma(picture)


def tiles(picture: np.ndarray) -> list[np.ndarray]:
    """Overlapping pieces in which there is something to see."""
    found = []
    for top in starts(picture.shape[0]):
        for left in starts(picture.shape[1]):
            piece = picture[top : top + _TILE, left : left + _TILE]
            if piece.std() > 0.02:
                found.append(piece)
    return found


def starts(size: int) -> list[int]:
    return sorted({*range(0, size - _TILE + 1, _STRIDE), max(size - _TILE, 0)})


if __name__ == "__main__":
    main()
