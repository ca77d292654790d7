"""Each action moves content where it says, is undone by its inverse, and is drawn from a generator."""

import math
import pickle

import pytest
import torch

from obverse.errors import InputError
from obverse.transforms import Diffeomorphism, Flip, Homography, Rotate90, Rotation, Scale, Shift

EXACT = [Shift(), Shift(0.1), Rotate90(), Flip()]
INTERPOLATED = [Rotation(), Rotation(20.0), Scale(1.3), Homography(0.05), Diffeomorphism()]
SIZE = (48, 56)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def blob(row=4.0, column=-5.0, width=4.0, size=SIZE):
    """A Gaussian at a position from the centre."""
    y, x = (torch.arange(n, dtype=torch.float64) - (n - 1) / 2 for n in size)
    return torch.exp(-((y[:, None] - row) ** 2 + (x - column) ** 2) / (2 * width**2))[None]


@pytest.mark.parametrize("transform", EXACT, ids=str)
def test_permutations_are_undone_exactly(transform):
    x = torch.randn(2, 3, 5, 7, generator=generator(0))
    moved = [transform(x, transform.sample(generator(seed))) for seed in range(8)]
    for seed, y in enumerate(moved):
        g = transform.sample(generator(seed))
        assert torch.equal(transform.inverse(y, g), x)
        assert torch.equal(y.flatten(2).sort().values, x.flatten(2).sort().values)
    assert any(y.shape != x.shape or not torch.equal(y, x) for y in moved)


@pytest.mark.parametrize("transform", INTERPOLATED, ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_the_others_are_undone_up_to_interpolation(transform, seed):
    x, g = blob().expand(2, 3, *SIZE), transform.sample(generator(seed))
    moved = transform(x, g)
    assert moved.shape == x.shape and moved.dtype == x.dtype
    assert float((transform.inverse(moved, g) - x).abs().max()) < 1e-2
    assert float((moved - x).abs().max()) > 2e-2
    # twice the same way round is not the identity
    assert float((transform(moved, g) - x).abs().max()) > 2e-2


def test_content_moves_the_way_that_is_said():
    y = Shift()(blob(), torch.tensor([3 / 48, 10 / 56]))
    assert torch.allclose(y, blob(7.0, 5.0), atol=1e-3)
    angle = math.radians(30)
    turned = (-5 * math.sin(angle) + 4 * math.cos(angle), -5 * math.cos(angle) - 4 * math.sin(angle))
    assert torch.allclose(Rotation()(blob(), torch.tensor(30.0)), blob(*turned), atol=1e-3)
    assert not torch.allclose(Rotation()(blob(), torch.tensor(-30.0)), blob(*turned), atol=0.1)
    square = blob(size=(40, 40))
    assert torch.allclose(Rotate90()(square, torch.tensor(1)), Rotation()(square, torch.tensor(90.0)))
    assert torch.allclose(Scale()(blob(), torch.tensor(math.log(1.2))), blob(4.8, -6.0, 4.8), atol=3e-3)
    assert torch.allclose(Flip()(blob(), torch.tensor([1, 0])), blob(-4.0, -5.0))
    # in units of half the larger side, 28 pixels
    shifted = Homography()(blob(), torch.tensor([0, 0, 0.1, 0, 0, -0.05, 0, 0]))
    assert torch.allclose(shifted, blob(4.0 + 2.8, -5.0 - 1.4), atol=3e-3)


def test_a_distortion_moves_content_by_its_sines():
    """What is undone at p was at p + d(p), the sum of sines, pixel by pixel."""
    transform, g = Diffeomorphism(), torch.zeros(2, 3, 3, dtype=torch.float64)
    g[0, 0, 1], g[1, 1, 0] = 0.05, -0.03
    undone, moved = transform.inverse(blob(), g)[0], transform(blob(), g)[0]
    for i, j in ((20, 15), (27, 22), (30, 26), (32, 18)):
        u, v = i / 47, j / 55
        row = i + 47 * 0.05 * math.sin(math.pi * u) * math.sin(2 * math.pi * v)
        column = j - 55 * 0.03 * math.sin(2 * math.pi * u) * math.sin(math.pi * v)
        expected = math.exp(-((row - 27.5) ** 2 + (column - 22.5) ** 2) / 32)
        assert abs(float(undone[i, j]) - expected) < 3e-3
        assert abs(float(moved[i, j]) - expected) > 3e-3
    constant = torch.ones(1, *SIZE)
    assert torch.allclose(transform(constant, transform.sample(generator(0))), constant, atol=1e-5)


@pytest.mark.parametrize("transform", EXACT + INTERPOLATED, ids=str)
def test_a_transform_is_a_value(transform):
    assert pickle.loads(pickle.dumps(transform)) == transform  # noqa: S301 — made in this very line
    assert torch.equal(transform.sample(generator(3)), transform.sample(generator(3)))
    x, g = torch.randn(1, 6, 6), transform.sample(generator(3))
    kept = x.clone(), g.clone()
    transform(x, g)
    assert torch.equal(x, kept[0]) and torch.equal(g, kept[1])
    with pytest.raises(AttributeError):
        transform.largest = 2.0
    with pytest.raises(InputError, match="parameters of shape"):
        transform(x, torch.zeros(5))
    with pytest.raises(InputError, match="images"):
        transform(x[0], g)


@pytest.mark.parametrize("transform", INTERPOLATED, ids=str)
def test_images_carry_gradients(transform):
    x, g = torch.randn(1, 5, 6, dtype=torch.float64, requires_grad=True), transform.sample(generator(1))
    assert torch.autograd.gradcheck(lambda x: transform(x, g), (x,), fast_mode=True)


def test_a_fold_is_refused():
    with pytest.raises(InputError, match="slope"):
        Diffeomorphism(slope=1.0)
