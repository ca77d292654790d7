"""RichardsonLucy against an independent float64 reference, its fixed points and its limits."""

import numpy as np
import pytest
import scipy.ndimage
import torch

from obverse.errors import InputError
from obverse.methods.richardson_lucy import RichardsonLucy
from obverse.noise import Gaussian, Poisson, PoissonGaussian
from obverse.operators import Convolution, Identity, Mask
from obverse.problem import Problem


def gaussian_kernel(*sizes, width=1.3):
    axes = np.meshgrid(*[np.arange(n) - n // 2 for n in sizes], indexing="ij")
    kernel = np.exp(-sum(a**2 for a in axes) / (2 * width**2))
    return torch.from_numpy(kernel / kernel.sum())


def spots(*shape, seed=0, level=400.0):
    rng = np.random.default_rng(seed)
    image = np.full(shape, 2.0)
    for index in rng.integers(0, image.size, max(4, image.size // 150)):
        image.flat[index] += rng.uniform(0.2, 1) * level * 5
    return torch.from_numpy(scipy.ndimage.gaussian_filter(image, 1.0, mode="wrap"))[None]


def reference(y, kernel, iterations, background=0.0, shift=0.0, mode="wrap"):
    """Textbook Richardson–Lucy with scipy's direct convolution, in float64."""
    y, kernel = y.double().numpy()[0] + shift, kernel.double().numpy()
    normal = scipy.ndimage.convolve(np.ones_like(y), kernel[tuple([slice(None, None, -1)] * y.ndim)], mode=mode)
    x = np.full_like(y, y.sum() / normal.sum())
    for _ in range(iterations):
        prediction = scipy.ndimage.convolve(x, kernel, mode=mode) + background + shift
        x = x * scipy.ndimage.correlate(y / prediction, kernel, mode=mode) / normal
    return torch.from_numpy(x)[None]


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-10), (torch.float32, 2e-4)])
@pytest.mark.parametrize("shape, size", [((32, 40), (7, 9)), ((10, 20, 24), (3, 5, 5))])
def test_equals_the_textbook(dtype, tolerance, shape, size):
    kernel, x = gaussian_kernel(*size), spots(*shape)
    problem = Problem(Convolution(kernel, (1, *shape)), Poisson(1.0))
    y = problem.simulate(x, seed=1)
    expected = reference(y, kernel, 15)
    image = RichardsonLucy(iterations=15)(y.to(dtype), problem).image
    assert image.dtype == dtype
    assert (image - expected).abs().max() <= tolerance * expected.max()
    assert (image - reference(y, kernel, 14)).abs().max() > 10 * tolerance * expected.max(), "one step fewer must show"


def test_zero_boundary_is_normalised_by_what_each_pixel_contributes():
    kernel, x = gaussian_kernel(7, 7), spots(24, 28)
    problem = Problem(Convolution(kernel, (1, 24, 28), boundary="zero"), Poisson(1.0))
    y = problem.simulate(x, seed=1)
    expected = reference(y, kernel, 12, mode="constant")
    image = RichardsonLucy(iterations=12)(y, problem).image
    assert (image - expected).abs().max() <= 1e-8 * expected.max()


def test_gain_and_read_noise_and_background():
    kernel, x, gain, sigma, background = gaussian_kernel(5, 5), spots(24, 28, level=4000.0), 2.5, 4.0, 30.0
    A = Convolution(kernel, (1, 24, 28))
    law = PoissonGaussian(gain, sigma)
    y = law.sample(A(x) + background, torch.Generator().manual_seed(0))
    shift = sigma**2 / gain
    image = RichardsonLucy(iterations=10, background=background)(y, Problem(A, law)).image
    expected = reference(y.clamp_min(-shift), kernel, 10, background, shift)
    assert (image - expected).norm() <= 1e-2 * expected.norm()  # the flat starts differ by background and shift
    assert abs(float(image.mean() / x.mean()) - 1) < 0.05
    ignorant = RichardsonLucy(iterations=10)(y, Problem(A, law)).image
    assert abs(float(ignorant.mean() / x.mean()) - 1) > 0.2, "without its background the image is too bright"


def test_likelihood_never_falls_and_flux_is_kept():
    kernel, x = gaussian_kernel(7, 7), spots(32, 32)
    problem = Problem(Convolution(kernel, (1, 32, 32)), Poisson(1.0))
    y = problem.simulate(x, seed=2)
    images = [RichardsonLucy(iterations=n)(y, problem).image for n in (1, 2, 4, 8, 16)]
    values = [float(problem.log_likelihood(image, y)) for image in images]
    assert all(b > a for a, b in zip(values, values[1:], strict=False))
    for image in images:
        assert float(image.sum()) == pytest.approx(float(y.sum()), rel=1e-9)
        assert bool((image >= 0).all())


def test_reaches_the_maximum_likelihood_where_it_is_known():
    problem = Problem(Identity((1, 1, 5)), Poisson(1.0))
    y = torch.tensor([[[0.0, 1.0, 5.0, 2.0, 40.0]]], dtype=torch.float64)
    estimate = RichardsonLucy(iterations=500, background=2.0, tolerance=1e-6)(y, problem)
    assert estimate.status.converged and estimate.status.reason == "converged"
    assert torch.allclose(estimate.image, (y - 2.0).clamp_min(0), atol=1e-2)
    hurried = RichardsonLucy(iterations=3, background=2.0, tolerance=1e-6)(y, problem)
    assert not hurried.status.converged, "three steps are not enough, and the status says so"


def test_acceleration_goes_further_in_the_same_number_of_steps():
    kernel, x = gaussian_kernel(7, 7), spots(32, 32)
    problem = Problem(Convolution(kernel, (1, 32, 32)), Poisson(1.0))
    y = problem.simulate(x, seed=3)
    plain = problem.log_likelihood(RichardsonLucy(iterations=30)(y, problem).image, y)
    fast = problem.log_likelihood(RichardsonLucy(iterations=30, accelerate=True)(y, problem).image, y)
    triple = problem.log_likelihood(RichardsonLucy(iterations=60)(y, problem).image, y)
    assert fast > triple > plain


def test_total_variation_lowers_its_objective_and_helps_on_a_piecewise_constant_image():
    kernel = gaussian_kernel(7, 7)
    x = torch.full((1, 48, 48), 5.0, dtype=torch.float64)
    x[:, 10:30, 12:36] = 40.0
    x[:, 34:42, 8:20] = 80.0
    problem = Problem(Convolution(kernel, (1, 48, 48)), Poisson(1.0))
    y = problem.simulate(x, seed=4)
    plain = RichardsonLucy(iterations=150)(y, problem)
    smooth = RichardsonLucy(iterations=150, total_variation=0.05)(y, problem)
    assert (smooth.image - x).norm() < 0.8 * (plain.image - x).norm()
    assert smooth.diagnostics["clamped_fraction"] == 0.0

    def objective(image):
        dy, dx = image[:, 1:, :-1] - image[:, :-1, :-1], image[:, :-1, 1:] - image[:, :-1, :-1]
        return float(-problem.log_likelihood(image, y) + 0.05 * (dx**2 + dy**2).sqrt().sum())

    assert objective(smooth.image) < objective(plain.image)


def test_batch_equals_one_by_one_and_data_are_untouched():
    kernel, x = gaussian_kernel(5, 5), torch.stack([spots(20, 24, seed=s) for s in range(3)])
    problem = Problem(Convolution(kernel, (1, 20, 24)), Poisson(1.0))
    y = problem.simulate(x, seed=5)
    kept = y.clone()
    for method in (RichardsonLucy(iterations=6), RichardsonLucy(iterations=6, accelerate=True)):
        together = method(y, problem).image
        assert torch.equal(y, kept)
        for i in range(3):
            assert torch.allclose(together[i], method(y[i], problem).image, rtol=1e-12)


def test_pixels_that_nothing_sees_stay_finite():
    seen = torch.ones(1, 6, 6)
    seen[:, 2:4, 2:4] = 0
    problem = Problem(Mask(seen, (1, 6, 6)), Poisson(1.0))
    y = problem.simulate(torch.full((1, 6, 6), 9.0), seed=6)
    image = RichardsonLucy(iterations=5)(y, problem).image
    assert bool(image.isfinite().all())
    assert torch.allclose(image[seen > 0], y[seen > 0], rtol=1e-5)
    y[:] = 0
    y[0, 0, 0] = 3.0  # almost no light at all
    assert bool(RichardsonLucy(iterations=5)(y, problem).image.isfinite().all())


def test_status_callback_and_interrupt():
    problem = Problem(Identity((1, 4, 4)), Poisson(1.0))
    seen = []
    estimate = RichardsonLucy(iterations=4)(torch.ones(1, 4, 4), problem, callback=lambda *a: seen.append(a))
    assert estimate.status.reason in ("stopped-as-asked", "converged")
    assert "not the maximum" in RichardsonLucy(iterations=1)(torch.rand(1, 4, 4), problem).status.message
    assert seen and seen[0][:2] == (1, 4) and len(seen) == len(estimate.history)

    def stop(iteration, total, value):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        RichardsonLucy(iterations=4)(torch.ones(1, 4, 4), problem, callback=stop)


def test_refusals():
    problem, y = Problem(Identity((1, 4, 4)), Poisson(1.0)), torch.ones(1, 4, 4)
    for arguments in (
        {"iterations": 0},
        {"total_variation": -1.0},
        {"total_variation": float("nan")},
        {"background": -1.0},
        {"start": "zero"},
        {"tolerance": -1.0},
        {"accelerate": True, "total_variation": 0.1},
    ):
        with pytest.raises(InputError):
            RichardsonLucy(**arguments)
    with pytest.raises(TypeError):
        RichardsonLucy(iteratons=3)
    for bad in (y * float("nan"), -y, y * 0, torch.ones(1, 5, 4)):
        with pytest.raises(InputError):
            RichardsonLucy(iterations=2)(bad, problem)
    with pytest.raises(InputError, match="MAP"):
        RichardsonLucy(iterations=2)(y, Problem(Identity((1, 4, 4)), Gaussian(1.0)))
    with pytest.raises(InputError, match="negative"):
        RichardsonLucy(iterations=2)(y, Problem(-1.0 * Identity((1, 4, 4)), Poisson(1.0)))
