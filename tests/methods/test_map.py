"""MAP against closed forms, against optimality conditions written here, and one solver against another."""

import pytest
import torch

from obverse.errors import InputError
from obverse.methods.fidelity import Counting, Quadratic, fidelity
from obverse.methods.fused import compiled_step, plain_step
from obverse.methods.map import MAP
from obverse.noise import ComplexGaussian, Gaussian, Poisson, PoissonGaussian
from obverse.operators import Convolution, Dense, Fourier, Gradient, Identity, Mask
from obverse.priors import (
    L1,
    GaussianField,
    Positivity,
    Tikhonov,
    TotalGeneralizedVariation,
    TotalVariation,
    WaveletL1,
)
from obverse.problem import Problem

SHAPE = (1, 16, 20)


def kernel(width=1.0, size=5):
    g = torch.exp(-((torch.arange(size, dtype=torch.float64) - size // 2) ** 2) / (2 * width**2))
    k = g[:, None] * g
    return k / k.sum()


def blocks(shape=SHAPE):
    x = torch.full(shape, 0.2, dtype=torch.float64)
    x[:, 4:11, 5:14] = 1.0
    x[:, 12:15, 2:8] = 0.6
    return x


def dense(operator):
    n = torch.tensor(operator.image_shape).prod()
    basis = torch.eye(int(n), dtype=torch.float64).reshape(-1, *operator.image_shape)
    return Dense(operator(basis).flatten(1).T.contiguous(), operator.image_shape, operator.data_shape)


def energy(x, y, problem, prior, weight):
    return float(-problem.log_likelihood(x, y) + weight * prior.value(x))


A = Convolution(kernel(), SHAPE)


def test_quadratic_prior_is_the_normal_equations_by_every_route():
    x, y_noise = blocks(), Gaussian(0.1)
    problem = Problem(A, y_noise)
    y = problem.simulate(x, seed=0)
    M, n = dense(A).matrix, 320
    spectrum = 1.0 / (1.0 + 20 * torch.rand(SHAPE[1:], generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    spectrum = 0.5 * (spectrum + spectrum.flip((0, 1)).roll((1, 1), (0, 1)))
    field = GaussianField(spectrum, SHAPE, mean=0.3)
    for prior, solvers in ((field, ("fourier", "cg")), (Tikhonov(Gradient(SHAPE)), ("cg", "cg"))):
        P = torch.stack(
            [prior.hessian(x).matvec(e.reshape(SHAPE)).flatten() for e in torch.eye(n, dtype=torch.float64)]
        )
        b = (M.T @ y.flatten()) / 0.01 - 2.0 * prior.gradient(torch.zeros(SHAPE, dtype=torch.float64)).flatten()
        expected = torch.linalg.solve(M.T @ M / 0.01 + 2.0 * P, b).reshape(SHAPE)
        for operator, name in zip((A, dense(A)), solvers, strict=True):
            estimate = MAP(prior=prior, weight=2.0, tolerance=1e-8)(y, Problem(operator, y_noise))
            assert estimate.diagnostics["solver"] == name
            assert estimate.status.converged
            assert (estimate.image - expected).norm() <= 1e-7 * expected.norm()
        wrong = MAP(prior=prior, weight=2.2, tolerance=1e-8)(y, problem).image
        assert (wrong - expected).norm() > 1e-4 * expected.norm(), "another weight must show"


@pytest.mark.parametrize("isotropic", [True, False])
@pytest.mark.parametrize("positivity", [True, False])
def test_tv_deblurring_by_admm_and_by_primal_dual(isotropic, positivity):
    prior, noise, weight = TotalVariation(isotropic=isotropic), Gaussian(0.05), 5.0
    y = Problem(A, noise).simulate(blocks() - 0.2, seed=0)
    results = {}
    for operator in (A, dense(A)):
        method = MAP(prior=prior, weight=weight, positivity=positivity, tolerance=1e-5, max_iterations=4000)
        estimate = method(y, Problem(operator, noise))
        results[estimate.diagnostics["solver"]] = estimate.image
        assert estimate.diagnostics["residual"] <= 2e-4
    assert set(results) == {"admm", "primal-dual"}
    first, second = results.values()
    assert (first - second).norm() <= 2e-3 * first.norm()
    values = [energy(x, y, Problem(A, noise), prior, weight) for x in results.values()]
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    assert not positivity or bool((first >= 0).all())


def test_tv_solution_satisfies_its_optimality_conditions():
    """A dual certificate found here, by plain projected gradients on it alone, bounds what MAP could have missed."""
    noise, weight = Gaussian(0.1), 2.0
    problem = Problem(Identity(SHAPE), noise)
    y = problem.simulate(blocks(), seed=1)
    x = MAP(prior=TotalVariation(), weight=weight, tolerance=1e-7)(y, problem).image
    D, bound = Gradient(SHAPE), weight * 0.01
    p = torch.zeros(D.data_shape, dtype=torch.float64)
    for _ in range(4000):
        p = p + 0.12 * D(y - D.adjoint(p))
        p = p / (torch.linalg.vector_norm(p, dim=0, keepdim=True) / bound).clamp_min(1)
    best = 0.5 * float(y.square().sum() - (y - D.adjoint(p)).square().sum())

    def primal(image):
        return 0.5 * float((image - y).square().sum()) + bound * float(TotalVariation().value(image))

    assert best <= primal(x) <= best * (1 + 1e-4)
    assert primal(x + 0.01 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))) > best * (1 + 1e-4)


def test_one_dimensional_tv_of_a_step_is_known():
    """For y = (0,…,0,1,…,1) with n and m samples, TV shrinks the step by λ/n and λ/m."""
    y = torch.cat([torch.zeros(6), torch.ones(10)]).double().reshape(1, 1, 16)
    for operator in (Identity((1, 1, 16)), dense(Identity((1, 1, 16)))):
        estimate = MAP(prior=TotalVariation(), weight=0.3 / 0.25, tolerance=1e-7, max_iterations=20000)(
            y, Problem(operator, Gaussian(0.5))
        )
        expected = torch.cat([torch.full((6,), 0.3 / 6), torch.full((10,), 1 - 0.3 / 10)]).double()
        assert (estimate.image.flatten() - expected).abs().max() < 1e-4


@pytest.mark.parametrize("operator", [A, dense(A)], ids=["admm", "primal-dual"])
def test_l1_finds_the_spikes_and_meets_the_subgradient_conditions(operator):
    x = torch.zeros(SHAPE, dtype=torch.float64)
    for i, j, height in ((3, 4, 3.0), (9, 15, 2.0), (13, 6, 4.0)):
        x[0, i, j] = height
    problem, weight = Problem(operator, Gaussian(0.02)), 60.0
    y = problem.simulate(x, seed=0)
    estimate = MAP(prior=L1(), weight=weight, positivity=True, tolerance=1e-5, max_iterations=5000)(y, problem)
    gradient = problem.gradient(estimate.image, y) / weight
    assert float(gradient.min()) >= -1.1  # |∇f| ≤ weight off the support, = −weight on it
    on = estimate.image > 0.3
    assert (gradient[on] + 1).abs().max() < 0.1
    peaks = [(int(i), int(j)) for _, i, j in on.nonzero()]
    assert set(peaks) == {(3, 4), (9, 15), (13, 6)}


def test_wavelet_sparsity_and_sums_of_priors():
    noise = Gaussian(0.05)
    y = Problem(A, noise).simulate(blocks(), seed=2)
    prior = TotalVariation() + 0.2 * L1() + Positivity()
    first = MAP(prior=prior, weight=3.0, tolerance=5e-5, max_iterations=2000)(y, Problem(A, noise))
    second = MAP(prior=prior, weight=3.0, tolerance=5e-5, max_iterations=2000)(y, Problem(dense(A), noise))
    assert first.diagnostics["objective"] == pytest.approx(second.diagnostics["objective"], rel=1e-4)
    wavelet = MAP(prior=WaveletL1(wavelet="haar", levels=2), weight=3.0, tolerance=1e-6)(y, Problem(A, noise))
    assert wavelet.status.converged and wavelet.diagnostics["solver"] == "admm"
    shaken = wavelet.image + 0.003 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    prior, problem = WaveletL1(wavelet="haar", levels=2), Problem(A, noise)
    assert energy(wavelet.image, y, problem, prior, 3.0) < energy(shaken, y, problem, prior, 3.0)


@pytest.mark.parametrize("noise", [Poisson(0.05), PoissonGaussian(0.05, 0.1)])
def test_counting_noise_by_admm_and_by_primal_dual(noise):
    y = Problem(A, noise).simulate(blocks() * 4, seed=3)
    found = [
        MAP(prior=TotalVariation(), weight=0.5, tolerance=3e-5, max_iterations=2000)(y, Problem(operator, noise))
        for operator in (A, dense(A))
    ]
    assert [estimate.diagnostics["solver"] for estimate in found] == ["admm", "primal-dual"]
    first, second = found
    assert first.diagnostics["objective"] == pytest.approx(second.diagnostics["objective"], rel=1e-4)
    assert (first.image - second.image).norm() <= 1e-2 * first.image.norm()
    assert bool((first.image >= 0).all()) and 0.7 < first.diagnostics["chi2"] < 1.3
    if isinstance(noise, Poisson):  # the objective is the likelihood's up to a constant
        problem = Problem(A, noise)
        gap = [
            energy(e.image.clamp_min(1e-9), y, problem, TotalVariation(), 0.5) - e.diagnostics["objective"]
            for e in found
        ]
        assert gap[0] == pytest.approx(gap[1], abs=0.05)


def test_smooth_prior_by_newton_has_no_gradient_left():
    prior, problem = TotalVariation(smoothing=0.02), Problem(A, Gaussian(0.05))
    y = problem.simulate(blocks(), seed=4)
    estimate = MAP(prior=prior, weight=5.0, tolerance=1e-6)(y, problem)
    assert estimate.status.converged and estimate.diagnostics["solver"] == "newton"
    gradient = problem.gradient(estimate.image, y) + 5.0 * prior.gradient(estimate.image)
    assert gradient.norm() <= 1e-5 * problem.gradient(estimate.image, y).norm()


def test_missing_data_and_a_sigma_for_each_datum():
    seen = (torch.rand(SHAPE, generator=torch.Generator().manual_seed(0)) > 0.4).double()
    problem = Problem(Mask(seen, SHAPE), Gaussian(0.02))
    y = problem.simulate(blocks(), seed=5)
    estimate = MAP(prior=TotalVariation(), weight=30.0, tolerance=3e-4, max_iterations=2000)(y, problem)
    assert (estimate.image - blocks()).norm() < 0.4 * (y - blocks()).norm()
    sigma = 0.02 + 0.2 * torch.rand(SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = Problem(A, Gaussian(sigma)).simulate(blocks(), seed=6)
    found = [
        MAP(prior=TotalVariation(), weight=5.0, tolerance=1e-5, max_iterations=4000)(
            y, Problem(operator, Gaussian(sigma))
        )
        for operator in (A, dense(A))
    ]
    assert found[0].diagnostics["objective"] == pytest.approx(found[1].diagnostics["objective"], rel=1e-4)


def test_complex_images():
    shape = (1, 16, 16)
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(0)) > 0.5
    operator = Fourier(shape, mask=mask) if _takes_mask() else Fourier(shape)
    x = torch.complex(torch.zeros(shape), torch.zeros(shape)).to(torch.complex128)
    x[:, 4:10, 5:12] = 1 + 1j
    problem = Problem(operator, ComplexGaussian(0.05))
    y = problem.simulate(x, seed=0)
    estimate = MAP(prior=TotalVariation(), weight=20.0, tolerance=1e-4, max_iterations=3000)(y, problem)
    assert estimate.status.converged
    assert (estimate.image - x).norm() < 0.5 * (operator.adjoint(y) - x).norm()


def _takes_mask():
    import inspect

    return "mask" in inspect.signature(Fourier.__init__).parameters


def test_generalised_variation_moves_image_and_slopes_together():
    prior, noise = TotalGeneralizedVariation(tolerance=2e-4), Gaussian(0.1)
    y = Problem(Identity(SHAPE), noise).simulate(blocks() + torch.linspace(0, 1, 20, dtype=torch.float64), seed=7)
    method = MAP(prior=prior, weight=5.0, tolerance=3e-4, max_iterations=5000)
    nested, joint = (method(y, Problem(operator, noise)) for operator in (Identity(SHAPE), dense(Identity(SHAPE))))
    assert [nested.diagnostics["solver"], joint.diagnostics["solver"]] == ["prox", "primal-dual"]
    assert nested.status.converged and joint.status.converged
    assert joint.diagnostics["objective"] == pytest.approx(nested.diagnostics["objective"], rel=5e-4)
    assert (joint.image - nested.image).norm() <= 2e-2 * nested.image.norm()
    # with the data term in Fourier, in blocks, beside other priors and beside another of its kind
    y = Problem(A, noise).simulate(blocks(), seed=8)
    method = MAP(prior=prior, weight=5.0, positivity=True, tolerance=1e-3, max_iterations=5000)
    both = [method(y, Problem(operator, noise)) for operator in (A, dense(A))]
    halves = MAP(prior=0.5 * prior + 0.5 * prior, weight=5.0, positivity=True, tolerance=1e-3, max_iterations=5000)
    for estimate in (*both, halves(y, Problem(A, noise))):
        assert estimate.status.converged and estimate.image.shape == SHAPE and bool((estimate.image >= 0).all())
        assert estimate.diagnostics["objective"] == pytest.approx(both[0].diagnostics["objective"], rel=2e-3)
        # the history is of image and slopes, which can only be above that of the image with its best slopes
        assert estimate.history[-1] >= estimate.diagnostics["objective"] * (1 - 4e-4)
    shaken = both[0].image + 0.01 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    problem = Problem(A, noise)
    assert energy(shaken, y, problem, prior, 5.0) > energy(both[0].image, y, problem, prior, 5.0) + 0.1


def test_status_is_honest():
    problem = Problem(A, Gaussian(0.05))
    y = problem.simulate(blocks(), seed=0)
    hurried = MAP(prior=TotalVariation(), weight=5.0, tolerance=1e-5, max_iterations=3)(y, problem)
    assert not hurried.status.converged and hurried.status.reason == "max-iterations"
    assert "max_iterations" in hurried.status.message and hurried.diagnostics["residual"] > 1e-5
    patient = MAP(prior=TotalVariation(), weight=5.0, tolerance=1e-5, max_iterations=4000)(y, problem)
    assert patient.status.converged
    best = patient.diagnostics["objective"]
    for tolerance in (1e-2, 1e-3, 1e-4):
        rough = MAP(prior=TotalVariation(), weight=5.0, tolerance=tolerance)(y, problem)
        assert rough.status.converged
        assert rough.diagnostics["objective"] <= best * (1 + 5 * tolerance), (
            "what is certified is not far above the best"
        )
    assert hurried.diagnostics["objective"] > best * (1 + 1e-3)
    assert patient.history[-1] == pytest.approx(best, rel=1e-6)


def test_batch_equals_one_by_one_and_float32_is_kept():
    problem = Problem(A, Gaussian(0.05))
    y = problem.simulate(torch.stack([blocks(), 0.5 * blocks()]), seed=0)
    method, kept = MAP(prior=TotalVariation(), weight=5.0), y.clone()
    together = method(y, problem)
    assert torch.equal(y, kept)
    assert together.diagnostics["weight"] == [5.0, 5.0]
    for i in range(2):
        assert torch.equal(together.image[i], method(y[i], problem).image)
    single = method(y[0].float(), problem).image
    assert single.dtype == torch.float32
    assert (single - together.image[0]).norm() < 1e-2 * single.norm()
    stack = method(y[None], problem).image
    assert stack.shape == (1, 2, *SHAPE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fused_step_equals_plain_step(dtype):
    step = compiled_step()
    if step is None:
        pytest.skip("numba is not installed")
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 9, 12, generator=generator, dtype=dtype)
    z, u = (torch.randn(2, 2, 9, 12, generator=generator, dtype=dtype) for _ in range(2))
    copies = [t.clone() for t in (z, u)]
    compiled, plain = step(x, z, u, 0.3, 1.7), plain_step(x, *copies, 0.3, 1.7)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    for a, b in ((compiled, plain), (z, copies[0]), (u, copies[1])):
        assert (a - b).abs().max() < tolerance
    assert (step(x, z, u, 0.2, 1.7) - plain).abs().max() > 1e-2


@pytest.mark.parametrize("noise", [Gaussian(0.5), Poisson(0.7), PoissonGaussian(0.7, 0.4)])
def test_data_terms_are_right(noise):
    generator = torch.Generator().manual_seed(0)
    y = 4 * torch.rand(1, 3, 4, generator=generator, dtype=torch.float64)
    y[0, 0, 0] = 0.0
    data = fidelity(y, noise)
    assert isinstance(data, Quadratic if isinstance(noise, Gaussian) else Counting)
    z = (0.5 + 3 * torch.rand(y.shape, generator=generator, dtype=torch.float64)).requires_grad_()
    (slope,) = torch.autograd.grad(data.value(z), z, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), z)
    assert torch.allclose(slope, data.gradient(z)) and torch.allclose(bend, torch.as_tensor(data.curvature(z)) + 0 * z)
    if not isinstance(noise, PoissonGaussian):
        (exact,) = torch.autograd.grad(-noise.log_prob(y, z).sum(), z)
        assert torch.allclose(slope, exact)
    v = 6 * torch.rand(y.shape, generator=generator, dtype=torch.float64) - 2
    p = data.prox(v, 0.6)
    assert (data.gradient(p) + (p - v) / 0.6)[y > 0].abs().max() < 1e-8
    grid = torch.linspace(-0.2, 6, 20001, dtype=torch.float64)
    for value, datum, found in zip(v.flatten(), y.flatten(), p.flatten(), strict=True):
        one = fidelity(datum, noise)
        energies = torch.stack([one.value(g) for g in grid[::200]]) + (grid[::200] - value) ** 2 / 1.2
        assert one.value(found) + (found - value) ** 2 / 1.2 <= energies.min() + 1e-9


def test_refusals():
    problem = Problem(A, Gaussian(0.1))
    y = problem.simulate(blocks(), seed=0)
    prior = TotalVariation()
    for arguments in (
        {"weight": 0.0},
        {"weight": float("nan")},
        {"weight": "much"},
        {"selection": "luck"},
        {"tolerance": 0.0},
        {"max_iterations": 0},
    ):
        with pytest.raises((InputError, TypeError)):  # the type checker of the test run may be first
            MAP(prior=prior, **arguments)
    with pytest.raises((InputError, TypeError)):
        MAP(prior="tv")
    with pytest.raises(TypeError):
        MAP(prior=prior, wieght=1.0)
    for bad in (y * float("nan"), y[:, :8], y[:0].reshape(0, *SHAPE)):
        with pytest.raises(InputError):
            MAP(prior=prior, weight=1.0)(bad, problem)


def test_interrupt_goes_through():
    problem = Problem(A, Gaussian(0.05))
    y = problem.simulate(blocks(), seed=0)

    def stop(iteration, total, value):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        MAP(prior=TotalVariation(), weight=5.0)(y, problem, callback=stop)
