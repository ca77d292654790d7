"""Rotation turns the right way about the right point, and leaves white noise white, which interpolation does not."""

import math

import pytest
import torch

from obverse.errors import InputError
from obverse.operators import Motion, Rotate, Warp
from obverse.operators.check import _distance


def blob(size, row, column, width=3.0):
    y, x = (torch.arange(n, dtype=torch.float64) for n in size)
    return torch.exp(-((y[:, None] - row) ** 2 + (x - column) ** 2) / (2 * width**2))[None]


def moved(point, centre, degrees):
    """x' = x cos − y sin, y' = x sin + y cos about the centre."""
    angle, y, x = math.radians(degrees), point[0] - centre[0], point[1] - centre[1]
    return (
        centre[0] + x * math.sin(angle) + y * math.cos(angle),
        centre[1] + x * math.cos(angle) - y * math.sin(angle),
    )


@pytest.mark.parametrize("size", [(40, 40), (41, 41), (36, 51)])
@pytest.mark.parametrize("centre", [None, (18.3, 22.1), (20.5, 20.0)])
@pytest.mark.parametrize("degrees", [30.0, -45.0, 90.0, 100.0, 180.0, -135.0, 725.0])
def test_a_turned_blob_is_the_blob_turned(size, centre, degrees):
    A = Rotate((1, *size), degrees, centre=centre, dtype=torch.float64)
    x = blob(size, 15.2, 22.6)
    assert float((A(x) - blob(size, *moved((15.2, 22.6), A.centre, degrees))).abs().max()) < 1e-3
    if degrees != 180.0:  # the wrong sign is noticed
        assert float((A(x) - blob(size, *moved((15.2, 22.6), A.centre, -degrees))).abs().max()) > 0.1


def test_content_that_leaves_the_frame_does_not_come_back():
    for size in ((21, 51), (35, 35)):
        for degrees in (45.0, -45.0, 44.0, 90.0):
            A = Rotate((1, *size), degrees, dtype=torch.float64)
            for corner in ((3.0, 3.0), (3.0, size[1] - 4.0), (size[0] - 4.0, 3.0)):
                target = moved(corner, A.centre, degrees)
                x, y = blob(size, *corner, 1.5), blob(size, *target, 1.5)
                assert float((A(x) - y).abs().max()) < 0.03


@pytest.mark.parametrize("quarters", range(-2, 5))
def test_quarter_turns_are_exact(quarters):
    x = torch.rand(2, 6, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Rotate(x.shape, 90.0 * quarters)(x), torch.rot90(x, -quarters, (-2, -1)))
    odd = x[:, :5, :3]  # about a pixel, what does not fit is lost
    assert torch.equal(Rotate(odd.shape, 90.0)(odd)[:, 1:4], torch.rot90(odd[:, 1:4], -1, (-2, -1)))


def test_frames_turn_each_by_its_own_angle():
    angles = torch.tensor([10.0, -120.0, 45.0])
    x = torch.stack([blob((31, 30), 12.0 + k, 17.0).expand(3, 31, 30) for k in range(2)])
    A = Rotate((3, 31, 30), angles, dtype=torch.float64)
    for t, angle in enumerate(angles.tolist()):
        one, frame = Rotate((1, 31, 30), angle, dtype=torch.float64), slice(t, t + 1)
        assert _distance(A(x)[:, frame], one(x[:, frame])) < 1e-3
        assert _distance(A(x)[:, frame], x[:, frame]) > 0.1


@pytest.mark.parametrize("degrees", [10.0, 33.0, 45.0, 77.0])
def test_white_noise_stays_white(degrees):
    """Unitary, so exact; then by drawing, against bilinear interpolation as a control."""
    A = Rotate((1, 31, 31), degrees, boundary="circular", dtype=torch.float64)
    x = torch.randn(400, 1, 31, 31, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert _distance(A.adjoint(A(x)), x) < 1e-12 and _distance(A(A.adjoint(x)), x) < 1e-12
    variance, neighbour = statistics(A(x))
    # 200,000 values or so: the standard errors are 0.003 and 0.002
    assert abs(variance - 1) < 0.015 and neighbour < 0.012
    bilinear = Warp((1, 31, 31), Motion.rigid([-math.radians(degrees), 0.0, 0.0]), dtype=torch.float64)
    variance, neighbour = statistics(bilinear(x))
    assert 0.38 < variance < 0.55 and neighbour > 0.2


def test_noise_keeps_its_variance_inside_a_frame_with_margins():
    A = Rotate((1, 41, 41), 30.0, dtype=torch.float64)
    x = torch.randn(300, 1, 41, 41, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    variance, neighbour = statistics(A(x))
    assert abs(variance - 1) < 0.03 and neighbour < 0.02


def statistics(y):
    """Variance, and the largest correlation of neighbours, in the middle of the image."""
    n = y.shape[-1]
    y = y[..., n // 4 : -(n // 4), n // 4 : -(n // 4)]
    variance = float(y.square().mean())
    right, below = (y[..., 1:] * y[..., :-1]).mean(), (y[..., 1:, :] * y[..., :-1, :]).mean()
    return variance, max(abs(float(right)), abs(float(below))) / variance


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Rotate((2, 4, 4), [1.0, 2.0, 3.0]), "one angle or 2"),
        (lambda: Rotate((1, 4, 4), math.nan), "finite"),
        (lambda: Rotate((1, 4, 5), 90.0, boundary="circular"), "square"),
        (lambda: Rotate((1, 4, 4), 90.0, centre=(1.0, math.inf)), "finite centre"),
        (lambda: Rotate((4, 4), 90.0), "image_shape"),
        (lambda: Rotate((1, 4, 4), 90.0, boundary="reflect"), "boundary"),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(InputError) as caught:
        make()
    assert message in str(caught.value)
