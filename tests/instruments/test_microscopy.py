"""A simulated micrograph, from its volume to an image and a standard deviation in counts."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from obverse.errors import InputError
from obverse.instruments import microscopy, photometry
from obverse.instruments.psf import gibson_lanni
from obverse.volume import Volume

OPTICS = {"numerical_aperture": 1.3, "wavelength_nm": 525.0, "refractive_index": 1.515}
OFFSET, GAIN, READ_NOISE = 100.0, 2.0, 4.0


def scene(shape=(64, 64), seed=0):
    """Truth and data in counts: blurred filaments over a dark ground, with Poisson and read noise."""
    rng = np.random.default_rng(seed)
    rough = np.fft.ifftn(
        np.fft.fftn(rng.standard_normal(shape))
        / (0.03 + np.hypot(*np.meshgrid(*map(np.fft.fftfreq, shape), indexing="ij")))
    ).real
    truth = 3000 * np.clip(rough / rough.max(), 0, None)
    h = gibson_lanni((31, 31), (65, 65), numerical_aperture=1.3, wavelength=525.0)
    otf = np.fft.fft2(np.roll(np.pad(h, [(0, n - 31) for n in shape]), (-15, -15), (0, 1)))
    mean = np.fft.ifft2(np.fft.fft2(truth) * otf).real.clip(0)
    data = OFFSET + GAIN * rng.poisson(mean / GAIN) + READ_NOISE * rng.standard_normal(shape)
    return truth + OFFSET, Volume(data.astype(np.float32), "YX", (65.0, 65.0), ("nm", "nm"))


def test_background_and_noise_are_found():
    _, volume = scene((128, 128))
    facts = microscopy.measure(volume, microscopy.Settings(**OPTICS)).facts
    assert facts["background"] == pytest.approx(OFFSET, abs=60)
    assert facts["gain"] == pytest.approx(GAIN, rel=0.2)
    assert facts["psf"]["source"].startswith("Gibson")
    given = microscopy.measure(volume, microscopy.Settings(**OPTICS, gain=3.0, read_noise=5.0, background=90.0)).facts
    assert (given["gain"], given["read_noise"], given["background"]) == (3.0, 5.0, 90.0)


def test_the_posterior_is_sharper_calibrated_and_in_counts():
    truth, volume = scene()
    settings = microscopy.Settings(**OPTICS, method="gaussian", gain=GAIN, read_noise=READ_NOISE)
    measurement = microscopy.measure(volume, settings)
    result = microscopy.method(measurement, settings)(measurement.y, measurement.problem)
    image = microscopy.restore(result.image, measurement)
    std = microscopy.restore(result.std, measurement, is_std=True)
    assert image.axes == "YX" and image.spacing == volume.spacing and image.array.shape == (64, 64)
    assert np.std(image.array - truth) < 0.9 * np.std(volume.array - truth)
    z = (image.array - truth) / std.array
    assert 0.6 < np.sqrt(np.mean(z**2)) < 1.6
    assert not 0.6 < np.sqrt(np.mean((z / 3) ** 2)) < 1.6  # three times too wide an error bar would be seen


def test_scale_and_crop_lead_back_to_the_data():
    _, volume = scene()
    measurement = microscopy.measure(volume, microscopy.Settings(**OPTICS))
    assert np.allclose(microscopy.restore(measurement.y, measurement).array, volume.array, rtol=1e-5)


@pytest.mark.parametrize("method", ["gaussian", "laplace", "langevin", "map", "richardson-lucy"])
def test_every_method_is_built_and_described(method):
    _, volume = scene((40, 48))
    settings = microscopy.Settings(**OPTICS, method=method)
    measurement = microscopy.measure(volume, settings)
    built = microscopy.method(measurement, settings, seed=3)
    described = microscopy.describe(built)
    assert described and all(isinstance(v, str | int | float | bool | list | None) for v in described.values())
    if method in ("map", "richardson-lucy"):
        assert torch.isfinite(built(measurement.y, measurement.problem).image).all()


def test_a_tile_with_the_facts_of_the_whole_is_treated_like_it():
    _, volume = scene((64, 64))
    settings = microscopy.Settings(**OPTICS)
    whole = microscopy.measure(volume, settings)
    part = microscopy.measure(volume.cropped((slice(None), slice(0, 40), slice(8, 64))), settings, shared=whole.facts)
    assert (part.scale, part.offset) == (whole.scale, whole.offset)
    inside = whole.y[whole.crop][:, :40, 8:]
    assert torch.equal(part.y[part.crop], inside)
    alone = microscopy.measure(volume.cropped((slice(None), slice(0, 40), slice(8, 64))), settings)
    assert alone.scale != whole.scale


def test_what_is_missing_or_impossible_is_named():
    _, volume = scene()
    with pytest.raises(InputError, match="wavelength_nm"):
        microscopy.measure(volume, microscopy.Settings(numerical_aperture=1.3))
    with pytest.raises(InputError, match="negative"):
        microscopy.measure(volume, microscopy.Settings(**OPTICS, background=2000.0, gain=GAIN, read_noise=READ_NOISE))
    with pytest.raises(InputError, match="pixels"):
        microscopy.measure(Volume(volume.array[:1], "YX", (65.0, 65.0), ("nm", "nm")), microscopy.Settings(**OPTICS))
    with pytest.raises(ValueError, match="extra"):
        microscopy.Settings(numerical_apperture=1.3)


def test_the_optics_are_taken_from_the_file_when_it_records_them():
    _, volume = scene()
    metadata = {
        "objective": {"numerical_aperture": 1.2, "refractive_index": 1.333},
        "channels": [{"emission_nm": 610.0}],
    }
    facts = microscopy.measure(
        Volume(volume.array, "YX", volume.spacing, volume.units, metadata=metadata), microscopy.Settings()
    ).facts
    assert (facts["psf"]["numerical_aperture"], facts["psf"]["wavelength"], facts["psf"]["refractive_index"]) == (
        1.2,
        610.0,
        1.333,
    )


def test_noise_that_cannot_be_read_is_said():
    found = photometry.noise(np.random.default_rng(0).normal(100, 5, (1, 20, 20)), 90.0, "auto", "auto")
    assert found.gain == 0 and found.read_noise == pytest.approx(5, rel=0.3) and "read_noise" in found.warnings[0]


def test_a_small_picture_of_few_bright_spots_shows_that_its_noise_counts_photons():
    rng = np.random.default_rng(1)
    truth = np.zeros((48, 56))
    truth.flat[rng.integers(0, truth.size, 13)] = rng.uniform(2000, 8000, 13)
    mean = ndimage.gaussian_filter(truth, 1.5)
    picture = (100 + rng.poisson(mean) + rng.normal(0, 3, mean.shape)).round()[None]
    found = photometry.noise(picture, 100.0, "auto", "auto")
    assert found.gain == pytest.approx(1.0, rel=0.4) and found.read_noise == pytest.approx(3.0, rel=0.3)
    even = (100 + rng.normal(0, 5, mean.shape))[None]
    assert photometry.noise(even, 100.0, "auto", "auto").gain == 0.0
