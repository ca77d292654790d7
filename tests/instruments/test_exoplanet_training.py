"""The exoplanet instrument with a search that it trains on the sequence itself."""

import numpy as np
import pytest
import torch

from obverse.errors import InputError
from obverse.instruments import exoplanet
from obverse.instruments.exoplanet_training import SelfTrainedDeepPACO
from obverse.noise import Gaussian
from obverse.operators import FieldRotation
from obverse.problem import Problem

fits_of_astropy = pytest.importorskip("astropy.io.fits")
SIZE, FRAMES = 25, 16


@pytest.fixture
def sequence(tmp_path):
    y, x = np.mgrid[-6:7, -6:7]
    psf = np.exp(-(x**2 + y**2) / 2.4)
    operator = FieldRotation((1, SIZE, SIZE), np.linspace(0, 90, FRAMES).tolist(), torch.from_numpy(psf))
    cube = np.random.default_rng(0).normal(size=(FRAMES, SIZE, SIZE)) + operator.source((12.0, 20.0), 6.0).numpy()
    cube[:, :, 0] = np.nan
    for name, array in {"cube": cube, "psf": psf, "angles": np.linspace(0, 90, FRAMES)}.items():
        fits_of_astropy.PrimaryHDU(array.astype(np.float32)).writeto(tmp_path / f"{name}.fits")
    return tmp_path


def test_it_trains_on_the_sequence_and_answers_like_a_search(sequence):
    settings = exoplanet.Settings(
        angles=sequence / "angles.fits", psf=sequence / "psf.fits", method="deep-paco", training_steps=2
    )
    volume = exoplanet.read(sequence / "cube.fits", settings)
    measurement = exoplanet.measure(volume, settings, exoplanet.characterise(volume, settings))
    search, told = exoplanet.method(measurement, settings, seed=3), []
    assert exoplanet.describe(search) == {"steps": 2, "threshold": 5.0, "seed": 3}
    result = search(measurement.y, measurement.problem, callback=lambda *step: told.append(step[:2]))
    assert told == [(done, 114) for done in range(1, 115)]  # 96 samples, 16 that decide, 2 steps
    _, figures = exoplanet.answer(result, measurement)
    assert [(round(c["x"]), round(c["y"])) for c in figures["candidates"]] == [(20, 12)]


def test_several_wavelengths_are_told_to_take_paco():
    psf = torch.ones(2, 3, 3)
    problem = Problem(FieldRotation((2, SIZE, SIZE), torch.linspace(0, 90, FRAMES), psf), Gaussian(1.0))
    with pytest.raises(InputError, match="one wavelength.*use PACO"):
        SelfTrainedDeepPACO(1, 5.0, 0)(torch.randn(2, FRAMES, SIZE, SIZE), problem)
