"""Masks, mosaics, downsampling and Fourier sampling: what they mean, their closed forms, their errors."""

import pytest
import torch

from obverse.errors import InputError
from obverse.operators import Convolution, Dense, Downsample, Fourier, Identity, Mask, Mosaic
from tests.operators.cases import random


@pytest.mark.parametrize(
    ("pattern", "colours"), [("RGGB", "RGGB"), ("BGGR", "BGGR"), ("grbg", "GRBG"), ("GBRG", "GBRG")]
)
def test_bayer_patterns(pattern, colours):
    x = torch.tensor([1.0, 2.0, 3.0]).reshape(3, 1, 1).expand(3, 2, 2)
    expected = torch.tensor(["RGB".index(colour) + 1.0 for colour in colours]).reshape(1, 2, 2)
    torch.testing.assert_close(Mosaic(pattern, (3, 2, 2))(x), expected)


def test_sampling_errors():
    for make, match in [
        (lambda: Mosaic("RGBB", (3, 4, 4)), "'RGGB'"),
        (lambda: Mosaic("RGGB", (1, 4, 4)), "3 colours"),
        (lambda: Mosaic("RGGB", (3, 4, 4, 4)), "C, H, W"),
        (lambda: Mosaic([[0, 1], [2]], (3, 4, 4)), "rectangular"),
        (lambda: Mask(torch.ones(3, 4), (1, 4, 4)), "broadcasts"),
        (lambda: Mask(torch.ones(2, 4, 4), (1, 4, 4)), "broadcasts"),
        (lambda: Mask(torch.ones(4, 4)), "pass image_shape"),
        (lambda: Mask(torch.full((1, 4, 4), float("nan"))), "NaN"),
        (lambda: Fourier((1, 4, 4), torch.ones(3, 4)), "broadcasts"),
        (lambda: Fourier((1, 4, 4), dtype=torch.float32), "complex"),
        (lambda: Fourier((4, 4)), "C, H, W"),
        (lambda: Fourier((1, 4, 4))(torch.ones(1, 4, 4)), "complex"),
        (lambda: Downsample((1, 9, 8), 2), "divisible"),
        (lambda: Downsample((1, 8, 8), (2, 2, 2)), "2 integers"),
        (lambda: Downsample((1, 8, 8), 2, "sinc"), "'box'"),
        (lambda: Downsample((1, 8, 8), 2, phase=2), "phase"),
        (lambda: Downsample((1, 8, 8), 2, torch.full((2, 2), float("nan"))), "NaN"),
        (lambda: Downsample((1, 4, 4), 2, torch.ones(12, 12), "reflect"), "crop the kernel"),
        (lambda: Dense(torch.ones(4, 5), (1, 2, 2)), "shape \\(4, 4\\)"),
        (lambda: Dense(torch.ones(4), (1, 2, 2)), "n_data, n_image"),
        (lambda: Identity((0, 4, 4)), "positive sizes"),
        (lambda: Identity((1, 4, 4), torch.int32), "floating-point"),
    ]:
        with pytest.raises(InputError, match=match):
            make()


@pytest.mark.parametrize("boundary", ["circular", "reflect", "zero"])
@pytest.mark.parametrize("phase", [None, 0, 2])
def test_downsample_is_blur_then_every_fourth_pixel(boundary, phase):
    kernel, x = random(9, 8), random(2, 3, 24, 32)
    A = Downsample((3, 24, 32), 4, kernel, boundary, phase)
    start = 1 if phase is None else phase
    torch.testing.assert_close(A(x), Convolution(kernel, (3, 24, 32), boundary)(x)[..., start::4, start::4])


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("kernel", ["box", "gaussian", "cubic"])
def test_named_kernels_keep_a_ramp_where_it_is(factor, kernel):
    n = 12 * factor
    ramp = torch.arange(n, dtype=torch.float64).expand(1, n, n)
    coarse = Downsample((1, n, n), factor, kernel, dtype=torch.float64)(ramp)[0, 6, 3:-3]
    torch.testing.assert_close(coarse, factor * torch.arange(12, dtype=torch.float64)[3:-3] + (factor - 1) / 2)


def test_box_is_the_mean_of_each_block():
    x = random(1, 6, 8)
    expected = x.reshape(1, 3, 2, 4, 2).mean((2, 4))
    torch.testing.assert_close(Downsample((1, 6, 8), 2, "box", dtype=torch.float64)(x), expected)


@pytest.mark.parametrize("weight", [None, 3.0])
def test_downsample_solve_is_exact_at_small_damping(weight):
    A = Downsample((2, 16, 12), 4, "gaussian", dtype=torch.float64)
    b = random(2, 16, 12)
    matrix = torch.stack([A(e).flatten() for e in torch.eye(384, dtype=torch.float64).reshape(-1, 2, 16, 12)], 1)
    normal = (weight or 1.0) * matrix.mT @ matrix + 1e-6 * torch.eye(384, dtype=torch.float64)
    torch.testing.assert_close(
        A.solve(b, 1e-6, weight).flatten(), torch.linalg.solve(normal, b.flatten()), rtol=1e-8, atol=1e-6
    )


@pytest.mark.parametrize("shape", [(2, 6, 8), (1, 5, 6), (1, 5, 7), (1, 3, 4, 5)])
def test_fourier_is_the_shifted_transform(shape):
    axes = tuple(range(1, len(shape)))
    x = torch.complex(random(*shape), random(*shape, seed=1))
    expected = torch.fft.fftshift(torch.fft.fftn(torch.fft.ifftshift(x, axes), dim=axes, norm="ortho"), axes)
    mask = random(*shape[1:]) > 0.6
    torch.testing.assert_close(Fourier(shape, dtype=torch.complex128)(x), expected)
    torch.testing.assert_close(Fourier(shape, mask, torch.complex128)(x), mask * expected)


def test_fourier_solves_in_closed_form_for_any_weight():
    A = Fourier((2, 5, 6), random(5, 6) > 0.5, torch.complex128)
    b, weight = torch.complex(random(2, 5, 6), random(2, 5, 6, seed=1)), random(2, 5, 6, seed=2)
    for w in (None, 2.0, weight, weight[:1]):
        x = A.solve(b, 1e-3, w, max_iterations=0)
        torch.testing.assert_close(A.gram(x, w) + 1e-3 * x, b)
