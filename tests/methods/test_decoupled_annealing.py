"""Decoupled annealing: its draws against their own law on given levels, and that law against the posterior."""

import math

import pytest
import torch

import obverse as ob
from obverse.errors import InputError, NumericsError
from obverse.methods import DecoupledAnnealing, Schedule
from tests.methods.blurred_field import FIELD, NOISE, SHAPE, Broken, blurred, information, measured, modes


def problem(noise=NOISE):
    return blurred(6.0, noise)


def data_precision(noise=NOISE):
    return information(problem().operator, noise)


def walk_law(levels, ode_steps=1, noise=NOISE, spread=1.0):
    """Variance of a draw, and its share of the data's own image, mode by mode; the start is forgotten."""
    precision, modes = data_precision(noise), FIELD.spectrum
    share, variance = torch.zeros_like(modes), torch.full_like(modes, levels[0] ** 2)
    for level, to in zip(levels, (*levels[1:], 0.0), strict=True):
        flow = Schedule(level, level / 50, ode_steps, math.inf).levels() if ode_steps > 1 else (level,)
        gain = torch.ones_like(modes)
        for now, after in zip(flow, (*flow[1:], 0.0), strict=True):
            gain = gain * (modes / (modes + now**2) * (1 - after / now) + after / now)
        pull = (spread * level) ** -2
        total = precision + pull
        share = (precision + gain * share * pull) / total
        variance = (gain * pull / total).square() * variance + 1 / total + to**2
    return variance, share


def drawn(method, noise=NOISE):
    """Draws in Fourier modes, less the mean of their own law, and the posterior."""
    p = problem()
    y = measured(p)
    posterior = method(y, p)
    image = modes(p.operator.adjoint(y)) / NOISE**2 / data_precision()  # type: ignore[attr-defined]
    centre = modes(torch.full(SHAPE, 0.4, dtype=torch.float64))
    _, share = walk_law(method.schedule.levels(), method.ode_steps, noise, method.spread)
    assert posterior.draws is not None
    return modes(posterior.draws) - centre - share * (image - centre), posterior


def score(away, law):
    """Mean of |mode|²/law in standard errors from one; half of the modes are mirror images of the others."""
    return float(((away.abs().square() / law).mean() - 1) / math.sqrt(2 / away.numel()))


@pytest.mark.parametrize(("ode_steps", "spread"), [(1, 1.0), (4, 1.0), (1, 0.5)])
def test_draws_have_the_law_of_the_walk(ode_steps, spread):
    schedule = Schedule(20.0, 0.01, 25)
    options = {"schedule": schedule, "ode_steps": ode_steps, "spread": spread, "samples": 400}
    away, posterior = drawn(DecoupledAnnealing(FIELD, **options))
    law, _ = walk_law(schedule.levels(), ode_steps, spread=spread)
    assert abs(score(away, law)) < 4
    for wrong in (law / 2, walk_law(schedule.levels(), ode_steps, 0.8 * NOISE, spread)[0]):
        assert abs(score(away, wrong)) > 20
    assert abs(score(away, walk_law(schedule.levels(), 5 - ode_steps, spread=spread)[0])) > 5, "another estimate"
    assert posterior.diagnostics["ess"] == 400 and posterior.diagnostics["rhat"] < 1.05
    assert posterior.diagnostics["evaluations"] == 400 * 25 * ode_steps
    torch.testing.assert_close(posterior.std, posterior.draws.std(0))  # type: ignore[union-attr]


def test_the_law_tends_to_the_posterior_with_the_levels_but_not_by_the_probability_flow():
    exact = 1 / (data_precision() + 1 / FIELD.spectrum)
    ratio = {
        (steps, ode): float((walk_law(Schedule(20.0, 1e-3, steps).levels(), ode)[0] / exact).sqrt().max())
        for steps in (20, 100, 400)
        for ode in (1, 5)
    }
    assert 1.05 < ratio[20, 1] < 1.4 and 1.005 < ratio[100, 1] < 1.06 and ratio[400, 1] < 1.01
    assert min(ratio[steps, 5] for steps in (20, 100, 400)) > 1.12


def test_draws_do_not_depend_on_the_batch_and_go_on_where_they_stopped():
    p = problem()
    y = measured(p)
    options = {"schedule": Schedule(20.0, 0.01, 6), "samples": 5, "rank": 2}
    whole = DecoupledAnnealing(FIELD, **options)(y, p)
    method, state = DecoupledAnnealing(FIELD, batch=2, **options), None
    for first, step in ((0, 3), (0, 6), (2, 1), (4, 6)):
        state = next(s for s in method.states(y, p, state) if (s.first, s.step) == (first, step))
    assert state is not None and list(method.states(y, p, state)) == []
    pieces = method.posterior(state, y, p)
    torch.testing.assert_close(pieces.draws, whole.draws)
    torch.testing.assert_close(pieces.std, whole.std)
    assert pieces.diagnostics["chi2"] == pytest.approx(whole.diagnostics["chi2"])
    begun = next(s for s in method.states(y, p) if s.step == 3)
    with pytest.raises(InputError, match="at least 2 finished"):
        method.posterior(begun, y, p)
    seen = []
    method(y, p, callback=lambda *told: seen.append(told))
    assert [told[:2] for told in seen] == [(k, 18) for k in range(1, 19)] and seen[-1][2] == 0.01


def test_counting_noise():
    p = ob.Problem(problem().operator, ob.noise.PoissonGaussian(1.0, 1.0))
    prior = ob.priors.GaussianField.power_law(SHAPE, 1.0, 40.0**2, mean=200.0)
    y = p.simulate(prior.sample(1, seed=1)[0].clamp_min(10), seed=2)
    posterior = DecoupledAnnealing(prior, schedule=Schedule(1e3, 0.2, 80), samples=200)(y, p)
    gaussian = ob.methods.Gaussian(prior)(y, p)
    assert posterior.status.converged
    assert float(((posterior.mean - gaussian.mean) / gaussian.std).abs().max()) < 0.5
    assert abs(float((posterior.std / gaussian.std).mean()) - 1) < 0.1


def test_what_does_not_explain_the_data_is_said():
    class Stubborn:
        sigma_range = (0.01, 5.0)

        def denoise(self, x, sigma):
            return torch.zeros_like(x) + 100.0

    p = problem()
    y = measured(p)
    posterior = DecoupledAnnealing(Stubborn(), schedule=Schedule(50.0, 0.001, 4), samples=3)(y, p)
    assert not posterior.status.converged and posterior.status.reason == "misfit"
    assert posterior.diagnostics["levels"][0] == 5.0


def test_it_refuses_what_it_cannot_do():
    with pytest.raises(InputError, match="spread above 0"):
        DecoupledAnnealing(FIELD, spread=1.5)
    for options in ({"samples": 1}, {"ode_steps": 0}, {"batch": 0}, {"rank": -1}):
        with pytest.raises(InputError, match="of at least"):
            DecoupledAnnealing(FIELD, **options)
    with pytest.raises((InputError, TypeError), match="denoise|Denoises"):
        DecoupledAnnealing(ob.priors.TotalVariation())  # type: ignore[arg-type]
    with pytest.raises(NumericsError, match="level 1 of"):
        DecoupledAnnealing(Broken(), samples=2)(torch.zeros(SHAPE, dtype=torch.float64), problem())
