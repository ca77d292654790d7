"""Phase retrieval: derivatives over pairs of real numbers, the spectral start, and images found up to a phase."""

import pytest
import torch

from obverse.errors import InputError, NumericsError
from obverse.operators import (
    Convolution,
    Dense,
    Fourier,
    LinearOperator,
    PhaseRetrieval,
    Ptychography,
    check,
    compose,
    gaussian_projection,
)
from obverse.operators.base import Jacobian
from obverse.operators.phase_retrieval import IntensityDerivative
from tests.operators.cases_phase import POSITIONS, PROBE, field

IMAGE = field(1, 4, 4, seed=11)


def diffuser(views):
    """Intensities behind a random medium, `views` for each unknown."""
    return PhaseRetrieval(gaussian_projection((1, 4, 4), 16 * views, seed=3, dtype=torch.complex128))


def error(x, truth):
    """Relative distance after the best global phase."""
    overlap = (x.conj() * truth).sum()
    return float((x * overlap / overlap.abs() - truth).norm() / truth.norm())


def levenberg_marquardt(A, y, x, iterations=40, damping=0.1):
    for _ in range(iterations):
        J, r = A.linearise(x), y - A(x)
        if r.norm() < 1e-9 * y.norm():
            break
        step = J.solve(J.adjoint(r), damping, tolerance=1e-4)
        better = (y - A(x + step)).norm() < r.norm()
        x, damping = (x + step, damping / 3) if better else (x, damping * 4)
        damping = max(damping, 1e-9)
    return x


@pytest.mark.parametrize(
    "A",
    [
        PhaseRetrieval(Dense(field(7, 12, seed=2), (1, 3, 4))),
        PhaseRetrieval(Fourier((1, 3, 4), dtype=torch.complex128)),
        PhaseRetrieval(Dense(field(7, 12, seed=2).real, (1, 3, 4))),
        Ptychography((1, 4, 5), PROBE, POSITIONS, torch.complex128),
        compose(
            Convolution(torch.tensor([[0.25, 0.5, 0.25]], dtype=torch.float64), (1, 4, 4)),
            PhaseRetrieval(Fourier((1, 4, 4), dtype=torch.complex128)),
        ),
    ],
    ids=["dense", "fourier", "real", "ptychography", "blurred by the detector"],
)
def test_passes_the_public_suite_at_a_complex_image(A):
    at = field(*A.image_shape, seed=5)
    figures = check(A, at=at if A.dtype.is_complex else at.real).figures
    assert figures["Jacobian"] < 1e-6 and figures["Jacobian adjoint float64"] < 1e-10
    assert not A.data_dtype.is_complex


def test_a_complex_linear_adjoint_would_be_refused():
    class Wrong(IntensityDerivative):
        def _adjoint(self, y):
            return super()._adjoint(y).conj()

    check(IntensityDerivative(IMAGE))
    with pytest.raises(NumericsError, match="adjoint"):
        check(Wrong(IMAGE))


def test_undeclared_real_data_are_refused():
    class Undeclared(PhaseRetrieval):
        @property
        def data_dtype(self):
            return torch.complex128

    with pytest.raises(NumericsError, match="data_dtype"):
        check(Undeclared(Fourier((1, 4, 4), dtype=torch.complex128)))


def test_autograd_and_the_closed_form_agree():
    A = PhaseRetrieval(Dense(field(20, 16, seed=2), (1, 4, 4)))
    x, u = IMAGE.clone().requires_grad_(), torch.arange(20.0, dtype=torch.float64).reshape(1, 1, 20)
    (gradient,) = torch.autograd.grad((u * A(x)).sum(), x)
    J = A.linearise(IMAGE)
    torch.testing.assert_close(J.adjoint(u), gradient)
    torch.testing.assert_close(Jacobian(A, IMAGE).adjoint(u), gradient)
    v = field(2, 1, 4, 4, seed=3)
    torch.testing.assert_close(Jacobian(A, IMAGE)(v), J(v))
    assert J.real_linear and not A.operator.real_linear
    assert not torch.allclose(J(1j * v).to(v), 1j * J(v))
    assert J.H.H is J and not J.H.dtype.is_complex and J.H.data_dtype.is_complex
    check(J.H)


def test_solve_of_the_derivative():
    J = PhaseRetrieval(Dense(field(20, 16, seed=2), (1, 4, 4))).linearise(IMAGE)
    b = field(3, 1, 4, 4, seed=9)
    weight = torch.linspace(0.5, 2, 20, dtype=torch.float64)
    x = J.solve(b, 0.3, weight)
    torch.testing.assert_close(J.gram(x, weight) + 0.3 * x, b)
    b.requires_grad_()
    assert torch.autograd.gradcheck(lambda b, w: J.solve(b, 0.3, w), (b, weight.requires_grad_()), fast_mode=True)


def test_the_intensity_derivative_solves_in_closed_form():
    z = IMAGE.clone()
    z[0, 1, 2] = 0
    J = IntensityDerivative(z)
    assert isinstance(J, LinearOperator)
    weight, b = torch.linspace(0.1, 3, 16, dtype=torch.float64).reshape(1, 4, 4), field(2, 1, 4, 4, seed=1)
    x = J.solve(b, 1e-3, weight, max_iterations=0)
    torch.testing.assert_close(J.gram(x, weight) + 1e-3 * x, b)


def test_derivatives_are_not_scaled_by_complex_numbers():
    J = IntensityDerivative(IMAGE)
    torch.testing.assert_close((2.0 * J)(IMAGE), 2 * J(IMAGE))
    with pytest.raises(InputError, match="linear over real numbers"):
        _ = 1j * J


def test_the_spectral_start_is_near_and_iterations_recover_the_image():
    A = diffuser(8)
    y = A(IMAGE)
    start = A.spectral_start(y)
    noise = field(1, 4, 4, seed=77)
    random_start = noise * IMAGE.norm() / noise.norm()
    assert error(start, IMAGE) < 0.5 < 0.8 < error(random_start, IMAGE)
    found = levenberg_marquardt(A, y, start)
    assert error(found, IMAGE) < 1e-6
    assert float((found - IMAGE).norm() / IMAGE.norm()) > 1e-2  # the phase is not known
    torch.testing.assert_close(A(found), y, rtol=1e-6, atol=1e-6)


def test_too_few_data_do_not_recover_the_image():
    A = diffuser(1)
    y = A(IMAGE)
    found = levenberg_marquardt(A, y, A.spectral_start(y))
    assert error(found, IMAGE) > 0.1


def test_ptychography_recovers_the_object_from_overlapping_windows():
    corners = [[i, j] for i in range(3) for j in range(3)]
    A = Ptychography((1, 5, 5), field(3, 3, seed=8), corners, torch.complex128)
    truth = torch.polar(0.5 + field(1, 5, 5).real.abs(), field(1, 5, 5, seed=2).real)
    y = A(truth)
    start = torch.ones_like(truth) * truth.abs().mean()
    found = levenberg_marquardt(A, y, start, 80)
    assert error(start, truth) > 0.2
    assert error(found, truth) < 1e-5


def test_spectral_start_of_a_batch():
    A = diffuser(6)
    images = torch.stack([IMAGE, field(1, 4, 4, seed=30)])
    together = A.spectral_start(A(images))
    torch.testing.assert_close(together[1], A.spectral_start(A(images[1])))
    torch.testing.assert_close(A(together).sum((1, 2, 3)), A(images).sum((1, 2, 3)))
    assert not torch.allclose(together[0], together[1])


def test_errors():
    A = diffuser(2)
    y = A(IMAGE)
    probe = torch.ones(2, 2)
    for make, match in [
        (lambda: PhaseRetrieval(A.linearise(IMAGE)), "complex data"),
        (lambda: A.linearise(torch.stack([IMAGE, IMAGE])), "shape"),
        (lambda: A.spectral_start(y[..., 1:]), "intensities"),
        (lambda: A.spectral_start(-y), "not negative"),
        (lambda: A.spectral_start(0 * y), "not all zero"),
        (lambda: Ptychography((1, 4, 4), probe, [[3, 0]]), "enlarge"),
        (lambda: Ptychography((1, 4, 4), probe, torch.tensor([[0.5, 0.0]])), "integers"),
        (lambda: Ptychography((1, 4, 4), torch.ones(2), [[0, 0]]), "probe"),
        (lambda: Ptychography((2, 4, 4), probe, [[0, 0]]), "1, H, W"),
    ]:
        with pytest.raises(InputError, match=match):
            make()
