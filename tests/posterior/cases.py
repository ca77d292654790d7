"""Small covariances beside their dense twins, and a Gaussian problem whose posterior is known in closed form."""

import torch

from obverse.posterior import (
    LowRankDiagonal,
    MixtureCovariance,
    Posterior,
    PrecisionCovariance,
    ProductCovariance,
    StationaryCovariance,
    SumCovariance,
    UpdatedCovariance,
)
from obverse.posterior.covariance import Covariance
from obverse.posterior.derived import ModulatedCovariance, RestrictedCovariance, ScaledCovariance
from obverse.solvers.result import Status

SHAPE = (2, 5, 4)
DONE = Status(True, "closed-form", "Known in closed form.")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64).to(dtype)


def spectrum(*grid: int, power: float = 1.5) -> torch.Tensor:
    """A falling spectrum, in FFT order."""
    squared = torch.zeros(grid, dtype=torch.float64)
    for axis, m in enumerate(grid):
        shape = [-1 if a == axis else 1 for a in range(len(grid))]
        squared = squared + torch.fft.fftfreq(m, dtype=torch.float64).square().reshape(shape)
    return 1 / (0.02 + squared) ** power


def positive(n: int, seed: int = 0) -> torch.Tensor:
    """A dense covariance with spread eigenvalues and no structure."""
    q, _ = torch.linalg.qr(normal(n, n, seed=seed))
    return (q * torch.logspace(0.5, -1, n, dtype=torch.float64)) @ q.mT


def circulant(values: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Dense Σ of a full FFT-order spectrum, from the definition: a sum over modes, without an FFT."""
    grid = shape[1:]
    points = torch.cartesian_prod(*[torch.arange(m, dtype=torch.float64) for m in grid]).reshape(-1, len(grid))
    phase = (points / torch.tensor(grid)) @ points.mT
    wave = torch.exp(2j * torch.pi * phase) / len(points) ** 0.5
    blocks = [(wave * s.reshape(-1)) @ wave.mH for s in values.expand(shape)]
    return torch.block_diag(*[block.real for block in blocks])


def kernel(*window: int) -> torch.Tensor:
    """A correlation kernel with a positive spectrum and a sign that changes: a filter's autocorrelation."""
    filters = [torch.linspace(1.0, -0.4, (m + 1) // 2, dtype=torch.float64) for m in window]
    lags = [torch.nn.functional.conv1d(f[None, None], f[None, None], padding=len(f) - 1)[0, 0] for f in filters]
    whole = lags[0]
    for other in lags[1:]:
        whole = whole[..., None] * other
    return whole / whole[tuple(m // 2 for m in window)]


def toeplitz(values: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Dense R of a kernel, entry by entry: ρ of the lag between two pixels of one channel, else 0."""
    points = torch.cartesian_prod(*[torch.arange(m) for m in shape])
    lags = points[:, None] - points[None]
    at = lags[..., 1:] + torch.tensor(values.shape) // 2
    inside = (lags[..., 0] == 0) & (at >= 0).all(-1) & (at < torch.tensor(values.shape)).all(-1)
    return torch.where(inside, values[tuple(at.clamp_min(0).minimum(torch.tensor(values.shape) - 1).unbind(-1))], 0)


def from_dense(matrix: torch.Tensor, shape: tuple[int, ...], dtype=torch.float64) -> PrecisionCovariance:
    """A matrix-free covariance around a dense one, with its exact sampler."""
    precision = torch.linalg.inv(matrix)
    root = torch.linalg.cholesky(precision)

    def product(v: torch.Tensor) -> torch.Tensor:
        return (v.reshape(-1, len(matrix)) @ precision.to(v)).reshape(v.shape)

    def perturbation(generator: torch.Generator) -> torch.Tensor:
        return (root @ torch.randn(len(matrix), generator=generator, dtype=torch.float64)).reshape(shape)

    return PrecisionCovariance(product, shape, perturbation=perturbation, dtype=dtype)


def cases(dtype: torch.dtype = torch.float64) -> dict[str, tuple[Covariance, torch.Tensor]]:
    """name → (covariance, dense twin in float64)."""
    n = 40
    built: dict[str, tuple[Covariance, torch.Tensor]] = {}
    per_channel = torch.stack([spectrum(5, 4), 2 * spectrum(5, 4, power=0.5)])
    known = positive(n, seed=11)
    built["product"] = (
        ProductCovariance(lambda v: (v.reshape(-1, n) @ known.to(v)).reshape(v.shape), SHAPE, dtype=dtype),
        known,
    )
    information = torch.linspace(-0.1, 4.0, n, dtype=torch.float64)
    built["updated"] = (
        UpdatedCovariance(
            lambda v: (v.reshape(-1, n) @ known.to(v)).reshape(v.shape),
            lambda v: v * information.to(v).reshape(SHAPE),
            SHAPE,
            tolerance=1e-12 if dtype == torch.float64 else 1e-5,
            dtype=dtype,
        ),
        torch.linalg.inv(torch.linalg.inv(known) + information.diag()),
    )
    built["stationary"] = StationaryCovariance(per_channel.to(dtype), SHAPE), circulant(per_channel, SHAPE)
    volume = spectrum(3, 4, 3)
    built["stationary-3d"] = StationaryCovariance(volume.to(dtype), (1, 3, 4, 3)), circulant(volume, (1, 3, 4, 3))
    built["precision"] = from_dense(positive(n), SHAPE, dtype), positive(n)
    U, eigenvalues = torch.linalg.qr(normal(n, 6))[0], torch.logspace(1, -1, 6, dtype=torch.float64)
    d = 0.05 + normal(n, seed=1).abs()
    low_rank = LowRankDiagonal(U.to(dtype), eigenvalues.to(dtype), d.to(dtype), SHAPE)
    dense_low_rank = (U * eigenvalues) @ U.mT + d.diag()
    built["low-rank"] = low_rank, dense_low_rank
    shared = eigenvalues / torch.tensor([2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    correlated = LowRankDiagonal(
        *[part.to(dtype) for part in (U, eigenvalues, d)], SHAPE, kernel(5, 3).to(dtype), shared
    )
    S = (d + U.square() @ shared).sqrt()
    dense_correlated = (U * (eigenvalues - shared)) @ U.mT + S[:, None] * toeplitz(kernel(5, 3), SHAPE) * S
    built["correlated"] = correlated, dense_correlated
    d3 = 0.1 + normal(36, seed=4).abs()
    volume_kernel = LowRankDiagonal(
        torch.zeros(36, 0).to(dtype), torch.zeros(0).to(dtype), d3.to(dtype), (1, 3, 4, 3), kernel(3, 5, 3).to(dtype)
    )
    dense_volume = d3.sqrt()[:, None] * toeplitz(kernel(3, 5, 3), (1, 3, 4, 3)) * d3.sqrt()
    built["correlated-3d"] = volume_kernel, dense_volume
    built["scaled"] = ScaledCovariance(from_dense(positive(n), SHAPE, dtype), 2.5), 2.5 * positive(n)
    slices = (slice(None), slice(1, 4), slice(0, 4, 2))
    kept = torch.arange(n).reshape(SHAPE)[slices].reshape(-1)
    map_ = 0.5 + torch.rand(SHAPE, generator=seeded(8), dtype=dtype)
    modulated = map_.reshape(-1, 1) * positive(n) * map_.reshape(-1)
    built["modulated"] = ModulatedCovariance(from_dense(positive(n), SHAPE, dtype), map_), modulated
    restricted = RestrictedCovariance(from_dense(positive(n), SHAPE, dtype), slices)
    built["restricted"] = restricted, positive(n)[kept][:, kept]
    offsets = torch.stack([normal(n, seed=2), -normal(n, seed=2) / 3]).reshape(2, *SHAPE)
    mixture = MixtureCovariance([built["precision"][0], low_rank], [0.25, 0.75], offsets.to(dtype))
    flat = offsets.reshape(2, n)
    between = 0.25 * torch.outer(flat[0], flat[0]) + 0.75 * torch.outer(flat[1], flat[1])
    built["mixture"] = mixture, 0.25 * positive(n) + 0.75 * dense_low_rank + between
    built["sum"] = SumCovariance([from_dense(positive(n), SHAPE, dtype), low_rank]), positive(n) + dense_low_rank
    return built


def gaussian_pairs(
    count: int, alter=lambda matrix: matrix, seed: int = 0
) -> tuple[list[Posterior], list[torch.Tensor]]:
    """Truths and data from a Gaussian prior, and their posteriors with a covariance that `alter` may spoil.

    Prior N(0, S), data y = A x + n with A a random 12 × 20 matrix; Σ = S − S Aᵀ (A S Aᵀ + s² I)⁻¹ A S.
    """
    shape, n, m, s = (1, 5, 4), 20, 12, 0.3
    S, A = positive(n, seed=5), normal(m, n, seed=6)
    gain = S @ A.mT @ torch.linalg.inv(A @ S @ A.mT + s**2 * torch.eye(m, dtype=torch.float64))
    matrix = alter(S - gain @ A @ S)
    values, vectors = torch.linalg.eigh((matrix + matrix.mT) / 2)
    covariance = LowRankDiagonal(vectors.flip(1), values.flip(0).clamp_min(0), 1e-9 * torch.ones(n).double(), shape)
    x = normal(count, n, seed=seed + 7) @ torch.linalg.cholesky(S).mT
    y = x @ A.mT + s * normal(count, m, seed=seed + 8)
    posteriors = [Posterior((gain @ own).reshape(shape), DONE, covariance=covariance) for own in y]
    return posteriors, list(x.reshape(count, *shape))
