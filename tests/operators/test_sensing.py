"""Colour-filter arrays, compressed sensing and spectral imaging: what they mean, their closed forms, their errors."""

import numpy as np
import pytest
import torch

from obverse.errors import InputError, NumericsError
from obverse.operators import (
    CodedAperture,
    Cosine,
    Hadamard,
    Mosaic,
    SinglePixel,
    SpectralUnmixing,
    StructuredRandom,
    gaussian_projection,
)
from obverse.operators.colour_filters import colour_filter_tile
from tests.operators.cases import random


def test_x_trans_has_every_colour_in_every_line():
    tile = colour_filter_tile("X-Trans").numpy()
    assert np.bincount(tile.ravel()).tolist() == [8, 20, 8]
    assert all(set(line) == {0, 1, 2} for line in (*tile, *tile.T))
    bayer = np.tile(colour_filter_tile("RGGB").numpy(), (3, 3))
    assert not any(set(line) == {0, 1, 2} for line in bayer)


def test_x_trans_begins_in_raw_files_at_its_second_row_and_third_column():
    as_stored = ["RBGBRG", "GGRGGB", "GGBGGR", "BRGRBG", "GGBGGR", "GGRGGB"]
    tile = colour_filter_tile("x-trans", (1, 2))
    assert tile.tolist() == [["RGB".index(letter) for letter in row] for row in as_stored]
    assert tile.tolist() != colour_filter_tile("x-trans", (0, 2)).tolist()


@pytest.mark.parametrize("pattern", ["BGGR", "quad-RGGB", "X-Trans", [[0, 1, 2]]])
def test_offset_is_a_crop(pattern):
    x = random(3, 11, 12)
    whole, part = Mosaic(pattern, x.shape), Mosaic(pattern, (3, 7, 9), offset=(4, 3))
    torch.testing.assert_close(part(x[:, 4:, 3:]), whole(x)[:, 4:, 3:])
    assert not torch.equal(Mosaic(pattern, (3, 7, 9), offset=(4, 4))(x[:, 4:, 3:]), whole(x)[:, 4:, 3:])


def test_quad_bayer_binned_by_two_is_bayer():
    x = random(3, 4, 4).repeat_interleave(2, -1).repeat_interleave(2, -2)
    quad, bayer = Mosaic("quad-GBRG", (3, 8, 8)), Mosaic("GBRG", (3, 4, 4))
    torch.testing.assert_close(quad(x)[..., ::2, ::2], bayer(x[..., ::2, ::2]))


_SOLVED = {
    "mosaic": lambda: Mosaic("X-Trans", (3, 8, 8), torch.float64),
    "hadamard": lambda: Hadamard((2, 8, 8), 20, "sequency", torch.float64),
    "cosine": lambda: Cosine((2, 5, 9), random(5, 9) > 0.6, torch.float64),
    "structured": lambda: StructuredRandom((1, 8, 8), 20, 2, dtype=torch.complex128),
    "single pixel": lambda: SinglePixel((1, 8, 8), 20, dtype=torch.float64),
    "single pixel split": lambda: SinglePixel((2, 8, 8), [4, 0, 9, 33], split=True, dtype=torch.float64),
    "coded aperture": lambda: CodedAperture(random(6, 5), (4, 6, 5), 2),
    "coded aperture dual": lambda: CodedAperture(random(6, 8), (4, 6, 5), dual=True),
    "unmixing": lambda: SpectralUnmixing(random(5, 3), (3, 4, 4)),
}


@pytest.mark.parametrize("name", _SOLVED)
def test_solves_in_closed_form_for_any_weight(name):
    A = _SOLVED[name]()
    x = random(2, *A.image_shape).to(A.dtype)
    weight = random(*A.data_shape, seed=2)
    for w in (None, 2.0, weight, weight.flatten()[: A.data_shape[-1]]):
        b = A.gram(x, w) + 1e-4 * x
        torch.testing.assert_close(A.solve(b, 1e-4, w, max_iterations=0), x, rtol=1e-7, atol=1e-7)
    # the same system takes iterations where no closed form is known
    with pytest.raises(NumericsError, match="solve"):
        (A + 0.0 * A).solve(x, 1e-4, weight, max_iterations=0)


@pytest.mark.parametrize(
    "make",
    [
        lambda kept: Hadamard((1, 8, 4), kept, "cake-cutting", torch.float64),
        lambda kept: Cosine((1, 5, 6), kept, torch.float64),
    ],
)
def test_subsampled_transforms_have_orthonormal_rows(make):
    A = make([3, 0, 11])
    y = random(*A.data_shape)
    torch.testing.assert_close(A(A.adjoint(y)), y)
    x = random(*A.image_shape)
    assert not torch.allclose(A.adjoint(A(x)), x)
    torch.testing.assert_close(make(None).adjoint(make(None)(x)), x)


def test_cake_cutting_shows_coarse_patterns_first():
    A = Hadamard((1, 8, 8), 6, "cake-cutting")
    halves, stripes = torch.ones(8), torch.ones(8)
    halves[4:], stripes[2:6] = -1, -1
    one = torch.ones(8)
    # of one, two, two, three, three and four pieces, the last the square ones rather than four stripes
    pairs = [(one, one), (halves, one), (one, halves), (stripes, one), (one, stripes), (halves, halves)]
    images = torch.stack([torch.outer(down, across) for down, across in pairs])[:, None]
    torch.testing.assert_close(A(images)[:, 0, 0].abs().sort().values, 8 * torch.eye(6).sort().values)
    assert not A(torch.outer(one, torch.tensor([1.0, -1, 1, -1, 1, -1, 1, -1]))[None]).any()


def test_split_patterns_sum_to_all_the_light():
    x = random(2, 8, 8)
    y, difference = SinglePixel((2, 8, 8), 9, split=True)(x), SinglePixel((2, 8, 8), 9)(x)
    torch.testing.assert_close(y[:, :1] - y[:, 1:], difference)
    torch.testing.assert_close(y.sum(1), x.sum((1, 2))[:, None].expand(2, 9))
    assert (y >= 0).all() and (difference < 0).any()


def test_gaussian_projection_keeps_lengths_on_average_and_its_seed():
    A, x = gaussian_projection((1, 8, 8), 400, seed=1, dtype=torch.float64), random(1, 8, 8)
    assert float(A(x).norm() / x.norm()) == pytest.approx(1.0, abs=0.15)  # four standard deviations of √(1/2m)
    assert torch.equal(gaussian_projection((1, 8, 8), 400, seed=1, dtype=torch.float64)(x), A(x))
    assert not torch.equal(gaussian_projection((1, 8, 8), 400, seed=2, dtype=torch.float64)(x), A(x))
    complex_ = gaussian_projection((1, 8, 8), 400, dtype=torch.complex128)
    assert float(complex_.matrix.abs().square().mean()) == pytest.approx(1 / 400, rel=0.05)


def test_structured_rows_are_orthogonal_and_seeded():
    A = StructuredRandom((1, 4, 8), 12, 2, seed=5, dtype=torch.float64)
    y, x = random(1, 1, 12), random(1, 4, 8)
    torch.testing.assert_close(A(A.adjoint(y)), 32 / 12 * y)
    assert torch.equal(StructuredRandom((1, 4, 8), 12, 2, seed=5, dtype=torch.float64)(x), A(x))
    assert not torch.equal(StructuredRandom((1, 4, 8), 12, 2, seed=6, dtype=torch.float64)(x), A(x))


def test_a_monochrome_point_lands_where_its_band_is_moved_to():
    x = torch.zeros(4, 3, 5)
    x[2, 1, 3] = 7.0
    assert CodedAperture(torch.ones(3, 5), (4, 3, 5), 2)(x).nonzero().tolist() == [[0, 1, 7]]
    assert CodedAperture(torch.ones(3, 11), (4, 3, 5), 2, dual=True)(x).nonzero().tolist() == [[0, 1, 3]]


def test_sensing_errors():
    for make, match in [
        (lambda: Mosaic("quad-RGBB", (3, 4, 4)), "'X-Trans'"),
        (lambda: Mosaic("X-Trans", (2, 6, 6)), "3 colours"),
        (lambda: Mosaic("RGGB", (3, 4, 4), offset=(1,)), "row, column"),
        (lambda: Hadamard((1, 6, 8)), "powers of two"),
        (lambda: Hadamard((1, 4, 4), ordering="random"), "'sequency'"),
        (lambda: Hadamard((1, 4, 4), 17), "between 1 and 16"),
        (lambda: Hadamard((1, 4, 4), [3, 3]), "twice"),
        (lambda: Hadamard((1, 4, 4), [-1]), "positions 0 to 15"),
        (lambda: Hadamard((4, 4)), "C, H, W"),
        (lambda: Cosine((1, 4, 5), torch.ones(5, 4, dtype=torch.bool)), "mask of shape"),
        (lambda: Cosine((1, 4, 5), torch.ones(4, 5)), "list of positions"),
        (lambda: StructuredRandom((1, 4, 4), 17), "between 1 and 16"),
        (lambda: StructuredRandom((1, 4, 4), 4, 0), "one layer"),
        (lambda: StructuredRandom((1, 4, 4), 4, transform="fourier"), "'cosine'"),
        (lambda: gaussian_projection((1, 4, 4), 0), "positive count"),
        (lambda: CodedAperture(torch.ones(4, 5), (3, 4, 4)), "broadcasts"),
        (lambda: CodedAperture(torch.ones(4, 4), (3, 4, 4), 0), "step"),
        (lambda: CodedAperture(torch.ones(4, 4), (1, 3, 4, 4)), "bands, H, W"),
        (lambda: SpectralUnmixing(torch.ones(5, 3), (4, 2, 2)), "transpose"),
        (lambda: SpectralUnmixing(torch.full((5, 3), float("nan")), (3, 2, 2)), "NaN"),
    ]:
        with pytest.raises(InputError, match=match):
            make()
