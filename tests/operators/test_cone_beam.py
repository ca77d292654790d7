"""Cone-beam projection and Feldkamp's reconstruction against balls and Gaussians, whose integrals are known."""

import math
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from obverse.errors import InputError
from obverse.operators import ConeBeam, cone_transform

needs_numba = pytest.mark.skipif(find_spec("numba") is None, reason="needs numba")
CENTRE, RADIUS = (1.3, -2.1, 1.2), 26.0  # x, y, z


def scanner(size: int, angles=(0.0, 0.5, math.pi / 4, 2.0), cells: int = 80, **changes) -> ConeBeam:
    """A cube of 64 units in `size` voxels, with rays in proportion."""
    options = {
        "source_distance": 150.0,
        "detector_distance": 80.0,
        "spacing": 64 / size,
        "detector_spacing": 1.4 * 80 / cells,
        "detector_offset": (1.0, -2.0),
        "dtype": torch.float64,
    }
    return ConeBeam((1, size, size, size), angles, (cells, cells), **(options | changes))


def positions(size: int, finer: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, y, z of the voxels of a cube of 64 units, or of `finer` points along each side of one."""
    line = ((np.arange(size * finer) + 0.5) / finer - 0.5 - (size - 1) / 2) * 64 / size
    z, y, x = np.ix_(line, -line, line)
    return x, y, z


def ball(size: int, centre=CENTRE, radius=RADIUS, finer: int = 4) -> torch.Tensor:
    x, y, z = positions(size, finer)
    inside = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2 < radius**2
    parts = inside.astype(np.float64).reshape(size, finer, size, finer, size, finer)
    return torch.as_tensor(parts.mean(axis=(1, 3, 5)))[None]


def squared_distances(A: ConeBeam, centre) -> torch.Tensor:
    """Of every ray from the point `centre`, by its source and its pixel."""
    rows, columns = A.detector_positions()
    result = []
    for angle in A.angles:
        along = torch.tensor([math.cos(angle), math.sin(angle), 0.0], dtype=torch.float64)
        ahead = torch.tensor([-math.sin(angle), math.cos(angle), 0.0], dtype=torch.float64)
        up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
        source = -A.source_distance * ahead
        pixel = A.detector_distance * ahead + columns[None, :, None] * along + rows[:, None, None] * up
        direction = torch.nn.functional.normalize(pixel - source, dim=-1)
        from_source = torch.tensor(centre, dtype=torch.float64) - source
        result.append(from_source.square().sum() - (direction @ from_source).square())
    return torch.stack(result)[None]


def chords(A: ConeBeam, centre=CENTRE, radius=RADIUS) -> torch.Tensor:
    return 2 * (radius**2 - squared_distances(A, centre)).clamp_min(0).sqrt()


def error(found: torch.Tensor, true: torch.Tensor) -> float:
    return float((found - true).norm() / true.norm())


def test_a_smooth_ball_has_its_known_integrals():
    A, width = scanner(64), 9.0
    x, y, z = positions(64)
    square = (x - CENTRE[0]) ** 2 + (y - CENTRE[1]) ** 2 + (z - CENTRE[2]) ** 2
    found = A(torch.as_tensor(np.exp(-square / (2 * width**2)))[None])
    true = width * math.sqrt(2 * math.pi) * torch.exp(-squared_distances(A, CENTRE) / (2 * width**2))
    assert error(found, true) < 5e-3
    shifted = scanner(64, detector_offset=(1.0, -1.3))  # half a cell off
    assert error(shifted.to()(torch.as_tensor(np.exp(-square / (2 * width**2)))[None]), true) > 5e-3


def test_a_ball_has_the_lengths_of_its_chords():
    A = scanner(64)
    found, true = A(ball(64)), chords(A)
    inner = true > 0.3 * true.max()  # the root at the rim is blurred by a voxel, whatever the model
    assert error(found * inner, true * inner) < 5e-3
    assert error(found, true) < 0.02
    assert float(found.sum() / true.sum()) == pytest.approx(1, abs=3e-4)
    half = scanner(128)
    assert error(half(ball(128, finer=2)), chords(half)) < 0.55 * error(found, true)
    mirrored = ball(64, (CENTRE[0], -CENTRE[1], CENTRE[2]))
    assert error(A(mirrored) * inner, true * inner) > 5e-3


def test_the_middle_slice_is_a_fan():
    """Sums along the columns from afar: at θ = 0 the rays run along the columns, and columns keep their order."""
    A = ConeBeam((1, 3, 4, 5), [0.0], (3, 5), source_distance=1e7, detector_distance=0.0, dtype=torch.float64)
    x = torch.rand(1, 3, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(A(x)[0, 0], x[0].sum(1), rtol=1e-5, atol=1e-5)
    turned = ConeBeam((1, 3, 4, 5), [math.pi / 2], (3, 4), source_distance=1e7, detector_distance=0.0)
    # u runs along +y, against the rows
    torch.testing.assert_close(turned(x.float())[0, 0], x[0].sum(2).flip(-1).float(), rtol=1e-5, atol=1e-5)


def test_fdk_finds_the_value_of_a_ball():
    angles = torch.arange(120) * 2 * math.pi / 120
    A = scanner(48, angles, 64, spacing=1.0, detector_offset=(1.0, -2.0))
    centre, radius = (3.0, -5.0, 0.0), 15.0
    x = A.filtered_backprojection(chords(A, centre, radius))[0]
    k, i, j = np.ix_(*(np.arange(48) - 23.5,) * 3)
    distance = torch.as_tensor(np.sqrt((j - centre[0]) ** 2 + (-i - centre[1]) ** 2 + (k - centre[2]) ** 2))
    middle = x[23:25]
    assert float(middle[distance[23:25] < radius - 3].mean()) == pytest.approx(1, abs=0.01)
    assert float(x[distance < radius - 3].mean()) == pytest.approx(1, abs=0.02)
    assert float(middle[distance[23:25] > radius + 2].abs().mean()) < 0.02
    other_way = ConeBeam(
        (1, 48, 48, 48), -angles, (64, 64), source_distance=150.0, detector_distance=80.0, detector_spacing=1.75
    )
    wrong = other_way.to(dtype=torch.float64).filtered_backprojection(chords(A, centre, radius))[0]
    assert float(wrong[23:25][distance[23:25] < radius - 3].mean()) < 0.95


def test_fdk_takes_batches_and_channels():
    A = ConeBeam((2, 3, 6, 5), torch.arange(8) * math.pi / 4, (4, 6), source_distance=20.0, detector_distance=5.0)
    y = torch.rand(3, *A.data_shape)
    x = A.filtered_backprojection(y, "hann")
    assert x.shape == (3, 2, 3, 6, 5)
    torch.testing.assert_close(A.filtered_backprojection(y[1], "hann"), x[1])
    assert not torch.allclose(A.filtered_backprojection(y), x)
    with pytest.raises(InputError, match="expects data"):
        A.filtered_backprojection(y[..., 1:])


@needs_numba
@pytest.mark.parametrize("threads", [1, 3])
def test_engines_agree(threads, monkeypatch):
    monkeypatch.setattr(cone_transform, "_THREADS_FROM", 0)
    options = {"spacing": (0.4, 1.0, 1.2), "detector_spacing": (1.1, 0.9), "detector_offset": (0.4, -1.0)}
    # a corner's rays rise more than a slice for each voxel, and those at 45 degrees have two axes to choose from
    angles = [*torch.linspace(0, 6, 9).tolist(), math.pi / 4, 3 * math.pi / 4]
    compiled, plain = (
        ConeBeam(
            (1, 14, 12, 11), angles, (15, 13), source_distance=14.0, detector_distance=6.0, engine=engine, **options
        ).to(dtype=torch.float64)
        for engine in ("numba", "torch")
    )
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, *compiled.image_shape, generator=generator, dtype=torch.float64)
    y = torch.randn(2, *compiled.data_shape, generator=generator, dtype=torch.float64)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        torch.testing.assert_close(compiled(x), plain(x), rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(compiled.adjoint(y), plain.adjoint(y), rtol=1e-10, atol=1e-10)
        parts = compiled.adjoint(y)
        torch.set_num_threads(1)
        assert torch.equal(compiled.adjoint(y), parts)  # the number of threads does not show
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("engine", ["auto", "torch"])
def test_an_empty_batch_stays_empty(engine):
    A = ConeBeam((2, 3, 4, 4), [0.3], (3, 5), source_distance=9.0, detector_distance=3.0, engine=engine)
    y = A(torch.zeros(0, 2, 3, 4, 4))
    assert y.shape == (0, 2, 1, 3, 5)
    assert A.adjoint(y).shape == (0, 2, 3, 4, 4)


def test_complex_volumes_are_projected_by_parts():
    A = ConeBeam((1, 3, 4, 4), [0.3], (3, 4), source_distance=9.0, detector_distance=3.0)
    x = torch.rand(1, 3, 4, 4)
    torch.testing.assert_close(A(torch.complex(x, 2 * x)), torch.complex(A(x), 2 * A(x)))


def test_forward_derivatives_and_vmap():
    A = ConeBeam((1, 2, 3, 3), [0.3, 2.0], (2, 3), source_distance=9.0, detector_distance=3.0, dtype=torch.float64)
    x = torch.rand(4, 1, 2, 3, 3, dtype=torch.float64)
    torch.testing.assert_close(torch.func.jvp(A, (x,), (2 * x,))[1], A(2 * x))
    torch.testing.assert_close(torch.func.vmap(A)(x), A(x))
    y = A(x)
    torch.testing.assert_close(torch.func.jvp(A.adjoint, (y,), (y,))[1], A.adjoint(y))
    torch.testing.assert_close(torch.func.vmap(A.adjoint)(y), A.adjoint(y))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_shape": (1, 8, 8)}, "image_shape"),
        ({"detector_shape": (4,)}, "rows, columns"),
        ({"source_distance": 5.0}, "outside the volume"),
        ({"source_distance": float("nan")}, "source_distance"),
        ({"detector_distance": -1.0}, "at least zero"),
        ({"spacing": (1.0, 1.0)}, "3 finite numbers"),
        ({"detector_spacing": 0.0}, "above zero"),
        ({"angles": [float("inf")]}, "finite radians"),
        ({"engine": "cuda"}, "engine"),
        ({"dtype": torch.complex64}, "real dtype"),
    ],
)
def test_bad_geometry_is_refused_in_one_sentence(change, message):
    options = {
        "image_shape": (1, 4, 8, 8),
        "angles": [0.0],
        "detector_shape": (4, 8),
        "source_distance": 20.0,
        "detector_distance": 5.0,
    }
    assert ConeBeam(**options).data_shape == (1, 1, 4, 8)
    with pytest.raises(InputError, match=message):
        ConeBeam(**(options | change))
