"""Computed PSFs against the Airy pattern and direct quadrature; measured ones made usable or refused."""

import numpy as np
import pytest
from scipy import integrate, special

from obverse.errors import InputError
from obverse.instruments import beads, psf
from obverse.volume import Volume

NA, WAVELENGTH = 1.4, 520.0


def direct(r, z, aperture, wavelength, immersion, sample, depth):
    k = 2 * np.pi / wavelength

    def part(rho, which):
        path = depth * np.sqrt(complex(sample**2 - (aperture * rho) ** 2)) - z * np.sqrt(
            immersion**2 - (aperture * rho) ** 2
        )
        return which(np.exp(1j * k * path)) * special.j0(k * aperture * r * rho) * 2 * rho

    real, imaginary = (integrate.quad(part, 0, 1, (which,), limit=800)[0] for which in (np.real, np.imag))
    return real**2 + imaginary**2


def test_in_focus_it_is_the_airy_pattern_with_its_first_zero_at_061_wavelengths_over_na():
    r = np.arange(0, 1500, 0.5)
    h = psf.radial_profile(r, np.zeros(1), numerical_aperture=NA, wavelength=WAVELENGTH)[0]
    v = np.maximum(2 * np.pi * NA * r / WAVELENGTH, 1e-9)
    assert np.abs(h - (2 * special.j1(v) / v) ** 2).max() < 1e-12
    assert r[np.argmax(np.diff(h) > 0)] == pytest.approx(0.6098 * WAVELENGTH / NA, abs=0.5)


@pytest.mark.parametrize(
    "r, z, aperture, wavelength, immersion, sample, depth",
    [
        (300, 800, 1.4, 520, 1.515, 1.33, 2000.0),
        (1200, -2000, 1.2, 600, 1.333, 1.38, 5000),
        (50, 500, 1.45, 461, 1.512, 1.46, 0),
    ],
)
def test_out_of_focus_it_is_the_integral(r, z, aperture, wavelength, immersion, sample, depth):
    optics = {"numerical_aperture": aperture, "wavelength": wavelength, "refractive_index": immersion}
    h = psf.radial_profile(np.array([r]), np.array([z]), **optics, sample_index=sample, depth=depth)[0, 0]
    assert h == pytest.approx(direct(r, z, aperture, wavelength, immersion, sample, depth), rel=1e-6)
    other = psf.radial_profile(np.array([r]), np.array([z * 1.05 + 20]), **optics, sample_index=sample, depth=depth)[
        0, 0
    ]
    assert other != pytest.approx(h, rel=1e-3)  # the comparison sees a wrong defocus


def test_on_a_grid_it_sums_to_one_is_symmetric_and_centred():
    h = psf.gibson_lanni((9, 33, 33), (200, 65, 65), numerical_aperture=NA, wavelength=WAVELENGTH)
    assert h.sum() == pytest.approx(1) and np.unravel_index(h.argmax(), h.shape) == (4, 16, 16)
    assert np.allclose(h, h[:, ::-1]) and np.allclose(h, h.transpose(0, 2, 1)) and np.allclose(h, h[::-1])


def test_pixel_integration_widens_by_the_pixel():
    sharp, wide = (
        psf.gibson_lanni((41, 41), (65, 65), numerical_aperture=NA, wavelength=WAVELENGTH, integrate=i)
        for i in (False, True)
    )
    f = np.fft.fftfreq(41)
    ratio = np.abs(np.fft.fft2(wide)[0, 1:7]) / np.abs(np.fft.fft2(sharp)[0, 1:7])
    assert np.allclose(ratio / ratio[0], np.sinc(f[1:7]) / np.sinc(f[1]), atol=0.02) and ratio[5] < 0.97


def spot(centre=(10.0, 10.0), shape=(21, 21), width=2.0, level=0.0, noise=0.0):
    grid = np.meshgrid(*map(np.arange, shape), indexing="ij")
    array = np.exp(-sum((g - c) ** 2 for g, c in zip(grid, centre)) / (2 * width**2))
    return level + array + noise * np.random.default_rng(0).standard_normal(shape)


def test_a_measured_psf_is_put_in_the_middle_without_its_background():
    clean, notes = psf.prepare(Volume(spot(), "YX"), (None, None), (64, 64))
    assert notes == () and clean.sum() == pytest.approx(1)
    moved, notes = psf.prepare(Volume(spot((7.4, 12.3), (21, 21), level=100.0), "YX"), (None, None), (64, 64))
    assert "off its centre" in notes[0]
    centre = [(moved * np.arange(n).reshape(shape)).sum() for n, shape in zip(moved.shape, ((-1, 1), (1, -1)))]
    assert centre == pytest.approx([(n - 1) / 2 for n in moved.shape], abs=0.15)
    assert all(n % 2 for n in moved.shape)


def test_a_psf_on_another_voxel_size_is_resampled():
    volume = Volume(spot(), "YX", (50.0, 50.0), ("nm", "nm"))
    fine, notes = psf.prepare(volume, (25.0, 25.0), (64, 64))
    width = [np.sqrt((h * (np.arange(len(h)) - len(h) // 2) ** 2).sum()) for h in (fine.sum(0), fine.sum(1))]
    assert "resampled" in notes[0] and width == pytest.approx([4.0, 4.0], rel=0.05)
    same, notes = psf.prepare(volume, (50.0, 50.0), (64, 64))
    assert notes == ()


@pytest.mark.parametrize(
    "array, axes, size, word",
    [
        (np.zeros((9, 9)), "YX", (64, 64), "constant"),
        (np.ones((9, 9)), "YX", (64, 64), "constant"),
        (spot((0.0, 10.0)), "YX", (64, 64), "peak inside"),
        (np.full((9, 9), np.nan), "YX", (64, 64), "NaN"),
        (spot(), "YX", (16, 64, 64), "3-D"),
        (np.stack([spot()] * 3), "ZYX", (64, 64), "in focus"),
        (np.stack([spot()] * 3), "CYX", (64, 64), "one channel"),
    ],
)
def test_a_psf_that_cannot_be_one_is_refused(array, axes, size, word):
    with pytest.raises(InputError, match=word):
        psf.prepare(Volume(array, axes), (None,) * len(size), size)


@pytest.mark.parametrize(
    "optics", [{"numerical_aperture": 1.6}, {"numerical_aperture": 0}, {"wavelength": 0.52}, {"depth": -1.0}]
)
def test_impossible_optics_are_refused(optics):
    with pytest.raises(InputError, match="expect"):
        psf.gibson_lanni((9, 9), (65, 65), **{"numerical_aperture": NA, "wavelength": WAVELENGTH, **optics})


def test_beads_average_to_the_psf_they_were_made_with():
    rng = np.random.default_rng(3)
    stack = np.full((120, 120), 20.0)
    for y in (20, 60, 100):
        for x in (20, 60, 100):
            stack += 400 * spot((y + rng.uniform(-0.5, 0.5), x + rng.uniform(-0.5, 0.5)), (120, 120))
    stack = rng.poisson(stack)
    stack[58:62, 18:22] += 5000  # a clump, to be left out
    found, count = beads.average(Volume(stack, "YX", (50.0, 50.0), ("nm", "nm")))
    assert count == 8 and found.shape == (21, 21) and found.array.sum() == pytest.approx(1)
    expected = spot() / spot().sum()
    assert np.abs(found.array - expected).max() < 0.05 * expected.max()
    with pytest.raises(InputError, match="isolated beads"):
        beads.average(Volume(rng.poisson(20, (64, 64)), "YX", (50.0, 50.0), ("nm", "nm")))
