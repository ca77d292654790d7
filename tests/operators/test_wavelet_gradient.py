"""Wavelets against PyWavelets, differences against their known spectrum."""

import numpy as np
import pytest
import torch

from obverse.errors import InputError
from obverse.operators import Convolution, Gradient, Wavelet
from obverse.operators.taps import WAVELETS, scaling_filter
from tests.operators.cases import random


@pytest.mark.parametrize("wavelet", WAVELETS)
def test_filters_are_orthonormal_with_vanishing_moments(wavelet):
    h = scaling_filter(wavelet)
    length = len(h)
    for m in range(length // 2):
        assert float((h[: length - 2 * m] * h[2 * m :]).sum()) == pytest.approx(float(m == 0), abs=2e-15)
    assert float(h.sum()) == pytest.approx(2**0.5, abs=1e-14)
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(length // 2)
    for power in range(length // 2):
        positions = torch.linspace(-1, 1, length, dtype=torch.float64) ** power
        assert float((signs * h * positions).sum()) == pytest.approx(0, abs=1e-13)


@pytest.mark.parametrize("wavelet", ["haar", "db2", "db4", "db10", "sym5", "sym8"])
@pytest.mark.filterwarnings("ignore:Level value")
def test_equals_pywavelets(wavelet):
    pywt = pytest.importorskip("pywt")
    x = random(1, 48, 32)
    coefficients = pywt.wavedecn(x[0].numpy(), wavelet, mode="periodization", level=3)
    expected, _ = pywt.coeffs_to_array(coefficients)
    result = Wavelet((1, 48, 32), wavelet, 3, torch.float64)(x)[0].numpy()
    np.testing.assert_allclose(result, expected, atol=1e-10)  # its own symlets are good to 2e-12


def test_perfect_reconstruction_and_default_levels():
    for shape, levels in (((3, 64, 32), 4), ((1, 24, 40), 3), ((1, 1, 48), 4), ((1, 8, 12, 6), 1)):
        A = Wavelet(shape, dtype=torch.float64)
        x = random(2, *shape)
        assert A.levels == levels
        torch.testing.assert_close(A.adjoint(A(x)), x, rtol=0, atol=1e-13)
        torch.testing.assert_close(A(A.adjoint(x)), x, rtol=0, atol=1e-13)


def test_wavelet_errors():
    for arguments, match in [
        (((1, 12, 12), "db4", 3), "multiple of 2"),
        (((1, 7, 8), "db4"), "multiple of 2"),
        (((1, 8, 8), "coif1"), "'coif1'"),
        (((1, 8, 8), "db4", 0), "levels=0"),
    ]:
        with pytest.raises(InputError, match=match):
            Wavelet(*arguments)


@pytest.mark.parametrize("boundary", ["neumann", "circular"])
def test_gradient_norm_is_exact(boundary):
    for grid in ((4, 5), (1, 6), (3, 2, 4)):
        A = Gradient((1, *grid), [1.0, 0.5, 2.0][: len(grid)], boundary, torch.float64)
        n = int(np.prod(grid))
        matrix = torch.stack([A(e).flatten() for e in torch.eye(n, dtype=torch.float64).reshape(-1, 1, *grid)], 1)
        assert A.norm() == pytest.approx(float(torch.linalg.matrix_norm(matrix, 2)), rel=1e-12)


def test_circular_gradient_solves_in_closed_form():
    A = Gradient((2, 6, 7), (1.0, 3.0), "circular", torch.float64)
    b = random(2, 6, 7)
    x = A.solve(b, 1e-3, 2.0, max_iterations=0)
    torch.testing.assert_close(A.gram(x, 2.0) + 1e-3 * x, b)
    blurred = A @ Convolution(random(3, 3), (2, 6, 7))
    x = (2.0 * blurred).solve(b, 1e-3, max_iterations=0)
    torch.testing.assert_close(4 * blurred.gram(x) + 1e-3 * x, b)
    assert Gradient((2, 6, 7)).gram_spectrum() is None


def test_gradient_errors():
    for spacing in ((1.0,), (1.0, -1.0), (1.0, float("nan"))):
        with pytest.raises(InputError, match="positive spacings"):
            Gradient((1, 4, 4), spacing)
    with pytest.raises(InputError, match="'neumann'"):
        Gradient((1, 4, 4), boundary="zero")
