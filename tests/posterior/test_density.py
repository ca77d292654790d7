"""Densities along a direction, against laws known in closed form."""

import math

import numpy as np
import pytest
import torch

import obverse as ob
from obverse.errors import InputError
from obverse.posterior import DirectionalMoments, LowRankDiagonal
from obverse.posterior.density import gaussian_density, kernel_density, maximum_entropy_density
from obverse.solvers.result import Status

LINE = torch.linspace(-12, 12, 24001, dtype=torch.float64)
STEP = float(LINE[1] - LINE[0])
DONE = Status(True, "closed-form", "Closed form.")


def moments(density):
    p = density.log_prob(LINE).exp()
    return [float((p * LINE**k).sum() * STEP) for k in range(5)]


def two_normals(share, apart, width):
    """Log-density of a mixture of two normals on the line, with mean zero and deviation one, and E[z³], E[z⁴]."""
    centres = np.array([-share * apart, (1 - share) * apart])
    weights = np.array([1 - share, share])
    scale = math.sqrt(weights @ (centres**2 + width**2))
    centres, width = centres / scale, width / scale
    parts = [math.log(w) - 0.5 * ((LINE - c) / width) ** 2 for w, c in zip(weights, centres)]
    log = torch.logsumexp(torch.stack(parts), 0) - math.log(width * math.sqrt(2 * math.pi))
    third = weights @ (centres**3 + 3 * centres * width**2)
    return log, third, weights @ (centres**4 + 6 * centres**2 * width**2 + 3 * width**4)


def distance(log, density):
    return float((log.exp() - density.log_prob(LINE).exp()).abs().sum() * STEP) / 2


class TestMaximumEntropy:
    @pytest.mark.parametrize(
        "skewness, kurtosis",
        [(0.0, 1.8), (0.0, 2.9), (0.0, 1.05), (0.5, 1.3), (-0.8, 3.4), (0.1, 3.02), (1.5, 5.0), (3.0, 12.0)],
    )
    def test_it_has_the_moments_asked_for(self, skewness, kurtosis):
        found = maximum_entropy_density(0.0, 1.0, skewness, kurtosis)
        assert found.kind == "maximum-entropy"
        assert moments(found) == pytest.approx([1, 0, 1, skewness, kurtosis], abs=1e-7)

    def test_of_a_quartic_it_is_that_quartic(self):
        """exp(−z⁴/4 + z²/2) up to scale has four moments, and they give it back."""
        log = -(LINE**4) / 4 + LINE**2 / 2 + 0.2 * LINE
        log = log - torch.logsumexp(log, 0) - math.log(STEP)
        mean = float((log.exp() * LINE).sum() * STEP)
        central = [float((log.exp() * (LINE - mean) ** k).sum() * STEP) for k in (2, 3, 4)]
        found = maximum_entropy_density(
            mean, central[0] ** 0.5, central[1] / central[0] ** 1.5, central[2] / central[0] ** 2
        )
        near = LINE.abs() < 3
        torch.testing.assert_close(found.log_prob(LINE[near]), log[near], rtol=0, atol=1e-6)

    def test_it_sees_two_modes_where_the_normal_density_sees_one(self):
        log, third, fourth = two_normals(0.4, 4.0, 0.8)
        found = maximum_entropy_density(0.0, 1.0, third, fourth)
        p = found.log_prob(LINE)
        assert int(((p[1:-1] > p[:-2]) & (p[1:-1] > p[2:])).sum()) == 2
        left = distance(log, found)
        assert left < 0.12 and left < 0.5 * distance(log, gaussian_density(0.0, 1.0))
        assert left < 0.5 * distance(log, maximum_entropy_density(0.0, 1.0, -third, fourth)), "negative control"

    @pytest.mark.parametrize(
        "skewness, kurtosis, words",
        [
            (0.0, 3.0, "normal law"),
            (0.0, 4.0, "heavier"),
            (1.0, 1.9, "no law"),
            (0.0, 1.0, "no law"),
            (0.0, 1.0001, "points"),
            (float("nan"), 3.0, "not finite"),
        ],
    )
    def test_where_there_is_none_it_is_normal_and_says_why(self, skewness, kurtosis, words):
        found = maximum_entropy_density(2.0, 3.0, skewness, kurtosis)
        assert found.kind == "gaussian" and words in found.reason
        assert float(found.log_prob(torch.tensor(2.0))) == pytest.approx(-math.log(3 * math.sqrt(2 * math.pi)))


class TestKernel:
    def test_it_keeps_mean_and_deviation_of_the_draws_and_finds_their_modes(self):
        log, _, _ = two_normals(0.5, 6.0, 1.0)
        generator = np.random.default_rng(0)
        draws = torch.from_numpy(generator.choice(LINE.numpy(), 4000, p=log.exp().numpy() / log.exp().sum().item()))
        found = kernel_density(5 + 2 * draws)
        assert found.kind == "kernel" and found.mean == pytest.approx(5 + 2 * float(draws.mean()))
        line, step = LINE[::50], 50 * STEP
        p = found.log_prob(5 + 2 * line).exp() * 2
        assert float((p * line).sum() * step) == pytest.approx(float(draws.mean()), abs=1e-6)
        assert float((p * line**2).sum() * step) == pytest.approx(float(draws.square().mean()), rel=1e-3)
        assert float((p - log[::50].exp()).abs().sum() * step) / 2 < 0.12

    def test_draws_of_a_slow_chain_are_worth_fewer(self):
        generator = torch.Generator().manual_seed(0)
        white = torch.randn(2000, generator=generator, dtype=torch.float64)
        slow = torch.zeros_like(white)
        for i in range(1, len(slow)):
            slow[i] = 0.98 * slow[i - 1] + white[i]
        assert kernel_density(white).width < 0.25 and kernel_density(slow) is None


class TestPosterior:
    shape = (1, 3, 4)

    def posterior(self, **more):
        U = torch.linalg.qr(torch.randn(12, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).Q
        covariance = LowRankDiagonal(
            U, torch.tensor([4.0, 2.0, 1.0]).double(), torch.full((12,), 0.1).double(), self.shape
        )
        mean = torch.arange(12.0).double().reshape(self.shape)
        return ob.Posterior(mean, DONE, covariance=covariance, **more), U.mT.reshape(3, *self.shape)

    def test_without_more_it_is_normal_with_the_variance_along_v(self):
        posterior, U = self.posterior()
        found = posterior.marginal(2 * U[0])
        assert found.kind == "gaussian"
        assert found.std == pytest.approx(2 * math.sqrt(4.1)) and found.mean == pytest.approx(
            float((2 * U[0] * posterior.mean).sum())
        )

    def test_moments_are_used_along_their_own_direction_alone_and_are_stored(self, tmp_path):
        posterior, U = self.posterior()
        known = DirectionalMoments(U[:2], torch.tensor([0.5, 0.0]).double(), torch.tensor([2.5, 2.0]).double())
        posterior, _ = self.posterior(moments=known)
        assert posterior.marginal(3 * U[0]).kind == "maximum-entropy" and posterior.marginal(U[2]).kind == "gaussian"
        assert posterior.marginal(U[0] + U[1]).kind == "gaussian"
        lean = posterior.marginal(U[0]), posterior.marginal(-U[0])
        at = torch.tensor([1.0]).double()
        torch.testing.assert_close(lean[0].log_prob(lean[0].mean + at), lean[1].log_prob(lean[1].mean - at))
        posterior.save(tmp_path / "p.safetensors", rank=3)
        again = ob.Posterior.load(tmp_path / "p.safetensors")
        assert again.marginal(U[1]).kind == "maximum-entropy" and again.moments.along(-U[0]) == pytest.approx(
            (-0.5, 2.5)
        )
        turned = posterior.affine(-2.0, 1.0)
        assert turned.moments.along(U[0]) == pytest.approx((-0.5, 2.5)) and turned.crop([slice(0, 2)]).moments is None

    def test_draws_come_first_if_there_are_enough(self):
        bare, U = self.posterior()
        draws = bare.sample(400, seed=0)
        assert self.posterior(draws=draws)[0].marginal(U[0]).kind == "kernel"
        few = self.posterior(draws=draws[:40])[0].marginal(U[0])
        assert few.kind == "gaussian" and "few" in few.reason

    def test_a_direction_without_variance_is_refused(self):
        U = torch.eye(12, dtype=torch.float64)[:, :1]
        flat = LowRankDiagonal(U, torch.ones(1).double(), torch.zeros(12).double(), self.shape)
        with pytest.raises(InputError, match="uncertain"):
            ob.Posterior(torch.zeros(self.shape).double(), DONE, covariance=flat).marginal(
                torch.eye(12).double()[1].reshape(self.shape)
            )
