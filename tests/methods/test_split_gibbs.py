"""Split Gibbs sampling: exact draws given data, and the chain's own stationary law against the posterior."""

import math

import pytest
import torch

import obverse as ob
from obverse.errors import InputError, NumericsError
from obverse.methods import Schedule, SplitGibbs
from obverse.methods.data_draw import DataDraw
from obverse.methods.reverse_diffusion import reverse_diffusion
from obverse.noise.base import stream
from tests.methods.blurred_field import FIELD, NOISE, SHAPE, Broken, blurred, information, measured, modes


def problem(noise=NOISE):
    return blurred(2.0, noise)


def data_precision(noise=NOISE):
    return information(problem().operator, noise)


def short(**options):
    return SplitGibbs(FIELD, **{"samples": 12, "burn_in": 8, "chains": 3, "rank": 2, "keep_samples": True, **options})


class TestDataDraw:
    """One conditional draw, on an operator without any closed form."""

    A = torch.randn(9, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 3
    weight = torch.linspace(1.0, 9.0, 9, dtype=torch.float64)[None, None]

    def pieces(self, count):
        operator = ob.operators.Dense(self.A, (1, 3, 4), (1, 1, 9))
        y = torch.randn(1, 1, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        u = torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        noises = (
            torch.randn(count, *s, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
            for s in ((1, 3, 4), (1, 1, 9))
        )
        return DataDraw(y, operator, self.weight), y, u.expand(count, 1, 3, 4), tuple(noises)

    def score(self, draws, mean, covariance):
        """Mahalanobis energy per pixel, in standard errors from one."""
        away = (draws.flatten(1) - mean).mT
        white = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), away, upper=False)
        return float((white.square().mean() - 1) / math.sqrt(2 / white.numel()))

    @pytest.mark.parametrize("kind", ["conditional", "coupled"])
    def test_it_has_the_law_known_from_linear_algebra(self, kind):
        draw, y, u, (image, data) = self.pieces(4000)
        F, one = torch.diag(self.weight.flatten()), torch.eye(12, dtype=torch.float64)
        gram = self.A.mT @ F @ self.A
        rho = 0.7 if kind == "conditional" else (0.85 / float(torch.linalg.eigvalsh(gram)[-1])) ** 0.5
        pull = self.A.mT @ F @ (y.flatten() - self.A @ u[0].flatten())
        if kind == "conditional":
            covariance = torch.linalg.inv(gram + one / rho**2)
            draws, mean = draw.conditional(u, rho, image, data), u[0].flatten() + covariance @ pull
        else:
            assert draw.couples(rho) and not draw.couples(1.1 * rho)
            covariance = rho**2 * (one - rho**2 * gram)
            draws, mean = draw.coupled(u, rho, image), u[0].flatten() + rho**2 * pull
        assert abs(self.score(draws, mean, covariance)) < 4
        for wrong in (covariance / 2, torch.linalg.inv(1.44 * gram + one / rho**2)):
            assert abs(self.score(draws, mean, wrong)) > 8

    def test_the_root_is_one_to_six_digits(self):
        draw, *_ = self.pieces(1)
        gram = self.A.mT @ torch.diag(self.weight.flatten()) @ self.A
        one = torch.eye(12, dtype=torch.float64)
        for share in (1e-12, 0.1, 0.5, 0.9):
            rho = (share / draw.bend) ** 0.5
            root = draw._root(one.reshape(12, 1, 3, 4), rho).reshape(12, 12)
            torch.testing.assert_close(root @ root, one - rho**2 * gram, rtol=0, atol=1e-6)


def chain_law(rho, precision, coupled, reverse):
    """Decay, stationary variance and mean (in units of the data's image) of the chain of u, mode by mode.

    x = α u + β d + N(0, γ²) with d the data's own image; u' = b x + N(0, a²) by reverse diffusion, whose a and b are
    measured, since they are those of a finite number of levels.
    """
    zero = torch.zeros(1, *SHAPE, dtype=torch.float64)
    centred = ob.priors.GaussianField(FIELD.spectrum, SHAPE, 0.0)
    probe = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    drawn = [reverse_diffusion(centred, z, rho, [stream(5, 0)], reverse) for z in (zero, probe)]
    noise = torch.randn(SHAPE, generator=stream(5, 0), dtype=torch.float64)
    a, b = (modes(drawn[0]) / modes(noise)).real[0], (modes(drawn[1] - drawn[0]) / modes(probe)).real[0]
    if coupled:
        alpha, beta = 1 - rho**2 * precision, rho**2 * precision
        gamma2 = rho**2 * (1 - rho**2 * precision)
    else:
        gamma2 = 1 / (precision + rho**-2)
        alpha, beta = gamma2 / rho**2, gamma2 * precision
    decay = b * alpha
    return decay, (a.square() + b.square() * gamma2) / (1 - decay.square()), b * beta / (1 - decay)


REVERSE = Schedule(1.0, 0.004, 12)


@pytest.mark.parametrize(("rho", "coupled"), [(0.15, True), (0.35, False)])
def test_the_chain_has_its_stationary_law_in_closed_form(rho, coupled):
    p = problem()
    y = measured(p)
    method = short(rho=rho, reverse=REVERSE, samples=20, burn_in=25, chains=100)
    posterior = method(y, p)
    assert posterior.diagnostics["coupling"] == ("exact" if coupled else "split")
    inflation = 1.0 if coupled else 1 + rho**2 * float(data_precision().max())
    assert posterior.diagnostics["noise_factor"] == pytest.approx(inflation, rel=0.05)
    assert posterior.draws is not None
    precision = data_precision()
    seen = precision > 1e-6 * precision.max()
    image = torch.zeros(SHAPE, dtype=torch.complex128)  # of the data: H* y/|H|², less the field's mean
    backprojected = modes(p.operator.adjoint(y)) / NOISE**2  # type: ignore[attr-defined]
    image[seen] = (backprojected / precision)[seen]
    centre = modes(torch.full(SHAPE, 0.4, dtype=torch.float64))
    decay, law, gain = chain_law(rho, precision, coupled, REVERSE)
    mean = centre + gain * torch.where(seen, image - centre, 0)
    away = (modes(posterior.draws) - mean).abs().square()

    def score(law, decay=decay):
        error = (2 / len(away) * (1 + decay**2) / (1 - decay**2)).mean() / law.numel()
        return float(((away / law).mean() - 1) / error.sqrt())

    assert abs(score(law)) < 4
    assert abs(score(law / 2)) > 15
    other = chain_law(rho, data_precision(0.8 * NOISE), coupled, REVERSE)[1]
    assert abs(score(other)) > 6
    # How far that law is from the posterior: by the levels of reverse diffusion alone, or by the split as well.
    exact = 1 / (precision + 1 / FIELD.spectrum)
    inflated = 1 / (1 / (1 / precision.clamp_min(1e-12) + rho**2) + 1 / FIELD.spectrum)
    assert float((law / (exact if coupled else inflated) - 1).abs().max()) < 0.06
    assert coupled or float((law / exact).max()) > 1.5


def test_the_bias_of_the_split_vanishes_with_rho_and_the_pace_as_well():
    precision, exact = data_precision(), 1 / (data_precision() + 1 / FIELD.spectrum)
    laws = {rho: chain_law(rho, precision, False, Schedule(1.0, rho / 50, 40)) for rho in (0.05, 0.2, 0.8)}
    bias = [float((law / exact - 1).abs().max()) for _, law, _ in laws.values()]
    pace = [float(decay.max()) for decay, *_ in laws.values()]
    assert bias[0] < 0.1 < 0.7 < bias[1] < bias[2] and pace[0] > pace[1] > pace[2]


def test_by_default_it_is_the_posterior():
    p = problem()
    y = measured(p)
    truth = ob.methods.Gaussian(FIELD)(y, p)
    posterior = SplitGibbs(FIELD, samples=120, burn_in=30, chains=16, rank=4, max_rhat=1.06, min_ess=150)(y, p)
    assert posterior.status.converged, posterior.status
    assert posterior.diagnostics["coupling"] == "exact" and posterior.target == "posterior"
    assert float(((posterior.mean - truth.mean) / truth.std).abs().max()) < 0.2
    assert abs(float((posterior.std / truth.std).mean()) - 1) < 0.06
    assert posterior.diagnostics["evaluations"] == 16 * 150 * 10


def test_an_annealed_chain_forgets_a_far_start_at_once():
    p = problem()
    y = measured(p)
    truth = ob.methods.Gaussian(FIELD)(y, p)
    far = {"start": torch.full(SHAPE, 40.0), "samples": 4, "chains": 60, "rho": 0.03}
    annealed = short(annealing=Schedule(5.0, 0.03, 15), burn_in=15, **far)
    assert annealed.warm_up == 15 and SplitGibbs(FIELD, annealing=Schedule(5.0, 0.03, 15)).warm_up == 15

    def off(posterior):
        return float(((posterior.mean - truth.mean) / truth.std).square().mean().sqrt())

    assert off(annealed(y, p)) < 0.35 < 2 < off(short(burn_in=15, **far)(y, p))


@pytest.mark.parametrize("law", [ob.noise.Gaussian(0.2), ob.noise.PoissonGaussian(0.05, 0.05)])
def test_it_goes_on_where_it_stopped_and_chains_do_not_depend_on_their_number(law):
    p = ob.Problem(problem().operator, law)
    y = p.simulate(FIELD.sample(1, seed=1)[0] + 1.0, seed=2)
    method, state = short(rho=0.1), None
    whole = method(y, p)
    for stop in (2, 5, 13, method.total):
        state = next(s for s in method.states(y, p, state) if s.step == stop)
    assert state is not None
    again = method.posterior(state, y, p)
    assert torch.equal(whole.draws, again.draws) and torch.equal(whole.std, again.std)  # type: ignore[arg-type]
    torch.testing.assert_close(whole.std, whole.draws.std(0))  # type: ignore[union-attr]
    if law.gaussian:
        fewer = short(rho=0.1, chains=2)(y, p).draws.reshape(12, 2, -1)  # type: ignore[union-attr]
        torch.testing.assert_close(fewer, whole.draws.reshape(12, 3, -1)[:, :2])  # type: ignore[union-attr]


def test_counting_noise():
    p = ob.Problem(problem().operator, ob.noise.Poisson(1.0))
    prior = ob.priors.GaussianField.power_law(SHAPE, 1.0, 40.0**2, mean=200.0)
    y = p.simulate(prior.sample(1, seed=1)[0].clamp_min(10), seed=2)
    posterior = SplitGibbs(prior, samples=80, burn_in=20, chains=8)(y, p)
    gaussian = ob.methods.Gaussian(prior)(y, p)
    assert "predicted mean" in posterior.diagnostics["likelihood"]
    assert float(((posterior.mean - gaussian.mean) / gaussian.std).abs().max()) < 0.5
    assert abs(float((posterior.std / gaussian.std).mean()) - 1) < 0.1


def test_levels_of_a_network_are_kept_to():
    class Known:
        sigma_range = (0.1, 1.0)

        def denoise(self, x, sigma):
            assert sigma <= 1.0
            return FIELD.denoise(x, sigma)

    p = problem(0.05)
    y = measured(p)
    facts = SplitGibbs(Known(), samples=4, burn_in=4, annealing=Schedule(3.0, 0.1, 4))(y, p).diagnostics
    assert facts["rho"] == 0.1 and facts["levels"] == 10 and facts["coupling"] == "split"
    for rho in (0.05, 1.1, math.nan):
        with pytest.raises(InputError, match="knows"):
            SplitGibbs(Known(), rho=rho)


def test_it_refuses_what_it_cannot_do():
    p = problem()
    y = torch.zeros(SHAPE, dtype=torch.float64)
    with pytest.raises(InputError, match="chains of at least 2"):
        short(chains=1)
    with pytest.raises(InputError, match="burn_in of at least 0"):
        short(burn_in=-1)
    with pytest.raises(InputError, match="levels of the annealing"):
        short(annealing=Schedule(1.0, 0.1, 9))
    with pytest.raises((InputError, TypeError), match="denoise|Denoises"):
        SplitGibbs(ob.priors.TotalVariation())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="start of shape"):
        short(start=torch.zeros(1, 2, 2))(y, p)
    with pytest.raises(InputError, match="linear operator"):
        short()(y, ob.Problem(ob.operators.PhaseRetrieval(ob.operators.Identity(SHAPE)), ob.noise.Gaussian(0.1)))
    with pytest.raises(NumericsError, match="step 1"):
        SplitGibbs(Broken(), samples=4)(y, p)
    seen = []
    short()(y, p, callback=lambda *told: seen.append(told))
    assert [told[:2] for told in seen] == [(k, 20) for k in range(1, 21)]
