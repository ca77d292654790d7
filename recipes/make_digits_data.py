"""Handwritten digits for the small recipes, `digits-*.yaml`: scikit-learn's copy of a UCI set, split once and for all.

    pip install scikit-learn
    python recipes/make_digits_data.py $OBVERSE_DATA/digits

writes train.tif (1297 digits), validation.tif (100) and test.tif (400), stacks of 8 × 8 pixels from 0 to 1 (the counts
0 … 16 of the original over 16); labels.npz with each digit's value; and masks.npz, whose `top` is 0 in the upper six
rows and 1 in the lower two. No digit is in two files; the same 13 people wrote all of them.

Source: Alpaydin, Kaynak, "Optical recognition of handwritten digits", UCI Machine Learning Repository, 1998 (the test
part, 1797 digits), CC BY 4.0.
"""

import sys
from pathlib import Path

import numpy as np
import tifffile

_PARTS = {"train": 1297, "validation": 100, "test": 400}
_HIDDEN = 6  # rows


def main(folder: Path) -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.images))
    folder.mkdir(parents=True, exist_ok=True)
    first, labels = 0, {}
    for name, count in _PARTS.items():
        chosen = order[first : first + count]
        pictures = np.float32(digits.images[chosen] / 16)
        tifffile.imwrite(folder / f"{name}.tif", pictures, photometric="minisblack", metadata={"axes": "ZYX"})
        labels[name] = digits.target[chosen]
        first += count
        sys.stdout.write(f"{folder / name}.tif: {pictures.shape}, mean {pictures.mean():.3f}\n")
    np.savez(folder / "labels.npz", **labels)
    top = np.ones((1, 8, 8), np.float32)
    top[:, :_HIDDEN] = 0
    np.savez(folder / "masks.npz", top=top)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]))
