"""Tiny pictures and a recipe that trains on them in a second."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from obverse.learning import Recipe


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """A folder with the folders `train` and `validation` of smooth grey pictures, as TIFF."""
    import tifffile

    folder, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name, count in (("train", 7), ("validation", 3)):
        (folder / name).mkdir()
        for index in range(count):
            y, x = np.mgrid[:20, :24] / 20
            waves = sum(np.sin(random.normal(0, 4) * x + random.normal(0, 4) * y) for _ in range(3)) / 3
            tifffile.imwrite(folder / name / f"{index}.tif", np.uint8(127 + 100 * waves))
    return folder


@pytest.fixture
def recipe(pictures) -> dict[str, Any]:
    """Settings of a training of some thousand weights for a few steps."""
    return {
        "name": "tiny",
        "network": {
            "kind": "Preconditioned",
            "network": {"kind": "UNet", "inputs": 3, "outputs": 1, "widths": [8, 9], "blocks": 1},
        },
        "objective": {"kind": "Denoising", "sigma": [0.0, 0.22], "high": 4.0, "share": 0.08},
        "data": {
            "train": str(pictures / "train"),
            "validation": str(pictures / "validation"),
            "crop": 8,
            "validation_crop": 8,
            "licence": "made for this test",
        },
        "batch": 2,
        "steps": 12,
        "warmup": 3,
        "validate_every": 4,
        "precision": "float32",
    }


@pytest.fixture
def recipe_file(recipe, tmp_path) -> Path:
    """The same as a YAML file."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def curve(folder: Path, name: str = "loss") -> list[float]:
    """One figure of every step that a training's record holds."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [record[name] for record in map(json.loads, lines) if name in record]


def trained(recipe: dict[str, Any], folder: Path, **keywords: Any) -> Path:
    """Train a recipe into a folder."""
    from obverse.learning import train

    return train(Recipe(**recipe), folder, **keywords)
