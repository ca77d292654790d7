"""Draws given a noisy image, against the posterior and against the exact law of the walk itself."""

import math

import pytest
import torch

import obverse as ob
from obverse.errors import InputError
from obverse.methods import Schedule
from obverse.methods.reverse_diffusion import reverse_diffusion
from obverse.noise.base import stream

SHAPE, RHO = (1, 6, 6), 0.3
FIELD = ob.priors.GaussianField.power_law(SHAPE, 2.5, variance=0.3, mean=0.5)
SCHEDULE = Schedule(1.0, 0.006, 20)


def law(modes, rho, levels):
    """What a draw's mode is of its noise and of the data's, step by step: the pair (a, b) with n = a n₀ + b z."""
    tau = [math.sqrt(max(level**-2 - rho**-2, 0.0)) for level in levels]
    v = [math.asinh(rho * t) for t in tau]
    a, b, slopes = torch.ones_like(modes), torch.zeros_like(modes), []
    for k, level in enumerate(levels):
        gain = modes / (modes + level**2) * level**2
        slopes.append((gain * tau[k] * a, gain * (tau[k] * b + rho**-2)))
        if k + 1 == len(levels):
            return slopes[-1]
        # ∫ (v − v_k) dτ with dτ = cosh v dv/ρ, by the trapezoidal rule on a fine grid
        fine = torch.linspace(v[k], v[k + 1], 2001, dtype=torch.float64)
        bend = float(torch.trapezoid((fine - v[k]) * fine.cosh() / rho, fine)) if k else 0.0
        old, now = -bend / (v[k] - v[k - 1]) if k else 0.0, tau[k + 1] - tau[k]
        a = a + now * slopes[k][0] + old * (slopes[k - 1][0] - slopes[k][0])
        b = b + now * slopes[k][1] + old * (slopes[k - 1][1] - slopes[k][1])


def drawn(n, rho=RHO, told=RHO, schedule=SCHEDULE):
    """Fourier modes of draws given one noisy image, less the field's mean."""
    x = FIELD.sample(1, seed=5)[0].double()
    z = x + RHO * torch.randn(SHAPE, generator=stream(1, 0), dtype=torch.float64)
    draws = reverse_diffusion(FIELD, z.expand(n, *SHAPE), told, [stream(2, i) for i in range(n)], schedule)
    return *(torch.fft.fftn(t - 0.5, dim=(-2, -1), norm="ortho") for t in (draws, z)), z


def score(draws, mean, variance):
    """χ² of the means and of the variances of real and imaginary parts, each per degree of freedom."""
    n = len(draws)
    spread = (draws - mean).abs().square().mean(0)
    of_means = ((draws.mean(0) - mean).abs().square() * n / variance).mean()
    real = torch.zeros(SHAPE, dtype=torch.bool)
    real[..., ::3, ::3] = True  # real modes: χ² with one degree of freedom each draw, complex ones with two
    freedom = torch.where(real, 2.0, 1.0)
    of_variances = ((spread / variance - 1).square() * n / freedom).mean()
    return float(of_means), float(of_variances)


@pytest.mark.parametrize("steps", [6, 20])
def test_draws_follow_the_exact_law_of_the_walk(steps):
    schedule = Schedule(1.0, 0.006, steps)
    draws, z, _ = drawn(4000, schedule=schedule)
    noise, data = law(FIELD.spectrum, RHO, schedule.below(RHO))
    of_means, of_variances = score(draws, data * z, noise.square())
    assert of_means < 1.6 and of_variances < 1.6


def test_that_law_is_near_the_posterior():
    truth = FIELD.spectrum * RHO**2 / (FIELD.spectrum + RHO**2)
    spread = {n: law(FIELD.spectrum, RHO, Schedule(1.0, 0.006, n).below(RHO)) for n in (10, 20, 80)}
    worst = {n: float((noise.square() / truth).sqrt().sub(1).abs().max()) for n, (noise, _) in spread.items()}
    assert worst[20] < 0.03 and worst[80] < 0.005 and worst[80] < worst[20] < worst[10]
    shrink = FIELD.spectrum / (FIELD.spectrum + RHO**2)
    assert float((spread[20][1] / shrink - 1).abs().max()) < 0.02


@pytest.mark.parametrize("told", [0.8 * RHO, 1.2 * RHO])
def test_a_wrong_level_is_noticed(told):
    draws, z, _ = drawn(4000, told=told)
    noise, data = law(FIELD.spectrum, RHO, SCHEDULE.below(RHO))
    of_means, of_variances = score(draws, data * z, noise.square())
    assert of_means > 3 and of_variances > 3


def test_modes_of_a_mixture_come_with_their_weights():
    means = torch.tensor([[-1.0, -0.5], [1.0, 0.5]], dtype=torch.float64).reshape(2, 1, 1, 2)
    covariances = torch.tensor([[[0.1, 0.05], [0.05, 0.2]], [[0.3, 0.0], [0.0, 0.05]]], dtype=torch.float64)
    prior = ob.priors.GaussianMixture(torch.tensor([0.5, 0.5]), means, covariances)
    z = torch.tensor([0.0, 0.1], dtype=torch.float64).reshape(1, 1, 2)
    problem = ob.Problem(ob.operators.Identity((1, 1, 2), dtype=torch.float64), ob.noise.Gaussian(1.0))
    truth = prior.posterior(z, problem)
    assert 0.4 < float(truth.weights.max()) < 0.7
    schedule, generators = Schedule(1.0, 0.01, 40), [stream(3, i) for i in range(4000)]
    draws = reverse_diffusion(prior, z.expand(4000, 1, 1, 2), 1.0, generators, schedule)
    along = torch.tensor([1.0, 0.5], dtype=torch.float64)
    share = float((draws.flatten(1) @ along > 0.3).double().mean())
    apart = (truth.means.flatten(1) @ along - 0.3) / (truth.covariances @ along @ along).sqrt()
    exact = float(truth.weights @ torch.special.ndtr(apart))
    assert abs(share - exact) < 0.04
    found = torch.cov(draws.flatten(1).mT)
    assert float((found - truth.covariance).norm() / truth.covariance.norm()) < 0.08


def test_a_draw_does_not_depend_on_its_batch_and_the_denoiser_is_asked_once_a_level():
    class Counting:
        asked: list[float] = []

        def denoise(self, x, sigma):
            self.asked.append(sigma)
            return FIELD.denoise(x, sigma)

    z = FIELD.sample(4, seed=1).float()
    together = reverse_diffusion(Counting(), z, RHO, [stream(7, i) for i in range(4)], SCHEDULE)
    assert len(Counting.asked) == 20 and Counting.asked[0] == RHO and Counting.asked[-1] == 0.006
    alone = reverse_diffusion(Counting(), z[2:3], RHO, [stream(7, 2)], SCHEDULE)
    torch.testing.assert_close(together[2:3], alone)
    assert together.dtype == torch.float32


def test_bad_arguments_are_refused():
    z = FIELD.sample(2)
    with pytest.raises(InputError, match="positive rho"):
        reverse_diffusion(FIELD, z, 0.0, [stream(0, 0)] * 2)
    with pytest.raises(InputError, match="2 generators"):
        reverse_diffusion(FIELD, z, 0.1, [stream(0, 0)])
