"""PlugAndPlay with an exact Gaussian denoiser, for which every scheme's fixed point is known in closed form."""

import math

import pytest
import torch

from obverse.errors import InputError
from obverse.methods import PlugAndPlay
from obverse.noise import ColouredGaussian, ComplexGaussian, Gaussian, Poisson, PoissonGaussian
from obverse.operators import Convolution, Downsample, Fourier, Identity, Mask, Operator
from obverse.priors import GaussianField
from obverse.problem import Problem

D = torch.float64
SHAPE = (1, 8, 8)
FIELD = GaussianField.power_law(SHAPE, exponent=2.0, variance=0.04, mean=0.5)
NOISE = 0.05


class FieldStep:
    """The field as a gradient-step denoiser: g_σ(x) = σ²/2 ⟨x − m, (C + σ²)⁻¹ (x − m)⟩, hence x − ∇g_σ = D(x, σ)."""

    def value(self, x, sigma):
        return 0.5 * ((x - 0.5) * self.gradient(x, sigma)).sum(dim=(-3, -2, -1))

    def gradient(self, x, sigma):
        return x - self.denoise(x, sigma)

    def denoise(self, x, sigma):
        return FIELD.denoise(x, sigma)


def randn(*shape, seed=0, dtype=D):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def mask(fraction=0.4, shape=SHAPE, seed=3):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=D) < fraction


def problem(kind="blur"):
    kernel = torch.tensor([[0.0, 0.1, 0.05], [0.1, 0.4, 0.2], [0.0, 0.1, 0.05]], dtype=D)
    operator = {
        "blur": lambda: Convolution(kernel, SHAPE),
        "mask": lambda: Mask(mask(), dtype=D),
        "zoom": lambda: Downsample(SHAPE, 2, "box", dtype=D),
    }[kind]()
    return Problem(operator, Gaussian(NOISE))


def matrix(function, shape=SHAPE):
    n = math.prod(shape)
    return function(torch.eye(n, dtype=D).reshape(n, *shape)).reshape(n, -1).T


def solution(p, y, weight, sigma):
    """argmin f + λ·energy, the energy being the field's, or with a σ that of the field blurred by σ."""
    A, C = matrix(p.operator), matrix(FIELD.covariance_matvec)
    precision = weight * torch.linalg.inv(C + (sigma or 0.0) ** 2 * torch.eye(len(C), dtype=D))
    normal = A.T @ A / NOISE**2 + precision
    right = A.T @ y.flatten() / NOISE**2 + precision @ torch.full((len(C),), 0.5, dtype=D)
    return torch.linalg.solve(normal, right).reshape(SHAPE)


def expected(scheme, p, y, weight, sigma):
    if scheme in ("pgd", "admm"):
        return solution(p, y, weight, None)
    x = solution(p, y, weight, sigma)
    return FIELD.denoise(x, sigma) if scheme == "hqs" else x


# scheme, sigma, weight
CASES = [("hqs", 0.06, 0.7), ("red", 0.06, 0.7), ("admm", 0.06, 0.7), ("pgd", 0.03, 0.7), ("gradient-step", 0.06, 0.7)]


@pytest.mark.parametrize("scheme, sigma, weight", CASES)
@pytest.mark.parametrize("kind", ["blur", "mask", "zoom"])
def test_every_scheme_reaches_its_closed_form(scheme, sigma, weight, kind):
    p = problem(kind)
    y = p.simulate(FIELD.sample(1, seed=1)[0], seed=2)
    prior = FieldStep() if scheme == "gradient-step" else FIELD
    tolerance = (
        1e-10 if scheme != "gradient-step" else 1e-6
    )  # its energy is known to sixteen digits, its gradient to eight
    faster = None if kind == "blur" or scheme == "gradient-step" else "anderson"
    options = {"sigma": sigma, "weight": weight, "iterations": 20_000}
    method = PlugAndPlay(prior, scheme, tolerance=tolerance, acceleration=faster, **options)
    result = method(y, p)
    assert result.status.converged, result.status
    exact = expected(scheme, p, y, weight, sigma)
    assert (result.image - exact).norm() <= 1e-6 * exact.norm()
    # negative controls: neither another weight nor another level gives this image
    other = expected(scheme, p, y, 2 * weight, sigma)
    assert (result.image - other).norm() > 1e-3 * exact.norm()
    if scheme != "gradient-step" and kind == "blur":
        wrong = FieldWithWrongLevel()
        found = PlugAndPlay(wrong, scheme, tolerance=1e-5, **options)(y, p)
        assert (found.image - exact).norm() > 1e-3 * exact.norm()


class FieldWithWrongLevel:
    def denoise(self, x, sigma):
        return FIELD.denoise(x, 1.5 * sigma)


@pytest.mark.parametrize("scheme, sigma, weight", CASES[:4])
def test_anderson_reaches_it_in_fewer_evaluations(scheme, sigma, weight):
    p = problem()
    y = p.simulate(FIELD.sample(1, seed=1)[0], seed=2)
    options = {"sigma": sigma, "weight": weight, "tolerance": 1e-9, "iterations": 20_000}
    slow = PlugAndPlay(FIELD, scheme, **options)(y, p)
    fast = PlugAndPlay(FIELD, scheme, acceleration="anderson", **options)(y, p)
    assert slow.status.converged and fast.status.converged
    assert fast.diagnostics["evaluations"] < 0.7 * slow.diagnostics["evaluations"]
    exact = expected(scheme, p, y, weight, sigma)
    assert (fast.image - exact).norm() <= 1e-6 * exact.norm()


def test_the_energy_falls_at_every_step_and_is_the_one_stated():
    p = problem("mask")
    y = p.simulate(FIELD.sample(1, seed=1)[0], seed=2)
    told = []
    method = PlugAndPlay(FieldStep(), "gradient-step", sigma=0.06, weight=0.7, start=randn(*SHAPE))
    result = method(y, p, callback=lambda i, total, value: told.append(value))
    assert result.status.converged and len(result.history) > 5
    assert all(later < earlier for earlier, later in zip(result.history, result.history[1:]))
    assert told == list(result.history[1:])

    def energy(x):
        data = (p.operator(x) - y).square().sum() / (2 * NOISE**2)
        return float(data + 0.7 / 0.06**2 * FieldStep().value(x, 0.06))

    assert result.history[-1] == pytest.approx(energy(result.image), rel=1e-12)
    nearby = [energy(result.image + 1e-2 * randn(*SHAPE, seed=s)) for s in range(5)]
    assert min(nearby) > result.history[-1]


def test_an_energy_that_is_not_the_gradients_is_caught():
    class Contradictory(FieldStep):
        def value(self, x, sigma):
            return -10 * super().value(x, sigma)

    p = problem()
    y = p.simulate(FIELD.sample(1, seed=1)[0], seed=2)
    result = PlugAndPlay(Contradictory(), "gradient-step", sigma=0.2, weight=50.0, tolerance=1e-8)(y, p)
    assert not result.status.converged and result.status.reason == "stagnation"
    assert all(later < earlier for earlier, later in zip(result.history, result.history[1:]))


def test_the_schedule_is_that_of_dpir():
    p = problem()
    truth = FIELD.sample(1, seed=1)[0]
    y = p.simulate(truth, seed=2)
    result = PlugAndPlay(FIELD)(y, p)
    sigmas, n = result.diagnostics["sigma"], result.diagnostics["noise_level"]
    assert n == pytest.approx(NOISE, rel=0.05)  # a kernel of unit sum
    assert len(sigmas) == 8 and sigmas[0] == pytest.approx(49 / 255) and sigmas[-1] == pytest.approx(n)
    assert all(a / b == pytest.approx(sigmas[0] / sigmas[1]) for a, b in zip(sigmas, sigmas[1:]))
    A = matrix(p.operator)
    z = torch.zeros(SHAPE, dtype=D)
    for sigma in sigmas:
        alpha = 0.23 * NOISE**2 / sigma**2
        x = torch.linalg.solve(A.T @ A + alpha * torch.eye(64, dtype=D), A.T @ y.flatten() + alpha * z.flatten())
        z = FIELD.denoise(x.reshape(SHAPE), sigma)
    given = PlugAndPlay(FIELD, sigma=sigmas, start=torch.zeros(1, dtype=D))(y, p)
    assert torch.allclose(given.image, z, atol=1e-9)
    assert result.status.converged and result.status.reason == "schedule-completed"
    assert result.diagnostics["evaluations"] == 8 and len(result.history) == 8
    assert (result.image - truth).norm() < 0.95 * (y - truth).norm()


def test_holes_are_filled():
    shape = (1, 32, 32)
    field = GaussianField.power_law(shape, exponent=3.0, variance=0.04, mean=0.5)
    truth, seen = field.sample(1, seed=4)[0], mask(0.3, shape)
    p = Problem(Mask(seen, dtype=D), Gaussian(0.01))
    y = p.simulate(truth, seed=5)
    filled = PlugAndPlay(field)(y, p).image
    flat = torch.where(seen, y, y.sum() / seen.sum())
    holes = ~seen
    assert (filled - truth)[holes].norm() < 0.45 * (flat - truth)[holes].norm()
    start = PlugAndPlay(field, sigma=[1e-6], weight=1e9)(y, p).image  # what it starts from, all but untouched
    assert (start - truth)[holes].norm() < 0.5 * (flat - truth)[holes].norm()


@pytest.mark.parametrize(
    "scheme, law",
    [("admm", Poisson(2.0)), *((s, PoissonGaussian(2.0, 3.0)) for s in ("hqs", "admm", "red", "gradient-step"))],
)
def test_counts(scheme, law):
    shape = (1, 16, 16)
    scaled = GaussianField.power_law(shape, exponent=2.0, variance=400.0, mean=100.0)

    class Step:
        def denoise(self, x, sigma):
            return scaled.denoise(x, sigma)

        def gradient(self, x, sigma):
            return x - self.denoise(x, sigma)

        def value(self, x, sigma):
            return 0.5 * ((x - 100.0) * self.gradient(x, sigma)).sum(dim=(-3, -2, -1))

        low, high = 0.0, 255.0

    truth = scaled.sample(1, seed=1)[0].clamp_min(20.0)
    p = Problem(Convolution(torch.full((3, 3), 1 / 9, dtype=D), shape), law)
    y = p.simulate(truth, seed=2)
    options = {"hqs": {"iterations": 4}, "gradient-step": {}}.get(scheme, {"acceleration": "anderson"})
    done = PlugAndPlay(Step(), scheme, weight=1.0, **options)(y, p)
    assert done.status.converged, done.status
    assert (done.image - truth).norm() < 0.85 * (y - truth).norm()
    assert 0.7 < done.diagnostics["chi2"] < 1.3
    if scheme == "admm":  # at the exact law's most probable image
        gradient = p.gradient(done.image, y) if isinstance(law, Poisson) else None
        if gradient is not None:
            slope = gradient + scaled.gradient(done.image)
            assert slope.norm() < 0.02 * gradient.norm()


def test_dark_counts_below_zero_do_no_harm():
    field = GaussianField.power_law(SHAPE, variance=1.0, mean=0.5)
    p = Problem(Identity(SHAPE, dtype=D), PoissonGaussian(1.0, 2.0))
    y = p.simulate(field.sample(1, seed=1)[0].clamp_min(0.0), seed=3)
    assert bool((y < 0).any())
    result = PlugAndPlay(field, "admm", sigma=1.0, acceleration="anderson")(y, p)
    assert result.status.converged and bool(result.image.isfinite().all()) and float(result.image.abs().max()) < 5


def test_complex_images_are_denoised_part_by_part():
    centred = GaussianField.power_law(SHAPE, variance=0.04)
    truth = torch.complex(*centred.sample(2, seed=1))
    seen = mask(0.7)
    operator = Fourier(SHAPE, mask=seen, dtype=torch.complex128)
    p = Problem(operator, ComplexGaussian(0.05))
    y = p.simulate(truth, seed=2)
    result = PlugAndPlay(centred, "admm", sigma=0.05, weight=1.0, tolerance=1e-10, acceleration="anderson")(y, p)
    assert result.status.converged and result.image.dtype == torch.complex128
    # stationary: 2/σ² Aᴴ(Ax − y) + C⁻¹x = 0, with E|n|² = σ²
    pull = 2 / 0.05**2 * operator.adjoint(operator(result.image) - y)
    prior = torch.complex(*(centred.precision_matvec(part) for part in (result.image.real, result.image.imag)))
    assert (pull + prior).norm() < 1e-6 * prior.norm()
    assert (pull + 2 * prior).norm() > 0.1 * prior.norm()


class Squares(Operator):
    """A non-linear operator: x²."""

    def __init__(self):
        super().__init__(SHAPE, SHAPE, D)

    def _apply(self, x):
        return x.square()


@pytest.mark.parametrize("scheme", ["hqs", "pgd", "admm", "red", "gradient-step"])
def test_nonlinear_operators(scheme):
    truth = FIELD.sample(1, seed=1)[0]
    p = Problem(Squares(), Gaussian(0.02))
    y = p.simulate(truth, seed=2)
    start = torch.full(SHAPE, 0.8, dtype=D)  # where x² is steeper than at most of the image: pgd and red step by that
    iterations = 3 if scheme == "hqs" else None
    result = PlugAndPlay(FieldStep(), scheme, start=start, tolerance=5e-3, iterations=iterations)(y, p)
    assert result.status.converged, result.status
    assert (result.image - truth).norm() < 0.5 * (start - truth).norm()
    with pytest.raises(InputError, match="start"):
        PlugAndPlay(FIELD)(y, p)


def test_a_batch_equals_its_items_and_inputs_stay():
    p = problem("mask")
    y = p.simulate(FIELD.sample(4, seed=1), seed=2).reshape(2, 2, *SHAPE)
    kept = y.clone()
    method = PlugAndPlay(FIELD, "admm", sigma=0.05)
    together = method(y, p)
    assert together.image.shape == (2, 2, *SHAPE) and len(together.diagnostics["sigma"]) == 4
    assert torch.equal(together.image[1, 0], method(y[1, 0], p).image)
    assert torch.equal(y, kept)


def test_what_did_not_converge_says_so():
    p = problem("mask")
    y = p.simulate(FIELD.sample(1, seed=1)[0], seed=2)
    for scheme in ("hqs", "pgd", "admm", "red", "gradient-step"):
        sigma = 0.03 if scheme != "pgd" else None
        result = PlugAndPlay(FieldStep(), scheme, sigma=sigma, iterations=2, tolerance=1e-8)(y, p)
        assert not result.status.converged and result.status.reason == "max-iterations", scheme
        assert "after 2" in result.status.message or "2 steps" in result.status.message


def test_single_precision():
    p = Problem(Convolution(torch.full((3, 3), 1 / 9), SHAPE), Gaussian(NOISE))
    y = p.simulate(FIELD.sample(1, seed=1)[0].float(), seed=2)
    for scheme in ("hqs", "pgd", "admm", "red", "gradient-step"):
        result = PlugAndPlay(FieldStep(), scheme)(y, p)
        assert result.image.dtype == torch.float32
        # Rounding of the energy ends the descent near the tolerance: on one machine just below it, on others above.
        ended = result.status.reason == "stagnation" and result.diagnostics["residual"] < 1.1e-3
        assert result.status.converged or (scheme == "gradient-step" and ended), result.status


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"denoiser": object()}, "denoise"),
        ({"sigma": -1.0}, "positive sigma"),
        ({"sigma": []}, "positive sigma"),
        ({"sigma": [0.1, 0.05], "scheme": "red"}, "several sigmas"),
        ({"sigma": [0.1, 0.05], "iterations": 3}, "several sigmas"),
        ({"weight": 0.0}, "positive weight"),
        ({"iterations": 0}, "at least one iteration"),
        ({"acceleration": "anderson"}, "leave acceleration out"),
        ({"tolerance": 1.0}, "tolerance"),
        ({"scheme": "gradient-step"}, "without value and gradient"),
    ],
)
def test_arguments_are_checked(arguments, words):
    denoiser = arguments.pop("denoiser", FieldWithWrongLevel())
    with pytest.raises(InputError, match=words):
        PlugAndPlay(denoiser, **arguments)


def test_calls_are_checked():
    p = problem()
    y = torch.zeros(SHAPE, dtype=D)
    with pytest.raises(InputError, match="step"):
        PlugAndPlay(FIELD, "pgd", sigma=0.2, weight=1.0)(y, p)
    with pytest.raises(InputError, match="broadcasts"):
        PlugAndPlay(FIELD, start=torch.zeros(1, 4, 4))(y, p)
    with pytest.raises(InputError, match="empty batch"):
        PlugAndPlay(FIELD)(torch.zeros(0, *SHAPE, dtype=D), p)
    with pytest.raises(InputError, match="independent"):
        coloured = Problem(Identity(SHAPE, dtype=D), ColouredGaussian(torch.ones(8, 8, dtype=D)))
        PlugAndPlay(FIELD)(y, coloured)
