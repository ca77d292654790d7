"""Warps and bursts move things where they say, carry gradients to the motion, and agree with their plain twins."""

from dataclasses import replace

import pytest
import torch

from obverse.errors import InputError
from obverse.operators import BurstSampling, Downsample, Motion, Warp
from obverse.operators import resampling as module
from obverse.operators.check import _distance
from tests.operators.cases import random

SIZE = (48, 56)
MOTIONS = {
    "translation": Motion.translation([2.4, -3.7]),
    "rigid": Motion.rigid([0.3, 1.3, -2.2]),
    "similarity": Motion.similarity([-0.4, 0.15, 0.6, 1.1]),
    "affine": Motion.affine(torch.tensor([[1.1, 0.2], [-0.1, 0.9]], dtype=torch.float64), [1.5, 0.3]),
    "homography": Motion.homography([0.1, 0.05, 1.0, -0.1, 0.02, 2.0, 1e-3, -2e-3]),
}


def blob(points, width=4.0):
    """A Gaussian, off the centre, at points (*, 2) from the centre."""
    away = points - torch.tensor([3.0, -5.0], dtype=points.dtype)
    return torch.exp(-away.square().sum(-1) / (2 * width**2))


def centred_grid(size=SIZE):
    axes = [torch.arange(n, dtype=torch.float64) - (n - 1) / 2 for n in size]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)


def error(motion, expected, interpolation):
    A = Warp((1, *SIZE), motion, interpolation=interpolation, dtype=torch.float64)
    return float((A(blob(centred_grid())[None])[0] - blob(expected(centred_grid()))).abs().max())


@pytest.mark.parametrize("name", MOTIONS)
def test_a_moved_blob_is_the_blob_moved(name):
    """The tent errs by at most h²/8 · (|f_rr| + |f_ss|) = 1/64, the cubic by far less."""
    motion = MOTIONS[name]
    assert error(motion, motion, "bilinear") < 1 / 64
    assert error(motion, motion, "bicubic") < 2e-3
    assert error(motion.inverse(), motion, "bicubic") > 0.1  # the wrong way round is noticed


def test_rotation_takes_the_axis_of_columns_towards_that_of_rows():
    quarter = Motion.rigid([torch.pi / 2, 0.0, 0.0])
    assert torch.allclose(quarter(torch.tensor([0.0, 1.0])), torch.tensor([1.0, 0.0]), atol=1e-6)


@pytest.mark.parametrize("name", MOTIONS)
def test_composition_and_inverse(name):
    one, two = MOTIONS[name], MOTIONS["rigid"]
    points = 10 * torch.randn(20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(one.inverse()(one(points)), points)
    assert torch.allclose((one @ two)(points), one(two(points)))
    assert not torch.allclose((two @ one)(points), one(two(points))) or name == "rigid"
    x = blob(centred_grid())[None]
    first, second = (Warp((1, *SIZE), m, interpolation="bicubic", dtype=torch.float64) for m in (one, one.inverse()))
    assert float((second(first(x)) - x).abs().max()) < 5e-3


def test_a_motion_given_in_pixels_of_another_convention():
    matrix = torch.tensor([[0.9, -0.2, 3.0], [0.1, 1.1, -4.0], [1e-3, 2e-3, 1.0]], dtype=torch.float64)
    motion, (row, column) = Motion.from_pixels(matrix, SIZE), (7.0, 11.0)
    x, y, w = matrix @ torch.tensor([column, row, 1.0], dtype=torch.float64)
    centre = torch.tensor([(n - 1) / 2 for n in SIZE], dtype=torch.float64)
    moved = motion(torch.tensor([row, column], dtype=torch.float64) - centre) + centre
    assert torch.allclose(moved, torch.stack([y / w, x / w]))


def test_a_magnified_motion_moves_fine_pixels_as_coarse_ones():
    motion, point = MOTIONS["homography"], torch.tensor([3.0, -2.0], dtype=torch.float64)
    assert torch.allclose(motion.magnified(4)(4 * point), 4 * motion(point))


def test_a_motion_and_its_flow_are_one_warp():
    motion, x = MOTIONS["homography"], torch.randn(2, *SIZE, dtype=torch.float64)
    dense = Warp(x.shape, motion.flow(SIZE), boundary="circular")
    assert _distance(dense(x), Warp(x.shape, motion, boundary="circular", dtype=torch.float64)(x)) < 1e-10


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("boundary", ["zero", "circular", "reflect"])
def test_compiled_and_plain_agree(interpolation, boundary):
    pytest.importorskip("numba")
    size = (9, 140)  # two tiles, and neighbours inside and beyond every edge
    x = random(2, *size).double()
    wild = 300 * (random(2, *size, seed=3) - 0.6)  # many times across the image
    for motion in (MOTIONS["rigid"], MOTIONS["homography"], wild):
        A = Warp((2, *size), motion, interpolation=interpolation, boundary=boundary, dtype=torch.float64)
        assert module._kernels() is not None
        plain = replace(A._resampling, compiled=False)
        for orders in ((0, 0), (1, 0), (0, 1)):
            ours, other = replace(A._resampling, orders=orders), replace(plain, orders=orders)
            assert _distance(ours.gather(x, A.flow), other.gather(x, A.flow)) < 1e-10
            assert _distance(ours.scatter(x, A.flow), other.scatter(x, A.flow)) < 1e-10


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_the_adjoint_does_not_depend_on_the_threads(interpolation):
    A = Warp((1, 400, 400), Motion.rigid([0.5, 1.3, -2.2]), interpolation=interpolation)
    y, threads = torch.rand(1, 400, 400, generator=torch.Generator().manual_seed(0)), torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append((A(y), A.adjoint(y)))
    finally:
        torch.set_num_threads(threads)
    for forward, adjoint in results[1:]:
        assert torch.equal(forward, results[0][0]) and torch.equal(adjoint, results[0][1])


def test_gradients_reach_the_parameters():
    x = random(2, 5, 6).requires_grad_()
    makers = {
        Motion.translation: [0.3, -0.7],
        Motion.rigid: [0.2, 0.3, -0.7],
        Motion.similarity: [0.2, 0.1, 0.3, -0.7],
        # no position on a pixel's centre, where the second derivative of the weights jumps
        Motion.homography: [0.11, 0.17, 0.33, -0.13, 0.07, 0.41, 0.011, -0.023],
    }
    for make, values in makers.items():
        p = torch.tensor(values, dtype=torch.float64, requires_grad=True)

        def moved(p, x, make=make):
            A = Warp((2, 5, 6), make(p), interpolation="bicubic", boundary="reflect", dtype=torch.float64)
            return A(x), A.adjoint(x)

        assert torch.autograd.gradcheck(moved, (p, x), fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda p, x: moved(p, x)[0], (p, x), fast_mode=True)
    flow = (3 * random(2, 5, 6, seed=1)).requires_grad_()
    assert torch.autograd.gradcheck(lambda f, x: Warp((2, 5, 6), f)(x), (flow, x), fast_mode=True)


def test_the_gradient_finds_the_motion():
    """Gauss–Newton in the parameters, whose only derivatives are the operator's."""
    x, truth = blob(centred_grid())[None], torch.tensor([0.1, 0.8, -0.6], dtype=torch.float64)
    target = Warp(x.shape, Motion.rigid(truth), interpolation="bicubic", dtype=torch.float64)(x)

    def moved(p):
        return Warp(x.shape, Motion.rigid(p), interpolation="bicubic", dtype=torch.float64)(x)

    p = torch.zeros(3, dtype=torch.float64)
    for _ in range(6):
        slope = torch.stack([torch.autograd.functional.jvp(moved, p, e)[1].flatten() for e in torch.eye(3).to(p)], 1)
        rest = (target - moved(p)).flatten()
        p = p + torch.linalg.lstsq(slope, rest[:, None]).solution[:, 0]
    assert torch.allclose(p, truth, atol=1e-6)


def test_a_burst_is_warp_then_blur_then_decimation():
    shape, factor, motions = (3, 12, 8), 2, [Motion.rigid([0.1, 0.3, -0.7]), MOTIONS["translation"]]
    x = random(2, *shape)
    A = BurstSampling(shape, motions, factor, dtype=torch.float64)
    binned = Downsample(shape, factor, "box", dtype=torch.float64)
    for k, motion in enumerate(motions):
        B = binned @ Warp(shape, motion.magnified(factor), dtype=torch.float64)
        assert _distance(A(x)[..., k, :, :, :], B(x)) < 1e-12
        coarse = binned @ Warp(shape, motion, dtype=torch.float64)  # the motion in pixels of the wrong size
        assert _distance(A(x)[..., k, :, :, :], coarse(x)) > 1e-2


def test_a_burst_with_a_blur_on_a_circular_image():
    shape, kernel = (1, 12, 8), random(4, 2, seed=2)
    shift = Motion.translation([1.25, 2.5])
    A = BurstSampling(shape, [shift], 2, kernel=kernel, boundary="circular")
    B = Downsample(shape, 2, kernel, "circular") @ Warp(
        shape, shift.magnified(2), boundary="circular", dtype=torch.float64
    )
    x = random(*shape)
    assert _distance(A(x)[0], B(x)) < 1e-12


def test_a_mosaic_takes_one_colour_of_the_burst():
    x, motions = random(3, 6, 8), [Motion.identity(), Motion.rigid([0.1, 0.3, -0.7])]
    every, one = (BurstSampling(x.shape, motions, 2, mosaic=m, dtype=torch.float64)(x) for m in (None, "GRBG"))
    for i in range(3):
        for j in range(4):
            colour = [[1, 0], [2, 1]][i % 2][j % 2]
            assert torch.allclose(one[:, 0, i, j], every[:, colour, i, j])


def test_gradients_reach_a_bursts_motions():
    x = random(3, 4, 6).requires_grad_()
    p = torch.tensor([0.1, 0.3, -0.7], dtype=torch.float64, requires_grad=True)

    def frames(p, x):
        A = BurstSampling(x.shape, [Motion.rigid(p), Motion.identity()], 2, mosaic="RGGB", dtype=torch.float64)
        return A(x)

    assert torch.autograd.gradcheck(frames, (p, x), fast_mode=True)
    assert torch.allclose(frames(p, x), frames(p.detach(), x))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Warp((1, 4, 5), torch.zeros(2, 5, 4)), "flow of shape"),
        (lambda: Warp((1, 4, 5), torch.full((2, 4, 5), torch.nan)), "finite"),
        (lambda: Warp((1, 4, 5), torch.zeros(2, 4, 5), centre=(1, 1)), "no centre"),
        (lambda: Warp((4, 5), Motion.identity()), "image_shape"),
        (lambda: Warp((1, 4, 5), Motion.identity(), boundary="valid"), "boundary"),
        (lambda: Warp((1, 4, 5), Motion.identity(), interpolation="cubic"), "bicubic"),
        (lambda: Motion.rigid([1.0, 2.0]), "angle"),
        (lambda: Motion(torch.eye(2)), "(3, 3)"),
        (lambda: BurstSampling((1, 4, 5), [Motion.identity()], 2), "divisible"),
        (lambda: BurstSampling((1, 4, 4), [], 2), "each frame"),
        (lambda: BurstSampling((1, 4, 4), [Motion.identity()], 2, mosaic="RGGB"), "colours"),
        (lambda: BurstSampling((1, 4, 4), [Motion.identity()], 2, kernel="gaussian"), "box"),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(InputError) as caught:
        make()
    assert message in str(caught.value)
