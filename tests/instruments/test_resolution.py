"""Fourier ring correlation finds the frequency that was lost; padding joins its ends."""

import numpy as np
import pytest

from obverse.errors import InputError
from obverse.instruments import resolution
from obverse.instruments.padding import pad

RNG = np.random.default_rng(0)


def low_passed(cutoff, shape=(128, 128)):
    radius = np.sqrt(sum(g**2 for g in np.meshgrid(*(np.fft.fftfreq(n) for n in shape), indexing="ij")))
    return np.fft.ifftn(np.fft.fftn(RNG.standard_normal(shape)) * (radius < cutoff)).real


@pytest.mark.parametrize("cutoff, shape", [(0.15, (128, 128)), (0.3, (128, 96)), (0.25, (24, 48, 48))])
def test_the_cutoff_of_a_band_limited_object_is_found(cutoff, shape):
    truth = low_passed(cutoff, shape)
    a, b = (truth + 1.0 * truth.std() * RNG.standard_normal(shape) for _ in range(2))
    found = resolution.frc(a, b, 50.0)
    assert found.resolution == pytest.approx(50.0 / cutoff, rel=0.15 if len(shape) == 2 else 0.25)
    assert resolution.frc(a, low_passed(cutoff, shape)).resolution > 1.5 / cutoff  # unrelated pictures do not resolve


def test_a_linear_filter_changes_nothing():
    truth = low_passed(0.4)
    a, b = (truth + 0.3 * RNG.standard_normal(truth.shape) for _ in range(2))
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(128), np.fft.fftfreq(128)))
    smooth = [np.fft.ifft2(np.fft.fft2(v) * np.exp(-20 * radius**2)).real for v in (a, b)]
    assert resolution.frc(*smooth).resolution == pytest.approx(resolution.frc(a, b).resolution, rel=0.05)


def test_split_halves_have_independent_noise():
    noise = 2.0 * RNG.standard_normal((256, 256))
    a, b = resolution.split(noise, 4.0)
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] == pytest.approx(0, abs=0.02)
    assert a.var() == pytest.approx(8.0, rel=0.05)
    wrong = resolution.split(noise, 1.0)
    assert np.corrcoef(wrong[0].ravel(), wrong[1].ravel())[0, 1] > 0.5


def test_bad_pairs_are_refused():
    for a, b in (
        (np.zeros((8, 8)), RNG.random((8, 8))),
        (RNG.random((8, 8)), RNG.random((8, 9))),
        (RNG.random(9), RNG.random(9)),
    ):
        with pytest.raises(InputError):
            resolution.frc(a, b)


@pytest.mark.parametrize("shape, reach", [((2, 17, 23), (5, 9)), ((1, 6, 17, 20), (8, 3, 4)), ((1, 9, 9), (0, 0))])
def test_padding_mirrors_and_keeps_the_data(shape, reach):
    array = RNG.random(shape)
    padded, crop = pad(array, reach)
    assert np.array_equal(padded[crop], array)
    assert all(p >= n + 2 * r for p, n, r in zip(padded.shape[1:], shape[1:], reach))
    y = crop[-2]
    if reach[-2]:
        column = padded[(slice(None),) + crop[1:-2]][..., crop[-1]]
        assert np.allclose(column[..., y.start - 1, :], array[..., 0, :]) and np.allclose(
            column[..., y.stop, :], array[..., -1, :]
        )


def test_padding_leaves_no_edge():
    array = np.linspace(0, 1, 64)[None, None].repeat(16, 1)
    padded, _ = pad(array, (8, 16))
    line = padded[0, 0]
    assert np.abs(np.diff(np.append(line, line[0]))).max() < 0.2
    assert np.abs(array[0, 0, 0] - array[0, 0, -1]) == 1.0  # wrapping the data themselves would have one
