"""The covariance of a posterior, never formed as a matrix.

    v ↦ Σ v,   v ↦ Σ⁻¹ v,   diag Σ,   tr Σ,   log det Σ,   Σ ≈ U diag(λ) Uᵀ + D^½ R D^½,  D = diag(d)

A vector may come as an image `(*batch, *image_shape)` or flattened `(..., n)`; the same layout comes back. The compact
form keeps the marginal variances: d = clip(diag Σ − diag(U Λ Uᵀ), 0), and R, the correlation of neighbours, has a unit
diagonal. A subclass writes `_matvec` and `diagonal`, and overrides what its structure gives in closed form.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import InputError, NumericsError
from ..solvers.eigen import block_krylov
from ..solvers.linear import cg
from ..solvers.result import Result
from .correlation import TileSpectrum, fitted_kernel

if TYPE_CHECKING:
    from .low_rank import LowRankDiagonal

__all__ = ["Components", "Covariance", "DENSE_LIMIT", "check_map", "solved", "streams"]

# Largest number of pixels for which an n × n matrix is formed at all: 128 MiB in float64.
DENSE_LIMIT = 4096
# Rows of the identity that go through `matvec` at once.
_CHUNK = 256
# Draws from which the correlation of neighbours is estimated: enough for half a million pixels, within these limits.
_PIXELS, _DRAWS, _DRAWS_AT_ONCE = 2**19, (8, 64), 8


@dataclass(frozen=True, eq=False)
class Components:
    """Principal components of an uncertainty: Σ uₖ = λₖ uₖ, λ₁ ≥ λ₂ ≥ …

    Args:
        variances: λₖ, `(k,)`, in squared image units.
        directions: orthonormal uₖ, `(k, *image_shape)`; the first large entry of each is positive.
        residuals: ‖Σ uₖ − λₖ uₖ‖, `(k,)`, in squared image units: some eigenvalue lies that close to λₖ.
    """

    variances: Tensor
    directions: Tensor
    residuals: Tensor


class Covariance(ABC):
    """A symmetric positive semi-definite matrix over the pixels of one image.

    Args:
        image_shape: shape of the image, `(C, H, W)` or `(C, D, H, W)`.
        dtype: precision of `diagonal`, `factors` and draws.
        device: where they live.
    """

    def __init__(self, image_shape: Sequence[int], dtype: torch.dtype, device: torch.device | str = "cpu"):
        shape = tuple(int(n) for n in image_shape)
        if not shape or any(n < 1 for n in shape):
            raise InputError(f"image_shape expects positive sizes such as (1, 64, 64), got {tuple(image_shape)}")
        if dtype not in (torch.float32, torch.float64):
            raise InputError(f"a covariance expects torch.float32 or torch.float64, got {dtype}; convert its parts")
        self.image_shape = shape
        self.dtype = dtype
        self.device = torch.device(device)

    @property
    def size(self) -> int:
        """n, the number of pixels times channels."""
        return math.prod(self.image_shape)

    @abstractmethod
    def _matvec(self, images: Tensor) -> Tensor:
        """Σ applied to images `(b, *image_shape)`."""

    def _solve(self, images: Tensor) -> Tensor:
        """Σ⁻¹ applied to images `(b, *image_shape)`; by conjugate gradients unless there is a closed form."""
        tolerance = 1e-5 if images.dtype == torch.float32 else 1e-10
        result = cg(self._matvec, images, tolerance=tolerance, max_iterations=1000, batch_dims=1)
        return solved(result, tolerance, f"{type(self).__name__}.solve")

    def matvec(self, v: Tensor) -> Tensor:
        """Σ v for images `(*batch, *image_shape)` or flattened `(..., n)`; the same layout comes back."""
        return self._in_layout(v, self._matvec)

    def solve(self, v: Tensor) -> Tensor:
        """Σ⁻¹ v, in the layout of `v`.

        Raises:
            NumericsError: Σ is singular, or the iteration did not converge.
        """
        return self._in_layout(v, self._solve)

    @abstractmethod
    def diagonal(self) -> Tensor:
        """Marginal variances, shape `image_shape`."""

    def trace(self) -> float:
        """tr Σ, the expected squared error of the mean when the posterior is right."""
        return float(self.diagonal().sum(dtype=torch.float64))

    def logdet(self) -> float:
        """log det Σ.

        Raises:
            InputError: there is no closed form and the image is too large for a dense factorisation.
            NumericsError: Σ is not positive definite.
        """
        factor, information = torch.linalg.cholesky_ex(self.dense())
        if int(information) != 0:
            raise NumericsError(
                f"logdet expects a positive definite covariance, got one whose minor {int(information)} is not; "
                "use a compact form with a positive diagonal"
            )
        return 2 * float(factor.diagonal().log().sum())

    def dense(self) -> Tensor:
        """Σ as an `(n, n)` float64 matrix, symmetrised; for small images and for tests.

        Raises:
            InputError: n > 4096.
        """
        return self._dense(self._matvec, "a dense covariance")

    def components(self, k: int, *, products: int | None = None, seed: int = 0) -> Components:
        """The `k` leading principal components, by block Krylov with Rayleigh–Ritz unless known in closed form.

        Args:
            k: number of components, at most n.
            products: budget of products with Σ; by default max(60, 12 k).
            seed: of the starting block.
        """
        self._check_rank(k, 1)
        generator = torch.Generator().manual_seed(seed)
        budget = max(60, 12 * k) if products is None else products
        eigen = block_krylov(
            self._matvec,
            self.image_shape,
            k,
            products=budget,
            generator=generator,
            dtype=self.dtype,
            device=self.device,
            tolerance=1e-6 if self.dtype == torch.float32 else 1e-10,
        )
        return self._ranked(eigen.values.clamp_min(0), eigen.vectors, eigen.residuals)

    def factors(self, rank: int = 16) -> tuple[Float[Tensor, "n k"], Float[Tensor, " k"], Float[Tensor, " n"]]:
        """The factors of the compact form and the variances that they leave, so that marginals are exact.

        Returns:
            U `(n, K)` with orthonormal columns, λ `(K,)` and d `(n,)` ≥ 0, where K = min(rank, n).
        """
        self._check_rank(rank, 0)
        variance = self.diagonal().reshape(-1)
        if rank == 0:
            return variance.new_zeros(self.size, 0), variance.new_zeros(0), variance
        found = self.components(min(rank, self.size))
        U = found.directions.reshape(len(found.variances), -1).mT
        return U, found.variances, (variance - (U.square() @ found.variances)).clamp_min(0)

    def sample(self, n: int, generator: torch.Generator) -> Tensor | None:
        """`n` zero-mean draws `(n, *image_shape)`, or None where this covariance cannot be sampled.

        Draw i has its own random stream, so the first draws do not depend on how many follow.
        """
        return None

    def compact(self, rank: int | None = None, *, seed: int = 0) -> "LowRankDiagonal":
        """Low rank plus a locally correlated remainder: what is saved; marginal variances are exact.

        Args:
            rank: number of factors; by default those stored, or 16.
            seed: of the draws from which the correlation of neighbours is estimated.
        """
        from .low_rank import LowRankDiagonal

        U, eigenvalues, d = self.factors() if rank is None else self.factors(rank)
        built = LowRankDiagonal(U, eigenvalues, d, self.image_shape)
        whiten = torch.where(d > 1e-6 * d.mean(), d.clamp_min(torch.finfo(d.dtype).tiny).rsqrt(), 0)
        left = self._left(U, eigenvalues, whiten, seed)
        if left is None:
            return built
        power, error = left
        tiles = TileSpectrum(self.image_shape[1:])
        # What the remainder holds of U's variance is known after a first fit, and counts in the second.
        for _ in range(2 if built.rank else 1):
            kernel = fitted_kernel(power if built.correlation is None else power + tiles.total, tiles.overlap, error)
            if kernel is None:
                break
            kernel = kernel.to(dtype=self.dtype, device=self.device)
            built = LowRankDiagonal.locally_correlated(U, eigenvalues, d, self.image_shape, kernel)
            tiles = TileSpectrum(self.image_shape[1:])
            if built.rank:
                tiles.add((U * built.shared.sqrt()).mT.mul(whiten).reshape(-1, *self.image_shape))
        return built

    def _left(self, U: Tensor, eigenvalues: Tensor, whiten: Tensor, seed: int) -> tuple[Tensor, float] | None:
        """Power, in tiles, of whitened images without their part in U, and the standard error of one correlation.

        From draws; None where there are none.
        """
        tiles, generator = TileSpectrum(self.image_shape[1:]), torch.Generator().manual_seed(seed)
        missing = min(max(_PIXELS // self.size, _DRAWS[0]), _DRAWS[1])
        while missing > 0:
            draws = self.sample(min(missing, _DRAWS_AT_ONCE), generator)
            if draws is None:
                return None
            flat = draws.reshape(len(draws), -1).to(U)
            tiles.add(((flat - (flat @ U) @ U.mT) * whiten).reshape(draws.shape))
            missing -= len(draws)
        return tiles.mean, tiles.error

    def scaled(self, factor: float) -> "Covariance":
        """factor · Σ, for a positive factor."""
        from .derived import ScaledCovariance

        return ScaledCovariance(self, factor)

    def modulated(self, scale: Tensor) -> "Covariance":
        """D Σ D with D = diag(scale), a positive map `image_shape`: other variances, the same correlations."""
        from .derived import ModulatedCovariance

        return ModulatedCovariance(self, scale)

    def restricted(self, slices: Sequence[slice]) -> "Covariance":
        """P Σ Pᵀ, where P keeps `image[slices]`; one slice per axis of the image."""
        from .derived import RestrictedCovariance

        return RestrictedCovariance(self, slices)

    def _in_layout(self, v: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        given = tuple(v.shape)
        if not v.is_floating_point():
            raise InputError(f"{type(self).__name__} expects a real floating-point vector, got {v.dtype}; use .float()")
        if given[max(len(given) - len(self.image_shape), 0) :] != self.image_shape and given[-1:] != (self.size,):
            raise InputError(
                f"{type(self).__name__} expects (*batch, {', '.join(map(str, self.image_shape))}) or "
                f"(..., {self.size}), got {given}; reshape the vector"
            )
        return function(v.reshape(-1, *self.image_shape)).reshape(given)

    def _dense(self, apply: Callable[[Tensor], Tensor], what: str) -> Tensor:
        if self.size > DENSE_LIMIT:
            raise InputError(
                f"{what} expects at most {DENSE_LIMIT} pixels, got {self.size}; crop the posterior or use factors(rank)"
            )
        rows = []
        for start in range(0, self.size, _CHUNK):
            unit = torch.zeros(min(_CHUNK, self.size - start), self.size, dtype=self.dtype, device=self.device)
            unit[torch.arange(len(unit)), torch.arange(start, start + len(unit))] = 1
            rows.append(apply(unit.reshape(-1, *self.image_shape)).reshape(len(unit), -1).double())
        matrix = torch.cat(rows)
        return (matrix + matrix.mT) / 2

    def _ranked(self, variances: Tensor, directions: Tensor, residuals: Tensor | None = None) -> Components:
        """Components with signs fixed; residuals that are not known are computed from one product each."""
        flat = directions.reshape(len(directions), -1)
        # The first entry within 10 % of the largest, rather than the largest: ties must not flip the sign.
        first = (flat.abs() >= 0.9 * flat.abs().amax(1, keepdim=True)).to(torch.uint8).argmax(1)
        sign = torch.where(flat.gather(1, first[:, None]) < 0, -1.0, 1.0).to(flat)
        directions = (flat * sign).reshape(-1, *self.image_shape)
        if residuals is None:
            products = self._matvec(directions).reshape(len(flat), -1)
            residuals = (products - variances[:, None] * directions.reshape(len(flat), -1)).norm(dim=1)
        return Components(variances, directions, residuals)

    def _check_rank(self, k: int, least: int) -> None:
        if not least <= k or (least and k > self.size):
            raise InputError(f"a number of components between {least} and {self.size} is expected, got {k}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(image {self.image_shape}, {self.dtype})"


def solved(result: Result, tolerance: float, what: str) -> Tensor:
    """The solution, if it was reached to the tolerance, or to ten times it where rounding allows no more.

    Raises:
        NumericsError: it was not.
    """
    close = result.status.reason == "stagnation" and result.residual <= 10 * tolerance
    if not (result.status.converged or close):
        raise NumericsError(f"{what}: {result.status.message}")
    return result.x


def check_map(scale: Tensor, like: Covariance) -> Tensor:
    """A positive map of a covariance's image, in its precision.

    Raises:
        InputError: another shape, or an entry that is not positive and finite.
    """
    if tuple(scale.shape) != like.image_shape or not bool((scale > 0).all() and scale.isfinite().all()):
        raise InputError(f"a modulation expects a positive map {like.image_shape}, got {tuple(scale.shape)}")
    return scale.to(dtype=like.dtype, device=like.device)


def streams(n: int, generator: torch.Generator) -> list[torch.Generator]:
    """`n` independent generators drawn one after another, so that the first do not depend on `n`."""
    if n < 1:
        raise InputError(f"a number of draws of at least 1 is expected, got {n}")
    seeds = [int(torch.randint(2**62, (), generator=generator, device=generator.device)) for _ in range(n)]
    return [torch.Generator(device=generator.device).manual_seed(seed) for seed in seeds]
