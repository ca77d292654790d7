"""The figures of a run: resolution by Fourier ring correlation, with a reference and without."""

import numpy as np
import pytest
from scipy import ndimage

from obverse.run.assemble import Assembly
from obverse.run.figures import compare, resolve
from obverse.volume import Volume


def pictures(noise=0.1, seed=0):
    """Truth, its blurred and noisy picture, and a sharper picture of it with other noise."""
    rng = np.random.default_rng(seed)
    truth = ndimage.gaussian_filter(rng.standard_normal((1, 96, 96)), (0, 0.7, 0.7))
    data = ndimage.gaussian_filter(truth, (0, 2.0, 2.0)) + noise * rng.standard_normal(truth.shape)
    image = ndimage.gaussian_filter(truth, (0, 0.8, 0.8)) + 0.1 * noise * rng.standard_normal(truth.shape)
    spread = np.full(truth.shape, noise, np.float32)
    return truth, data.astype(np.float32), Assembly(image.astype(np.float32), data, spread, None, ())


def test_a_sharper_image_resolves_finer_than_its_data():
    truth, data, assembly = pictures()
    figures, curves = resolve(data, assembly, Volume(truth[0], "YX"), 50.0)
    assert figures["frc_kind"] == "reference" and figures["frc_after"] < 0.7 * figures["frc_before"]
    assert figures["frc_before"] > 100.0  # two pixels of 50 nm are the finest there is
    assert curves["frc_frequency"].shape == curves["frc_before"].shape == curves["frc_after"].shape
    unrelated = np.random.default_rng(1).standard_normal(truth.shape[1:])
    lost, _ = resolve(data, assembly, Volume(unrelated, "YX"), 50.0)
    assert lost["frc_after"] > 2 * figures["frc_after"]  # a picture of something else is not resolved
    assert compare(data, assembly, Volume(truth[0], "YX"))["correlation"] > 0.9


def test_without_a_reference_the_data_are_split_and_noise_costs_resolution():
    clear, noisy = (resolve(data, assembly, None, 50.0)[0] for _, data, assembly in (pictures(0.01), pictures(0.3)))
    assert clear["frc_kind"] == "split" and "frc_after" not in clear
    assert clear["frc_before"] < 0.8 * noisy["frc_before"]


def test_unknown_pixels_stay_pixels_and_volumes_and_constants_have_no_figure():
    truth, data, assembly = pictures()
    figures, _ = resolve(data, assembly, Volume(truth[0], "YX"), None)
    known, _ = resolve(data, assembly, Volume(truth[0], "YX"), 50.0)
    assert figures["frc_after_pixels"] == pytest.approx(known["frc_after"] / 50) and "frc_after" not in figures
    assert resolve(data[None], assembly, None, 50.0) == ({}, {})
    assert resolve(np.ones_like(data), assembly, Volume(truth[0], "YX"), 50.0) == ({}, {})
    assert resolve(data[:, :16], assembly, None, 50.0) == ({}, {})
