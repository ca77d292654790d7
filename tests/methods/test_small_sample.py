"""Small-sample S/N against Student's law, an aperture by brute force, and the normal law that is wrong near a star."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from obverse.errors import InputError
from obverse.methods.small_sample import aperture_sums, gaussian_equivalent, small_sample_snr, student_factor


def images(count, size=25, seed=0):
    return torch.randn(count, 1, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def by_brute_force(image, row, column, radius, finer=40):
    """Sum over a disc at a place between the pixels, by samples."""
    total = 0.0
    for i in range(math.floor(row - radius), math.ceil(row + radius) + 1):
        for j in range(math.floor(column - radius), math.ceil(column + radius) + 1):
            fine = (np.arange(finer) + 0.5) / finer - 0.5
            inside = (i + fine[:, None] - row) ** 2 + (j + fine - column) ** 2 <= radius**2
            total += float(image[i, j]) * inside.mean()
    return total


@pytest.mark.parametrize("fwhm", [3.0, 4.8])
def test_equals_apertures_by_brute_force(fwhm):
    image, (row, column), centre = images(1, 41)[0], (27, 25), (20.0, 20.0)
    image = torch.nn.functional.avg_pool2d(image, 3, 1, 1)  # as smooth as what a telescope shows
    r, start = math.hypot(row - 20, column - 20), math.atan2(row - 20, column - 20)
    n = math.floor(2 * math.pi * r / fwhm)
    angles = [start + 2 * math.pi * k / n for k in range(n)]
    first, *others = [by_brute_force(image[0], 20 + r * math.sin(a), 20 + r * math.cos(a), fwhm / 2) for a in angles]
    expected = (first - np.mean(others)) / (np.std(others, ddof=1) * math.sqrt(1 + 1 / len(others)))
    assert float(small_sample_snr(image, fwhm, centre)[0, row, column]) == pytest.approx(expected, abs=0.05)
    assert float(aperture_sums(image, fwhm)[row, column]) == pytest.approx(first, abs=0.02)


def test_white_noise_follows_students_law_and_not_the_normal_one():
    maps = torch.stack([small_sample_snr(image, 3.0) for image in images(250)])[:, 0]
    near = torch.cat([maps[:, 12, 16], maps[:, 16, 12], maps[:, 12, 8]]).numpy()  # 8 apertures at 4 pixels
    assert stats.kstest(near, stats.t(6).cdf).pvalue > 1e-3
    beyond = (np.abs(near) > 3).sum()
    assert abs(beyond - 750 * 2 * stats.t(6).sf(3)) < 4 * math.sqrt(750 * 2 * stats.t(6).sf(3))
    assert beyond > 4 * 750 * 2 * stats.norm.sf(3), "near the star the normal law is noticed"
    tails = torch.stack([gaussian_equivalent(m[None], 3.0)[0] for m in maps])
    known = ~tails.isnan()
    part = float((tails[known] > 3).double().mean())
    # neighbours within an aperture are alike: some 250 × 45 independent ones, at 0.00135
    assert abs(part - 0.00135) < 4 * math.sqrt(0.00135 / (250 * 45))
    assert float((maps[known] > 3).double().mean()) > 3 * 0.00135


def test_factors_are_quantiles():
    for n in (6, 12, 50):
        assert stats.t.sf(student_factor(n) / math.sqrt(1 + 1 / n), n - 1) == pytest.approx(stats.norm.sf(5), rel=1e-6)
    assert student_factor(10**7, 3.0) == pytest.approx(3.0, rel=1e-4)


def test_gaussian_equivalents_have_the_same_probability():
    snr = torch.full((1, 31, 31), -4.0, dtype=torch.float64)
    value = float(gaussian_equivalent(snr, 3.0)[0, 15, 21])  # 12 apertures, 10 degrees of freedom
    assert stats.norm.cdf(value) == pytest.approx(stats.t.cdf(-4.0, 10))
    assert gaussian_equivalent(-snr, 3.0)[0, 15, 21] == -value
    assert gaussian_equivalent(snr * 1e4, 3.0)[0, 15, 21].isfinite()


def test_scale_and_offset_do_not_matter_and_edges_are_unknown():
    image = images(1)[0]
    snr = small_sample_snr(image, 3.0)
    assert torch.allclose(snr, small_sample_snr(7 * image + 3, 3.0), equal_nan=True, atol=1e-6)
    assert snr[0, 12, 12].isnan() and snr[0, 0].isnan().all() and snr[0, 12, 15].isfinite()
    shifted = small_sample_snr(image, 3.0, (10.0, 14.0))
    assert shifted[0, 10, 14].isnan() and shifted[0, 12, 12].isfinite()


def test_refusals():
    image = images(1)[0]
    for arguments in ((image[0], 3.0), (image / 0, 3.0), (image, 0.0), (image, 20.0)):
        with pytest.raises(InputError):
            small_sample_snr(*arguments)
    with pytest.raises(InputError):
        student_factor(1)
