"""The compact covariance in which every posterior can be stored: low rank plus a diagonal, or a local correlation.

    Σ = U diag(λ − h) Uᵀ + S R S,      R v = ρ ∗ v,  ρ(0) = 1,      S² = diag(d) + diag(U diag(h) Uᵀ)
    R = I, h = 0:      Σ⁻¹ = D⁻¹ − D⁻¹W (I + WᵀD⁻¹W)⁻¹ WᵀD⁻¹,   W = U Λ^½      (Woodbury)

A few leading components hold little of the variance of a large image; the kernel ρ says what neighbours share of the
rest, without which the mean of a region would average errors as if they were independent. Such a remainder has variance
along the leading components too: h is what it holds of λ, so that λ stays the variance along u. Whatever ρ and h,
diag Σ = diag(U Λ Uᵀ) + d. Built from marginal variances v the form keeps them: d = clip(v − diag(U Λ Uᵀ), floor). The
mass that the clip adds is reported, since it shows factors that claim more than the marginals allow.
"""

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from ..errors import InputError, NumericsError
from ..solvers.linear import cg
from .correlation import LocalCorrelation, check_kernel
from .covariance import Components, Covariance, check_map, solved, streams

__all__ = ["LowRankDiagonal"]


class LowRankDiagonal(Covariance):
    """U diag(λ − h) Uᵀ + S R S with S² = diag(d + U² h), and all of its algebra.

    Args:
        U: factors `(n, K)`; columns need not be orthonormal, for instance after a crop.
        eigenvalues: λ ≥ 0, `(K,)`, in squared image units.
        diagonal: d ≥ 0, `(n,)` or `image_shape`; `solve` and `logdet` need d > 0.
        image_shape: `(C, H, W)` or `(C, D, H, W)`.
        correlation: ρ, the kernel of R over the spatial axes, odd-sized, `(kh, kw)` or `(kd, kh, kw)`, the same for
            every channel and none across channels; ρ(0) = 1, spectrum ≥ 0. None: R = I.
        shared: h, `(K,)`, 0 ≤ h ≤ λ; zero by default.

    Example:
        >>> U = torch.eye(4, dtype=torch.float64)[:, :1]
        >>> compact = LowRankDiagonal(U, torch.tensor([3.0]).double(), torch.ones(4).double(), (1, 2, 2))
        >>> compact.diagonal().flatten().tolist(), round(compact.logdet(), 6)
        ([4.0, 1.0, 1.0, 1.0], 1.386294)
    """

    def __init__(
        self,
        U: Tensor,
        eigenvalues: Tensor,
        diagonal: Tensor,
        image_shape: Sequence[int],
        correlation: Tensor | None = None,
        shared: Tensor | None = None,
    ):
        super().__init__(image_shape, U.dtype, U.device)
        if U.ndim != 2 or U.shape[0] != self.size or eigenvalues.shape != U.shape[1:] or diagonal.numel() != self.size:
            raise InputError(
                f"low rank plus diagonal expects U ({self.size}, K), eigenvalues (K,) and a diagonal of {self.size}, "
                f"got {tuple(U.shape)}, {tuple(eigenvalues.shape)} and {tuple(diagonal.shape)}; reshape them"
            )
        for name, part in (("eigenvalues", eigenvalues), ("diagonal", diagonal)):
            if not bool(part.isfinite().all()) or bool((part < 0).any()):
                raise InputError(f"{name} expects finite variances ≥ 0, got a negative or non-finite one; clip them")
        self.U = U
        self.eigenvalues = eigenvalues.to(U.dtype)
        self.d = diagonal.reshape(-1).to(U.dtype)
        if correlation is not None:
            check_kernel(correlation, len(self.image_shape) - 1)
        self.correlation = None if correlation is None else correlation.detach().to(U)
        self.shared = torch.zeros_like(self.eigenvalues) if shared is None else shared.to(U.dtype)
        if self.shared.shape != eigenvalues.shape or not bool((0 <= self.shared).all()):
            raise InputError(f"shared expects {len(eigenvalues)} variances ≥ 0, got {self.shared.tolist()}; clip them")
        if not bool((self.shared <= self.eigenvalues).all()):
            raise InputError("shared expects at most the eigenvalues, got more; take the smaller of the two")
        self.clipped = 0.0

    @classmethod
    def locally_correlated(
        cls, U: Tensor, eigenvalues: Tensor, diagonal: Tensor, image_shape: Sequence[int], correlation: Tensor | None
    ) -> "LowRankDiagonal":
        """The form in which an orthonormal U's columns have their eigenvalues as variance: h = diag(Uᵀ S R S U).

        Where the remainder alone exceeds an eigenvalue, h is that eigenvalue and the variance along u is larger.
        """
        built = cls(U, eigenvalues, diagonal, image_shape, correlation)
        if correlation is None or not built.rank:
            return built
        # S depends on h, weakly: the second step changes h by a fraction of the share of variance that U holds.
        for _ in range(3):
            columns = U.mT.reshape(-1, *built.image_shape)
            held = (columns * built._remainder(columns)).reshape(len(columns), -1).sum(1)
            shared = torch.minimum(held.clamp_min(0), built.eigenvalues)
            built = cls(U, eigenvalues, diagonal, image_shape, correlation, shared)
        return built

    @cached_property
    def _local(self) -> LocalCorrelation | None:
        return None if self.correlation is None else LocalCorrelation(self.correlation, self.image_shape[1:])

    @property
    def rank(self) -> int:
        """K, the number of factors."""
        return len(self.eigenvalues)

    @classmethod
    def from_marginals(
        cls, U: Tensor, eigenvalues: Tensor, variance: Tensor, image_shape: Sequence[int], floor: float = 1e-6
    ) -> "LowRankDiagonal":
        """The compact form with marginal variances `variance`, kept exactly wherever the factors allow.

        Args:
            U: `(n, K)`.
            eigenvalues: `(K,)`.
            variance: marginal variances, `(n,)` or `image_shape`.
            floor: least d, as a fraction of the mean variance; it keeps Σ invertible.

        Returns:
            A covariance whose `clipped` is the variance that the floor added, as a fraction of the trace.
        """
        flat = variance.reshape(-1).to(U.dtype)
        rest = flat - U.square() @ eigenvalues.to(U.dtype)
        d = rest.clamp_min(floor * float(flat.mean()))
        built = cls(U, eigenvalues, d, image_shape)
        built.clipped = float((d - rest).sum() / flat.sum())
        return built

    def _flat(self, images: Tensor) -> Tensor:
        return images.reshape(len(images), -1)

    def _matvec(self, images: Tensor) -> Tensor:
        v = self._flat(images)
        U, scale = self.U.to(v.dtype), (self.eigenvalues - self.shared).to(v.dtype)
        return ((v @ U * scale) @ U.mT).reshape(images.shape) + self._remainder(images)

    def _remainder(self, images: Tensor) -> Tensor:
        """S R S v."""
        S = self._spread.to(images.dtype)
        return S.square() * images if self._local is None else S * self._local.apply(S * images)

    @cached_property
    def _spread(self) -> Tensor:
        """S, `image_shape`."""
        return (self.d + self.U.square() @ self.shared).sqrt().reshape(self.image_shape)

    def _solve(self, images: Tensor) -> Tensor:
        """Woodbury where R = I and h = 0, else conjugate gradients preconditioned by it."""
        woodbury = self._woodbury()

        def independent(v: Tensor) -> Tensor:
            return woodbury.solve(self._flat(v).mT).mT.reshape(v.shape)

        wide = images.double()
        if self._plain:
            return independent(wide).to(images.dtype)
        tolerance = 1e-5 if images.dtype == torch.float32 else 1e-10
        found = cg(
            self._matvec, wide, preconditioner=independent, tolerance=tolerance, max_iterations=1000, batch_dims=1
        )
        return solved(found, tolerance, "solve with a local correlation").to(images.dtype)

    def logdet(self) -> float:
        """Woodbury where R = I and h = 0, else dense, up to 4096 pixels."""
        return float(self._woodbury().logdet()) if self._plain else super().logdet()

    def diagonal(self) -> Tensor:
        return (self.U.square() @ self.eigenvalues + self.d).reshape(self.image_shape)

    def factors(self, rank: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """U, λ and d: those stored when `rank` is None or their number, else a truncation that keeps the marginals.

        A truncation keeps the largest stored factors, and moves the variance of the others into the diagonal.
        """
        if rank is None or rank == self.rank:
            return self.U, self.eigenvalues, self.d
        if rank > self.rank:
            return super().factors(rank)
        kept, d = self._truncation(rank)
        return self.U[:, kept], self.eigenvalues[kept], d

    def _truncation(self, rank: int) -> tuple[Tensor, Tensor]:
        """Indices of the largest factors, and the diagonal that takes up the variance of the others."""
        self._check_rank(rank, 0)
        order = (self.eigenvalues * self.U.square().sum(0)).argsort(descending=True)
        kept, rest = order[:rank], order[rank:]
        return kept, self.d + self.U[:, rest].square() @ self.eigenvalues[rest]

    def compact(self, rank: int | None = None, *, seed: int = 0) -> "LowRankDiagonal":
        if rank is None or rank == self.rank:
            return self
        if rank > self.rank:
            return LowRankDiagonal.locally_correlated(*self.factors(rank), self.image_shape, self.correlation)
        kept, d = self._truncation(rank)
        U, eigenvalues, shared = self.U[:, kept], self.eigenvalues[kept], self.shared[kept]
        return LowRankDiagonal(U, eigenvalues, d, self.image_shape, self.correlation, shared)

    def components(self, k: int, *, products: int | None = None, seed: int = 0) -> Components:
        """By block Krylov on the compact form, or exactly where the diagonal is constant and U orthonormal."""
        self._check_rank(k, 1)
        if k <= self.rank and self._spectral():
            variances, order = (self.eigenvalues + self.d[0]).sort(descending=True)
            return self._ranked(variances[:k], self.U[:, order[:k]].mT.reshape(k, *self.image_shape))
        return super().components(k, products=products, seed=seed)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        draws = []
        grid = self.image_shape[1:] if self._local is None else self._local.padded
        noise_shape = torch.Size((self.image_shape[0], *grid))
        for own in streams(n, generator):
            z = torch.randn(self.rank + noise_shape.numel(), generator=own, dtype=self.dtype, device=own.device)
            z = z.to(self.device)
            white = z[self.rank :].reshape(noise_shape)
            local = white if self._local is None else self._local.root(white)
            leading = self.U @ ((self.eigenvalues - self.shared).sqrt() * z[: self.rank])
            draws.append(leading.reshape(self.image_shape) + self._spread * local)
        return torch.stack(draws)

    def scaled(self, factor: float) -> "LowRankDiagonal":
        if not factor > 0:
            raise InputError(f"a covariance is scaled by a positive factor, got {factor}; pass the square of the scale")
        U, eigenvalues, d, shared = self.U, self.eigenvalues * factor, self.d * factor, self.shared * factor
        built = LowRankDiagonal(U, eigenvalues, d, self.image_shape, self.correlation, shared)
        built.clipped = self.clipped
        return built

    def modulated(self, scale: Tensor) -> "LowRankDiagonal":
        """In the same form: rows of U and entries of d scaled, so that the columns of U are no longer orthonormal."""
        flat = check_map(scale, self).reshape(-1)
        U, d = flat[:, None] * self.U, flat.square() * self.d
        built = LowRankDiagonal(U, self.eigenvalues, d, self.image_shape, self.correlation, self.shared)
        built.clipped = self.clipped
        return built

    def restricted(self, slices: Sequence[slice]) -> "LowRankDiagonal":
        """P Σ Pᵀ: rows of U, entries of d and the kernel are kept; the columns of U are no longer orthonormal."""
        slices = tuple(slices)
        kept = torch.arange(self.size, device=self.device).reshape(self.image_shape)[slices]
        if len(slices) != len(self.image_shape) or kept.numel() == 0:
            raise InputError(f"a crop expects {len(self.image_shape)} slices that keep pixels, got {slices}")
        rows = kept.reshape(-1)
        kernel = self.correlation
        if kernel is not None:
            # A step of s pixels keeps every s-th lag, counted from the centre.
            steps = [part.step or 1 for part in slices[1:]]
            kernel = kernel[tuple(slice((m // 2) % s, None, s) for m, s in zip(kernel.shape, steps))]
        built = LowRankDiagonal(self.U[rows], self.eigenvalues, self.d[rows], tuple(kept.shape), kernel, self.shared)
        built.clipped = self.clipped
        return built

    @property
    def _plain(self) -> bool:
        """Is the remainder just a diagonal?"""
        return self.correlation is None and not bool(self.shared.any())

    def _spectral(self) -> bool:
        """Are U's columns eigenvectors of Σ that carry its largest eigenvalues?"""
        if not self._plain:
            return False
        gram = self.U.mT @ self.U
        close = 1e-5 if self.dtype == torch.float32 else 1e-12
        orthonormal = bool((gram - torch.eye(len(gram), dtype=gram.dtype, device=gram.device)).abs().max() < close)
        return orthonormal and bool((self.d - self.d[0]).abs().max() <= close * self.d[0])

    def _woodbury(self):
        """In double precision: Woodbury subtracts nearly equal vectors when λ ≫ d."""
        from linear_operator.operators import (
            DiagLinearOperator,
            LowRankRootAddedDiagLinearOperator,
            LowRankRootLinearOperator,
        )

        if not bool((self.d > 0).all()):
            raise NumericsError(
                "solve and logdet of low rank plus diagonal expect a positive diagonal, got a zero in it; "
                "build it with LowRankDiagonal.from_marginals, which floors it"
            )
        root = LowRankRootLinearOperator(self.U.double() * self.eigenvalues.double().sqrt())
        return LowRankRootAddedDiagLinearOperator(root, DiagLinearOperator(self.d.double()))  # type: ignore[arg-type]
