"""Random shapes, kernels and factors: adjoint, batch and the rest of the public suite."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from obverse.operators import Convolution, Downsample, Fourier, Gradient, Mask, Wavelet, check, stack
from tests.operators.cases import random

sizes = st.integers(1, 9)
few = settings(max_examples=20, deadline=None, derandomize=True)


@st.composite
def blurs(draw):
    """Shapes of a kernel and an image, boundary and engine."""
    axes, channels = draw(st.integers(2, 3)), draw(st.integers(1, 3))
    grid = tuple(draw(st.integers(1, 9 if axes == 2 else 5)) for _ in range(axes))
    boundary = draw(st.sampled_from(["circular", "reflect", "zero", "valid"]))
    largest = {
        "valid": lambda n: n,
        "reflect": lambda n: 2 * n - 1,
        "circular": lambda n: 2 * n,
        "zero": lambda n: 2 * n,
    }
    size = tuple(draw(st.integers(1, largest[boundary](n))) for n in grid)
    own = draw(st.booleans())
    kernel = (*((channels,) if own else ()), *size)
    return kernel, (channels, *grid), boundary, draw(st.sampled_from(["auto", "fft", "direct"]))


@few
@given(blurs())
def test_convolution(drawn):
    kernel, image_shape, boundary, engine = drawn
    check(Convolution(random(*kernel), image_shape, boundary, engine=engine))


@few
@given(st.data())
def test_downsample(data):
    factors = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    shape = (data.draw(st.integers(1, 2)), *(f * data.draw(st.integers(1, 4)) for f in factors))
    boundary = data.draw(st.sampled_from(["circular", "zero"]))
    kernel = data.draw(st.one_of(st.sampled_from(["box", "gaussian", "cubic"]), st.tuples(sizes, sizes)))
    phase = data.draw(st.one_of(st.none(), st.tuples(*(st.integers(0, f - 1) for f in factors))))
    kernel = kernel if isinstance(kernel, str) else random(*kernel)
    check(Downsample(shape, factors, kernel, boundary, phase, dtype=torch.float64))


@few
@given(st.lists(st.integers(1, 5), min_size=2, max_size=3), st.booleans())
def test_fourier_gradient_and_stack(grid, circular):
    shape = (1, *grid)
    check(Fourier(shape, random(*grid) > 0.5))
    gradient = Gradient(shape, [0.5 + i for i in range(len(grid))], "circular" if circular else "neumann")
    check(stack([gradient, -2.0 * gradient]))
    check(gradient @ Mask(random(*shape)))


@few
@given(st.data())
def test_wavelet(data):
    levels = data.draw(st.integers(1, 2))
    grid = [2**levels * data.draw(st.integers(1, 3)) for _ in range(data.draw(st.integers(2, 3)))]
    A = Wavelet((1, *grid), data.draw(st.sampled_from(["haar", "db3", "sym5"])), levels, torch.float64)
    check(A)
    x = random(*A.image_shape)
    assert (A.adjoint(A(x)) - x).norm() <= 1e-12 * x.norm()
