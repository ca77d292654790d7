"""The last step towards the data against dense algebra, and what it must leave alone."""

import pytest
import torch

from obverse.errors import InputError
from obverse.methods.data_consistency import data_consistent
from obverse.noise import ComplexGaussian, Gaussian, Poisson, PoissonGaussian, Rician
from obverse.operators import Convolution, Dense, Fourier, Identity, Mask
from obverse.problem import Problem

SHAPE = (1, 12, 10)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def blur(width=1.0):
    g = torch.exp(-(torch.arange(-2, 3, dtype=torch.float64) ** 2) / (2 * width**2))
    k = g[:, None] * g
    return Convolution(k / k.sum(), SHAPE)


def matrix(operator):
    n = int(torch.tensor(operator.image_shape).prod())
    return operator(torch.eye(n, dtype=torch.float64).reshape(-1, *operator.image_shape)).flatten(1).T


@pytest.mark.parametrize("sigma", [0.2, "map"])
def test_a_given_damping_is_the_normal_equations(sigma):
    spread = 0.1 + random(*SHAPE, seed=3).abs() if sigma == "map" else torch.full(SHAPE, sigma, dtype=torch.float64)
    problem = Problem(blur(), Gaussian(spread))
    x, y = random(*SHAPE), random(*SHAPE, seed=1)
    A, W = matrix(problem.operator), torch.diag(spread.flatten() ** -2)
    expected = torch.linalg.solve(A.T @ W @ A + 3.0 * torch.eye(120), A.T @ W @ y.flatten() + 3.0 * x.flatten())
    torch.testing.assert_close(data_consistent(x, y, problem, damping=3.0).image.flatten(), expected, rtol=1e-8, atol=0)


@pytest.mark.parametrize("noise", [Gaussian(0.05), Poisson(0.01), PoissonGaussian(0.005, 0.03)])
def test_the_damping_brings_chi2_to_the_level_and_no_further(noise):
    truth = 1.0 + random(*SHAPE).abs()
    problem = Problem(blur(), noise)
    y = problem.simulate(truth, seed=1)
    wrong = truth.clone()
    wrong[:, 3:8, 3:7] += 1.0  # a thing that is not there
    done = data_consistent(wrong, y, problem)
    assert done.chi2_before > 2 and abs(float(done.chi2) - 1) < 0.011
    assert (done.image - truth).norm() < 0.5 * (wrong - truth).norm()
    half = data_consistent(wrong, y, problem, damping=2 * float(done.damping))
    assert half.chi2 > done.chi2  # more damping fits worse: the damping found is the largest that will do
    assert data_consistent(wrong, y, problem, level=1.5).damping > done.damping


def test_an_image_that_fits_is_left_alone():
    problem = Problem(blur(), Gaussian(0.1))
    truth = random(*SHAPE)
    y = problem.simulate(truth, seed=2)
    done = data_consistent(truth, y, problem, level=1.5)
    assert torch.equal(done.image, truth) and torch.isinf(done.damping)


def test_what_the_data_do_not_see_stays():
    seen = random(*SHAPE, seed=4) > 0
    problem = Problem(Mask(seen.double()), Gaussian(0.01))
    x, y = random(*SHAPE), random(*SHAPE, seed=1) * seen
    done = data_consistent(x, y, problem)
    assert torch.equal(done.image[~seen], x[~seen])
    # only the data there are count: with the empty places counted, the fit would be worse than the noise
    residual = ((done.image - y)[seen] / 0.01).square().mean()
    assert abs(float(residual) - 1) < 0.011
    assert (done.image - y)[seen].abs().mean() < 0.1 * (x - y)[seen].abs().mean()


def test_data_that_no_image_explains_are_told_of():
    wall = Dense(torch.tensor([[1.0], [1.0]], dtype=torch.float64), (1, 1, 1), (2,))
    done = data_consistent(
        torch.zeros(1, 1, 1, dtype=torch.float64), torch.tensor([0.0, 1.0]).double(), Problem(wall, Gaussian(0.01))
    )
    assert done.chi2 > 1000 and abs(float(done.image) - 0.5) < 1e-3


def test_items_of_a_batch_are_treated_by_themselves():
    problem = Problem(blur(), Gaussian(0.1))
    x = torch.stack([random(*SHAPE), random(*SHAPE, seed=5)])
    y = torch.stack([problem.simulate(x[0], seed=1), random(*SHAPE, seed=6)])
    both = data_consistent(x, y, problem)
    for i in range(2):
        one = data_consistent(x[i], y[i], problem)
        assert torch.equal(both.image[i], one.image) and both.damping[i] == one.damping


def test_complex_images_and_gradients():
    operator = Fourier(SHAPE, dtype=torch.complex128)
    problem = Problem(operator, ComplexGaussian(0.1))
    x = torch.complex(random(*SHAPE), random(*SHAPE, seed=1))
    y = problem.simulate(x + 1.0, seed=0)
    assert abs(float(data_consistent(x, y, problem).chi2) - 1) < 0.011
    point = random(*SHAPE).requires_grad_(True)
    real = Problem(blur(), Gaussian(0.3))
    data = random(*SHAPE, seed=7)
    assert torch.autograd.gradcheck(lambda v: data_consistent(v, data, real, damping=0.7).image, (point,))


def test_what_cannot_be_done_is_refused():
    problem, x = Problem(Identity(SHAPE), Gaussian(1.0)), torch.zeros(SHAPE)
    for call in (
        lambda: data_consistent(x, torch.zeros(1, 3, 3), problem),
        lambda: data_consistent(x, x, problem, level=0.0),
        lambda: data_consistent(x, x, problem, damping=-1.0),
        lambda: data_consistent(x, x + 1, Problem(Identity(SHAPE), Rician(1.0))),
    ):
        with pytest.raises(InputError):
            call()
