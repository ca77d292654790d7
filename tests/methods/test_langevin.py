"""Langevin: chains go on where they stopped, do not depend on their number, and say when they have not converged."""

import math

import pytest
import torch

from obverse import methods, noise, operators, priors
from obverse.errors import InputError, NumericsError
from obverse.methods.kernels import SKROCK, Euler, stationary_variance
from obverse.problem import Problem

N = 8


def problem(law=None):
    kernel = torch.tensor([[1.0, 2.0, 1.0]], dtype=torch.float64) / 4
    return Problem(operators.Convolution(kernel, (1, N, N)), noise.Gaussian(0.2) if law is None else law)


def data(p, level: float = 1.0):
    x = torch.zeros(1, N, N, dtype=torch.float64)
    x[..., 2:6, 2:6] = level
    return p.simulate(x + 0.2 * level, seed=0)


def short(**options):
    return methods.Langevin(
        **{"prior": priors.Tikhonov(), "samples": 20, "burn_in": 10, "chains": 3, "rank": 4, **options}
    )


@pytest.mark.parametrize("kernel", [Euler(), SKROCK(5), SKROCK(10), SKROCK(15, 0.2)])
def test_kernels_are_stable_up_to_their_limit(kernel):
    precision = torch.linspace(1e-3, 1.0, 2000, dtype=torch.float64)
    assert bool(stationary_variance(kernel, 0.999 * kernel.limit, precision).isfinite().all())
    assert not bool(stationary_variance(kernel, 1.3 * kernel.limit, precision).isfinite().all())


@pytest.mark.parametrize("kernel", [Euler(), SKROCK(10)])
def test_bias_vanishes_with_the_step(kernel):
    one = torch.ones((), dtype=torch.float64)
    bias = [abs(float(stationary_variance(kernel, step, one)) - 1) for step in (0.1, 0.01)]
    assert bias[1] < 0.2 * bias[0] and bias[0] > 1e-4


@pytest.mark.parametrize("kernel", ["myula", "skrock"])
def test_interrupted_chains_go_on_as_if_nothing_had_happened(kernel):
    p = problem(noise.PoissonGaussian(1.0, 2.0))
    y, method = data(p, 50.0), short(kernel=kernel, keep_samples=True)
    whole = method(y, p)
    state = next(method.states(y, p))
    for stop in (3, 11, 17, method.total):
        state = next(s for s in method.states(y, p, state) if s.step == stop)
    resumed = method.posterior(state, y, p)
    assert torch.equal(whole.mean, resumed.mean) and torch.equal(whole.std, resumed.std)
    assert torch.equal(whole.draws, resumed.draws)  # type: ignore[arg-type]


def test_a_chain_does_not_depend_on_how_many_there_are():
    p = problem()
    y = data(p)
    few, many = (short(chains=chains, step=1e-3, stages=3, keep_samples=True)(y, p) for chains in (2, 4))
    firsts = [run.draws.reshape(20, chains, -1)[:, :2] for run, chains in ((few, 2), (many, 4))]  # type: ignore
    torch.testing.assert_close(*firsts)
    other = short(chains=2, step=1e-3, stages=3, keep_samples=True, seed=1)(y, p)
    assert not torch.allclose(other.draws, few.draws)


def test_streamed_moments_are_those_of_the_kept_draws():
    p = problem()
    posterior = short(keep_samples=True, thin=2)(data(p), p)
    assert posterior.draws.shape == (60, 1, N, N)
    torch.testing.assert_close(posterior.mean, posterior.draws.mean(0))
    torch.testing.assert_close(posterior.std, posterior.draws.std(0))
    assert short()(data(p), p).draws is None


def test_it_converges_and_says_so_and_otherwise_says_what_to_do():
    p = problem()
    y = data(p)
    long = short(samples=400, burn_in=100, chains=4, thin=8)(y, p)
    assert long.status.converged and long.diagnostics["rhat"] <= 1.01 and long.diagnostics["ess"] >= 400
    few = short()(y, p).status
    assert not few.converged and "draw more samples" in few.message
    apart = methods.Langevin(prior=priors.Tikhonov(), kernel="myula", step=1e-6, samples=50, burn_in=0)(y, p)
    assert not apart.status.converged and apart.status.reason == "rhat" and "skrock" in apart.status.message


def test_non_smooth_priors_and_positivity():
    """Positive pixels under Gaussian noise: the mean is that of a truncated normal, up to the envelope's smoothing."""
    sigma, truth = 1.0, 0.3
    p = Problem(operators.Identity((1, 4, 4), dtype=torch.float64), noise.Gaussian(sigma))
    y = torch.full((1, 4, 4), truth, dtype=torch.float64)
    options = {"samples": 600, "burn_in": 200, "chains": 16, "kernel": "myula", "step": 2e-2, "thin": 4}
    posterior = methods.Langevin(prior=priors.Positivity(), smoothing=0.02, **options)(y, p)
    density = lambda t: math.exp(-0.5 * t * t) / math.sqrt(2 * math.pi)  # noqa: E731
    below = 0.5 * math.erfc(truth / math.sqrt(2))
    expected = truth + density(-truth) / (1 - below)
    free = methods.Langevin(prior=1e-6 * priors.Tikhonov(), **options)(y, p)
    assert abs(float(posterior.mean.mean()) - expected) < 0.1
    assert abs(float(free.mean.mean()) - expected) > 0.5


def test_total_variation_smooths_what_the_data_leave_open():
    p = problem()
    y = data(p)
    weak, strong = (
        short(prior=priors.TotalVariation() + priors.Positivity(), weight=w, samples=60, burn_in=40)(y, p)
        for w in (0.1, 30.0)
    )
    assert float(strong.mean.std()) < float(weak.mean.std())
    assert float(strong.std.mean()) < float(weak.std.mean())
    assert strong.diagnostics["smoothing"] > 0


@pytest.mark.parametrize("law", [noise.Poisson(1.0), noise.PoissonGaussian(1.0, 2.0)])
def test_counting_noise(law):
    p = problem(law)
    y = data(p, 100.0)
    prior = priors.GaussianField.power_law((1, N, N), 1.0, 40.0**2, mean=50.0)
    auto = methods.Langevin(prior=prior, samples=300, burn_in=100)(y, p)
    gaussian = methods.Gaussian(prior=prior)(y, p)
    assert "predicted mean" in auto.diagnostics["likelihood"]
    assert float(((auto.mean - gaussian.mean) / gaussian.std).abs().max()) < 0.6
    assert abs(float((auto.std / gaussian.std).mean()) - 1) < 0.15
    method = methods.Langevin(prior=prior, samples=300, burn_in=100, likelihood="exact")
    if not law.signed:
        with pytest.raises(InputError, match="bounded slope"):
            method(y, p)
        return
    exact = method(y, p)
    assert exact.diagnostics["likelihood"] == "exact"
    assert float(((exact.mean - gaussian.mean) / gaussian.std).abs().max()) < 0.8


def test_single_precision():
    p = problem()
    posterior = short(prior=priors.TotalVariation())(data(p).float(), p)
    assert posterior.mean.dtype == posterior.std.dtype == torch.float32


def test_a_diverging_chain_is_stopped(monkeypatch):
    p = problem()
    monkeypatch.setattr(SKROCK, "limit", property(lambda self: 1e9))
    with pytest.raises(NumericsError, match="smaller step"):
        short(step=1.0, stages=3, samples=400)(data(p), p)


def test_it_refuses_what_it_cannot_do():
    p = problem()
    y = data(p)
    with pytest.raises(InputError, match="stability limit"):
        short(step=10.0, stages=3)(y, p)
    with pytest.raises((InputError, TypeError), match="kernel"):  # the annotations are checked in the test run
        short(kernel="hmc")
    with pytest.raises(InputError, match="chains of at least 2"):
        short(chains=1)
    with pytest.raises(InputError, match="positive step"):
        short(step=-1.0)
    with pytest.raises(InputError, match="start of shape"):
        short(start=torch.zeros(1, 2, 2))(y, p)
    with pytest.raises(InputError, match="one measurement"):
        short()(y[None], p)


def test_progress_and_interrupts():
    p, seen = problem(), []
    short()(data(p), p, callback=lambda *told: seen.append(told))
    assert [told[0] for told in seen] == list(range(1, 31)) and {told[1] for told in seen} == {30}

    def stop(iteration, total, value):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        short()(data(p), p, callback=stop)
