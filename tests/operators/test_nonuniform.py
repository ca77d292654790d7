"""Non-uniform Fourier transforms: against the sum, against `Fourier`, and engine against engine."""

import itertools
import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from obverse import operators as ops
from obverse.errors import InputError
from obverse.operators import direct_fourier, gridding, nonuniform_transform, toeplitz
from obverse.operators.check import _distance
from tests.operators.cases_nonuniform import fourier_sum, points


@pytest.fixture(params=["finufft", "torch"])
def engine(request):
    if request.param == "finufft":
        pytest.importorskip("finufft")
    return request.param


def image(*shape, dtype=torch.complex128, seed=0):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def cartesian(*grid, centre=lambda n: n // 2):
    return torch.cartesian_prod(*((torch.arange(n, dtype=torch.float64) - centre(n)) / n for n in grid))


@pytest.mark.parametrize("grid", [(6, 8), (5, 4), (3, 4, 5)])
class TestOnTheCartesianGrid:
    def test_equals_fourier(self, grid, engine):
        x = image(2, *grid)
        expected = ops.Fourier((2, *grid), dtype=torch.complex128)(x).flatten(1)
        A = ops.NonuniformFourier(cartesian(*grid), (2, *grid), accuracy=1e-12, engine=engine, dtype=torch.complex128)
        assert _distance(A(x), expected) < 1e-11
        assert _distance(A.adjoint(expected), x) < 1e-11
        assert _distance(A.gram(x), x) < 1e-11
        D = ops.DirectFourier(cartesian(*grid), (2, *grid), dtype=torch.complex128)
        assert _distance(D(x), expected) < 1e-13

    def test_another_centre_would_be_noticed(self, grid, engine):
        x = image(1, *grid)
        moved = cartesian(*grid, centre=lambda n: (n - 1) / 2)
        A = ops.NonuniformFourier(moved, (1, *grid), engine=engine, dtype=torch.complex128)
        assert _distance(A(x), ops.Fourier((1, *grid), dtype=torch.complex128)(x).flatten(1)) > 0.1


class TestAccuracy:
    grid, places = (24, 30), points(60, 2)
    matrix = torch.as_tensor(fourier_sum(places, grid))

    def errors(self, engine, dtype, accuracy=None):
        matrix = self.matrix
        x, y = image(1, *self.grid), image(1, len(self.places), seed=1)
        A = ops.NonuniformFourier(self.places, (1, *self.grid), accuracy=accuracy, engine=engine, dtype=dtype)
        forward, adjoint = A(x.to(dtype)), A.adjoint(y.to(dtype))
        return (
            _distance(forward.to(x), x.flatten(1) @ matrix.T),
            _distance(adjoint.to(y).flatten(1), y @ matrix.conj()),
        )

    def test_is_what_was_promised(self, engine):
        assert max(self.errors(engine, torch.complex128)) < 2e-9
        assert max(self.errors(engine, torch.complex64)) < 2e-6
        assert max(self.errors(engine, torch.complex64, 1e-3)) < 2e-3

    def test_follows_the_argument(self, engine):
        for accuracy in (1e-3, 1e-6, 1e-12):
            found = max(self.errors(engine, torch.complex128, accuracy))
            assert accuracy / 1e4 < found < 2 * accuracy

    def test_does_not_depend_on_the_block(self, monkeypatch):
        whole = self.errors("torch", torch.complex128)
        monkeypatch.setattr(gridding, "_LARGEST_GATHER", 1000)
        assert self.errors("torch", torch.complex128) == pytest.approx(whole, rel=1e-3)

    @pytest.mark.parametrize("least", [1000, 7])
    def test_direct_is_exact_whatever_the_block(self, monkeypatch, least):
        monkeypatch.setattr(direct_fourier, "_BLOCK", 1)
        monkeypatch.setattr(direct_fourier, "_LEAST", least)
        x, y = image(1, *self.grid), image(1, len(self.places), seed=1)
        D = ops.DirectFourier(self.places, (1, *self.grid), dtype=torch.complex128)
        assert _distance(D(x), x.flatten(1) @ self.matrix.T) < 1e-13
        assert _distance(D.adjoint(y).flatten(1), y @ self.matrix.conj()) < 1e-13


@pytest.mark.parametrize("grid", [(4, 3), (2, 3, 2)])
def test_derivatives_in_values_and_points(engine, grid):
    places = points(5, len(grid)).requires_grad_()
    x, y = image(2, *grid).requires_grad_(), image(2, 5, seed=1).requires_grad_()
    for function, values in ((nonuniform_transform.forward_sum, x), (nonuniform_transform.adjoint_sum, y)):

        def apply(values, places, function=function):
            return function(values, places, nonuniform_transform.Transform(places, grid, engine), 1e-13)

        assert torch.autograd.gradcheck(apply, (values, places), fast_mode=True, check_forward_ad=True)
        assert torch.autograd.gradgradcheck(apply, (values, places), fast_mode=True)


def test_a_wrong_derivative_in_the_points_is_noticed(monkeypatch):
    def halved(grid, like, coordinates=nonuniform_transform._coordinates):
        return [place / 2 for place in coordinates(grid, like)]

    monkeypatch.setattr(nonuniform_transform, "_coordinates", halved)
    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        test_derivatives_in_values_and_points("torch", (4, 3))


def test_an_operator_passes_derivatives_on_to_its_points(engine):
    x, y = image(2, 2, 4, 3), image(2, 2, 5, seed=1)

    def operator(places):
        return ops.NonuniformFourier(places, (2, 4, 3), accuracy=1e-13, engine=engine, dtype=torch.complex128)

    places = points(5, 2).requires_grad_()
    for function in (lambda k: operator(k)(x), lambda k: operator(k).adjoint(y), lambda k: operator(k).gram(x)):
        assert torch.autograd.gradcheck(function, (places,), fast_mode=True)


def test_points_moved_in_place_are_seen(engine):
    places = points(6, 2).requires_grad_()
    A = ops.NonuniformFourier(places, (1, 4, 5), engine=engine, dtype=torch.complex128)
    x = image(1, 4, 5)
    with torch.no_grad():
        before, gram = A(x), A.gram(x)
    with torch.no_grad():
        places += 0.1
    after = ops.NonuniformFourier(places.detach(), (1, 4, 5), engine=engine, dtype=torch.complex128)
    assert torch.equal(A(x), after(x)) and not torch.equal(A(x), before)
    with torch.no_grad():
        assert _distance(A.gram(x), after.gram(x)) < 1e-8 and _distance(A.gram(x), gram) > 1e-2


def test_points_of_the_caller_are_copied():
    places = points(6, 2)
    A = ops.NonuniformFourier(places, (1, 4, 5))
    x = image(1, 4, 5, dtype=torch.complex64)
    before = A(x)
    places += 0.1
    assert torch.equal(A(x), before)


def test_a_nonlinear_operator_behind_it_has_a_jacobian(engine):
    class Intensity(ops.Operator):
        def _apply(self, x):
            return x.abs().square()

    A = ops.NonuniformFourier(points(7, 2), (1, 4, 3), engine=engine, dtype=torch.complex128)
    chain = Intensity((1, 7), (1, 7), torch.complex128) @ A
    x, v = image(1, 4, 3), image(1, 4, 3, seed=1)
    expected = 2 * (A(x).conj() * A(v)).real
    assert _distance(chain.linearise(x)(v), expected) < 1e-12


class TestGram:
    @pytest.mark.parametrize("shape", [(2, 7, 6), (2, 3, 4, 2)])
    @pytest.mark.parametrize("leading", [(), (1,), (2,), (3, 2)], ids=str)
    def test_is_adjoint_weight_forward(self, engine, shape, leading):
        A = ops.NonuniformFourier(points(40, len(shape) - 1), shape, engine=engine, dtype=torch.complex128)
        x = image(3, *shape)
        weight = torch.rand((*leading, 40), dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        assert _distance(A.gram(x, weight), A.adjoint(weight * A(x))) < 1e-8
        assert _distance(A.gram(x, weight.square()), A.adjoint(weight * A(x))) > 1e-3

    @pytest.mark.parametrize("shape", [(2, 7, 6), (1, 3, 4, 2)])
    def test_does_not_depend_on_the_block(self, monkeypatch, shape):
        A = ops.NonuniformFourier(points(40, len(shape) - 1), shape, accuracy=1e-13, dtype=torch.complex128)
        x = image(2, *shape).requires_grad_()
        expected = A.adjoint(A(x)).detach()
        monkeypatch.setattr(toeplitz, "_BLOCK", 60)
        result = A.gram(x)
        assert _distance(result.detach(), expected) < 1e-11
        (gradient,) = torch.autograd.grad(result, x, expected)
        assert _distance(gradient, A.gram(expected)) < 1e-12

    def test_costs_one_sum_however_often_it_is_used(self, monkeypatch):
        sums = []
        adjoint = nonuniform_transform.Transform.adjoint

        def counted(self, y, accuracy):
            sums.append(self.grid)
            return adjoint(self, y, accuracy)

        monkeypatch.setattr(nonuniform_transform.Transform, "adjoint", counted)
        A = ops.NonuniformFourier(points(60, 2), (1, 6, 5), dtype=torch.complex128)
        b, weight = image(1, 6, 5), torch.rand(1, 60, dtype=torch.float64) + 0.5
        x = A.solve(b, 0.1, weight)
        assert sums == [(11, 9)]
        sums.clear()
        assert _distance(A.adjoint(weight * A(x)) + 0.1 * x, b) < 1e-7
        assert sums == [(6, 5)]

    def test_a_weight_changed_in_place_is_seen(self):
        A = ops.NonuniformFourier(points(20, 2), (1, 4, 4), dtype=torch.complex128)
        x, weight = image(1, 4, 4), torch.ones(1, 20, dtype=torch.float64)
        once = A.gram(x, weight)
        weight *= 3
        assert _distance(A.gram(x, weight), 3 * once) < 1e-12

    def test_is_differentiable_in_the_weight(self):
        A = ops.NonuniformFourier(points(8, 2), (1, 3, 2), accuracy=1e-13, dtype=torch.complex128)
        x, weight = image(1, 3, 2), torch.rand(1, 8, dtype=torch.float64).requires_grad_()
        assert torch.autograd.gradcheck(lambda w: A.gram(x, w), (weight,), fast_mode=True)


def test_plans_serve_threads(engine):
    A = ops.NonuniformFourier(points(300, 2), (1, 16, 16), engine=engine, dtype=torch.complex128)
    x = image(24, 1, 16, 16)
    expected = A(x)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda i: A(x[i]), range(24)))
    assert _distance(torch.stack(results), expected) < 1e-12


def test_without_finufft_the_twin_serves(monkeypatch):
    monkeypatch.setattr(nonuniform_transform, "finufft_is_installed", lambda: False)
    x = image(1, 5, 4)
    automatic = ops.NonuniformFourier(points(9, 2), (1, 5, 4), dtype=torch.complex128)
    twin = ops.NonuniformFourier(points(9, 2), (1, 5, 4), engine="torch", dtype=torch.complex128)
    assert torch.equal(automatic(x), twin(x))
    with pytest.raises(InputError, match=r"pip install obverse\[nufft\]"):
        ops.NonuniformFourier(points(9, 2), (1, 5, 4), engine="finufft")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"points": points(5, 3)}, "points of shape"),
        ({"points": points(5, 2).to(torch.complex128)}, "real points"),
        ({"points": points(5, 2).long()}, "floating-point"),
        ({"points": points(5, 2) * math.nan}, "finite"),
        ({"points": points(5, 2)[:0]}, "at least one point"),
        ({"image_shape": (4, 4)}, "image_shape"),
        ({"dtype": torch.float32}, "complex images"),
        ({"scaling": "ortho"}, "scaling"),
        ({"engine": "cufinufft"}, "engine"),
        ({"accuracy": 0.0}, "accuracy"),
    ],
)
def test_bad_input_is_refused(change, message):
    good = {"points": points(5, 2), "image_shape": (1, 4, 4)}
    ops.NonuniformFourier(**good)
    with pytest.raises(InputError, match=message):
        ops.NonuniformFourier(**good | change)
    if not change.keys() & {"engine", "accuracy"}:
        with pytest.raises(InputError, match=message):
            ops.DirectFourier(**good | change)


class TestDensityCompensation:
    shape, places = (1, 9, 9), ops.radial(ops.uniform_angles(16), 18)
    rows = torch.as_tensor(fourier_sum(places, (9, 9)))

    def misfit(self, weights):
        """‖Σ w a aᴴ − I‖_F, from the matrix."""
        gram = self.rows.mH @ (weights[:, None] * self.rows)
        return float((gram - torch.eye(len(gram))).norm())

    def test_is_one_on_the_cartesian_grid(self, engine):
        weights = ops.density_compensation(cartesian(6, 5), (1, 6, 5), engine=engine)
        assert torch.allclose(weights, torch.ones_like(weights), atol=1e-4)

    def test_is_the_iteration_it_says(self, engine):
        kernel = (self.rows @ self.rows.mH).abs().square()
        expected = torch.ones(len(self.rows), dtype=torch.float64)
        for _ in range(3):
            expected = expected / (kernel @ expected)
        found = ops.density_compensation(self.places, self.shape, iterations=3, engine=engine)
        assert _distance(found, expected) < 1e-5

    def test_every_iteration_lowers_the_misfit(self):
        misfits = [self.misfit(ops.density_compensation(self.places, self.shape, iterations=n)) for n in (1, 2, 4, 20)]
        assert all(b < a for a, b in itertools.pairwise(misfits))
        # flat weights, at their best scale, are far worse
        flat = [self.misfit(torch.full((len(self.places),), s, dtype=torch.float64)) for s in (0.1, 0.2, 0.3, 0.5, 1.0)]
        assert misfits[-1] < 0.6 * min(flat)

    def test_refuses_no_iterations(self):
        with pytest.raises(InputError, match="at least one iteration"):
            ops.density_compensation(self.places, self.shape, iterations=0)


def test_a_radial_acquisition_is_reconstructed(engine):
    """The weights give a picture at once, and conjugate gradients the image."""
    n = 16
    r = torch.arange(n, dtype=torch.float64) - n // 2
    x = torch.exp(-((r[:, None] - 1) ** 2 + (r + 2) ** 2) / 8).to(torch.complex128)[None]
    places = ops.radial(ops.golden_angles(32), 2 * n)
    A = ops.NonuniformFourier(places, (1, n, n), engine=engine, dtype=torch.complex128)
    y = A(x)
    start = A.adjoint(ops.density_compensation(places, A.image_shape, engine=engine) * y)
    assert _distance(start, x) < 0.05
    assert _distance(A.adjoint(y) * (start.norm() / A.adjoint(y).norm()), x) > 0.3
    assert _distance(A.solve(A.adjoint(y), 1e-6), x) < 1e-3


class TestTrajectories:
    def test_spokes_pass_through_the_centre(self):
        spokes = ops.radial(ops.uniform_angles(5), 8).reshape(5, 8, 2)
        assert torch.equal(spokes[:, 4], torch.zeros(5, 2, dtype=torch.float64))
        assert torch.allclose(spokes[:, 0], -4 * spokes[:, 5])
        assert torch.allclose(spokes.norm(dim=-1)[:, 0], torch.tensor(0.5, dtype=torch.float64))
        rows, columns = spokes[1, 5]
        assert math.atan2(rows, columns) == pytest.approx(math.pi / 5)

    def test_golden_angles_leave_no_gap(self):
        for count in range(3, 30):
            directions = torch.remainder(ops.golden_angles(count), math.pi).sort().values
            gaps = torch.cat([directions.diff(), math.pi - directions[-1:] + directions[:1]])
            assert gaps.max() / gaps.min() < 2.7  # at most the golden ratio squared
        assert torch.allclose(ops.golden_angles(5, first=2), ops.golden_angles(7)[2:])

    def test_spiral_arms_and_density(self):
        turns, samples = 4, 4000
        curve = ops.spiral(ops.uniform_angles(2, 2 * math.pi), samples, turns).reshape(2, samples, 2)
        radius = curve.norm(dim=-1)
        assert radius.max() < 0.5 and radius[0, 0] == 0
        assert float((radius < 0.25).double().mean()) == pytest.approx(0.25, abs=1e-3)  # a quarter of the disc
        assert torch.allclose(curve[1], -curve[0])
        steps = curve[0].diff(dim=0).norm(dim=-1)[samples // 2 :]
        assert steps.max() / steps.min() < 1.02  # constant speed away from the centre
        crossings = radius[0][1:][(curve[0, 1:, 0] > 0) & (curve[0, :-1, 0] <= 0)]
        assert torch.allclose(crossings[1:].diff(), torch.tensor(0.5 / turns, dtype=torch.float64), atol=2e-3)

    def test_bad_input_is_refused(self):
        with pytest.raises(InputError, match="at least 1"):
            ops.radial(ops.uniform_angles(3), 0)
        with pytest.raises(InputError, match="at least 1"):
            ops.golden_angles(0)
        with pytest.raises(InputError, match="turns"):
            ops.spiral(ops.uniform_angles(3), 10, 0)
        with pytest.raises(InputError, match="angles of shape"):
            ops.radial(torch.zeros(2, 2), 10)
