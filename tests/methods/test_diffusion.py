"""Guided diffusion against the exact law of each walk, and that law against the posterior."""

import math

import pytest
import torch

import obverse as ob
from obverse.errors import InputError, NumericsError
from obverse.methods import Diffusion, Schedule
from obverse.methods.diffusion import GUIDANCES, _narrow, _start_spread
from obverse.methods.guidance import MMPS, TMPD, PiGDM
from obverse.methods.guidance_walks import DDRM, DPS, DiffPIR
from obverse.methods.independent import completed

SHAPE, N, NOISE = (1, 6, 6), 36, 0.15
FIELD = ob.priors.GaussianField.power_law(SHAPE, 2.0, variance=0.3, mean=0.5)
SCHEDULE = Schedule(5.0, 0.01, 14, math.inf)
EYE = torch.eye(N, dtype=torch.float64)
LINEAR = {
    "mmps": MMPS(25, 1e-6),
    "tmpd": TMPD(),
    "pigdm": PiGDM(0.5),
    "diffpir": DiffPIR(2.0, 0.4),
    "ddrm": DDRM(),
}


def operator(name):
    if name == "inpaint":
        return ob.operators.Mask((torch.rand(SHAPE, generator=torch.Generator().manual_seed(0)) > 0.4).double())
    if name == "tomography":
        return ob.operators.Radon(SHAPE, torch.linspace(0, 3, 4).double(), dtype=torch.float64)
    kernel = torch.tensor([[0.05, 0.1, 0.05], [0.1, 0.4, 0.1], [0.05, 0.1, 0.05]], dtype=torch.float64)
    return ob.operators.Convolution(kernel, SHAPE)


def case(name, prior=FIELD, noise=NOISE):
    problem = ob.Problem(operator(name), ob.noise.Gaussian(noise))
    return problem.simulate(prior.sample(1, seed=3)[0].double(), seed=1), problem


def dense(function, shape=SHAPE):
    return function(EYE.reshape(N, *SHAPE)).reshape(N, -1).mT


def law(name, y, problem, path="flow", schedule=SCHEDULE, noise=NOISE, scale=1.0):
    """Mean and covariance of a draw, from matrices alone: no code of the sampler is used.

    `scale` multiplies the covariance of what the start's noise becomes: a wrong law, for controls.
    """
    A, y = dense(problem.operator), y.flatten()
    prior = dense(FIELD.covariance_matvec)
    mean = torch.full((N,), 0.5, dtype=torch.float64)
    grad = dense(ob.operators.Gradient(SHAPE, dtype=torch.float64))
    start = torch.linalg.inv(A.mT @ A / noise**2 + grad.mT @ grad / 0.05**2)
    levels = schedule.levels()
    m, C = start @ (A.mT @ y) / noise**2, scale * (start + levels[0] ** 2 * EYE)
    n, before = (EYE / levels[0], torch.zeros(N, dtype=torch.float64)), None  # flow: x = s (n[0] x₀ + n[1])
    for k, s in enumerate(levels):
        to = levels[k + 1] if k + 1 < len(levels) else 0.0
        J = prior @ torch.linalg.inv(prior + s**2 * EYE)
        K, c = guided(name, s, J, mean - J @ mean, A, y, noise)
        kept = {"ancestral": (to / s) ** 2, "diffpir": to / s * math.sqrt(1 - 0.4), "ddrm": 0.0}
        if name == "ddrm":
            T, t, white = blended(s, to, J, mean - J @ mean, A, y, noise)
            m, C = T @ m + t, T @ C @ T.mT + white
        elif name == "diffpir" or path == "ancestral":
            share = kept["diffpir" if name == "diffpir" else "ancestral"]
            fresh = 0.4 * to**2 if name == "diffpir" else to**2 * (1 - share)
            T = K + share * (EYE - K)
            m, C = T @ m + (1 - share) * c, T @ C @ T.mT + fresh * EYE
        else:
            slope = K @ n[0] * s, K @ n[1] * s + c
            if to == 0:
                return slope[0] @ m + slope[1], slope[0] @ C @ slope[0].mT
            ends = torch.linspace(math.log(1 / s), math.log(1 / to), 4001, dtype=torch.float64)
            bend = torch.trapezoid((ends - ends[0]) * ends.exp(), ends) / math.log(levels[k - 1] / s) if k else 0.0
            old = slope if before is None else before
            n = tuple(a + (1 / to - 1 / s) * b + bend * (b - o) for a, b, o in zip(n, slope, old))
            before = slope
    return m, C


def guided(name, s, J, offset, A, y, noise):
    """E[x | x_s, y] = K x_s + c of each guidance."""
    front = J.mT
    if name in ("mmps", "ddrm"):
        C = s**2 * J
    elif name == "tmpd":
        C = (s**2 * J.sum(1)).clamp_min(0).diag()
    elif name == "pigdm":
        C = s**2 * 0.25 / (s**2 + 0.25) * EYE
    else:
        C, front = s**2 / 2.0 * EYE, EYE / 2.0
    gain = s**2 * front @ A.mT @ torch.linalg.inv(noise**2 * torch.eye(len(A), dtype=A.dtype) + A @ C @ A.mT)
    return J - gain @ A @ J, offset + gain @ (y - A @ offset)


def blended(s, to, J, offset, A, y, noise):
    """One step of DDRM, in the SVD of A."""
    U, sizes, Vh = torch.linalg.svd(A)
    seen = sizes > 1e-8
    level = torch.where(seen, noise / sizes.clamp_min(1e-30), math.inf)
    data = torch.where(seen, (U.mT @ y) / sizes.clamp_min(1e-30), 0.0)
    if to == 0:
        return J, offset, torch.zeros_like(J)
    calm = math.sqrt(1 - 0.85**2)
    unseen, strong = ~seen, level <= to
    of_mean = torch.where(strong, 0.0, torch.where(unseen, 1 - calm * to / s, 1 - calm * to / level))
    of_x = torch.where(unseen, calm * to / s, 0.0).double()
    of_data = torch.where(strong, 1.0, torch.where(unseen, 0.0, calm * to / level))
    white = torch.where(strong, to**2 - level.clamp_max(to) ** 2, (0.85 * to) ** 2)
    T = Vh.mT @ (of_mean.diag() @ Vh @ J + of_x.diag() @ Vh)
    return T, Vh.mT @ (of_mean * (Vh @ offset) + of_data * data), Vh.mT @ white.diag() @ Vh


def misfits(draws, mean, covariance):
    """χ² per degree of freedom of the draws' mean, and of their whitened variances along 12 axes, wide and narrow."""
    values, axes = torch.linalg.eigh(covariance)
    pick = torch.linspace(0, N - 1, 12).long()
    pick = pick[values[pick] > 1e-6 * values[-1]]
    white = (draws - mean) @ axes[:, pick] / values[pick].sqrt()
    n = len(draws)
    return float((white.mean(0).square() * n).mean()), float(((white.square().mean(0) - 1).square() * n / 2).mean())


@pytest.mark.parametrize("name", list(LINEAR))
@pytest.mark.parametrize("which", ["deblur", "inpaint"])
def test_draws_follow_the_exact_law_of_the_walk(name, which):
    y, problem = case(which)
    posterior = Diffusion(FIELD, LINEAR[name], schedule=SCHEDULE, samples=300 if name == "mmps" else 800)(y, problem)
    draws = posterior.draws.flatten(1)
    of_mean, of_variance = misfits(draws, *law(name, y, problem))
    assert of_mean < 2.5 and of_variance < 2.5
    assert max(misfits(draws, *law(name, y, problem, noise=1.2 * NOISE))) > 2.5, "another noise would do as well"
    if name == "mmps":
        mean, covariance = law(name, y, problem)
        assert misfits(draws, mean, covariance / 2)[1] > 25 and misfits(draws, mean, covariance * 2)[1] > 25


def test_the_ancestral_walk_follows_its_law_too():
    y, problem = case("inpaint")
    method = Diffusion(FIELD, LINEAR["pigdm"], schedule=SCHEDULE, samples=800, path="ancestral")
    of_mean, of_variance = misfits(method(y, problem).draws.flatten(1), *law("pigdm", y, problem, "ancestral"))
    assert of_mean < 2.5 and of_variance < 2.5


@pytest.mark.parametrize("which", ["deblur", "inpaint", "tomography"])
def test_with_moment_matching_that_law_tends_to_the_posterior_and_with_others_it_does_not(which):
    y, problem = case(which)
    truth = ob.methods.Gaussian(FIELD)(y, problem)
    exact = truth.covariance.dense()

    def off(name, steps, path="flow"):
        mean, covariance = law(name, y, problem, path, Schedule(20.0, 0.01, steps, math.inf))
        shift = (mean - truth.mean.flatten()) / exact.diagonal().sqrt()
        return float((covariance - exact).norm() / exact.norm()), float(shift.square().mean().sqrt())

    coarse, fine = off("mmps", 20), off("mmps", 60)
    assert coarse[0] < 0.05 and fine[0] < 0.005 and fine[1] < 0.02
    assert off("mmps", 20, "ancestral")[0] > 0.2 and off("mmps", 300, "ancestral")[0] < 0.03
    for name in ("tmpd", "pigdm", "diffpir"):
        assert off(name, 60)[0] > 0.04 > 8 * fine[0]


def test_few_inner_iterations_reach_the_posterior_of_a_gaussian_prior():
    y, problem = case("inpaint")
    truth = ob.methods.Gaussian(FIELD)(y, problem)
    found = Diffusion(FIELD, schedule=Schedule(5.0, 0.01, 30, math.inf), samples=1500)(y, problem)
    of_mean, of_variance = misfits(found.draws.flatten(1), truth.mean.flatten(), truth.covariance.dense())
    assert of_mean < 6 and of_variance < 4 and found.target == "posterior" and found.status.converged
    torch.testing.assert_close(found.std, found.draws.std(0))
    assert found.diagnostics["ess"] == 1500 and found.diagnostics["rhat"] < 1.01
    assert found.diagnostics["chi2"] == pytest.approx(float(problem.chi2(truth.sample(1500), y).mean()), rel=0.05)


def test_modes_of_a_mixture_come_with_their_weights():
    axes = torch.linspace(0, 3, 6, dtype=torch.float64)
    shape = torch.sin(axes)[:, None] * torch.cos(axes)
    means = torch.stack([-0.4 * shape, 0.4 * shape])[:, None]
    prior = ob.priors.GaussianMixture(torch.ones(2), means, 0.02 * torch.stack([EYE, EYE]))
    problem = ob.Problem(operator("inpaint"), ob.noise.Gaussian(0.8))
    y = problem.operator(0.1 * means[1])
    truth = prior.posterior(y, problem)
    assert 0.4 < float(truth.weights.max()) < 0.7
    n, along = 600, shape.flatten() / shape.norm()
    found = Diffusion(prior, schedule=Schedule(10.0, 0.02, 40, math.inf), samples=n)(y, problem)
    share = float((found.draws.flatten(1) @ along > 0).double().mean())
    exact = float(
        truth.weights
        @ torch.special.ndtr(truth.means.flatten(1) @ along / truth.covariances[0].diagonal().mean().sqrt())
    )
    spread = float(along @ truth.covariance @ along)
    assert abs(share - exact) < 0.1
    assert float((found.draws.flatten(1) @ along).var()) == pytest.approx(spread, rel=0.15)
    within = float(along @ truth.covariances[0] @ along)
    assert within < 0.5 * spread, "one mode alone would pass"


class Counting:
    """A denoiser that counts the images it is given."""

    def __init__(self):
        self.calls, self.images = [], 0

    def denoise(self, x, sigma):
        self.calls.append(sigma)
        self.images += len(x)
        return FIELD.denoise(x, sigma)


@pytest.mark.parametrize("name", list(GUIDANCES))
def test_the_denoiser_is_asked_once_a_level_and_what_is_spent_is_told(name):
    y, problem = case("deblur")
    counted = Counting()
    found = Diffusion(counted, name, schedule=SCHEDULE, samples=4, batch=2)(y, problem)
    assert counted.calls == 2 * list(SCHEDULE.levels()) and counted.images == 4 * 14
    products = {"mmps": (1, 6), "tmpd": (2, 2), "pigdm": (1, 1), "dps": (1, 1)}.get(name, (0, 0))
    spent = found.diagnostics["evaluations"] / counted.images
    assert 1 + products[0] * 0.9 <= spent <= 1 + products[1]
    assert found.target == ("tempered" if name == "dps" else "posterior")
    assert ("approximation" in found.diagnostics) == (name != "mmps")


@pytest.mark.parametrize("name", ["mmps", "ddrm"])
def test_a_draw_does_not_depend_on_its_batch(name):
    y, problem = case("inpaint")
    one, other = (
        Diffusion(FIELD, name, schedule=SCHEDULE, samples=5, batch=b, path="ancestral")(y, problem) for b in (5, 2)
    )
    torch.testing.assert_close(one.draws, other.draws)
    assert not torch.allclose(one.draws, Diffusion(FIELD, name, schedule=SCHEDULE, samples=5, seed=1)(y, problem).draws)


@pytest.mark.parametrize("law_of_noise", [ob.noise.Poisson(0.02), ob.noise.PoissonGaussian(0.02, 0.05)])
@pytest.mark.parametrize("name", ["mmps", "tmpd", "pigdm", "diffpir"])
def test_counts_enter_by_their_curvature(law_of_noise, name):
    problem = ob.Problem(ob.operators.Identity(SHAPE, dtype=torch.float64), law_of_noise)
    prior = ob.priors.GaussianField(0.2 * FIELD.spectrum, SHAPE, 1.0)
    y = problem.simulate(prior.sample(1, seed=3)[0].double().clamp_min(0), seed=2)
    found = Diffusion(prior, name, samples=60)(y, problem)
    expected = ob.methods.Gaussian(prior)(y, problem)
    assert float(((found.mean - expected.mean) / expected.std).abs().mean()) < 0.6
    if name == "mmps":
        assert float((found.std / expected.std).mean()) == pytest.approx(1.0, abs=0.15)


def test_an_asymmetric_jacobian_with_negative_eigenvalues_does_not_blow_up():
    generator = torch.Generator().manual_seed(0)
    skew = 0.3 * torch.randn(N, N, generator=generator, dtype=torch.float64) / N**0.5

    class Rough:
        def denoise(self, x, sigma):
            fine = FIELD.denoise(x, sigma)
            return fine + ((x - fine).flatten(1) @ skew).reshape(x.shape)

    y, problem = case("inpaint", noise=0.01)
    found = Diffusion(Rough(), samples=20, schedule=Schedule(2.0, 0.01, 20, math.inf))(y, problem)
    assert float(found.draws.abs().max()) < 5 and found.diagnostics["chi2"] < 20


def test_a_start_that_is_too_narrow_is_told():
    covariance = ob.posterior.StationaryCovariance(5 * torch.ones(6, 6, dtype=torch.float64), SHAPE)
    starts = 2 * torch.randn(4000, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    spread = _start_spread(starts, covariance, 1.0)
    assert spread == pytest.approx(4 / (5 + 1), rel=0.1)
    status = completed(8, 14, 1.0, narrow=_narrow(spread))
    assert not status.converged and status.reason == "start" and "higher level" in status.message
    assert completed(8, 14, 1.0, narrow=_narrow(1.0)).converged


def test_draws_that_do_not_explain_the_data_are_told():
    y, problem = case("deblur", noise=0.01)
    found = Diffusion(FIELD, DPS(0.01), samples=4, schedule=SCHEDULE)(y, problem)
    assert not found.status.converged and found.status.reason == "misfit"


def test_networks_in_single_precision():
    torch.manual_seed(0)
    inner = ob.networks.UNet(3, 1, widths=(8,), blocks=1, activation="elu")
    prior = ob.priors.GradientStep(ob.networks.GradientStep(inner).requires_grad_(False)).scaled(0.0, 100.0)
    problem = ob.Problem(ob.operators.Mask((torch.rand(3, 12, 12) > 0.3).float()), ob.noise.Gaussian(5.0))
    y = problem.simulate(100 * torch.rand(3, 12, 12), seed=0)
    found = Diffusion(prior, samples=4, rank=2, keep_samples=False)(y, problem)
    assert found.mean.dtype == found.std.dtype == torch.float32 and found.draws is None
    assert found.diagnostics["levels"] == pytest.approx([25.0, 100 / 255])


def test_progress_interrupts_and_what_is_refused():
    y, problem = case("deblur")
    seen = []
    Diffusion(FIELD, "pigdm", schedule=SCHEDULE, samples=4, batch=2)(y, problem, lambda *told: seen.append(told))
    assert [told[0] for told in seen] == list(range(1, 29)) and {told[1] for told in seen} == {28}

    def stop(iteration, total, value):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Diffusion(FIELD, schedule=SCHEDULE)(y, problem, stop)

    class Broken:
        def denoise(self, x, sigma):
            return x * math.nan

    with pytest.raises(NumericsError, match="level 1 of 14"):
        Diffusion(Broken(), "ddrm", schedule=SCHEDULE, samples=2)(y, problem)

    class Stepped:
        def denoise(self, x, sigma):
            return FIELD.denoise(x.detach(), sigma)

    with pytest.raises(InputError, match="diffpir"):
        Diffusion(Stepped(), schedule=SCHEDULE)(y, problem)
    stepped, known = (Diffusion(p, "diffpir", samples=2, schedule=SCHEDULE)(y, problem) for p in (Stepped(), FIELD))
    assert torch.equal(stepped.draws, known.draws)
    with pytest.raises(InputError, match="diagonal"):
        Diffusion(FIELD, "ddrm", samples=2)(*case("tomography"))
    with pytest.raises(InputError, match="whose level"):
        Diffusion(FIELD, "ddrm", samples=2)(y.abs(), ob.Problem(operator("deblur"), ob.noise.Poisson(0.1)))
    for wrong in ({"guidance": "best"}, {"samples": 1}, {"batch": 0}, {"rank": -1}):
        with pytest.raises(InputError):
            Diffusion(FIELD, **wrong)
    for make in (lambda: MMPS(0), lambda: PiGDM(0.0), lambda: DiffPIR(-1.0), lambda: DPS(0.0), lambda: DDRM(2.0)):
        with pytest.raises(InputError):
            make()
