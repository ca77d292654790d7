"""Tomography against exact projections of ellipses, its twin engine, its inverse, and its errors."""

import math

import pytest
import torch

from obverse.errors import InputError
from obverse.operators import FanBeam, Radon
from obverse.operators.filtered_backprojection import view_weights
from obverse.operators.ray_table import cell_positions
from obverse.solvers.linear import cg
from tests.operators.analytic import Ellipse, averaged, fan_lines, parallel_lines, raster, shepp_logan

_DISC = [Ellipse(1.0, (50.3, 50.3), (21.4, -13.7))]
_SIZE, _VIEWS = 256, 180
_SOURCE, _DETECTOR, _CELL = 500.0, 300.0, 1.76


def relative(a, b):
    return float((a - b).norm() / b.norm())


def turns(views, full=math.pi):
    return torch.arange(views, dtype=torch.float64) * full / views


def parallel(offset=0.0, views=_VIEWS, **keywords):
    A = Radon((1, _SIZE, _SIZE), turns(views), detector_offset=offset, dtype=torch.float64, **keywords)
    positions = cell_positions(A.data_shape[-1], A.detector_spacing, offset)
    return A, (lambda p: parallel_lines(turns(views), p)), positions, A.detector_spacing


def fan(detector, offset=0.0):
    theta = turns(_VIEWS, 2 * math.pi)
    geometry = {"source_distance": _SOURCE, "detector_distance": _DETECTOR, "detector_spacing": _CELL}
    shape = (1, _SIZE, _SIZE)
    A = FanBeam(shape, theta, 420, **geometry, detector=detector, detector_offset=offset, dtype=torch.float64)
    positions = cell_positions(420, _CELL, offset)
    return A, (lambda p: fan_lines(theta, p, _SOURCE, _DETECTOR, detector == "arc")), positions, _CELL


@pytest.fixture(scope="module")
def disc():
    return raster(_DISC, (_SIZE, _SIZE))


@pytest.mark.parametrize(
    ("geometry", "limit"),
    [
        (parallel, 0.003),
        (lambda offset=0.0: fan("flat", offset), 0.005),
        (lambda offset=0.0: fan("arc", offset), 0.005),
    ],
    ids=["parallel", "flat", "arc"],
)
class TestDisc:
    """An off-centre disc against its exact chords, averaged over each cell; and back by filtered back-projection."""

    def test_projection(self, geometry, limit, disc):
        A, lines, positions, cell = geometry()
        exact = averaged(_DISC, lines, positions, cell)[None]
        y = A(disc)
        assert relative(y, exact) < limit
        half_a_cell_off = averaged(_DISC, lines, positions + cell / 2, cell)[None]
        assert relative(y, half_a_cell_off) > 3 * limit

    def test_offset_moves_the_detector(self, geometry, limit, disc):
        A, lines, positions, cell = geometry(2.6)
        exact = averaged(_DISC, lines, positions, cell)[None]
        assert relative(A(disc), exact) < limit
        assert relative(A(disc), averaged(_DISC, lines, positions - 2 * 2.6, cell)[None]) > 3 * limit

    def test_filtered_backprojection(self, geometry, limit):
        A, lines, positions, cell = geometry(2.6)
        image = A.filtered_backprojection(averaged(_DISC, lines, positions, cell)[None])[0]
        axis = torch.arange(_SIZE, dtype=torch.float64) - (_SIZE - 1) / 2
        away = torch.hypot(axis - 21.4, -axis[:, None] + 13.7)
        assert image[away < 45].mean() == pytest.approx(1.0, abs=0.002)
        assert abs(float(image[(away > 56) & (away < 90)].mean())) < 0.002


def test_shepp_logan_is_as_exact_as_its_raster():
    """Thin edges of full contrast are lost between pixels: 0.7 %, which twice as many pixels halve."""
    errors = []
    for size, views in ((64, 30), (128, 30)):
        phantom, theta = shepp_logan(size / 2 - 1), turns(views)
        A = Radon((1, size, size), theta, dtype=torch.float64)
        positions = cell_positions(A.data_shape[-1], 1.0, 0.0)
        exact = averaged(phantom, lambda p, theta=theta: parallel_lines(theta, p), positions, 1.0)[None]
        errors.append(relative(A(raster(phantom, (size, size))), exact))
    assert errors[1] < 0.02 and errors[1] < 0.65 * errors[0]


def test_units_are_lengths():
    """The same object on pixels and cells of another size has the same integrals."""
    theta = turns(12)
    small = Radon((1, 40, 40), theta, 60, dtype=torch.float64)
    large = Radon((1, 40, 40), theta, 60, spacing=2.5, detector_spacing=2.5, dtype=torch.float64)
    x = torch.rand(1, 40, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(large(x), 2.5 * small(x))


def test_orientation():
    x = torch.zeros(1, 5, 5, dtype=torch.float64)
    x[0, 0, 3] = 1  # one to the right of the centre and two up
    y = Radon((1, 5, 5), [0.0, math.pi / 2], 5, dtype=torch.float64)(x)
    expected = torch.tensor([[0.0, 0, 0, 1, 0], [0, 0, 0, 0, 1]], dtype=torch.float64)
    torch.testing.assert_close(y[0], expected, atol=1e-12, rtol=0)


def test_a_distant_source_is_parallel():
    x = torch.rand(1, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    theta = turns(7, 6.0)
    far = FanBeam(
        (1, 16, 16), theta, 23, source_distance=1e7, detector_distance=0.0, detector_spacing=1.0, dtype=torch.float64
    )
    assert relative(far(x), Radon((1, 16, 16), theta, 23, dtype=torch.float64)(x)) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("count", [1, 2, 3, 8, 11])
def test_engines_agree(dtype, count):
    pytest.importorskip("numba")
    geometry = {"source_distance": 30.0, "detector_distance": 9.0, "detector_spacing": 1.4, "dtype": dtype}
    theta = turns(9, 5.0)
    fused = FanBeam((1, 20, 23), theta, 31, engine="numba", **geometry)
    plain = FanBeam((1, 20, 23), theta, 31, engine="torch", **geometry)
    x = torch.randn(count, 1, 20, 23, dtype=dtype, generator=torch.Generator().manual_seed(2))
    limit = 1e-12 if dtype == torch.float64 else 1e-5
    assert relative(fused(x), plain(x)) < limit
    assert relative(fused.adjoint(fused(x)), plain.adjoint(plain(x))) < limit


def test_threads_do_not_show():
    pytest.importorskip("numba")
    A = Radon((1, 33, 29), turns(11))
    x, before = torch.rand(1, 33, 29), torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append((A(x), A.adjoint(A(x))))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other))


@pytest.mark.parametrize("kind", ["parallel", "fan"])
def test_preconditioner_saves_iterations(kind):
    theta, shape = turns(80), (1, 48, 40)
    if kind == "parallel":
        A = Radon(shape, theta, dtype=torch.float64)
    else:  # the source lies within the doubled image on which the preconditioner is found
        geometry = {"source_distance": 40.0, "detector_distance": 40.0, "detector_spacing": 2.4}
        A = FanBeam(shape, 2 * theta, 70, **geometry, dtype=torch.float64)
    b = A.adjoint(torch.rand(A.data_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3)))
    damping = torch.tensor(1e-3 * A.norm() ** 2, dtype=torch.float64)

    def iterations(preconditioner):
        return cg(lambda v: A.gram(v) + damping * v, b, preconditioner=preconditioner, tolerance=1e-8).iterations

    assert iterations(A.preconditioner(damping, None)) < 0.6 * iterations(None)


def test_solve_is_differentiable():
    A = Radon((1, 5, 6), turns(7), dtype=torch.float64)
    b = torch.randn(1, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(4)).requires_grad_()
    damping = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(A.data_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5)) + 0.5
    assert torch.autograd.gradcheck(A.solve, (b, damping, weight.requires_grad_()), fast_mode=True, rtol=1e-4)


def test_views_weigh_their_gaps():
    torch.testing.assert_close(view_weights(turns(6), math.pi), torch.full((6,), math.pi / 6, dtype=torch.float64))
    twice = view_weights(turns(12, 2 * math.pi), math.pi)
    assert float(twice.sum()) == pytest.approx(math.pi)
    wedge = view_weights(turns(6) / 2, math.pi)  # a quarter turn: the missing half is not given to its neighbours
    torch.testing.assert_close(wedge, torch.full((6,), math.pi / 12, dtype=torch.float64))


def test_errors():
    fan_options = {"source_distance": 20.0, "detector_distance": 10.0}
    for make, match in [
        (lambda: Radon((8, 8), [0.0]), "C, H, W"),
        (lambda: Radon((1, 8, 8), []), "finite radians"),
        (lambda: Radon((1, 8, 8), [float("nan")]), "finite radians"),
        (lambda: Radon((1, 8, 8), [0.0], spacing=0.0), "spacing above zero"),
        (lambda: Radon((1, 8, 8), [0.0], 0), "at least one detector"),
        (lambda: Radon((1, 8, 8), [0.0], engine="cuda"), "engine"),
        (lambda: Radon((1, 8, 8), [0.0]).filtered_backprojection(torch.zeros(1, 2, 12)), "expects real data"),
        (lambda: Radon((1, 8, 8), [0.0]).filtered_backprojection(torch.zeros(1, 1, 12), "box"), "'hann'"),
        (
            lambda: FanBeam((1, 8, 8), [0.0], 8, source_distance=5.0, detector_distance=1.0),
            "beyond the image's corners",
        ),
        (lambda: FanBeam((1, 8, 8), [0.0], 8, **fan_options, detector="curved"), "'flat' or 'arc'"),
        (lambda: FanBeam((1, 8, 8), [0.0], 8, **fan_options, detector_spacing=100.0, detector="arc"), "80°"),
    ]:
        with pytest.raises(InputError, match=match):
            make()
