"""Langevin chains with a denoiser's score: they sample the law of the prior smoothed, as their kernel makes it."""

import math

import pytest
import torch

import obverse as ob
from obverse.methods.kernels import SKROCK, Euler, stationary_variance
from obverse.methods.target import Target

SHAPE, NOISE, SIGMA = (1, 6, 6), 0.2, 0.15
FIELD = ob.priors.GaussianField.power_law(SHAPE, 2.0, 0.2, corner=0.2, mean=0.4)


def problem():
    kernel = torch.tensor([[1.0, 2.0, 1.0]], dtype=torch.float64) / 4
    return ob.Problem(ob.operators.Convolution(kernel, SHAPE), ob.noise.Gaussian(NOISE))


def precisions(sigma=SIGMA, noise=NOISE):
    """Of the posterior with the smoothed prior, by Fourier mode in full FFT order."""
    basis = torch.zeros(SHAPE, dtype=torch.float64)
    basis[0, 0, 0] = 1.0
    transfer = torch.fft.fft2(problem().operator(basis)).abs()
    return transfer.square() / noise**2 + 1 / (FIELD.spectrum + sigma**2)


def run(method, y, p):
    """Fourier modes of all draws, and the last state."""
    draws, state = [], None
    for state in method.states(y, p):
        if state.step > method.warm_up and (state.step - method.warm_up) % method.thin == 0:
            draws.append(torch.fft.fft2(state.x, norm="ortho"))
    assert state is not None
    return torch.cat(draws), state


def z_score(draws, mean, precision, kernel, step, thin, chosen, law=None):
    """Mean of |mode − mean|²/law over draws and modes, in standard errors from one; modes are autocorrelated."""
    law = stationary_variance(kernel, step, precision) if law is None else law
    one, zero = torch.ones_like(precision), torch.zeros_like(precision)
    decay = kernel(one, lambda x: precision * x, step, zero) ** (2 * thin)
    energy = ((draws - mean).abs().square() / law).mean(0)[chosen].mean()
    error = (2 / len(draws) * ((1 + decay) / (1 - decay))[chosen]).mean() / chosen.sum()
    return float((energy - 1) / error.sqrt())


@pytest.mark.parametrize("kernel", ["myula", "skrock"])
def test_it_samples_the_smoothed_prior_by_its_discretised_law(kernel):
    p = problem()
    y = p.simulate(FIELD.sample(1, seed=1)[0], seed=2)
    thin = 8 if kernel == "myula" else 3
    options = {"samples": 60, "burn_in": 100, "chains": 40, "rank": 2, "seed": 3, "thin": thin}
    prior = ob.priors.Score(FIELD, SIGMA)
    draws, state = run(ob.methods.Langevin(prior, kernel=kernel, **options), y, p)
    precision = precisions()
    exact = ob.methods.Gaussian(FIELD.smoothed(SIGMA))(y, p)
    mean = torch.fft.fft2(exact.mean, norm="ortho")
    everywhere, stiff = precision > 0, precision > 0.6 * precision.max()
    told = (kernel_ := state.kernel, state.step_size, thin)
    assert kernel_ == Euler() or isinstance(kernel_, SKROCK)
    assert abs(z_score(draws, mean, precision, *told, everywhere)) < 4
    assert abs(z_score(draws, mean, precision, *told, stiff)) < 4
    right = stationary_variance(kernel_, state.step_size, precision)
    wrong = {
        "halved": right / 2,
        "not smoothed": stationary_variance(kernel_, state.step_size, precisions(sigma=0.0)),
        "other noise": stationary_variance(kernel_, state.step_size, precisions(noise=1.2 * NOISE)),
    }
    for name, law in wrong.items():
        assert abs(z_score(draws, mean, precision, *told, everywhere, law)) > 6, name
    assert abs(z_score(draws, mean, precision, *told, stiff, 1 / precision)) > 6, "the bias of the step is not seen"


def test_the_lipschitz_constant_is_measured_and_steps_beyond_it_diverge():
    p = problem()
    y = p.simulate(FIELD.sample(1, seed=1)[0], seed=2)
    prior, precision = ob.priors.Score(FIELD, SIGMA), precisions()
    target = Target(y, p, prior, point=y)
    bound = float(precision.max())
    assert bound <= target.lipschitz <= 1.25 * bound  # norms of likelihood and prior are added
    kernel = SKROCK(6)
    noise = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def size(factor):
        x = y[None]
        for _ in range(600):
            x = kernel(x, target.gradient, factor * kernel.limit / bound, noise)
        return float(x.abs().max())

    assert size(0.95) < 1e3 and not size(1.3) < 1e3
    longest = kernel.limit / target.lipschitz
    with pytest.raises(ob.errors.InputError, match="stability limit"):
        ob.methods.Langevin(prior, step=1.3 * longest, stages=6, samples=4)(y, p)


def test_networks_without_an_energy_are_watched_by_the_likelihood_and_kept_by_a_box():
    class Shrink(torch.nn.Module):
        def __init__(self, slope):
            super().__init__()
            self.slope = slope

        def forward(self, x, sigma):
            return 0.5 + self.slope * (x - 0.5)

    denoiser = ob.priors.Denoiser(Shrink(0.8))
    p = ob.Problem(ob.operators.Identity(SHAPE), ob.noise.Gaussian(0.1))
    y = torch.full(SHAPE, 0.5)
    options = {"samples": 20, "burn_in": 20, "chains": 2, "rank": 2}
    posterior = ob.methods.Langevin(ob.priors.Score(denoiser, 0.1) + ob.priors.Box(0.0, 1.0), **options)(y, p)
    assert posterior.target == "posterior" and len(posterior.history) == 20
    half = math.prod(SHAPE) / 2  # of χ² of all pixels, in units of half
    assert 0.2 * half < posterior.history[-1] < 2 * half
    tempered = ob.methods.Langevin(ob.priors.Score(denoiser, 0.1), weight=0.5, **options)(y, p)
    assert tempered.target == "tempered"
    turning = ob.priors.Score(ob.priors.Denoiser(Shrink(-0.3)), 0.1)  # bends more than any exact denoiser's 1/σ²
    assert Target(y, p, turning, point=y).bend == pytest.approx(100 + 130, rel=0.05)


def test_it_goes_on_where_it_stopped():
    p = problem()
    y = p.simulate(FIELD.sample(1, seed=1)[0], seed=2)
    method = ob.methods.Langevin(
        ob.priors.Score(FIELD, SIGMA) + ob.priors.Box(-1.0, 2.0), samples=10, burn_in=8, chains=2, keep_samples=True
    )
    whole, state = method(y, p), None
    for stop in (2, 6, method.total):
        state = next(s for s in method.states(y, p, state) if s.step == stop)
    assert state is not None
    assert torch.equal(whole.draws, method.posterior(state, y, p).draws)  # type: ignore[arg-type]
