"""Small synthetic micrographs and the command line, for every test that needs them."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile


def cells(shape=(32, 40), seed=0):
    """Round cells of 100 to 400 photons a pixel: what the micrograph below is a picture of."""
    rng = np.random.default_rng(seed)
    truth = np.zeros(shape)
    grid = np.meshgrid(*map(np.arange, shape), indexing="ij")
    for _ in range(max(6, truth.size // 200)):
        centre, radius = [rng.uniform(0, n) for n in shape], rng.uniform(1.5, 4)
        away = np.sqrt(sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True)))
        truth += rng.uniform(100, 400) / (1 + np.exp((away - radius) / 0.3))
    return truth


def micrograph(shape=(32, 40), seed=0):
    """The cells blurred, with Poisson and read noise, on a background of 100 counts; and the PSF of the blur."""
    rng = np.random.default_rng(seed + 1)
    truth = cells(shape, seed)
    axes = np.meshgrid(*[np.arange(-4, 5)] * len(shape), indexing="ij")
    psf = np.exp(-sum(axis**2 for axis in axes) / (2 * 1.5**2))
    psf /= psf.sum()
    transfer = np.fft.rfftn(np.roll(np.pad(psf, [(0, n - 9) for n in shape]), [-4] * len(shape), range(len(shape))))
    blurred = np.fft.irfftn(np.fft.rfftn(truth) * transfer, s=shape, axes=range(len(shape))).clip(0)
    data = 100 + rng.poisson(blurred) + rng.normal(0, 3, shape)
    return data.clip(0).round().astype(np.uint16), psf.astype(np.float32)


@dataclass(frozen=True)
class Outcome:
    code: int
    stdout: str
    stderr: str

    @property
    def answer(self) -> Any:
        return json.loads(self.stdout)


@pytest.fixture
def obverse(capsys):
    """Run a command in this process, as the command line would: exit code, standard output, standard error."""
    from obverse.cli import run

    def call(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


@pytest.fixture
def obverse_process():
    """Run a command in a fresh process."""

    def call(*arguments: object, **keywords: Any) -> Outcome:
        command = [sys.executable, "-m", "obverse", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, **keywords)
        return Outcome(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture(scope="session")
def files(tmp_path_factory) -> dict[str, Path]:
    """A micrograph in 2-D and one in 3-D, each with its PSF, as TIFF files."""
    folder = tmp_path_factory.mktemp("micrographs")
    made = {}
    for name, shape in (("2d", (32, 40)), ("3d", (12, 24, 28))):
        data, psf = micrograph(shape)
        axes = "ZYX"[-len(shape) :]
        metadata = {
            "axes": axes,
            "PhysicalSizeX": 0.1,
            "PhysicalSizeY": 0.1,
            "PhysicalSizeXUnit": "µm",
            "PhysicalSizeYUnit": "µm",
        }
        if len(shape) == 3:
            metadata |= {"PhysicalSizeZ": 0.3, "PhysicalSizeZUnit": "µm"}
        made[name] = folder / f"{name}.ome.tif"
        made[f"psf{name}"] = folder / f"psf{name}.ome.tif"
        tifffile.imwrite(made[name], data, ome=True, photometric="minisblack", metadata=metadata)
        tifffile.imwrite(made[f"psf{name}"], psf, ome=True, photometric="minisblack", metadata=metadata)
    return made
