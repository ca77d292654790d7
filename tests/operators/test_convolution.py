"""Convolution against scipy, its engines against each other, its errors."""

import numpy as np
import pytest
import torch
from scipy import ndimage, signal

from obverse.errors import InputError
from obverse.operators import Convolution
from obverse.operators.boundary import extend, fold, good_size
from obverse.operators.filters import separate
from tests.operators.cases import random

SCIPY = {"circular": "wrap", "reflect": "mirror", "zero": "constant"}


@pytest.mark.parametrize("size", [(5, 7), (4, 6), (1, 3)])
@pytest.mark.parametrize("boundary", ["circular", "reflect", "zero", "valid"])
def test_equals_scipy(boundary, size):
    kernel, x = random(*size), random(2, 17, 19)
    result = Convolution(kernel, x.shape, boundary)(x).numpy()
    for channel, image in zip(result, x.numpy()):
        if boundary == "valid":
            expected = signal.convolve(image, kernel.numpy(), mode="valid")
        else:
            expected = ndimage.convolve(image, kernel.numpy(), mode=SCIPY[boundary])
        np.testing.assert_allclose(channel, expected, rtol=1e-12)


@pytest.mark.parametrize("boundary", ["circular", "reflect", "zero"])
def test_a_point_becomes_the_kernel(boundary):
    kernel = random(3, 5)
    x = torch.zeros(1, 9, 9, dtype=torch.float64)
    x[0, 4, 4] = 1
    torch.testing.assert_close(Convolution(kernel, (1, 9, 9), boundary)(x)[0, 3:6, 2:7], kernel)


@pytest.mark.parametrize("boundary", ["circular", "reflect", "zero", "valid"])
@pytest.mark.parametrize("shape", [(3, 61, 64), (1, 9, 31, 32)])
def test_engines_agree(boundary, shape):
    kernel = torch.ones((), dtype=torch.float64)
    for k in (7, 9, 4)[: len(shape) - 1]:
        kernel = kernel[..., None] * random(k)
    x = random(*shape)
    results = [Convolution(kernel, shape, boundary, engine=e) for e in ("fft", "direct", "separable")]
    for other in results[1:]:
        torch.testing.assert_close(other(x), results[0](x))
        y = results[0](x)
        torch.testing.assert_close(other.adjoint(y), results[0].adjoint(y))


def test_engine_is_chosen_by_cost():
    wide, separable = random(31, 31), random(31)[:, None] * random(31)
    assert Convolution(wide, (1, 256, 256)).engine == "fft"
    assert Convolution(separable, (1, 256, 256)).engine in ("fft", "separable")
    assert Convolution(random(3, 3), (1, 256, 256), "zero").engine == "direct"
    assert Convolution(random(9, 9, 9), (1, 32, 64, 64)).engine == "fft"


def test_complex_images_are_blurred_part_by_part():
    A = Convolution(random(3, 3), (1, 8, 8))
    x = torch.complex(random(1, 8, 8), random(1, 8, 8, seed=1))
    torch.testing.assert_close(A(x), torch.complex(A(x.real), A(x.imag)))
    torch.testing.assert_close(A.solve(x, 0.1), torch.complex(A.solve(x.real, 0.1), A.solve(x.imag, 0.1)))


@pytest.mark.parametrize(
    ("kernel", "boundary", "match"),
    [
        (torch.full((3, 3), float("nan")), "circular", "9 NaN"),
        (torch.tensor([[1.0, float("inf")]]), "circular", "1 NaN or infinite"),
        (torch.ones(3), "circular", "kernel with 2 axes"),
        (torch.ones(2, 3, 3), "circular", "one kernel a channel|a kernel for each channel"),
        (torch.ones(0, 3), "circular", "kernel with 2 axes"),
        (torch.ones(3, 3, dtype=torch.int64), "circular", "floating-point"),
        (torch.ones(3, 3, dtype=torch.complex64), "circular", "real kernel"),
        (torch.ones(9, 3), "valid", "no larger than the image"),
        (torch.ones(17, 3), "reflect", "7 pixels beyond"),
        (torch.ones(3, 3), "mirror", "'reflect'"),
    ],
)
def test_bad_kernels_are_refused_in_one_sentence(kernel, boundary, match):
    with pytest.raises(InputError, match=match):
        Convolution(kernel, (1, 8, 8), boundary)


def test_separable_engine_needs_rank_one():
    with pytest.raises(InputError, match="rank one"):
        Convolution(random(3, 3), (1, 8, 8), engine="separable")
    with pytest.raises(InputError, match="engine"):
        Convolution(random(3, 3), (1, 8, 8), engine="gpu")


@pytest.mark.parametrize("boundary", ["zero", "circular", "reflect"])
@pytest.mark.parametrize("margins", [[(2, 1), (0, 3)], [(-1, 2), (3, -2)], [(0, 0), (-1, -1)]])
def test_fold_is_the_adjoint_of_extend(boundary, margins):
    x = random(2, 5, 6)
    extended = extend(x, margins, boundary)
    y = random(*extended.shape, seed=1)
    assert float((extended * y).sum()) == pytest.approx(float((x * fold(y, margins, boundary)).sum()), rel=1e-13)


def test_good_sizes_have_small_factors():
    assert [good_size(n) for n in (1, 11, 13, 127, 211, 514, 1021)] == [1, 12, 14, 128, 216, 540, 1024]


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [(5, 4), (3, 4, 5), (1, 7)])
def test_separate_finds_rank_one_and_nothing_else(size, precision):
    kernel = torch.ones((), dtype=torch.float64)
    for i, k in enumerate(size):
        kernel = kernel[..., None] * (random(k, seed=i) - 0.6)
    kernel = kernel.to(precision)
    factors = separate(kernel)
    assert factors is not None
    product = factors[0]
    for factor in factors[1:]:
        product = product[..., None] * factor
    torch.testing.assert_close(product, kernel)
    if min(size) > 1:
        kernel.view(-1)[0] += 1e-3
        assert separate(kernel) is None
    assert separate(torch.zeros(size)) is None
