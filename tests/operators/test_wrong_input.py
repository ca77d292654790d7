"""What a user gets who passes the wrong kind of thing: one sentence, without the type checker of the test run."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from obverse import operators as ops
from obverse.errors import InputError

STATEMENTS = [
    "operators.Radon((1, 8, 8), 'abc')",
    "operators.Radon((1, 8, 8), [0.0], 10.5)",
    "operators.Radon((1, 8, 8), [0.0], spacing='1')",
    "operators.Radon((1, 8.5, 8), [0.0])",
    "operators.Radon((1, 8, 8), [0.0]).filtered_backprojection(numpy.zeros((1, 1, 12)))",
    "operators.FanBeam((1, 8, 8), [0.0], 10, source_distance=None, detector_distance=1.0)",
    "operators.ConeBeam((1, 8, 8, 8), [0.0], 8, source_distance=30.0, detector_distance=1.0)",
    "operators.radial(operators.uniform_angles(3), 4.5)",
    "operators.Downsample((1, 8, 8), 2.0)",
    "operators.Gradient((1, 8, 8), spacing='ab')",
    "operators.SinglePixel((1, 8, 8), kept='all')",
    "operators.StructuredRandom((1, 8, 8), 6.5)",
    "operators.StructuredRandom((1, 8, 8), 6, seed='a')",
    "operators.Rotate((1, 8, 8), 'a')",
    "operators.Motion.translation('ab')",
    "operators.Motion.from_pixels(numpy.eye(3), (4, 4))",
    "operators.BurstSampling((1, 8, 8), [operators.Motion.identity()], 2.0)",
    "operators.Ptychography((1, 8, 8), torch.ones(2, 2), 'a')",
    "operators.PhaseRetrieval(operators.Fourier((1, 4, 4))).spectral_start(numpy.ones((1, 4, 4)))",
    "operators.Identity((1, 4, 4)) @ torch.ones(1, 4, 4)",
    "operators.Identity((1, 4, 4)) + 1",
    "operators.Identity((1, 4, 4)) * torch.tensor(2.0)",
    "operators.stack([operators.Identity((1, 4, 4)), 3])",
    "operators.Identity((1, 4, 4)).to(torch.int32)",
    "operators.check(numpy.ones(3))",
    "noise.Gaussian(1.0).sample(numpy.ones(3))",
    "sensitivities.birdcage(4, (8, 8), dtype=torch.float32)",
    "sensitivities.espirit(torch.ones(4, 16, 16, dtype=torch.complex64), 12, 2.5)",
    "sensitivities.espirit(torch.ones(4, 16, 16, dtype=torch.complex64), 12.0)",
    "pupil.widefield((31, 31), 60.0, numerical_aperture=1.2, wavelength=520.0)",
    "pupil.widefield((31.5, 31), (60.0, 60.0), numerical_aperture=1.2, wavelength=520.0)",
    "pupil.widefield((31, 31), (60.0, 60.0), numerical_aperture=1.2, wavelength=520.0, aberrations=[0.1])",
    "transforms.Diffeomorphism(modes=2.5)",
    "transforms.Scale(-1.0)",
]
RIGHT = ["noise.Gaussian(numpy.float32(2.0))", "operators.Radon((1, 8, 8), numpy.array([0.1, 0.2]))"]
PROGRAM = """
import sys, numpy, torch
from obverse import noise, operators, transforms
from obverse.instruments import pupil, sensitivities
for statement in sys.stdin.read().splitlines():
    try:
        eval(statement)
        print("None")
    except Exception as error:
        print(type(error).__name__, str(error).replace(chr(10), " "))
"""


@pytest.fixture(scope="module")
def answers():
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, input="\n".join(STATEMENTS + RIGHT), capture_output=True, text=True, check=True)
    return dict(zip(STATEMENTS + RIGHT, done.stdout.splitlines(), strict=True))


@pytest.mark.parametrize("statement", STATEMENTS)
def test_the_wrong_kind_of_thing_is_refused_in_words(answers, statement):
    assert answers[statement].startswith("InputError ") and ", got " in answers[statement]


def test_what_is_right_is_not_refused(answers):
    assert all(answers[statement] == "None" for statement in RIGHT)
    same = torch.arange(3.0)
    assert ops.Radon((1, 8, 8), [0.1, 0.2]).angles == (0.1, 0.2)  # not rounded to float32
    assert torch.equal((np.float32(2.0) * ops.Identity((1, 1, 3)))(same[None, None]), 2 * same[None, None])
    assert ops.Gradient((1, 4, 4), 2.0).spacing == ops.Gradient((1, 4, 4), (2.0, 2.0)).spacing == (2.0, 2.0)
    assert torch.equal(ops.radial([0.1], 4), ops.radial(torch.tensor([0.1], dtype=torch.float64), 4))


@pytest.mark.parametrize(
    "weight, word",
    [
        (-torch.ones(1, 4, 4), "at least zero"),
        (torch.full((1, 4, 4), torch.nan), "NaN"),
        (torch.full((1, 4, 4), torch.inf), "infinite"),
        (torch.ones(1, 5, 4), "broadcasts"),
    ],
)
def test_a_weight_that_is_no_inverse_variance_is_refused(weight, word):
    A = ops.Convolution(torch.ones(3, 3), (1, 4, 4))
    with pytest.raises(InputError, match=word):
        A.solve(torch.ones(1, 4, 4), 1.0, weight)
    assert torch.isfinite(A.solve(torch.ones(2, 1, 4, 4), 1.0, torch.ones(2, 1, 4, 4))).all()


@pytest.mark.parametrize("make", [ops.Radon, lambda *a, **k: ops.FanBeam(
    *a, 12, source_distance=20.0, detector_distance=5.0, **k)])  # fmt: skip
def test_projections_of_complex_images_by_their_dtype(make):
    x = torch.randn(1, 8, 8, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    real, complex_ = (make((1, 8, 8), [0.0, 0.4, 2.0], dtype=dtype) for dtype in (torch.float64, torch.complex128))
    assert torch.equal(complex_(x), real(x)) and torch.equal(complex_.adjoint(real(x)), real.adjoint(real(x)))
    assert torch.allclose(complex_.solve(x, 0.5), real.solve(x, 0.5))
    ops.check(complex_)


def test_a_transform_refuses_what_it_cannot_do():
    from obverse import transforms

    for bad in (
        lambda: transforms.Shift(torch.nan),
        lambda: transforms.Scale(0.5),
        lambda: transforms.Rotation(-1.0),
        lambda: transforms.Shift()(torch.ones(1, 4, 4), torch.tensor([torch.nan, 0.0])),
    ):
        with pytest.raises(InputError, match="expects"):
            bad()


def test_a_motion_without_an_inverse_is_refused():
    with pytest.raises(InputError, match="singular"):
        ops.Motion(torch.zeros(3, 3)).inverse()
