"""Gain and read noise from one image, on simulated cameras over textured scenes."""

import numpy as np
import pytest
import torch
from skimage import data

from obverse.errors import InputError
from obverse.noise import Gaussian, PoissonGaussian, estimate, gaussian_sigma


def scene(name, blur=1.2):
    image = getattr(data, name)().astype(float)
    axis = np.arange(-4, 5)
    kernel = np.exp(-(axis**2) / (2 * blur**2))
    kernel /= kernel.sum()
    for dim in (0, 1):
        image = np.apply_along_axis(
            lambda row: np.convolve(np.pad(row, 4, mode="reflect"), kernel, "valid"), dim, image
        )
    return torch.tensor(image / image.max())


def camera(name, gain, sigma, peak, offset, seed=0):
    law = PoissonGaussian(gain, sigma)
    return offset + law.sample(peak * scene(name), torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", ["camera", "coins", "moon"])
@pytest.mark.parametrize(
    ("gain", "sigma", "peak", "offset"), [(1.0, 3.0, 100.0, 0.0), (2.5, 5.0, 400.0, 100.0), (1.0, 1.0, 20.0, 0.0)]
)
def test_gain_within_five_percent_and_read_noise_within_twenty(name, gain, sigma, peak, offset):
    image = camera(name, gain, sigma, peak, offset)
    found = estimate(image, offset=offset)
    assert found.gain == pytest.approx(gain, rel=0.05)
    assert found.read_noise == pytest.approx(sigma, rel=0.2)
    assert isinstance(found.law(), PoissonGaussian)


def test_without_an_offset_the_variance_law_is_still_right():
    gain, sigma, offset = 2.0, 4.0, 100.0
    found = estimate(camera("camera", gain, sigma, 500.0, offset))
    for level in (150.0, 300.0, 550.0):
        truth = gain * (level - offset) + sigma**2
        assert found.gain * (level - found.offset) + found.read_noise**2 == pytest.approx(truth, rel=0.1)


def test_a_doubled_gain_is_told_apart():
    """Negative control of the tolerance above."""
    found = estimate(camera("camera", 2.0, 3.0, 100.0, 0.0), offset=0.0)
    assert found.gain != pytest.approx(1.0, rel=0.05)


def test_constant_noise_gives_a_gaussian_law():
    image = 100 * scene("camera") + 3.0 * torch.randn(512, 512, generator=torch.Generator().manual_seed(0))
    found = estimate(image)
    assert found.read_noise == pytest.approx(3.0, rel=0.1)
    assert isinstance(found.law(), Gaussian) or found.gain < 0.02


def test_stack_equals_planes_together_and_units_scale():
    image = camera("coins", 1.0, 2.0, 200.0, 0.0)[:256, :256]
    stack = torch.stack([image, image.flip(0)])
    found, scaled = estimate(stack, offset=0.0), estimate(10.0 * stack, offset=0.0)
    assert found.gain == pytest.approx(1.0, rel=0.1)
    assert scaled.gain == pytest.approx(10 * found.gain, rel=1e-2)
    assert scaled.read_noise == pytest.approx(10 * found.read_noise, rel=1e-2)


def test_saturated_pixels_are_left_out():
    image = camera("camera", 1.0, 3.0, 100.0, 0.0).clamp_max(85.0)
    assert estimate(image, offset=0.0).gain == pytest.approx(1.0, rel=0.08)


def test_plain_sigma():
    noise = 10 * np.random.default_rng(0).normal(size=(512, 512))
    assert gaussian_sigma(255 * scene("camera").numpy() + noise) == pytest.approx(10.0, rel=0.05)


@pytest.mark.parametrize("sigma", [5.0, 10.0, 25.0, 50.0])
@pytest.mark.parametrize("name", ["camera", "coins", "moon", "brick"])
def test_plain_sigma_of_sharp_pictures(name, sigma):
    """Photographs as they are, not blurred: texture is most of what passes a fine filter."""
    image = getattr(data, name)()[:256, :256].astype(float)
    noise = np.random.default_rng(1).normal(size=image.shape)
    assert gaussian_sigma(image + sigma * noise) == pytest.approx(sigma, rel=0.1)
    assert gaussian_sigma(3 * (image + sigma * noise) - 7) == pytest.approx(3 * sigma, rel=0.1)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((64, 64)),
        np.full((64, 64), np.nan),
        np.ones((8, 8)),
        np.ones((4, 4, 64, 64)),
        np.ones((64, 64), complex),
    ],
)
def test_bad_images_are_refused(image):
    with pytest.raises(InputError):
        estimate(image)
