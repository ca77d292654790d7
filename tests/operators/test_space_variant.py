"""Space-variant blur against convolutions blended by hand, and the fit of local PSFs against their own definition."""

import pytest
import torch

from obverse.errors import InputError
from obverse.operators import Convolution, SpaceVariantBlur, interpolate_psfs
from tests.operators.case import random

BOUNDARIES = ("circular", "reflect", "zero", "valid")


def gaussians(widths: torch.Tensor, size: int = 9) -> torch.Tensor:
    """PSFs of sum one, `(*places, size, size)`, as wide as asked for."""
    t = torch.arange(size, dtype=torch.float64) - size // 2
    square = t.square() + t.square()[:, None]
    psfs = torch.exp(-square / (2 * widths.double()[..., None, None].square()))
    return psfs / psfs.sum((-2, -1), keepdim=True)


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("shape", [(2, 11, 8), (1, 4, 6, 5)])
def test_one_kernel_is_a_convolution(boundary, shape):
    kernel = random(*(3,) * (len(shape) - 2), 4)
    x = torch.randn(3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    A = SpaceVariantBlur(kernel[None], torch.ones(1, *shape[1:], dtype=torch.float64), shape, boundary)
    B = Convolution(kernel, shape, boundary)
    torch.testing.assert_close(A(x), B(x))
    torch.testing.assert_close(A.adjoint(B(x)), B.adjoint(B(x)))
    half = SpaceVariantBlur(kernel[None], torch.full((1, *shape[1:]), 0.5, dtype=torch.float64), shape, boundary)
    assert not torch.allclose(half(x), B(x))


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_two_half_planes_are_blended_by_hand(boundary):
    shape, kernels = (1, 12, 10), random(2, 3, 5)
    left = (torch.arange(10) < 5).double().expand(12, 10)
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    one, other = (Convolution(kernel, shape, boundary) for kernel in kernels)
    A = SpaceVariantBlur(kernels, torch.stack((left, 1 - left)), shape, boundary)
    torch.testing.assert_close(A(x), one(left * x) + other((1 - left) * x))
    # a blend of the blurred pictures is another thing
    after = Convolution(kernels[0], shape, "zero")(x) * left + Convolution(kernels[1], shape, "zero")(x) * (1 - left)
    assert boundary != "zero" or not torch.allclose(A(x), after)


def test_a_point_is_seen_as_its_local_psf():
    places = (torch.tensor([3, 15]), torch.tensor([4, 10, 22]))
    psfs = gaussians(torch.tensor([[0.8, 1.2, 1.9], [1.5, 1.0, 2.2]]))
    A = SpaceVariantBlur.from_psfs(psfs, places, (1, 20, 27), boundary="zero")
    torch.testing.assert_close(A.weights.sum(0), torch.ones(1, 20, 27, dtype=torch.float64))
    assert A.weights.min() >= 0

    def seen(row: int, column: int) -> torch.Tensor:
        point = torch.zeros(1, 20, 27, dtype=torch.float64)
        point[0, row, column] = 1
        padded = torch.nn.functional.pad(A(point)[0], (4,) * 4)
        return padded[row : row + 9, column : column + 9]

    inner = (15, 10)  # whose PSF lies within the image
    torch.testing.assert_close(seen(*inner), psfs[1, 1])
    assert not torch.allclose(seen(*inner), psfs[0, 1])
    blend = 0.25 * (0.5 * psfs[0, 0] + 0.5 * psfs[0, 1]) + 0.75 * (0.5 * psfs[1, 0] + 0.5 * psfs[1, 1])
    torch.testing.assert_close(seen(12, 7), blend)
    torch.testing.assert_close(seen(4, 26)[:, :5], ((11 * psfs[0, 2] + psfs[1, 2]) / 12)[:, :5])  # beyond the last


def test_full_rank_changes_nothing():
    psfs, places = random(2, 3, 3, 4), ([0, 8], [1, 5, 9])
    x = torch.randn(1, 9, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    whole = SpaceVariantBlur.from_psfs(psfs, places, (1, 9, 11))
    torch.testing.assert_close(SpaceVariantBlur.from_psfs(psfs, places, (1, 9, 11), rank=6)(x), whole(x))
    assert not torch.allclose(SpaceVariantBlur.from_psfs(psfs, places, (1, 9, 11), rank=5)(x), whole(x))


def test_a_lower_rank_is_the_closest_at_the_places():
    widths = torch.linspace(0.8, 2.4, 20).reshape(4, 5)
    psfs, places = gaussians(widths), ([0, 4, 8, 12], [0, 3, 6, 9, 12])
    for rank in (1, 2, 4):
        kernels, weights = interpolate_psfs(psfs, places, (1, 13, 13), rank)
        assert kernels.shape == (rank, 9, 9) and weights.shape == (rank, 13, 13)
        at = weights[:, ::4][:, :, ::3].reshape(rank, -1)
        lost = (torch.tensordot(at.T, kernels, 1) - psfs.flatten(0, 1)).norm()
        values = torch.linalg.svdvals(psfs.reshape(20, -1))
        assert float(lost) == pytest.approx(float(values[rank:].norm()), rel=1e-6)
    assert float(lost) < 0.01 * float(psfs.norm())  # four kernels for twenty places


def test_psfs_of_channels_and_volumes():
    psfs = random(2, 2, 3, 3, 5)  # two by two places, three channels
    A = SpaceVariantBlur.from_psfs(psfs, ([0, 7], [0, 7]), (3, 8, 8))
    x = torch.randn(3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    for c in range(3):
        one = SpaceVariantBlur.from_psfs(psfs[:, :, c], ([0, 7], [0, 7]), (1, 8, 8))
        torch.testing.assert_close(A(x)[c : c + 1], one(x[c : c + 1]))
    deep = random(2, 1, 1, 3, 3, 3)
    B = SpaceVariantBlur.from_psfs(deep, ([0, 5], [2], [2]), (1, 6, 5, 5), boundary="zero")
    point = torch.zeros(1, 6, 5, 5, dtype=torch.float64)
    point[0, 2, 2, 2] = 1
    torch.testing.assert_close(B(point)[0, 1:4, 1:4, 1:4], 0.6 * deep[0, 0, 0] + 0.4 * deep[1, 0, 0])


@pytest.mark.parametrize(
    ("kernels", "weights", "shape", "boundary", "message"),
    [
        (random(2, 3, 3), random(1, 8, 8), (1, 8, 8), "zero", "one weight map"),
        (random(1, 3, 3), random(1, 8, 7), (1, 8, 8), "zero", "one weight map"),
        (random(1, 2, 3, 3), random(1, 8, 8), (3, 8, 8), "zero", "one for each channel"),
        (random(3, 3), random(1, 8, 8), (1, 8, 8), "zero", "kernels with 3 axes"),
        (random(1, 3, 3) / 0, random(1, 8, 8), (1, 8, 8), "zero", "finite"),
        (random(1, 9, 3), random(1, 8, 8), (1, 8, 8), "valid", "no larger than the image"),
        (random(1, 3, 17), random(1, 8, 8), (1, 8, 8), "reflect", "reaches 7 pixels"),
        (random(1, 3, 3), random(1, 8, 8), (8, 8), "zero", "image_shape"),
        (random(1, 3, 3), random(1, 8, 8), (1, 8, 8), "mirror", "boundary"),
    ],
)
def test_what_does_not_fit_is_refused(kernels, weights, shape, boundary, message):
    with pytest.raises(InputError, match=message):
        SpaceVariantBlur(kernels, weights, shape, boundary)


@pytest.mark.parametrize(
    ("psfs", "places", "rank", "message"),
    [
        (random(2, 2, 3, 3), ([0, 7], [0, 3, 7]), None, "for each place"),
        (random(2, 2, 3, 3), ([0, 7], [7, 0]), None, "increasing"),
        (random(2, 2, 3, 3), ([0, 7], [0, 7]), 5, "rank from 1 to 4"),
        (random(2, 3, 3), ([0, 7],), None, "each of 2 or 3 axes"),
        (random(2, 2, 3, 3) / 0, ([0, 7], [0, 7]), None, "finite"),
    ],
)
def test_psfs_that_do_not_fit_are_refused(psfs, places, rank, message):
    with pytest.raises(InputError, match=message):
        interpolate_psfs(psfs, places, (1, 8, 8), rank)
