"""P6: posteriors and samplers give the law that they name.

Truths: the Fourier closed form of a stationary Gaussian problem; dense linear algebra for inpainting; and for samplers
the exact stationary law of their discretisation, mode by mode, derived here from Chebyshev polynomials and not from the
kernels. Every criterion is a function of a claimed law, and rejects that law halved, doubled or shuffled.
"""

import math

import numpy as np
import pytest
import torch
from numpy.polynomial import chebyshev

from obverse import methods, noise, operators, priors
from obverse.problem import Problem

SIGMA = 0.05


def stationary_problem(n: int, seed: int = 0):
    """A blurred Gaussian field, and the mean and covariance spectrum of its posterior by the closed form."""
    f = torch.fft.fftfreq(n, dtype=torch.float64)
    spectrum = 0.02 / (1 + 30 * (f[:, None] ** 2 + f**2))
    field = priors.GaussianField(spectrum, (1, n, n), mean=0.3)
    r = torch.arange(-4, 5, dtype=torch.float64)
    kernel = torch.exp(-(r[:, None] ** 2 + r**2) / 2)
    problem = Problem(operators.Convolution(kernel / kernel.sum(), (1, n, n)), noise.Gaussian(SIGMA))
    y = problem.simulate(field.sample(1, seed=seed)[0], seed=seed + 1)

    placed = torch.zeros(n, n, dtype=torch.float64)
    placed[:9, :9] = kernel / kernel.sum()
    transfer = torch.fft.fft2(torch.roll(placed, (-4, -4), (0, 1)))
    power = transfer.abs() ** 2
    covariance = spectrum * SIGMA**2 / (power * spectrum + SIGMA**2)
    wiener = spectrum * transfer.conj() / (power * spectrum + SIGMA**2)
    mean = 0.3 + torch.fft.ifft2(wiener * torch.fft.fft2(y - 0.3)).real
    return problem, y, field, mean, covariance


def functionals(n: int, count: int = 10) -> torch.Tensor:
    return torch.randn(count, 1, n, n, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def stationary_variance_of(weights: torch.Tensor, spectrum: torch.Tensor) -> torch.Tensor:
    power = torch.fft.fft2(weights, norm="ortho").abs() ** 2
    return (power * spectrum).sum((-3, -2, -1))


def worst_error(posterior, mean: torch.Tensor, spectrum: torch.Tensor) -> float:
    """Largest relative difference in mean, std, trace and ten functionals between a posterior and a stationary law."""
    n = mean.shape[-1]
    weights = functionals(n)
    measured = (weights * posterior.covariance.matvec(weights)).sum((-3, -2, -1))
    expected = stationary_variance_of(weights, spectrum)
    std = spectrum.mean().sqrt()
    errors = [
        float((posterior.mean - mean).abs().max() / mean.abs().max()),
        float((posterior.std / std - 1).abs().max()),
        abs(posterior.covariance.trace() / float(spectrum.sum()) - 1),
        float((measured / expected - 1).abs().max()),
    ]
    return max(errors)


def wrong_laws(spectrum: torch.Tensor) -> dict[str, torch.Tensor]:
    shuffled = spectrum.reshape(-1)[torch.randperm(spectrum.numel(), generator=torch.Generator().manual_seed(3))]
    return {"halved": spectrum / 2, "doubled": 2 * spectrum, "shuffled": shuffled.reshape(spectrum.shape)}


@pytest.mark.parametrize("method", [methods.Gaussian, methods.Laplace])
def test_stationary_deblurring_equals_the_closed_form(method):
    problem, y, field, mean, spectrum = stationary_problem(64)
    posterior = method(prior=field)(y, problem)
    assert posterior.status.converged
    assert worst_error(posterior, mean, spectrum) < 1e-6
    for name, wrong in wrong_laws(spectrum).items():
        assert worst_error(posterior, mean, wrong) > 1e-2, name


def inpainting(n: int = 32):
    _, _, field, _, _ = stationary_problem(n)
    kept = torch.rand(1, n, n, generator=torch.Generator().manual_seed(2)) < 0.4
    problem = Problem(operators.Mask(kept.double()), noise.Gaussian(SIGMA))
    y = problem.simulate(field.sample(1, seed=5)[0], seed=6)
    # Σ = S − S Aᵀ (A S Aᵀ + s²I)⁻¹ A S: another formula than the methods', which work with precisions.
    identity = torch.eye(n * n, dtype=torch.float64).reshape(-1, 1, n, n)
    S = field.covariance_matvec(identity).reshape(n * n, n * n)
    A = torch.eye(n * n, dtype=torch.float64)[kept.reshape(-1)]
    gain = torch.linalg.solve(A @ S @ A.mT + SIGMA**2 * torch.eye(len(A), dtype=torch.float64), A @ S).mT
    mean = 0.3 + gain @ (y.reshape(-1)[kept.reshape(-1)] - 0.3)
    return problem, y, field, mean, S - gain @ A @ S


def dense_error(posterior, mean: torch.Tensor, covariance: torch.Tensor) -> float:
    """Largest relative error of mean, marginal variances, trace and ten functionals against a dense covariance."""
    weights = functionals(32).reshape(10, -1)
    measured = (weights * posterior.covariance.matvec(weights)).sum(-1)
    expected = ((weights @ covariance) * weights).sum(-1)
    return max(
        float((posterior.mean.reshape(-1) - mean).abs().max() / mean.abs().max()),
        float((posterior.std.reshape(-1).square() / covariance.diagonal() - 1).abs().max()),
        abs(posterior.covariance.trace() / float(covariance.trace()) - 1),
        float((measured / expected - 1).abs().max()),
    )


@pytest.mark.parametrize("method", [methods.Gaussian, methods.Laplace])
def test_dense_inpainting_equals_linear_algebra(method):
    problem, y, field, mean, covariance = inpainting()
    posterior = method(prior=field)(y, problem)
    assert posterior.status.converged
    assert dense_error(posterior, mean, covariance) < 1e-5
    order = torch.randperm(1024, generator=torch.Generator().manual_seed(4))
    for wrong in (covariance / 2, 2 * covariance, covariance[order][:, order]):
        assert dense_error(posterior, mean, wrong) > 1e-2


def test_exact_draws_have_the_law_of_inpainting():
    problem, y, field, mean, covariance = inpainting()
    posterior = methods.Gaussian(prior=field)(y, problem)
    draws = (posterior.sample(400, seed=1) - posterior.mean).reshape(400, -1)

    def distance(law: torch.Tensor) -> float:
        """Mahalanobis energy per pixel, a mean of 400 × 1024 squared normals, in standard errors from 1."""
        whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(law), draws.mT, upper=False)
        return abs(float(whitened.square().mean()) - 1) / math.sqrt(2 / draws.numel())

    assert distance(covariance) < 4
    order = torch.randperm(1024, generator=torch.Generator().manual_seed(4))
    for wrong in (covariance / 2, 2 * covariance, covariance[order][:, order]):
        assert distance(wrong) > 20


# --- samplers -------------------------------------------------------------------------------------------------------

N, CHAINS = 16, 64


class Enveloped(priors.Prior):
    """A Gaussian field that admits only to its proximal operator, so that it enters by its Moreau envelope."""

    def __init__(self, field):
        self.field, self.image_shape = field, field.image_shape

    def value(self, x):
        return self.field.value(x)

    def prox(self, x, step):
        return self.field.prox(x, step)


def euler_law(precision: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray]:
    """(decay R, stationary variance) of X⁺ = (1 − δa) X + √(2δ) ξ."""
    return 1 - step * precision, 1 / (precision * (1 - step * precision / 2))


def skrock_law(precision: np.ndarray, step: float, stages: int, eta: float) -> tuple[np.ndarray, np.ndarray]:
    """R = T_S(ω₀ + ω₁z)/T_S(ω₀), noise gain U_{S−1}(ω₀ + ω₁z)/U_{S−1}(ω₀)·(1 + ω₁z/2), z = −δa."""
    first = chebyshev.Chebyshev.basis(stages)
    second = first.deriv() / stages
    w0 = 1 + eta / stages**2
    w1 = first(w0) / first.deriv()(w0)
    z = -step * precision
    decay = first(w0 + w1 * z) / first(w0)
    gain = second(w0 + w1 * z) / second(w0) * (1 + w1 * z / 2)
    return decay, 2 * step * gain**2 / (1 - decay**2)


def run(method, y, problem):
    """Squared deviations from the mean per orthonormal mode, summed over chains and draws, and the chains' mean."""
    total = square = 0.0
    count = 0
    for state in method.states(y, problem):
        if state.step > method.warm_up:
            modes = torch.fft.fft2(state.x[:, 0], norm="ortho")
            total = total + modes.sum(0)
            square = square + (modes.abs() ** 2).sum(0)
            count += len(modes)
    mean = total / count
    return mean, square / count - mean.abs() ** 2, count, state


def scores(mean, variance, count, exact_mean, decay, law):
    """z-scores of mean and of variance, per mode; N_eff from the exact autocorrelation Rᵏ of each mode.

    A complex mode's real and imaginary part are two variables, so its variance has twice the degrees of freedom; the
    self-conjugate modes are judged as if they had, by a factor √2, which only the tolerance of four pays for.
    """
    decay, law = torch.from_numpy(decay), law if isinstance(law, torch.Tensor) else torch.from_numpy(law)
    own = self_conjugate()
    worth_mean = count * (1 - decay) / (1 + decay)
    worth_variance = count * (1 - decay**2) / (1 + decay**2) * torch.where(own, 1.0, 2.0)
    z_mean = (mean - exact_mean).abs() / (law / worth_mean).sqrt()
    z_variance = (variance / law - 1) / (2 / worth_variance).sqrt()
    return z_mean, z_variance


def self_conjugate() -> torch.Tensor:
    own = torch.zeros(N, N, dtype=torch.bool)
    own[:: N // 2, :: N // 2] = True
    return own


@pytest.mark.parametrize("case", ["myula", "myula-envelope", "skrock"])
def test_samplers_have_their_discretised_law(case):
    problem, y, field, mean, spectrum = stationary_problem(N)
    options = {"chains": CHAINS, "seed": 11, "rank": 4}
    prior_precision = 1 / field.spectrum
    if case == "skrock":
        method = methods.Langevin(prior=field, kernel="skrock", samples=28, thin=25, burn_in=100, stages=5, **options)
    elif case == "myula":
        method = methods.Langevin(prior=field, kernel="myula", samples=36, thin=50, burn_in=400, **options)
    else:
        method = methods.Langevin(prior=Enveloped(field), kernel="myula", samples=36, thin=50, burn_in=400, **options)
    found, variance, count, state = run(method, y, problem)

    data_precision = 1 / spectrum - 1 / field.spectrum
    exact_mean = torch.fft.fft2(mean[0], norm="ortho")
    if case == "myula-envelope":
        smoothing = method.posterior(state, y, problem).diagnostics["smoothing"]
        prior_precision = prior_precision / (1 + smoothing * prior_precision)
        # The smoothed prior pulls less, so the mean of the smoothed law is another one.
        pull = data_precision / (data_precision + 1 / field.spectrum)
        shifted = data_precision / (data_precision + prior_precision)
        dc = torch.zeros(N, N, dtype=torch.complex128)
        dc[0, 0] = 0.3 * N
        exact_mean = dc + (exact_mean - dc) / pull * shifted
    precision = (data_precision + prior_precision).numpy()
    if case == "skrock":
        decay, law = skrock_law(precision, state.step_size, 5, method.damping)
    else:
        decay, law = euler_law(precision, state.step_size)

    z_mean, z_variance = scores(found, variance, count, exact_mean, decay, law)
    assert float(z_mean.max()) < 4
    assert float(z_variance.abs().max()) < 4.5  # 256 modes: exceeded once in 600 right samplers
    assert abs(float((variance.sum() / law.sum()) - 1)) < 0.02

    for name, wrong in wrong_laws(torch.from_numpy(law)).items():
        _, rejected = scores(found, variance, count, exact_mean, decay, wrong)
        assert float(rejected.abs().max()) > 10, name
    # The bias of the discretisation is seen: the stiffest modes do not have the target's variance.
    target = torch.from_numpy(1 / precision)
    _, biased = scores(found, variance, count, exact_mean, decay, target)
    assert float(biased.abs().max()) > 10


@pytest.mark.parametrize(("kernel", "thin"), [("myula", 4), ("skrock", 1)])
def test_the_streamed_posterior_is_that_of_the_target(kernel, thin):
    problem, y, field, mean, spectrum = stationary_problem(N)
    method = methods.Langevin(prior=field, kernel=kernel, samples=800, burn_in=200, chains=16, thin=thin, seed=1)
    posterior = method(y, problem)
    std = float(spectrum.mean().sqrt())
    assert posterior.status.converged, posterior.status
    assert float((posterior.mean - mean).square().mean().sqrt()) < 0.1 * std
    ratio = float(posterior.std.mean()) / std
    assert abs(ratio - 1) < 0.06
    assert not abs(ratio * math.sqrt(0.5) - 1) < 0.06 and not abs(ratio * math.sqrt(2) - 1) < 0.06
