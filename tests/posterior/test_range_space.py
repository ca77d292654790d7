"""s² ∂m/∂y = Σ Aᴴ: exact posteriors pass to rounding, others are told apart."""

import pytest
import torch

import obverse as ob
from obverse.errors import InputError
from obverse.posterior import Posterior, ProductCovariance, range_space_errors
from obverse.problem import Problem
from tests.posterior.cases import DONE, normal, positive

SHAPE, N, M = (1, 4, 5), 20, 12


def law(count: int = 3) -> ob.priors.GaussianMixture:
    covariances = torch.stack([positive(N, seed) for seed in range(count)])
    return ob.priors.GaussianMixture(torch.ones(count), 0.7 * normal(count, *SHAPE, seed=4), covariances)


def case(kind: str) -> Problem:
    matrix = normal(M, N, seed=6)
    if kind == "real":
        return Problem(ob.operators.Dense(matrix, SHAPE), ob.noise.Gaussian(0.3))
    if kind == "uneven":
        return Problem(ob.operators.Dense(matrix, SHAPE), ob.noise.Gaussian(0.2 + normal(1, 1, M, seed=2).abs()))
    operator = ob.operators.Dense(torch.complex(matrix, normal(M, N, seed=7)), SHAPE)
    return Problem(operator, ob.noise.ComplexGaussian(0.4))


def exact(count: int, y: torch.Tensor, problem: Problem, factor: float = 1.0) -> Posterior:
    """The posterior under a mixture, in closed form; its covariance times a factor."""
    found = law(count).posterior(y, problem)
    return claimed(found.mean, factor * found.covariance)


def claimed(centre: torch.Tensor, matrix: torch.Tensor) -> Posterior:
    def product(v: torch.Tensor) -> torch.Tensor:
        return (v.reshape(-1, len(matrix)) @ matrix).reshape(v.shape)

    return Posterior(centre, DONE, covariance=ProductCovariance(product, centre.shape, dtype=torch.float64))


def mean(v: torch.Tensor, problem: Problem, count: int) -> torch.Tensor:
    """The mean of the same posterior, written out so that autograd follows it; data as pairs of real numbers."""
    prior, matrix, flat = law(count), problem.operator.matrix, v.reshape(-1)
    noise = torch.as_tensor(problem.noise.sigma, dtype=torch.float64).square().expand(1, 1, M).reshape(-1)
    if v.is_complex():
        matrix, flat = torch.cat([matrix.real, matrix.imag]), torch.cat([flat.real, flat.imag])
        noise = torch.cat([noise, noise]) / 2
    means, logs = [], []
    for centre, spread in zip(prior.means.reshape(count, N), prior.covariances):
        evidence = matrix @ spread @ matrix.mT + noise.diag()
        missing = flat - matrix @ centre
        white = torch.linalg.solve(evidence, missing)
        means.append(centre + spread @ matrix.mT @ white)
        logs.append(-0.5 * (missing @ white + torch.logdet(evidence)))
    return (torch.stack(logs).softmax(0) @ torch.stack(means)).reshape(SHAPE)


def data(problem: Problem) -> torch.Tensor:
    x = normal(*SHAPE, seed=8)
    return problem.simulate(x.to(problem.operator.dtype), seed=1)


@pytest.mark.parametrize("kind", ["real", "uneven", "complex"])
@pytest.mark.parametrize("count", [1, 3])
def test_an_exact_posterior_passes_to_rounding(kind, count):
    problem = case(kind)
    y = data(problem)
    found = range_space_errors(lambda v: mean(v, problem, count), y, problem, exact(count, y, problem))
    assert torch.allclose(mean(y, problem, count), exact(count, y, problem).mean)
    assert found.derivative == "autograd"
    assert found.errors.shape == (8,) and float(found.errors.max()) < 1e-11
    assert torch.allclose(found.ratios, torch.ones(8).double(), atol=1e-9)


@pytest.mark.parametrize("kind", ["real", "uneven", "complex"])
def test_half_the_covariance_and_a_wrong_noise_level_are_rejected(kind):
    problem = case(kind)
    y = data(problem)

    def estimator(v):
        return mean(v, problem, 3)

    half = range_space_errors(estimator, y, problem, exact(3, y, problem, 0.5))
    assert torch.allclose(half.errors, torch.full_like(half.errors, 0.5), atol=1e-8)
    assert torch.allclose(half.ratios, torch.full_like(half.ratios, 0.5), atol=1e-8)
    other = Problem(problem.operator, type(problem.noise)(1.2 * problem.noise.sigma))
    wrong = range_space_errors(estimator, y, other, exact(3, y, problem))
    assert torch.allclose(wrong.ratios, torch.full_like(wrong.ratios, 1 / 1.44), atol=1e-8)
    neighbour = range_space_errors(estimator, y, problem, exact(3, y, other))  # the covariance of other noise
    assert float(neighbour.errors.min()) > 0.02
    diagonal = exact(3, y, problem).covariance.diagonal().reshape(-1).diag()
    plain = claimed(torch.zeros(SHAPE).double(), diagonal)
    assert float(range_space_errors(estimator, y, problem, plain).errors.min()) > 0.2


def test_a_solver_without_a_graph_is_differenced_and_a_broken_graph_is_noticed():
    kernel = torch.ones(3, 3, dtype=torch.float64) / 9
    problem = Problem(ob.operators.Convolution(kernel, (1, 6, 6)), ob.noise.Gaussian(0.2))
    field = ob.priors.GaussianField.power_law((1, 6, 6), exponent=2.0, variance=1.0, dtype=torch.float64)
    y, method = problem.simulate(field.sample(1, seed=0)[0].double(), seed=1), ob.methods.Gaussian(field)
    posterior = method(y, problem)
    detached = range_space_errors(lambda v: method(v.detach(), problem).mean, y, problem, posterior, count=2)
    assert detached.derivative == "differences" and float(detached.errors.max()) < 1e-5

    def half_cut(v):
        return 0.5 * method(v, problem).mean + 0.5 * method(v.detach(), problem).mean

    noticed = range_space_errors(half_cut, y, problem, posterior, count=2)
    assert noticed.derivative == "differences" and float(noticed.errors.max()) < 1e-5


def test_an_unrolled_network_is_followed_by_autograd():
    class Shrink(torch.nn.Module):
        def forward(self, x, level):
            return x / (1 + level.reshape(-1, 1, 1, 1) ** 2)

    problem = Problem(ob.operators.Mask((torch.arange(36).reshape(1, 6, 6) % 2).double()), ob.noise.Gaussian(0.5))
    method = ob.methods.Unrolled(ob.networks.Stages(Shrink(), stages=2).double(), "hqs")
    y = torch.ones(1, 6, 6).double()
    unit = claimed(y, torch.eye(36).double())
    found = range_space_errors(lambda v: method.reconstruct(v, problem), y, problem, unit, count=2)
    assert found.derivative == "autograd" and float(found.errors.min()) > 0.1


def test_directions_given_are_used():
    problem = case("real")
    y = data(problem)
    u = torch.eye(M).double().reshape(M, 1, 1, M)
    found = range_space_errors(lambda v: mean(v, problem, 1), y, problem, exact(1, y, problem), directions=u)
    assert found.errors.shape == (M,) and float(found.errors.max()) < 1e-11


def test_what_the_identity_does_not_hold_for_is_refused():
    problem, y = case("real"), data(case("real"))
    posterior = exact(1, y, problem)

    def estimator(v):
        return mean(v, problem, 1)

    with pytest.raises(InputError, match="Gaussian"):
        poisson = Problem(problem.operator, ob.noise.Poisson(1.0))
        range_space_errors(estimator, y.abs(), poisson, posterior)
    for target in ("epistemic", "estimator-error", "tempered"):
        other = Posterior(posterior.mean, DONE, covariance=posterior.covariance, target=target)
        with pytest.raises(InputError, match="target"):
            range_space_errors(estimator, y, problem, other)
    with pytest.raises(InputError, match="depends on the data"):
        range_space_errors(lambda v: posterior.mean, y, problem, posterior)
    with pytest.raises(InputError, match="directions"):
        range_space_errors(estimator, y, problem, posterior, directions=torch.ones(3, 2))
    with pytest.raises(InputError, match="estimate"):
        range_space_errors(lambda v: estimator(v).flatten(), y, problem, posterior)
