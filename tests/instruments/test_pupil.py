"""The pupil's PSFs against the Airy pattern, the axial law, the Gibson–Lanni model and what each aberration does."""

import numpy as np
import pytest
from scipy import integrate, signal, special

from obverse.errors import InputError
from obverse.instruments import psf, pupil

LOW = {"numerical_aperture": 0.1, "wavelength": 500.0, "refractive_index": 1.0}
HIGH = {"numerical_aperture": 1.3, "wavelength": 520.0, "refractive_index": 1.515}


def test_zernike_polynomials_are_orthonormal_over_the_disc():
    node, weight = np.polynomial.legendre.leggauss(20)
    rho, theta = np.meshgrid((node + 1) / 2, 2 * np.pi * np.arange(32) / 32, indexing="ij")
    weights = np.broadcast_to((rho[:, :1] * weight[:, None] / 32), rho.shape)
    values = np.stack([pupil.zernike(j, rho, theta) for j in range(1, 22)])
    assert np.allclose(np.einsum("iab,jab,ab->ij", values, values, weights), np.eye(21), atol=1e-12)
    assert np.allclose(values[3], np.sqrt(3) * (2 * rho**2 - 1))
    assert np.allclose(values[7], np.sqrt(8) * (3 * rho**3 - 2 * rho) * np.cos(theta))
    assert np.allclose(values[8], np.sqrt(8) * rho**3 * np.sin(3 * theta))


def test_in_focus_it_is_the_airy_pattern():
    h = pupil.widefield((1, 61), (250.0, 250.0), **LOW)[0]
    v = np.maximum(np.abs(2 * np.pi * 0.1 * (np.arange(61) - 30) * 250.0 / 500.0), 1e-9)
    airy = (2 * special.j1(v) / v) ** 2
    assert np.abs(h / h[30] - airy).max() < 3e-3  # the apodisation is 0.25 % at this aperture
    plain = pupil.widefield((1, 61), (250.0, 250.0), aplanatic=False, **LOW)[0]
    assert np.abs(plain / plain[30] - airy).max() < 1e-12
    wide = pupil.widefield((1, 61), (250.0, 250.0), **{**LOW, "numerical_aperture": 0.098})[0]
    assert np.abs(wide / wide[30] - airy).max() > 3e-3


def test_along_the_axis_it_is_the_squared_sinc():
    z = (np.arange(41) - 20) * 5000.0
    h = pupil.widefield((41, 1, 1), (5000.0, 100.0, 100.0), **LOW)[:, 0, 0]
    quarter = 0.1**2 * z / (2 * 500.0)  # sinc(NA² z/(2λ)), first zero at 2λ/NA² = 100 µm
    assert np.abs(h / h[20] - np.sinc(quarter) ** 2).max() < 5e-3
    assert h[0] / h[20] < 1e-3


@pytest.mark.parametrize("aplanatic, power", [(True, 0.5), (False, 1.0)])
def test_along_the_axis_at_a_high_aperture_it_is_debyes_integral(aplanatic, power):
    # with the sine condition each ring of angle α counts √cos α sin α dα; without apodisation, cos α sin α dα
    z = (np.arange(13) - 6) * 100.0
    h = pupil.widefield((13, 1, 1), (100.0, 60.0, 60.0), aplanatic=aplanatic, **HIGH)[:, 0, 0]
    widest, wavenumber = np.arcsin(1.3 / 1.515), 2 * np.pi * 1.515 / 520.0

    def intensity(height, power):
        def field(angle, wave):
            return np.cos(angle) ** power * np.sin(angle) * wave(wavenumber * height * np.cos(angle))

        return sum(integrate.quad(field, 0, widest, args=(wave,))[0] ** 2 for wave in (np.cos, np.sin))

    expected = np.array([intensity(height, power) for height in z])
    other = np.array([intensity(height, 1.5) for height in z])
    assert np.abs(h / h[6] - expected / expected[6]).max() < 1e-9
    assert np.abs(h / h[6] - other / other[6]).max() > 0.01


def test_an_aplanatic_lens_gathers_light_by_the_solid_angle():
    # a point that shines alike in all directions: the pupil's energy is its cone's share of the sphere, 1 − cos α
    apertures = np.array([0.6, 0.9, 1.4])
    solid = 1 - np.sqrt(1 - (apertures / 1.515) ** 2)
    for aplanatic in (True, False):
        energy = [
            pupil._intensity((1, 201, 201), (1.0, 60.0, 60.0), na, 520.0, 1.515, {}, aplanatic).sum() * na**4
            for na in apertures
        ]
        share = np.array(energy) / solid
        assert (np.ptp(share) < 0.01 * share.mean()) == aplanatic


def test_every_plane_carries_the_same_energy():
    h = pupil.widefield((3, 61, 61), (500.0, 75.0, 75.0), numerical_aperture=0.8, wavelength=520.0,
                        aberrations={6: 0.1})  # fmt: skip
    energy = h.sum((1, 2))
    assert np.abs(energy / energy[1] - 1).max() < 0.02


@pytest.mark.parametrize("aplanatic, error", [(False, 1e-9), (True, 0.03)])
def test_it_agrees_with_gibson_lanni(aplanatic, error):
    shape, spacing = (7, 25, 25), (250.0, 60.0, 60.0)
    expected = psf.gibson_lanni(shape, spacing, integrate=False, **HIGH)
    h = pupil.widefield(shape, spacing, aplanatic=aplanatic, **HIGH)
    assert np.abs(h - expected).max() < error * expected.max() + 2e-5 * expected.max()
    if aplanatic:
        assert np.abs(h - expected).max() > 0.005 * expected.max()


def test_aberrations_do_what_their_names_say():
    flat = pupil.widefield((31, 31), (50.0, 50.0), **HIGH)
    x = np.arange(31) - 15

    def moments(h):
        mean = (h.sum(0) * x).sum()
        return mean, (h.sum(0) * (x - mean) ** 3).sum()

    # tilt: a path that grows with u moves the spot towards −x, by c·2 λ/NA (the slope of Z₂ = 2ρ cos θ)
    tilted = pupil.widefield((31, 31), (50.0, 50.0), aberrations={2: 0.1}, **HIGH)
    fine = np.argmax(signal.resample(tilted[15], 31 * 20)) / 20 - 15
    assert fine == pytest.approx(-0.1 * 2 * 520.0 / 1.3 / 50.0, abs=0.08)
    for value in (0.1, -0.1):
        coma = pupil.widefield((31, 31), (50.0, 50.0), aberrations={8: value}, **HIGH)
        # rays at the rim are thrown the way of tilt, so that the tail of positive coma points to −x
        assert np.sign(moments(coma)[1]) == -np.sign(value) and np.allclose(coma, coma[::-1])
        assert coma.max() < 0.9 * flat.max()
    spherical = pupil.widefield((21, 9, 9), (100.0, 50.0, 50.0), aberrations={11: 0.1}, **HIGH)
    assert np.allclose(flat, flat[:, ::-1]) and not np.allclose(spherical, spherical[::-1], rtol=0.1)
    assert np.allclose(pupil.widefield((31, 31), (50.0, 50.0), aberrations={1: 0.3}, **HIGH), flat)


def test_a_voxel_size_that_is_no_number_is_refused():
    with pytest.raises(InputError, match="positive voxel size"):
        pupil.widefield((31, 31), (60.0, float("nan")), **HIGH)


def test_strehl_ratio_is_marechals():
    grid = {"shape": (1, 1, 1), "spacing": (1.0, 1.0, 1.0)}
    low = (LOW["numerical_aperture"], LOW["wavelength"], 1.0)
    peaks = [pupil._intensity(grid["shape"], grid["spacing"], *low, {7: c}, False)[0, 0, 0] for c in (0.0, 0.05)]
    assert peaks[1] / peaks[0] == pytest.approx(np.exp(-((2 * np.pi * 0.05) ** 2)), rel=2e-3)


def test_confocal_with_a_closed_and_an_open_pinhole():
    shape, spacing = (3, 21, 21), (300.0, 60.0, 60.0)
    optics = {"numerical_aperture": 1.3, "emission": 520.0, "excitation": 488.0}
    emission = pupil.widefield(shape, spacing, numerical_aperture=1.3, wavelength=520.0)
    excitation = pupil.widefield(shape, spacing, numerical_aperture=1.3, wavelength=488.0)
    closed = pupil.confocal(shape, spacing, pinhole=0.0, **optics)
    assert np.allclose(closed, psf.confocal(emission, excitation), atol=1e-9)
    # a pinhole of many Airy units lets everything through: the excitation alone, plane by plane
    opened = pupil.confocal(shape, spacing, pinhole=5.0, **optics)
    assert np.abs(opened - excitation).max() < 0.05 * excitation.max()
    assert np.abs(closed - excitation).max() > 0.05 * excitation.max()
    one = pupil.confocal(shape, spacing, pinhole=1.0, **optics)
    widths = [(h.sum((0, 1)) * (np.arange(21) - 10) ** 2).sum() for h in (closed, one, opened)]
    assert widths[0] < widths[1] < widths[2] and np.allclose(one, one[:, :, ::-1])


def test_the_pinhole_is_the_convolution_with_its_disc():
    n, spacing, radius = 41, 20.0, 150.0
    h = pupil.widefield((n, n), (spacing, spacing), **HIGH)
    fine = 8
    axis = (np.arange(-80, 81)) / fine
    disc = (np.hypot(axis[:, None], axis) * spacing <= radius).astype(float)
    upsampled = pupil.widefield((n * fine + 1, n * fine + 1), (spacing / fine,) * 2, **HIGH)
    direct = signal.fftconvolve(upsampled, disc / disc.sum(), "same")
    middle = (n * fine + 1) // 2 + fine * np.arange(-8, 9)
    direct = direct[np.ix_(middle, middle)]
    found = pupil._through_pinhole(h, (spacing, spacing), radius, (8, 8))[4:21, 4:21]
    assert found.shape == direct.shape
    assert np.abs(found / found.sum() - direct / direct.sum()).max() < 0.01 * (direct / direct.sum()).max()


@pytest.mark.parametrize(
    "change",
    [
        {"numerical_aperture": 1.6},
        {"wavelength": 0.5},
        {"aberrations": {0: 0.1}},
        {"aberrations": {8: float("nan")}},
        {"aberrations": {8: 30.0}},
    ],
)
def test_impossible_optics_are_refused(change):
    with pytest.raises(InputError, match="expect"):
        pupil.widefield((9, 9), (65, 65), **{**HIGH, **change})


def test_impossible_pinholes_and_shapes_are_refused():
    optics = {"numerical_aperture": 1.3, "emission": 520.0, "excitation": 488.0}
    with pytest.raises(InputError, match="Airy"):
        pupil.confocal((9, 9), (65, 65), pinhole=-1.0, **optics)
    with pytest.raises(InputError, match="shape"):
        pupil.confocal((9,), (65,), **optics)
