"""ESPIRiT on simulated coils, whose sensitivities are known; and the birdcage's own properties."""

import pytest
import torch

from obverse.errors import InputError
from obverse.instruments.sensitivities import birdcage, espirit
from obverse.operators import Coils, Fourier

COILS, GRID = 6, (48, 40)


def head(grid, dtype=torch.complex128):
    """An ellipse with structure and a smooth phase, on an empty background."""
    axes = torch.meshgrid(*[torch.linspace(-1, 1, n, dtype=torch.float64) for n in grid], indexing="ij")
    inside = sum((axis / 0.75) ** 2 for axis in axes) < 1
    image = (1 + 0.5 * torch.sin(9 * axes[-1]) * torch.cos(7 * axes[-2])) * inside
    return torch.polar(image, 0.9 * axes[-1] - 0.5 * axes[-2])[None].to(dtype), inside


def scan(maps, image, sigma=1e-3):
    A = Fourier(tuple(maps.shape), dtype=maps.dtype) @ Coils(maps)
    noise = torch.randn(A.data_shape, dtype=maps.dtype, generator=torch.Generator().manual_seed(0))
    return A(image) + sigma * noise


def agreement(maps, truth):
    """|⟨s, s'⟩| at every pixel: one where the two agree but for a phase."""
    return (maps.conj() * truth).sum(0).abs()


def decomposed_everywhere(kspace, sets=1):
    """Eigenvalues of the matrix of every pixel, from the definition: all shifts of the windows, one at a time."""
    coils, height, width = kspace.shape
    k, size = 4, 16
    centre = kspace[:, height // 2 - 8 : height // 2 + 8, width // 2 - 8 : width // 2 + 8]
    rows = [centre[:, i : i + k, j : j + k].flatten() for i in range(size - k + 1) for j in range(size - k + 1)]
    _, singular, right = torch.linalg.svd(torch.stack(rows), full_matrices=False)
    kernels = right[singular > 0.02 * singular[0]].reshape(-1, coils, k, k)
    y, x = torch.meshgrid(torch.arange(height) - height // 2, torch.arange(width) - width // 2, indexing="ij")
    total = torch.zeros(len(kernels), coils, height, width, dtype=kspace.dtype)
    for a in range(k):
        for b in range(k):
            turn = 2 * torch.pi * (a * y / height + b * x / width)
            total += kernels[:, :, a, b, None, None] * torch.polar(torch.ones_like(turn), turn).to(kspace)
    values, vectors = torch.linalg.eigh(torch.einsum("jchw,jdhw->hwcd", total, total.conj()) / k**2)
    return values[..., -sets:].flip(-1), vectors[..., -sets:].flip(-1)


@pytest.fixture(scope="module")
def known():
    truth = birdcage(COILS, GRID, dtype=torch.complex128)
    image, inside = head(GRID)
    return truth, inside, scan(truth, image)


def test_espirit_recovers_the_maps_inside_the_object(known):
    truth, inside, kspace = known
    maps, eigenvalues = espirit(kspace, calibration=16, kernel=4)
    assert maps.shape == truth.shape and eigenvalues.shape == GRID
    assert agreement(maps, truth)[inside].min() > 0.9998
    assert eigenvalues[inside].min() > 0.97
    torch.testing.assert_close(maps.abs().square().sum(0)[inside], torch.ones_like(eigenvalues[inside]))


def test_coils_in_another_order_are_noticed(known):
    truth, inside, kspace = known
    shuffled = espirit(kspace.roll(3, 0), calibration=16, kernel=4).maps
    assert agreement(shuffled, truth)[inside].median() < 0.9
    assert agreement(shuffled, truth.roll(3, 0))[inside].min() > 0.9998


def test_maps_explain_the_data_and_wrong_ones_do_not(known):
    truth, inside, kspace = known
    images = Fourier(tuple(kspace.shape), dtype=kspace.dtype).adjoint(kspace)

    def unexplained(maps):
        left = images - maps * (maps.conj() * images).sum(0)
        return float((left * inside).norm() / (images * inside).norm())

    maps = espirit(kspace, calibration=16, kernel=4, crop=0.0).maps
    assert unexplained(maps) < 5e-3
    assert unexplained(maps.roll(1, 0)) > 0.3


@pytest.mark.parametrize("sets", [1, 2])
def test_interpolated_and_improved_equals_decomposed_at_every_pixel(known, sets):
    _, inside, kspace = known
    values, vectors = decomposed_everywhere(kspace, sets)
    maps, eigenvalues = espirit(kspace, calibration=16, kernel=4, sets=sets, crop=0.0)
    eigenvalues = eigenvalues if sets > 1 else eigenvalues[None]
    maps = maps if sets > 1 else maps[None]
    assert (eigenvalues[0] - values[..., 0])[inside].abs().max() < 1e-4
    assert agreement(maps[0], vectors[..., 0].movedim(-1, 0))[inside].min() > 0.9999


def test_where_nothing_is_the_maps_are_zero(known):
    _, inside, kspace = known
    maps, eigenvalues = espirit(kspace, calibration=16, kernel=4, crop=0.95)
    empty = eigenvalues < 0.95
    assert empty.any() and not (empty & inside).all()
    assert not maps[:, empty].any() and maps[:, ~empty].abs().sum(0).min() > 0


def test_a_virtual_coil_sets_the_phase(known):
    _, inside, kspace = known
    turned = espirit(kspace * torch.exp(torch.tensor(0.7j)), calibration=16, kernel=4).maps
    plain = espirit(kspace, calibration=16, kernel=4).maps
    torch.testing.assert_close(turned[:, inside].abs(), plain[:, inside].abs())
    ratio = (turned.conj() * plain).sum(0)[inside]
    torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio), rtol=1e-6, atol=1e-6)


def test_two_sets_where_the_object_folds_over():
    grid = (48, 64)
    truth = birdcage(COILS, grid, dtype=torch.complex128)
    image, _ = head(grid)
    coils = Coils(truth)(image)
    folded = coils[..., :32] + coils[..., 32:]  # a field of view half as wide as the object
    kspace = Fourier(tuple(folded.shape), dtype=folded.dtype)(folded)
    two = espirit(kspace, calibration=20, kernel=5, sets=2)
    one = espirit(kspace, calibration=20, kernel=5)
    left = folded - sum(m * (m.conj() * folded).sum(0) for m in two.maps)
    right = folded - one.maps * (one.maps.conj() * folded).sum(0)
    assert left.norm() < 0.01 * folded.norm() and right.norm() > 0.05 * folded.norm()
    scan = Fourier(tuple(folded.shape), dtype=folded.dtype) @ Coils(two.maps, (2, 48, 32))
    again = scan(scan.solve(scan.adjoint(kspace), 1e-8))
    assert (again - kspace).norm() < 0.02 * kspace.norm()


def test_espirit_in_three_dimensions_and_single_precision():
    grid = (12, 16, 14)
    truth = birdcage(4, grid, rings=2)
    image, inside = head(grid, torch.complex64)
    maps, _ = espirit(scan(truth, image, 1e-4), calibration=(10, 12, 12), kernel=3, crop=0.0)
    assert maps.shape == truth.shape and maps.dtype == torch.complex64
    assert torch.quantile(agreement(maps, truth)[inside], 0.05) > 0.99


def test_birdcage_turns_into_itself():
    grid = (33, 33)
    maps = birdcage(4, grid, dtype=torch.complex128)
    torch.testing.assert_close(maps.abs().square().sum(0), torch.ones(grid, dtype=torch.float64))
    quarter = torch.rot90(maps[0], -1, (0, 1))  # y points down: a quarter turn from the first coil to the second
    torch.testing.assert_close(quarter.abs(), maps[1].abs())
    torch.testing.assert_close(maps[1] / quarter, torch.full(grid, -1j, dtype=torch.complex128))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"calibration": 24}, "not measured"),
        ({"calibration": 3}, "as wide as the kernel"),
        ({"calibration": (16, 16, 16)}, "one for each axis"),
        ({"kernel": 1}, "at least 2"),
        ({"sets": COILS}, "sets from 1"),
        ({"threshold": 0.0}, "threshold"),
        ({"crop": 1.5}, "crop"),
    ],
)
def test_bad_arguments_end_in_one_sentence(known, arguments, words):
    kspace = known[2].clone()
    kspace[:, :14] = 0
    with pytest.raises(InputError, match=words):
        espirit(kspace, **({"calibration": 16, "kernel": 4} | arguments))
    for wrong in (kspace.real, kspace[0], kspace * float("nan")):
        with pytest.raises(InputError, match="espirit expects"):
            espirit(wrong)


@pytest.mark.parametrize(
    "arguments",
    [(0, (8, 8)), (4, (8,)), (4, (8, 8), {"radius": 1.0}), (4, (8, 8), {"rings": 2}), (3, (4, 8, 8), {"rings": 2})],
)
def test_birdcage_refuses_what_it_cannot_make(arguments):
    with pytest.raises(InputError, match="birdcage expects"):
        birdcage(*arguments[:2], **(arguments[2] if len(arguments) > 2 else {}))
