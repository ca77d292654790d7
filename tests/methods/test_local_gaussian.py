"""Covariances from a denoiser, against posteriors known in closed form."""

import pytest
import torch

import obverse as ob
from obverse.errors import InputError
from obverse.methods.matched_level import WorkingPoint, matched_level

SHAPE = (1, 10, 10)
FIELD = ob.priors.GaussianField.power_law(SHAPE, 2.5, variance=0.06, mean=0.4)


def operator(name):
    if name == "denoise":
        return ob.operators.Identity(SHAPE)
    if name == "inpaint":
        return ob.operators.Mask((torch.rand(SHAPE, generator=torch.Generator().manual_seed(0)) > 0.5).double())
    if name == "tomography":
        return ob.operators.Radon(SHAPE, torch.linspace(0, 3, 7).double(), dtype=torch.float64)
    kernel = torch.exp(-0.5 * torch.linspace(-2, 2, 5).double().square())
    kernel = torch.outer(kernel, kernel)
    return ob.operators.Convolution(kernel / kernel.sum(), SHAPE)


def case(name, noise=0.1, prior=FIELD):
    problem = ob.Problem(operator(name), ob.noise.Gaussian(noise))
    return problem.simulate(prior.sample(1, seed=3)[0].double(), seed=1), problem


def mixture(separation=0.16):
    """Two Gaussians of images, so near that the data often leave both."""
    axes = torch.linspace(0, 3, 10, dtype=torch.float64)
    shape = torch.sin(axes)[:, None] * torch.cos(axes)
    lengths = (torch.cdist(torch.cartesian_prod(axes, axes), torch.cartesian_prod(axes, axes)) / 0.8).square()
    covariance = 0.005 * torch.exp(-0.5 * lengths) + 1e-4 * torch.eye(100, dtype=torch.float64)
    means = torch.stack([-separation * shape, separation * shape])[:, None]
    return ob.priors.GaussianMixture(torch.tensor([0.5, 0.5]), means, torch.stack([covariance, covariance]))


def undecided(name, noise, prior):
    """Data near the middle between the modes, so that the posterior keeps both."""
    problem = ob.Problem(operator(name), ob.noise.Gaussian(noise))
    y = problem.operator(0.03 * prior.means[1])
    assert 0.4 < float(prior.posterior(y, problem).weights.max()) < 0.7, "one mode alone would show nothing"
    return y, problem


class TestLocalGaussian:
    @pytest.mark.parametrize("name", ["denoise", "inpaint", "deblur", "tomography"])
    @pytest.mark.parametrize("sigma", [0.05, 0.15, 0.5])
    def test_it_is_exact_for_gaussian_priors_at_any_level(self, name, sigma):
        y, problem = case(name, 0.5 if name == "tomography" else 0.1)
        truth = ob.methods.Gaussian(FIELD)(y, problem)
        method = ob.methods.LocalGaussian(FIELD, sigma=sigma, tolerance=1e-7, probes=100, rank=4)
        found = method(y, problem)
        assert found.status.converged and found.diagnostics["truncated"] == 0
        torch.testing.assert_close(found.mean, truth.mean, rtol=0, atol=1e-5)
        torch.testing.assert_close(found.std, truth.std, rtol=1e-5, atol=0)
        dense = truth.covariance.dense()
        assert (found.covariance.dense() - dense).norm() < 1e-5 * dense.norm()
        expected = torch.linalg.eigvalsh(dense).flip(0)[:4]
        torch.testing.assert_close(found.components(4).variances, expected, rtol=1e-5, atol=0)
        # Without the pseudo-measurement taken away, or at the wrong noise, it would be another covariance.
        wrong = ob.methods.Gaussian(FIELD)(y, ob.Problem(problem.operator, ob.noise.Gaussian(0.12))).covariance.dense()
        assert (wrong - dense).norm() > 1e-2 * dense.norm()

    def test_the_level_is_that_of_the_noise_where_the_data_are_a_noisy_image(self):
        y, problem = case("denoise")
        matched = matched_level(WorkingPoint(FIELD, y, problem))
        assert matched.sigma == pytest.approx(0.1, rel=1e-3) and matched.settled and len(matched.ladder) <= 4

    def test_at_the_matched_level_data_and_denoiser_agree_on_the_mean_variance(self):
        y, problem = case("inpaint")
        sigma = matched_level(WorkingPoint(FIELD, y, problem)).sigma
        found = ob.methods.LocalGaussian(FIELD, sigma=sigma, probes=100, tolerance=1e-6, rank=2)(y, problem)
        modes = FIELD.spectrum
        denoised = (modes * sigma**2 / (modes + sigma**2)).mean()
        assert float(found.covariance.trace()) / 100 == pytest.approx(float(denoised), rel=0.25)

    def test_of_a_mixture_it_has_the_variance_of_both_modes(self):
        prior = mixture()
        y, problem = undecided("inpaint", 0.3, prior)
        truth = prior.posterior(y, problem)
        within = float((truth.weights[:, None] * truth.covariances.diagonal(dim1=1, dim2=2)).sum())
        total = float(truth.covariance.diagonal().sum())
        assert within < 0.6 * total

        def error(sigma):
            found = ob.methods.LocalGaussian(prior, sigma=sigma, probes=100, tolerance=1e-6, rank=2)(y, problem)
            return float((found.covariance.dense() - truth.covariance).norm() / truth.covariance.norm()), found

        matched, found = error(None)
        assert matched < 0.2 and 0.85 < found.covariance.trace() / total < 1.1
        assert float((found.mean.flatten() - truth.mean.flatten()).norm()) < 0.03 * total**0.5
        leading = torch.linalg.eigh(truth.covariance).eigenvectors[:, -1]
        assert abs(float(found.components(1).directions.flatten() @ leading)) > 0.99
        assert error(0.1)[0] > 3 * matched, "any level would do, so the rule shows nothing"

    def test_it_saves_and_draws(self, tmp_path):
        y, problem = case("inpaint")
        found = ob.methods.LocalGaussian(FIELD, sigma=0.1, rank=6)(y, problem)
        found.save(tmp_path / "p.safetensors", rank=6)
        again = ob.Posterior.load(tmp_path / "p.safetensors")
        torch.testing.assert_close(again.std, found.std, rtol=1e-6, atol=0)
        assert again.sample(2).shape == (2, *SHAPE) and again.target == "posterior"

    @pytest.mark.parametrize("law", [ob.noise.Poisson(0.02), ob.noise.PoissonGaussian(0.02, 0.01)])
    def test_counts_enter_by_their_curvature_at_the_image(self, law):
        """Down to pixels without a single count, where the exact law bends without bound."""
        problem = ob.Problem(operator("denoise"), law)
        x = (FIELD.sample(1, seed=3)[0].double() - 0.3).clamp_min(0)
        y = problem.simulate(x, seed=2)
        prior = ob.priors.GaussianField(FIELD.spectrum, SHAPE, 0.1)
        found = ob.methods.LocalGaussian(prior, probes=100, tolerance=1e-6, rank=2)(y, problem)
        played = ob.methods.PlugAndPlay(prior, "admm", weight=1.0, tolerance=1e-6, sigma=0.2)(y, problem)
        assert found.status.converged and float((y == 0).double().mean()) > 0.05 or "Gaussian" in type(law).__name__
        torch.testing.assert_close(found.mean, played.image, rtol=0, atol=0.02)
        inside = float(((found.mean - x).abs() < 1.645 * found.std).double().mean())
        assert 0.75 < inside < 1.0

    def test_low_noise_stays_low_beside_what_is_missing(self):
        shape = (1, 16, 16)
        prior = ob.priors.GaussianField.power_law(shape, 2.5, variance=0.06)
        kept = (torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.3).double()
        problem = ob.Problem(ob.operators.Mask(kept), ob.noise.Gaussian(0.01))
        y = problem.simulate(prior.sample(1)[0].double(), seed=0)
        truth = ob.methods.Gaussian(prior)(y, problem).std
        found = ob.methods.LocalGaussian(prior, sigma=0.1, probes=64, rank=2)(y, problem)
        error = (found.std / truth - 1).abs()
        assert float(error.square().mean().sqrt()) < 0.1 and float(error[kept.bool()].max()) < 0.1

    def test_a_jacobian_beyond_one_leaves_no_covariance_and_that_is_said(self):
        class Stretched:
            """Its fixed point is that of the field; most of its pixels have J = 1.5."""

            def denoise(self, x, sigma):
                share = torch.where(torch.rand(SHAPE, generator=torch.Generator().manual_seed(4)) < 0.8, 1.5, 0.3)
                return share.to(x) * x

        kept = (torch.arange(100).reshape(SHAPE) < 5).double()
        problem = ob.Problem(ob.operators.Mask(kept), ob.noise.Gaussian(0.1))
        found = ob.methods.LocalGaussian(Stretched(), sigma=0.1, rank=2, probes=100)(
            torch.zeros(SHAPE).double(), problem
        )
        assert not found.status.converged and found.status.reason == "negative-curvature"
        assert "negative curvature" in found.status.message and found.diagnostics["truncated"] > 0.5

    def test_a_denoiser_without_a_fixed_point_is_reported(self):
        class Wild:
            def denoise(self, x, sigma):
                return 3 * torch.sin(9 * x)

        y, problem = case("inpaint")
        found = ob.methods.LocalGaussian(Wild(), sigma=0.2, rank=2, probes=4)(y, problem)
        assert not found.status.converged and "plug-and-play" in found.status.message

    def test_a_denoiser_that_answers_alike_gives_no_variance(self):
        class Constant:
            def denoise(self, x, sigma):
                return 0 * x + 0.3

        y, problem = case("inpaint")
        found = ob.methods.LocalGaussian(Constant(), sigma=0.2, rank=2, probes=4)(y, problem)
        assert not found.std.gt(1e-6).any() and not found.components(2).variances.any()

    @pytest.mark.parametrize("channels", [1, 3])
    def test_networks_in_single_precision(self, channels):
        torch.manual_seed(0)
        inner = ob.networks.UNet(3, 1, widths=(8,), blocks=1, activation="elu")
        prior = ob.priors.GradientStep(ob.networks.GradientStep(inner).requires_grad_(False))
        shape = (channels, 12, 12)
        problem = ob.Problem(ob.operators.Mask((torch.rand(shape) > 0.3).float()), ob.noise.Gaussian(0.05))
        y = problem.simulate(torch.rand(shape), seed=0)
        found = ob.methods.LocalGaussian(prior, rank=2, probes=16)(y, problem)
        assert found.mean.dtype == torch.float32 and found.std.shape == shape
        assert found.std.isfinite().all() and found.diagnostics["asymmetry"] == 0

    @pytest.mark.parametrize(
        "arguments", [{"sigma": 0.0}, {"sigma": float("nan")}, {"tolerance": 0.0}, {"rank": 0}, {"probes": -3}]
    )
    def test_settings_that_make_no_sense_are_refused(self, arguments):
        with pytest.raises(InputError):
            ob.methods.LocalGaussian(FIELD, **arguments)


class TestTweedie:
    def test_of_a_field_it_is_the_posterior(self):
        y, problem = case("denoise")
        truth, found = ob.methods.Gaussian(FIELD)(y, problem), ob.methods.Tweedie(FIELD, rank=3)(y, problem)
        torch.testing.assert_close(found.mean, truth.mean, rtol=0, atol=1e-6)
        torch.testing.assert_close(found.std, truth.std, rtol=1e-6, atol=0)
        assert found.diagnostics["components_above_noise"] == 0

    def test_of_a_mixture_it_is_the_posterior_and_shows_the_modes(self):
        prior = mixture(0.25)
        y, problem = undecided("denoise", 0.6, prior)
        truth, found = prior.posterior(y, problem), ob.methods.Tweedie(prior, rank=3)(y, problem)
        torch.testing.assert_close(found.mean.flatten(), truth.mean.flatten(), rtol=0, atol=1e-9)
        torch.testing.assert_close(found.covariance.dense(), truth.covariance, rtol=0, atol=1e-9)

    def test_it_takes_fewer_products_than_subspace_iteration(self):
        """255 products of five vectors by subspace iteration reach what 60 by block Krylov do, at the most."""
        shape = (1, 24, 24)
        field = ob.priors.GaussianField.power_law(shape, 2.5, variance=0.06)
        problem = ob.Problem(ob.operators.Identity(shape), ob.noise.Gaussian(0.1))
        y = problem.simulate(field.sample(1)[0].double())
        covariance = ob.methods.Tweedie(field, rank=1)(y, problem).covariance
        best = covariance.components(5, products=576).variances.sum()
        captured = covariance.components(5, products=60).variances.sum()
        block = torch.linalg.qr(torch.randn(576, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))).Q
        for _ in range(50):
            block = torch.linalg.qr(covariance.matvec(block.mT).mT).Q
        iterated = (block * covariance.matvec(block.mT).mT).sum()
        assert best - captured < best - iterated

    def test_other_problems_are_refused(self):
        y, problem = case("inpaint")
        with pytest.raises(InputError, match="LocalGaussian"):
            ob.methods.Tweedie(FIELD)(y, problem)
