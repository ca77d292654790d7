"""Chains and variational inference in latent variables, against decoders whose posterior is known.

A linear decoder x = W z + μ + e makes everything Gaussian: z, x, and the data. A decoder with a square in it leaves a
sign open, and the weights of the two modes are integrals of one variable.
"""

import math

import pytest
import torch
from torch import nn

from obverse import methods, networks, noise, operators
from obverse.errors import InputError
from obverse.methods.latent_likelihood import LatentLikelihood
from obverse.problem import Problem

SHAPE, LATENT, N = (1, 6, 6), 4, 36
SIGMA = 0.3


class Linear(nn.Module):
    """x = W z + μ, with white noise of variance v; the columns of W are far from orthogonal."""

    image_shape, latent = SHAPE, LATENT

    def __init__(self, variance=0.02):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        common = torch.randn(N, 1, generator=generator, dtype=torch.float64)
        own = torch.randn(N, LATENT, generator=generator, dtype=torch.float64)
        self.W = nn.Parameter(0.15 * (own + common), requires_grad=False)
        self.mu = nn.Parameter(torch.full(SHAPE, 0.4, dtype=torch.float64), requires_grad=False)
        self.v = variance

    def decode(self, z):
        mean = self.mu + (z @ self.W.mT).reshape(-1, *SHAPE)
        return mean, torch.full_like(mean, self.v)


class Uneven(Linear):
    """The same with a variance that differs from pixel to pixel."""

    def decode(self, z):
        mean = super().decode(z)[0]
        return mean, torch.linspace(0.01, 0.05, N, dtype=z.dtype).reshape(SHAPE).expand_as(mean)


def mask():
    kept = torch.rand(SHAPE, generator=torch.Generator().manual_seed(1)) > 0.5
    return operators.Mask(kept.double())


def blur():
    return operators.Convolution(torch.tensor([[1.0, 2.0, 1.0]], dtype=torch.float64) / 4, SHAPE)


def case(vae, operator, sigma=SIGMA):
    problem = Problem(operator, noise.Gaussian(sigma))
    z = torch.randn(1, LATENT, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    mean, variance = vae.decode(z)
    white = torch.randn(SHAPE, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    return problem, problem.simulate(mean[0] + variance[0].sqrt() * white, seed=7)


def exact(vae, problem, y, sigma=SIGMA):
    """Mean and covariance of z and of x given y, by dense linear algebra."""
    A = problem.operator(torch.eye(N, dtype=torch.float64).reshape(-1, *SHAPE)).reshape(N, -1).mT
    zero = torch.zeros(1, LATENT, dtype=torch.float64)
    base, V = (part.flatten() for part in vae.decode(zero))
    prior = vae.W @ vae.W.mT + torch.diag(V)
    S = A @ prior @ A.mT + sigma**2 * torch.eye(len(A), dtype=torch.float64)
    residual = y.flatten() - A @ base
    gain = prior @ A.mT @ torch.linalg.inv(S)
    noise_of_z = A @ torch.diag(V) @ A.mT + sigma**2 * torch.eye(len(A), dtype=torch.float64)
    seen = A @ vae.W
    precision = torch.eye(LATENT, dtype=torch.float64) + seen.mT @ torch.linalg.solve(noise_of_z, seen)
    z = torch.linalg.solve(precision, seen.mT @ torch.linalg.solve(noise_of_z, residual))
    return z, precision, base + gain @ residual, prior - gain @ A @ prior


def chains(vae, **options):
    settings = {"samples": 150, "burn_in": 300, "chains": 24, "thin": 5, "rungs": 2, "rank": 8, **options}
    return methods.LatentSampling(vae, **settings)


def departure(posterior, mean, covariance, draws):
    """Mean, variances and leading variance, each as the largest distance from a law in its Monte-Carlo error."""
    found, std = posterior.covariance.dense(), covariance.diagonal().sqrt()
    values, vectors = torch.linalg.eigh(covariance)
    top, direction = values[-1], vectors[:, -1]
    along = direction @ found @ direction
    return max(
        float(((posterior.mean.flatten() - mean) / std).abs().max()) * math.sqrt(draws),
        float((found.diagonal() / covariance.diagonal() - 1).abs().max()) * math.sqrt(draws / 2),
        float((along / top - 1).abs()) * math.sqrt(draws / 2),
    )


@pytest.mark.parametrize(
    "vae, operator, kind", [(Uneven(), mask(), "pixels"), (Linear(), mask(), "pixels"), (Linear(), blur(), "ridge")]
)
def test_potential_and_conditional_image_are_those_of_the_linear_model(vae, operator, kind):
    problem, y = case(vae, operator)
    likelihood = LatentLikelihood(y, problem, vae, 0.0, 1.0, "test")
    assert likelihood.words == kind
    z, precision, mean, covariance = exact(vae, problem, y)
    points = torch.randn(5, LATENT, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    away = points - z
    quadratic = 0.5 * ((away @ precision * away).sum(1) - points.square().sum(1))
    potential = likelihood.potential(points)
    torch.testing.assert_close(potential - potential[0], quadratic - quadratic[0])
    # E over the exact law of z: the means of x given z make the mean of x, the variances what is left.
    draws = 4000
    white = torch.randn(draws, LATENT, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    z_draws = z + white @ torch.linalg.cholesky(torch.linalg.inv(precision)).mT
    noises = torch.randn(draws, 2, N, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    means, variances, images = likelihood.images(z_draws, noises)
    total = torch.cov(means.flatten(1).mT) + torch.diag(variances.mean(0).flatten())
    scale = covariance.diagonal().mean()
    assert float((means.mean(0).flatten() - mean).abs().max()) < 5 * math.sqrt(scale / draws)
    for found in (total, torch.cov(images.flatten(1).mT)):
        assert float((found - covariance).abs().max()) < 6 * scale / math.sqrt(draws)
        assert float((0.5 * found - covariance).abs().max()) > 12 * scale / math.sqrt(draws)


@pytest.mark.parametrize("vae, operator", [(Uneven(), mask()), (Linear(), blur())], ids=["pixels", "ridge"])
def test_chains_sample_the_exact_posterior_and_would_not_pass_for_another(vae, operator):
    problem, y = case(vae, operator)
    posterior = chains(vae)(y, problem)
    assert posterior.diagnostics["rhat"] < 1.02 and posterior.diagnostics["ess"] > 400, posterior.status.message
    draws = posterior.diagnostics["ess"]
    _, _, mean, covariance = exact(vae, problem, y)
    assert departure(posterior, mean, covariance, draws) < 5
    assert departure(posterior, mean, 2 * covariance, draws) > 8
    assert departure(posterior, mean, 0.5 * covariance, draws) > 8
    for wrong in (0.8, 1.25):
        *_, other, spread = exact(vae, problem, y, wrong * SIGMA)
        assert departure(posterior, other, spread, draws) > 5
    assert 0.15 < posterior.diagnostics["acceptance"] < 0.4


def test_independent_variables_understate_variance_by_the_known_amount():
    """For a quadratic Φ the best q has the exact mean, and variances 1/P_ii instead of (P⁻¹)_ii."""
    vae = Linear()
    problem, y = case(vae, mask())
    posterior = methods.VariationalLatent(vae, iterations=600, samples=4000)(y, problem)
    assert posterior.status.converged and posterior.target == "posterior"
    z, precision, mean, covariance = exact(vae, problem, y)
    fitted = torch.tensor(posterior.diagnostics["latent_std"], dtype=torch.float64).square()
    expected, true = 1 / precision.diagonal(), torch.linalg.inv(precision).diagonal()
    assert float((fitted / expected - 1).abs().max()) < 0.06
    assert float((fitted / true).min()) < 0.7, "the case couples the variables too little to tell"
    left = exact(vae, problem, y)[3] - _image_part(vae, problem, torch.linalg.inv(precision))
    stated = _image_part(vae, problem, torch.diag(expected)) + left
    assert float((posterior.covariance.diagonal().flatten() / stated.diagonal() - 1).abs().max()) < 0.1
    assert float((posterior.mean.flatten() - mean).abs().max()) < 5 * math.sqrt(float(stated.diagonal().max()) / 4000)


def _image_part(vae, problem, covariance):
    """Covariance of E[x | z, y] for a covariance of z."""
    A = problem.operator(torch.ones(SHAPE, dtype=torch.float64)).flatten()
    keep = 1 - vae.v * A.square() / (vae.v * A.square() + SIGMA**2)
    M = keep[:, None] * vae.W
    return M @ covariance @ M.mT


def test_another_weight_is_called_tempered_and_scales_the_spread():
    vae = Linear()
    problem, y = case(vae, mask())
    precision = exact(vae, problem, y)[1]
    identity = torch.eye(LATENT, dtype=torch.float64)
    posterior = methods.VariationalLatent(vae, iterations=600, weight=3.0)(y, problem)
    assert posterior.target == "tempered"
    expected = 3 / (precision - identity + 3 * identity).diagonal()
    fitted = torch.tensor(posterior.diagnostics["latent_std"], dtype=torch.float64).square()
    assert float((fitted / expected - 1).abs().max()) < 0.06


class TwoSigns(nn.Module):
    """First pixel (z + 0.15)², second tanh(2z): the first alone does not tell the sign of the second."""

    image_shape, latent = (1, 1, 2), 1

    def __init__(self):
        super().__init__()
        self.register_parameter("unit", nn.Parameter(torch.ones((), dtype=torch.float64), requires_grad=False))

    def decode(self, z):
        mean = torch.stack([(z + 0.15).square(), torch.tanh(2 * z)], -1)[:, None]
        return mean, torch.full_like(mean, 1e-4)


def test_hot_rungs_give_both_modes_their_weights_and_cold_chains_do_not():
    vae, sigma = TwoSigns(), 0.03
    operator = operators.Mask(torch.tensor([[[1.0, 0.0]]], dtype=torch.float64))
    problem = Problem(operator, noise.Gaussian(sigma))
    y = torch.tensor([[[1.2, 0.0]]], dtype=torch.float64)
    grid = torch.linspace(-6, 6, 200001, dtype=torch.float64)
    density = torch.exp(-0.5 * grid.square() - 0.5 * ((grid + 0.15).square() - 1.2).square() / (sigma**2 + 1e-4))
    positive = float(density[grid > 0].sum() / density.sum())
    assert 0.55 < positive < 0.75
    kept = {"samples": 250, "burn_in": 700, "thin": 6, "chains": 16, "keep_samples": True, "rank": 2}
    tempered = methods.LatentSampling(vae, rungs=5, **kept)(y, problem)
    assert tempered.diagnostics["rhat"] < 1.03, tempered.status.message
    share = float((tempered.draws[:, 0, 0, 1] > 0).double().mean())
    assert abs(share - positive) < 5 * math.sqrt(0.25 / tempered.diagnostics["ess"]) < 0.2
    cold = methods.LatentSampling(vae, rungs=1, **kept)(y, problem)
    assert not cold.status.converged and cold.diagnostics["rhat"] > 1.2 and "more rungs" in cold.status.message


def test_chains_go_on_and_do_not_depend_on_their_number():
    vae = Linear()
    problem, y = case(vae, mask())
    method = chains(vae, samples=20, burn_in=30, chains=3, keep_samples=True)
    whole = method(y, problem)
    state = next(s for s in method.states(y, problem) if s.step == 47)
    *_, last = method.states(y, problem, state)
    resumed = method.posterior(last, y, problem)
    assert torch.equal(whole.mean, resumed.mean) and torch.equal(whole.std, resumed.std)
    assert torch.equal(whole.draws, resumed.draws)
    assert whole.diagnostics["evaluations"] == resumed.diagnostics["evaluations"]
    more = chains(vae, samples=20, burn_in=30, chains=4, keep_samples=True)(y, problem)
    torch.testing.assert_close(*(run.draws.reshape(20, count, -1)[:, :3] for run, count in ((whole, 3), (more, 4))))


def test_units_and_counting_noise():
    vae = Linear()
    problem, y = case(vae, mask())
    counts = Problem(problem.operator, noise.Gaussian(100 * SIGMA))
    plain = methods.VariationalLatent(vae, iterations=60)(y, problem)
    # x = 50 + 100 u, and the mask hides the offset where it hides the image
    scaled = methods.VariationalLatent(vae, iterations=60).scaled(50.0, 150.0)(
        100 * y + 50 * problem.operator(torch.ones_like(y)), counts
    )
    torch.testing.assert_close(scaled.mean, 50 + 100 * plain.mean)
    torch.testing.assert_close(scaled.std, 100 * plain.std, rtol=1e-5, atol=0)
    law = Problem(operators.Identity(SHAPE), noise.PoissonGaussian(0.01, 0.05))
    seen = law.simulate(vae.decode(torch.zeros(1, LATENT, dtype=torch.float64))[0][0], seed=0)
    left_out = methods.VariationalLatent(vae, iterations=60)(seen, law)
    assert left_out.diagnostics["likelihood"] == "decoder"
    assert float(left_out.std.min()) > math.sqrt(vae.v), "the decoder's own variance is in it"


def test_weights_and_wrong_input(tmp_path):
    vae = networks.VAE((1, 8, 8), latent=2, widths=(4, 8))
    description = {"kind": "VAE", "image_shape": [1, 8, 8], "latent": 2, "widths": [4, 8]}
    networks.save(tmp_path / "vae.safetensors", vae, {"network": description})
    assert methods.LatentSampling.load(tmp_path / "vae.safetensors").vae.latent == 2
    assert methods.VariationalLatent.load(tmp_path / "vae.safetensors").card["network"] == description
    other = {"kind": "DnCNN", "inputs": 1, "outputs": 1, "depth": 2, "width": 2}
    networks.save(tmp_path / "other.safetensors", networks.build(other), {"network": other})
    with pytest.raises(InputError, match="weights of a VAE"):
        methods.LatentSampling.load(tmp_path / "other.safetensors")
    problem = Problem(operators.Identity((1, 4, 4)), noise.Gaussian(0.1))
    for method in (methods.LatentSampling(vae), methods.VariationalLatent(vae)):
        with pytest.raises(InputError, match="decoder's images"):
            method(torch.zeros(1, 4, 4), problem)
    with pytest.raises(InputError, match="one rung"):
        methods.LatentSampling(vae, rungs=0)
    with pytest.raises(InputError, match="positive weight"):
        methods.VariationalLatent(vae, weight=0.0)


def test_progress():
    vae, seen = Linear(), []
    problem, y = case(vae, mask())
    methods.VariationalLatent(vae, iterations=20)(y, problem, callback=lambda *told: seen.append(told[:2]))
    chains(vae, samples=4, burn_in=2, thin=1)(y, problem, callback=lambda *told: seen.append(told[:2]))
    assert seen == [(i + 1, 20) for i in range(20)] + [(i + 1, 6) for i in range(6)]
