"""The compact form keeps what neighbouring pixels share: regions, components, files and crops, against the truth."""

import pytest
import torch

from obverse.errors import FormatError, InputError
from obverse.io.safe import read_safetensors, write_safetensors
from obverse.posterior import (
    LowRankDiagonal,
    Posterior,
    PrecisionCovariance,
    ProductCovariance,
    StationaryCovariance,
    region_errors,
)
from obverse.posterior.correlation import TileSpectrum, fitted_kernel
from obverse.posterior.derived import RestrictedCovariance
from tests.posterior.cases import DONE, kernel, normal, seeded, spectrum


def deblurring(*grid: int, blur: float = 1.5, sigma: float = 0.05, power: float = 1.0) -> StationaryCovariance:
    """The posterior of a Gaussian blur of `blur` pixels under a prior 1/f² of mean variance 1, known in closed form."""
    squared = 1 / spectrum(*grid, power=1.0) - 0.02
    prior = 1 / (1e-4 + squared) ** power
    transfer = torch.exp(-2 * torch.pi**2 * blur**2 * squared)
    return StationaryCovariance(1 / ((transfer / sigma) ** 2 + prior.mean() / prior), (1, *grid))


def varying(shape: tuple[int, ...], missing: float = 0.0) -> PrecisionCovariance:
    """Deblurring whose noise grows fourfold across the image, or with pixels missing: not stationary; exact draws."""
    squared = 1 / spectrum(*shape[1:], power=1.0) - 0.02
    transfer = torch.exp(-2 * torch.pi**2 * 1.2**2 * squared)[:, : shape[2] // 2 + 1]
    inverse_prior = ((1e-4 + squared) / (1 / (1e-4 + squared)).mean().reciprocal())[:, : shape[2] // 2 + 1]
    weight = torch.logspace(0, -1.2, shape[2], dtype=torch.float64) / 0.05**2
    weight = (weight * (torch.rand(shape, generator=seeded(1), dtype=torch.float64) >= missing)).expand(shape)

    def filtered(v: torch.Tensor, response: torch.Tensor) -> torch.Tensor:
        return torch.fft.irfftn(torch.fft.rfftn(v, dim=(-2, -1)) * response, s=shape[1:], dim=(-2, -1))

    def precision(v: torch.Tensor) -> torch.Tensor:
        return filtered(weight * filtered(v, transfer), transfer) + filtered(v, inverse_prior)

    def perturbation(generator: torch.Generator) -> torch.Tensor:
        a, b = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
        return filtered(weight.sqrt() * a, transfer) + filtered(b, inverse_prior.sqrt())

    near = StationaryCovariance(1 / (transfer_full(shape) ** 2 * weight.mean() + prior_full(shape)), shape)
    return PrecisionCovariance(
        precision, shape, preconditioner=near, perturbation=perturbation, tolerance=1e-6, dtype=torch.float64
    )


def transfer_full(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.exp(-2 * torch.pi**2 * 1.2**2 * (1 / spectrum(*shape[1:], power=1.0) - 0.02))


def prior_full(shape: tuple[int, ...]) -> torch.Tensor:
    squared = 1e-4 + 1 / spectrum(*shape[1:], power=1.0) - 0.02
    return squared * (1 / squared).mean()


def diagonal_form(compact: LowRankDiagonal) -> LowRankDiagonal:
    return LowRankDiagonal(compact.U, compact.eigenvalues, compact.d, compact.image_shape)


def correlation(known: StationaryCovariance, like: torch.Tensor) -> torch.Tensor:
    """The true correlation of a pixel in the middle with those around it, on the window of a kernel."""
    sides = known.image_shape[1:]
    impulse = torch.zeros(known.image_shape, dtype=torch.float64)
    impulse[(0, *(n // 2 for n in sides))] = 1.0
    column = known.matvec(impulse)[0]
    around = tuple(slice(n // 2 - k // 2, n // 2 + k // 2 + 1) for n, k in zip(sides, like.shape))
    return column[around] / column.max()


@pytest.mark.parametrize("blur, sigma, power", [(1.5, 0.05, 1.0), (2.0, 0.02, 1.5), (3.0, 0.05, 1.25)])
def test_regions_of_a_stationary_posterior_are_right_and_the_diagonal_form_is_not(blur, sigma, power):
    full = deblurring(64, 64, blur=blur, sigma=sigma, power=power)
    compact = full.compact(16)
    assert float(region_errors(compact, full).abs().max()) < 0.02
    assert float(region_errors(diagonal_form(compact), full).abs().max()) > 2, "negative control: off by a factor"
    assert torch.allclose(compact.diagonal(), full.diagonal(), rtol=1e-12)
    alone = full.compact(0)
    assert alone.rank == 0 and float(region_errors(alone, full).abs().max()) < 0.02, "the kernel needs no factors"
    torch.testing.assert_close(alone.correlation, correlation(full, alone.correlation), rtol=0, atol=3e-3)


def test_the_kernel_found_from_draws_agrees_with_the_exact_one():
    full = deblurring(64, 64)
    view = RestrictedCovariance(full, [slice(None)] * 3)
    assert float(region_errors(view.compact(8), full).abs().max()) < 0.08


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_regions_of_a_posterior_that_is_not_stationary(missing):
    full = varying((1, 48, 48), missing)
    compact = full.compact(8)
    assert torch.allclose(compact.diagonal(), full.diagonal(), rtol=1e-6)
    errors, control = region_errors(compact, full), region_errors(diagonal_form(compact), full)
    # One kernel for all places: the blur of the errors differs between the quiet and the noisy side. Measured: median
    # 0.22 and largest 0.44 without missing pixels (0.20 and 0.55 with), against factors up to 11 for the diagonal form.
    assert float(errors.abs().median()) < 0.3 and float(errors.abs().max()) < 0.7
    assert float(control.max()) > 5 and float(control.abs().median()) > 5 * float(errors.abs().median())


def test_volumes():
    full = deblurring(12, 24, 24, blur=1.0, sigma=0.1)
    compact = full.compact(4)
    assert compact.correlation.ndim == 3
    assert float(region_errors(compact, full).abs().max()) < 0.15
    assert float(region_errors(diagonal_form(compact), full).abs().max()) > 1


def test_leading_components_keep_their_variance():
    full = deblurring(64, 64)
    compact, exact = full.compact(8), full.components(3).variances
    assert torch.allclose(compact.components(3).variances, exact, rtol=0.05)
    U, values, d = compact.factors()
    careless = LowRankDiagonal(U, values, d, full.image_shape, compact.correlation)
    assert float(careless.components(1).variances[0]) > 1.7 * float(exact[0]), "counted in U and in the remainder"


def test_files_crops_and_units_keep_the_kernel(tmp_path):
    full = deblurring(32, 32)
    posterior = Posterior(normal(1, 32, 32), DONE, covariance=full)
    compact = posterior.compact(6)
    posterior.save(tmp_path / "p", rank=6)
    loaded = Posterior.load(tmp_path / "p")
    assert torch.equal(loaded.covariance.correlation, compact.covariance.correlation)
    assert torch.allclose(loaded.covariance.dense(), compact.covariance.dense(), atol=1e-12)
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "p").read_bytes()
    slices = (slice(0, 1), slice(3, 20), slice(8, 31, 2))
    changed = loaded.affine(-2.0).crop(slices)
    assert isinstance(changed.covariance, LowRankDiagonal)
    kept = torch.arange(1024).reshape(1, 32, 32)[slices].reshape(-1)
    assert torch.allclose(changed.covariance.dense(), 4 * compact.covariance.dense()[kept][:, kept], atol=1e-12)
    found = loaded.components(2, region=slices[1:])
    assert found.directions.shape == (2, 1, 17, 12)
    largest = torch.linalg.eigvalsh(changed.covariance.dense() / 4).flip(0)[:2]
    assert torch.allclose(found.variances, largest, rtol=1e-3)


def test_files_without_a_kernel_load_and_a_wrong_kernel_does_not(tmp_path):
    posterior = Posterior(normal(1, 16, 16), DONE, covariance=deblurring(16, 16))
    posterior.save(tmp_path / "p", rank=2)
    arrays, metadata = read_safetensors(tmp_path / "p")
    plain = {name: array for name, array in arrays.items() if name not in ("correlation", "shared")}
    write_safetensors(tmp_path / "old", plain, {"obverse": metadata["obverse"]})
    old = Posterior.load(tmp_path / "old")
    assert old.covariance.correlation is None
    assert torch.allclose(old.std, posterior.std)
    arrays["correlation"] = arrays["correlation"] * 2
    write_safetensors(tmp_path / "wrong", arrays, {"obverse": metadata["obverse"]})
    with pytest.raises(FormatError, match="kernel"):
        Posterior.load(tmp_path / "wrong")


def test_truncations_keep_marginals_and_kernel():
    compact = deblurring(32, 32).compact(8)
    fewer = compact.compact(3)
    assert fewer.rank == 3 and torch.equal(fewer.correlation, compact.correlation)
    assert torch.allclose(fewer.diagonal(), compact.diagonal())
    more = compact.compact(12)
    assert more.rank == 12 and torch.allclose(more.diagonal(), compact.diagonal())
    assert compact.compact() is compact


@pytest.mark.parametrize("grid", [(16, 16), (9, 30), (5, 7)])
def test_kernels_are_positive_on_every_grid(grid):
    rough = spectrum(40, 40, power=3.0)
    found = fitted_kernel(rough / rough.mean(), torch.ones(40, 40).double())
    R = LowRankDiagonal(torch.zeros(grid[0] * grid[1], 0), torch.zeros(0), torch.ones(grid), (1, *grid), found).dense()
    assert torch.allclose(R.diagonal(), torch.ones(len(R)).double(), atol=1e-6)
    assert float(torch.linalg.eigvalsh(R).min()) > -1e-5
    box = torch.zeros(found.shape).double() + 1
    with pytest.raises(InputError, match="spectrum ≥ 0"):
        LowRankDiagonal(torch.zeros(256, 0), torch.zeros(0), torch.ones(256), (1, 16, 16), box)


def test_white_noise_gets_no_kernel_and_what_cannot_be_sampled_neither():
    white = TileSpectrum((64, 64))
    white.add(normal(16, 1, 64, 64))
    assert fitted_kernel(white.mean, white.overlap, white.error) is None
    assert float(white.mean.mean()) == pytest.approx(1, abs=0.03)
    assert StationaryCovariance(torch.ones(8, 8), (1, 8, 8)).compact(0).correlation is None
    mute = PrecisionCovariance(lambda v: v, (1, 8, 8))
    assert mute.compact(2).correlation is None


def test_bad_kernels_are_refused():
    parts = torch.zeros(20, 0).double(), torch.zeros(0).double(), torch.ones(20).double(), (1, 5, 4)
    good = kernel(3, 3)
    lopsided = good.clone()
    lopsided[0, 0] += 0.1
    for wrong in (good[:2], good[0], 2 * good, lopsided, good * torch.nan):
        with pytest.raises(InputError, match="kernel"):
            LowRankDiagonal(*parts, wrong)
    one = torch.ones(20, 1).double() / 20**0.5, torch.ones(1).double(), *parts[2:]
    for shared in (-torch.ones(1), 2 * torch.ones(1), torch.ones(2)):
        with pytest.raises(InputError, match="shared"):
            LowRankDiagonal(*one, good, shared)
    big = LowRankDiagonal(torch.zeros(6400, 0), torch.zeros(0), torch.ones(6400), (1, 80, 80), good)
    with pytest.raises(InputError, match="4096"):
        big.logdet()


def test_products_with_random_signs_stand_in_for_draws():
    """Where a covariance is known by its products alone, neighbours' correlations come from a few of them."""
    shape = (1, 64, 64)
    frequency = sum(f.square() for f in torch.meshgrid(*[torch.fft.fftfreq(64)] * 2, indexing="ij"))
    known = StationaryCovariance(1 / (1 + 40 * frequency).square() + 0.05, shape)
    # As of a cropped image, so that the crop of products is tested too.
    cut = (slice(None), slice(8, 64), slice(0, 60))
    found = ProductCovariance(known._matvec, shape, probes=16).restricted(cut).compact(4)
    assert found.image_shape == (1, 56, 60)
    truth = correlation(known, found.correlation)
    torch.testing.assert_close(found.correlation.double(), truth, rtol=0, atol=0.05)
    assert float((truth[:, 5] - truth[:, 6]).abs().max()) > 0.2, "negative control: a kernel that is off by one lag"
    errors = region_errors(found, known.restricted(cut))
    assert float(errors.square().mean().sqrt()) < 0.15
    bare = LowRankDiagonal(found.U, found.eigenvalues, found.d, found.image_shape)
    assert float(region_errors(bare, known.restricted(cut)).square().mean().sqrt()) > 0.4, "negative control"
