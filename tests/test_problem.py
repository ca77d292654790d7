"""Problem: simulation streams, likelihood, gradients and clear refusals."""

import math
import pickle

import pytest
import torch

from obverse.errors import InputError
from obverse.noise import ComplexGaussian, Gaussian, Poisson, PoissonGaussian
from obverse.operators.base import LinearOperator, Operator
from obverse.problem import Problem

SHAPE = (1, 4, 5)


class Blend(LinearOperator):
    """A small positive matrix."""

    def __init__(self, rows=7, dtype=torch.float64):
        super().__init__(SHAPE, (rows,), dtype)
        self.matrix = torch.rand(rows, 20, dtype=dtype, generator=torch.Generator().manual_seed(5)) / 10

    def _apply(self, x):
        return x.flatten(-3) @ self.matrix.to(x.dtype).T

    def _adjoint(self, y):
        return (y @ self.matrix.to(y.dtype).conj()).reshape(*y.shape[:-1], *SHAPE)


class Exposure(Operator):
    """A non-linear operator: the exponential of the image."""

    def __init__(self):
        super().__init__(SHAPE, SHAPE, torch.float64)

    def _apply(self, x):
        return x.exp()


LAWS = [Gaussian(0.3), Gaussian(torch.linspace(0.5, 1.5, 7)), Poisson(0.2), PoissonGaussian(0.2, 0.1)]


def image(*batch, dtype=torch.float64):
    return torch.rand(*batch, *SHAPE, dtype=dtype, generator=torch.Generator().manual_seed(1)) + 0.5


@pytest.mark.parametrize("law", LAWS, ids=["gaussian", "uneven", "poisson", "poisson-gaussian"])
def test_simulation_does_not_depend_on_the_batch_split(law):
    problem, x = Problem(Blend(), law), image(4)
    whole = problem.simulate(x, seed=3)
    pieces = torch.cat([problem.simulate(x[:1], 3), problem.simulate(x[1:], 3, first=1)])
    assert torch.allclose(whole, pieces, atol=1e-12)
    assert torch.allclose(whole.reshape(2, 2, 7), problem.simulate(x.reshape(2, 2, *SHAPE), seed=3), atol=1e-12)
    assert not torch.equal(whole, problem.simulate(x, seed=4))
    assert not torch.equal(problem.simulate(x[:1], 3), problem.simulate(x[:1], 3, first=1))
    generator = torch.Generator().manual_seed(0)
    assert not torch.equal(problem.simulate(x, generator), problem.simulate(x, generator))


@pytest.mark.parametrize("operator", [Blend(), Exposure()], ids=["linear", "non-linear"])
@pytest.mark.parametrize("law", [Gaussian(0.3), Poisson(0.2), PoissonGaussian(0.2, 0.1)], ids=str)
def test_gradient_is_that_of_the_likelihood(operator, law):
    problem, x = Problem(operator, law), image(2)
    y = problem.simulate(x, seed=0)
    point = x.clone().requires_grad_(True)
    (expected,) = torch.autograd.grad(-problem.log_likelihood(point, y).sum(), point)
    assert torch.allclose(problem.gradient(x, y), expected, rtol=1e-9, atol=1e-9)


def test_complex_gradient_and_information():
    operator = Blend(dtype=torch.complex128)
    problem = Problem(operator, ComplexGaussian(0.5))
    x = image().to(torch.complex128)
    y = problem.simulate(x, seed=0)
    point = x.clone().requires_grad_(True)
    (expected,) = torch.autograd.grad(-problem.log_likelihood(point, y), point)
    assert torch.allclose(problem.gradient(x, y), expected)
    assert torch.allclose(problem.gradient(x, y), operator.adjoint(problem.fisher_weight(x) * (operator(x) - y)))
    assert torch.allclose(problem.weight(), torch.full((7,), 4.0, dtype=torch.float64))


def test_gaussian_likelihood_is_the_textbook_one():
    problem, x = Problem(Blend(), Gaussian(0.3)), image(2)
    y = problem.simulate(x, seed=0)
    r = (y - problem.operator(x)) / 0.3
    expected = -0.5 * r.square().sum(-1) - 7 * math.log(0.3 * math.sqrt(2 * math.pi))
    assert torch.allclose(problem.log_likelihood(x, y), expected)
    assert torch.allclose(problem.residual(x, y), r) and torch.allclose(problem.chi2(x, y), r.square().mean(-1))


@pytest.mark.parametrize("law", [Gaussian(0.3), Poisson(0.2), PoissonGaussian(0.2, 0.1)], ids=str)
def test_chi2_is_one_at_the_truth_and_not_elsewhere(law):
    problem = Problem(Blend(rows=400), law)
    x = 3 * image(20)
    y = problem.simulate(x, seed=0)
    assert float(problem.chi2(x, y).mean()) == pytest.approx(1.0, abs=0.06)
    wrong = Problem(problem.operator, law.scaled(2.0))
    assert float(wrong.chi2(x, y).mean()) < 0.8


def test_weight_comes_from_image_data_or_neither():
    law = PoissonGaussian(0.2, 0.1)
    problem, x = Problem(Blend(), law), image()
    y = problem.simulate(x, 0)
    assert torch.allclose(problem.weight(x), 1 / law.variance(problem.operator(x)))
    assert torch.allclose(problem.weight(y=y), 1 / law.variance(y))
    with pytest.raises(InputError, match="depends on the mean"):
        problem.weight()
    assert Problem(Blend(), Gaussian(0.5)).weight().shape == (7,)


def test_float32_stays_float32_and_problems_pickle():
    problem = Problem(Blend(dtype=torch.float32), PoissonGaussian(0.2, 0.1))
    x = image(dtype=torch.float32)
    y = problem.simulate(x, 0)
    for result in (y, problem.log_likelihood(x, y), problem.gradient(x, y), problem.residual(x, y)):
        assert result.dtype == torch.float32
    copy = pickle.loads(pickle.dumps(problem))  # noqa: S301
    assert torch.equal(copy.gradient(x, y), problem.gradient(x, y)) and copy.noise == problem.noise


@pytest.mark.parametrize(
    ("y", "law", "words"),
    [
        (torch.full((7,), math.nan), Gaussian(1.0), "NaN"),
        (torch.full((7,), math.inf), Gaussian(1.0), "Inf"),
        (torch.ones(6), Gaussian(1.0), "shape"),
        (torch.ones(7, dtype=torch.complex64), Gaussian(1.0), "complex"),
        (torch.ones(7), ComplexGaussian(1.0), "complex"),
        (torch.ones(7, dtype=torch.int64), Gaussian(1.0), "floating"),
        (-torch.ones(7), Poisson(1.0), "at least zero"),
    ],
)
def test_bad_data_are_refused_in_one_sentence(y, law, words):
    problem = Problem(Blend(dtype=torch.float32), law)
    for call in (problem.log_likelihood, problem.residual, problem.gradient):
        with pytest.raises(InputError, match=words) as caught:
            call(image(dtype=torch.float32), y)
        assert "\n" not in str(caught.value)


def test_bad_problems_are_refused():
    with pytest.raises(InputError, match="broadcasts"):
        Problem(Blend(), Gaussian(torch.ones(6)))
    with pytest.raises(InputError, match="seed"):
        Problem(Blend(), Gaussian(1.0)).simulate(image(), seed=-1)
    with pytest.raises(InputError, match="finite"):
        Problem(Blend(), Gaussian(1.0)).simulate(image() * math.nan)
