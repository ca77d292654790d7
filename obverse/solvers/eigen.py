"""Largest eigenpairs of a Hermitian positive semi-definite operator by block Krylov and Rayleigh–Ritz.

From a random block Q₀ of b ≥ k vectors the space span{Q₀, A Q₀, A² Q₀, …} is built with one product per vector, and A
is projected onto it: the eigenpairs of T = Vᴴ A V give values θ and vectors V s. Since A V = V T + R Eᴴ, where R is
what the last block's products leave outside the space, the residual of each pair is known without another product:

    ‖A v − θ v‖ = ‖R s_last‖

Every new block is orthogonalised against all earlier ones, twice. Directions that vanish (an invariant space was
found) are replaced by random ones, so that a repeated eigenvalue is not missed when it exceeds the block. With
`basis` the space is compressed to its best Ritz vectors whenever it is full (thick restart, Krylov–Schur).

A block represents eigenvalues of multiplicity up to b: symmetric instruments have such spectra, and on them a single
vector fails however many products it gets. A few vectors more than k (three by default) guard against a start that
happens to miss a direction. The start is random with equal energy in every octave of spatial frequency (pink noise):
the leading components of images may sit at any scale, and white noise has three quarters of its energy in the highest
octave of a plane. A residual bounds the distance to *an* eigenvalue: that it is the k-th largest follows from the
random start, with probability one in the limit, not from the residual.

References:
    Golub, Underwood, "The block Lanczos method for computing eigenvalues", Mathematical Software III, 1977.
    Stewart, "A Krylov–Schur algorithm for large eigenproblems", SIAM J. Matrix Anal. 2001.
    Musco, Musco, "Randomized block Krylov methods for stronger and faster approximate SVD", NeurIPS 2015.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError, NumericsError
from .algebra import Callback, Map, guard, resolution
from .result import Status

__all__ = ["Eigen", "block_krylov", "pink"]


OVERSAMPLING = 3  # vectors beyond k in a block; measured in benchmarks/block_krylov_needs_sixty_products.py


@dataclass(frozen=True)
class Eigen:
    """Leading eigenpairs and what they cost.

    Args:
        values: (k,) Rayleigh–Ritz values, largest first; never above the true ones.
        vectors: (k, *shape), orthonormal.
        residuals: (k,) norms ‖A v − θ v‖.
        products: vectors that the operator was applied to.
        status: converged only if every residual is within tolerance of the largest value.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    products: int
    status: Status


def block_krylov(
    apply: Map,
    shape: Sequence[int],
    k: int,
    *,
    block: int | None = None,
    products: int = 60,
    basis: int | None = None,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
    tolerance: float = 0.0,
    callback: Callback | None = None,
) -> Eigen:
    """The k largest eigenpairs of a Hermitian positive semi-definite operator.

    Args:
        apply: maps (b, *shape) to (b, *shape), every vector by itself.
        shape: shape of one vector, such as (C, H, W); the axes after the first are taken as spatial.
        k: number of eigenpairs, at least 1.
        block: vectors per step; k + 3 by default, fewer where the budget has no room for three such blocks. A smaller
            block goes deeper but misses repeated eigenvalues.
        products: budget: the most vectors that `apply` may be given; at least k.
        basis: the most vectors kept in memory, at least k plus twice the block; as many as `products` if None.
        generator: source of the random start; a fixed seed of zero if None.
        dtype: precision of the vectors, real or complex.
        device: where they live.
        tolerance: stop once every residual is at most this times the largest value; 0 uses the whole budget.
        callback: called as callback(products done, budget, largest relative residual).

    Raises:
        InputError: k, block, basis or products do not fit one another.
        NumericsError: the operator returned NaN or infinity.

    Example:
        >>> scale = torch.arange(1.0, 101.0, dtype=torch.float64)
        >>> leading = block_krylov(lambda v: v * scale, (100,), 2, products=100)
        >>> [round(float(v), 6) for v in leading.values]
        [100.0, 99.0]
    """
    size = math.prod(shape)
    block = max(k, min(k + OVERSAMPLING, products // 3)) if block is None else block
    if not 1 <= k <= size:
        raise InputError(f"k must lie between 1 and {size}, the number of unknowns; got {k}")
    if block < 1 or products < k:
        raise InputError(f"expected a block of at least 1 and products of at least k = {k}, got {block} and {products}")
    if basis is not None and basis < k + 2 * block:
        raise InputError(f"basis must hold k plus two blocks, {k + 2 * block} vectors; got {basis}")
    generator = torch.Generator(device=device).manual_seed(0) if generator is None else generator
    block = min(block, products, size)
    capacity = min(products if basis is None else basis, size)
    space = _Space(guard(apply, "apply"), tuple(shape), capacity, generator, dtype, device)
    space.extend(pink(block, tuple(shape), generator, dtype, device), block)
    while True:
        values, weights, residuals = space.ritz(k)
        scale = float(values[0].abs()) or 1.0
        worst = float(residuals.max()) / scale if len(values) == k else math.inf
        if callback is not None:
            callback(space.products, products, worst)
        # With b ≥ k an invariant space holds the leading pairs; a smaller block may have missed repeated ones.
        exact = worst <= 10 * resolution(dtype) * math.sqrt(size) and (block >= k or space.count == size)
        if worst <= tolerance or exact or space.products >= products or space.count >= size:
            break
        # Projecting T costs its size cubed: look again when the space has grown by a block and by a tenth.
        target = min(products, space.products + max(block, space.count // 10))
        while space.products < target and space.count < size:
            step = min(block, products - space.products, size - space.count)
            if space.count + step > capacity:
                space.compress(max(k, capacity - 2 * block))
            space.extend(space.remainder, step)
    vectors = _oriented(weights.mT.to(space.vectors.dtype) @ space.vectors[: space.count])
    status = _status(space, worst, tolerance, exact or space.count == size, products)
    real = vectors.abs().dtype
    return Eigen(values.to(real), vectors.reshape(k, *shape), residuals.to(real), space.products, status)


class _Space:
    """An orthonormal basis (rows of `vectors`), the projection T of the operator on it, and what T leaves out."""

    def __init__(
        self,
        apply: Map,
        shape: tuple[int, ...],
        capacity: int,
        generator: torch.Generator,
        dtype: torch.dtype,
        device: torch.device | str,
    ):
        self.apply, self.shape, self.generator = apply, shape, generator
        self.vectors = torch.empty(capacity, math.prod(shape), dtype=dtype, device=device)
        exact = torch.complex128 if dtype.is_complex else torch.float64
        self.projection = torch.zeros(0, 0, dtype=exact, device=device)
        self.remainder = self.vectors[:0]
        self.coupling = torch.zeros(0, 0, dtype=exact, device=device)  # A V = V T + remainderᵀ coupling
        self.count, self.products = 0, 0
        self.size, self.asymmetry = 0.0, 0.0  # of the columns of T: largest norm, largest departure from symmetry

    def extend(self, candidates: Tensor, block: int) -> None:
        """Add a block spanned by the candidates, filled up with random directions, and apply the operator to it."""
        found, weights = self._independent(candidates)
        coupled = weights @ self.coupling if self.count else self.coupling
        fresh = found[:block]
        if len(fresh) < block:
            lacking = (block - len(fresh), self.vectors.shape[1])
            noise = torch.randn(lacking, generator=self.generator, dtype=fresh.dtype, device=fresh.device)
            fresh = torch.cat([fresh, self._orthonormal(noise, fresh)])
        images = self.apply(fresh.reshape(-1, *self.shape))
        if images.shape != (block, *self.shape):
            raise InputError(f"apply must map ({block}, *{self.shape}) to the same shape, got {tuple(images.shape)}")
        images = images.reshape(block, -1).to(fresh)
        if not bool(torch.isfinite(images).all()):
            raise NumericsError("expected finite products, got NaN or infinity from the operator; check its scale")
        old = self.count
        self.vectors[old : old + block] = fresh
        self.count, self.products = old + block, self.products + block
        self._project(images, coupled[:block])
        # Directions for which a shortened block had no room stay outside the space, with their coupling to it.
        self.remainder = torch.cat([found[block:], self.remainder])
        self.coupling = torch.cat([torch.nn.functional.pad(coupled[block:], (0, block)), self.coupling])

    def _project(self, images: Tensor, coupled: Tensor) -> None:
        """Grow T by the new block's column Vᴴ A Q, compared with the coupling Qᴴ A V known from earlier products."""
        old, block = self.count - len(images), len(images)
        basis = self.vectors[: self.count]
        part = basis.conj() @ images.mT  # (count, block): Vᴴ A Q
        rest = images - part.mT @ basis
        again = basis.conj() @ rest.mT
        self.remainder = rest - again.mT @ basis
        column = (part + again).to(self.projection.dtype)
        expected = torch.zeros_like(column)
        expected[:old, : len(coupled)] = coupled.mH
        expected[old:] = column[old:].mH
        self.size = max(self.size, float(column.norm()))
        self.asymmetry = max(self.asymmetry, float((column - expected).norm()))
        grown = torch.zeros(self.count, self.count, dtype=column.dtype, device=column.device)
        grown[:old, :old] = self.projection
        grown[:, old:], grown[old:, :] = column, column.mH
        grown[old:, old:] = (column[old:] + column[old:].mH) / 2
        self.projection = grown
        # What A q_j has outside the space belongs to the new vectors only: earlier products lie inside by now.
        self.coupling = torch.eye(block, dtype=column.dtype, device=column.device)
        self.coupling = torch.nn.functional.pad(self.coupling, (old, 0))

    def ritz(self, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """The k largest Ritz values, their weights on the basis (count, k), and their residual norms."""
        values, weights = torch.linalg.eigh(self.projection)
        values, weights = values.flip(0)[:k], weights.flip(1)[:, :k]
        outside = (self.coupling @ weights).mT.to(self.vectors.dtype) @ self.remainder
        residuals = torch.linalg.vector_norm(outside, dim=1).to(values.dtype)
        # Products are exact to rounding only, and so are residuals.
        floor = resolution(self.vectors.dtype) * math.sqrt(self.count) * float(values[0].abs())
        return values, weights, residuals.clamp_min(floor)

    def compress(self, keep: int) -> None:
        """Thick restart: the best `keep` Ritz vectors replace the basis; what lies outside stays as it is."""
        values, weights = torch.linalg.eigh(self.projection)
        values, weights = values.flip(0)[:keep], weights.flip(1)[:, :keep]
        kept = weights.mT.to(self.vectors.dtype) @ self.vectors[: self.count]
        self.vectors[:keep] = kept
        self.projection = torch.diag(values).to(self.projection.dtype)
        self.coupling = self.coupling @ weights
        self.count = keep

    def lowest(self) -> float:
        return float(torch.linalg.eigvalsh(self.projection)[0])

    def _independent(self, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """Orthonormal rows spanning the candidates, and C with candidates = Cᵀ rows; tiny directions are left out."""
        if len(candidates) == 0:
            return candidates, self.coupling[:, :0]
        q, r = torch.linalg.qr(candidates.mT)
        left, sizes, right = torch.linalg.svd(r)
        floor = 10 * resolution(candidates.dtype) * math.sqrt(candidates.shape[1]) * self.size
        keep = int((sizes.double() > floor).sum())
        rows = self._orthonormal((q @ left[:, :keep]).mT, candidates[:0])
        return rows, (sizes[:keep, None] * right[:keep]).to(self.projection.dtype)

    def _orthonormal(self, rows: Tensor, fresh: Tensor) -> Tensor:
        """The rows made orthonormal to the basis, to `fresh` and to one another, keeping their order and sign."""
        for _ in range(2):
            for basis in (self.vectors[: self.count], fresh):
                rows = rows - (rows @ basis.mH) @ basis
            q, r = torch.linalg.qr(rows.mT)
            diagonal = r.diagonal()
            phase = torch.where(diagonal.abs() > 0, diagonal / diagonal.abs().clamp_min(1e-300), 1.0)
            rows = (q * phase).mT
        return rows


def pink(
    count: int, shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype, device: torch.device | str
) -> Tensor:
    """Gaussian vectors `(count, size)` with equal energy per octave: amplitude |f|^(−d/2) in d spatial dimensions."""
    white = torch.randn(count, *shape, generator=generator, dtype=dtype, device=generator.device).to(device)
    axes = tuple(range(-max(1, len(shape) - 1), 0))
    square = torch.zeros((), dtype=white.abs().dtype, device=device)
    for axis in axes:
        n = shape[axis]
        f = torch.fft.fftfreq(n, dtype=square.dtype, device=device) * n
        square = square + f.square().reshape(-1, *(1,) * (-axis - 1))
    amplitude = square.clamp_min(1) ** (-len(axes) / 4)
    coloured = torch.fft.ifftn(torch.fft.fftn(white, dim=axes) * amplitude, dim=axes)
    return (coloured if dtype.is_complex else coloured.real).reshape(count, -1)


def _oriented(vectors: Tensor) -> Tensor:
    """Each vector's sign (or phase) fixed so that its largest entry is positive; normalised against rounding."""
    largest = vectors.gather(1, vectors.abs().argmax(dim=1, keepdim=True))
    return vectors * (largest.conj() / largest.abs()) / torch.linalg.vector_norm(vectors, dim=1, keepdim=True)


def _status(space: _Space, worst: float, tolerance: float, exact: bool, budget: int) -> Status:
    reached = f"largest residual {worst:.2e} of the leading eigenvalue after {space.products} products"
    lowest, highest = space.lowest(), float(torch.linalg.eigvalsh(space.projection)[-1])
    root = resolution(space.vectors.dtype) ** 0.5
    if lowest < -root * max(abs(highest), abs(lowest)):
        reached += f"; the operator is not positive semi-definite (it has an eigenvalue of {lowest:.2e} or below)"
    if space.asymmetry > max(root, tolerance) * space.size:
        gap = space.asymmetry / space.size
        text = f"⟨u, A v⟩ and ⟨A u, v⟩ differ by {gap:.1e} of their size, so the operator is not Hermitian"
        return Status(False, "not-hermitian", f"{text}; {reached}; symmetrise it, (A + Aᴴ)/2")
    if worst <= tolerance:
        return Status(True, "converged", f"{reached}, within {tolerance:.2e}")
    if exact:
        return Status(True, "converged", f"{reached}: the space is invariant to rounding, more products add nothing")
    why = f"the budget of {budget} products came first; allow more, or accept the residuals reported"
    return Status(False, "max-products", f"{reached}, above the tolerance {tolerance:.2e}: {why}")
