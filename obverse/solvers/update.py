"""A covariance B to which information M is added, Σ = (B⁻¹ + M)⁻¹, from products with B and M alone.

    Σ v = B K⁻¹ v,      K = I + M B
    K is self-adjoint in ⟨a, b⟩_B = aᵀB b:  conjugate gradients in that inner product take one product with B a step
    Σ u = λ u,  u = K w   ⇔   B² w = λ B K w                  a symmetric pencil; again one product for each vector

B may be singular: neither its inverse nor a square root is needed. The eigenpairs come from a block Davidson iteration:
Rayleigh–Ritz on all vectors so far, then new ones from the residuals B w − λ K w = Σ u − λ u. B that was estimated may
have negative eigenvalues, and M may take away more than B⁻¹ has, so that Σ is none. A solve ends with its first
direction of negative curvature, along which it takes M for zero; Rayleigh–Ritz leaves out directions where ⟨w, w⟩_B is
not positive and raises ⟨w, Kw⟩_B to a small share of ⟨w, w⟩_B. Both count what they leave out.

References: Golub, Ye, "An inverse free preconditioned Krylov subspace method for symmetric generalized eigenvalue
problems", SIAM J. Sci. Comput. 2002. Davidson, "The iterative calculation of a few of the lowest eigenvalues", J.
Comput. Phys. 1975.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError, NumericsError
from .algebra import Callback, Map, guard, inner, norm
from .eigen import Eigen, pink
from .result import Result, Status

__all__ = ["UpdatedEigen", "updated_eigenpairs", "updated_solve"]

_CREDIBLE = 0.5  # of λ, the residual up to which an eigenpair is taken before the others
_LEAST = 0.02  # of ⟨w, w⟩_B that ⟨w, Kw⟩_B is raised to: a variance of 50 times B's


def updated_solve(
    B: Map, M: Map, v: Tensor, *, tolerance: float = 1e-6, max_iterations: int = 500, callback: Callback | None = None
) -> tuple[Result, int]:
    """Σ v for a batch of vectors.

    Args:
        B: symmetric, nearly positive semi-definite, on `(b, *shape)`.
        M: symmetric, of any sign.
        v: `(b, *shape)`.
        tolerance: largest ‖v − K w‖_B/‖v‖_B accepted, for every vector; up to ten times that where rounding allows no
            more.
        max_iterations: limit, each one product with B for all of v.
        callback: told (iteration, limit, largest residual).

    Returns:
        The result, and how many of the vectors met negative curvature and were left at what they had reached.
    """
    B, M = guard(B, "B", v.shape), guard(M, "M", v.shape)
    scale = norm(v.detach(), 1).clamp_min(torch.finfo(v.dtype).tiny)
    v = v.detach() / scale
    w, Bw, r = torch.zeros_like(v), torch.zeros_like(v), v
    Br = B(r)
    rho = inner(r, Br, 1)
    if not bool(rho.isfinite().all()):
        raise NumericsError("expected finite products with B, got NaN or infinity; check the denoiser and the scale")
    first, p, Bp = rho.clamp_min(torch.finfo(v.dtype).tiny), r, Br
    active, bent = rho > 0, rho < 0
    history: list[float] = []
    while bool(active.any()) and len(history) < max_iterations:
        Kp = p + M(Bp)
        curvature = inner(Bp, Kp, 1)
        negative = active & (curvature <= _LEAST * inner(p, Bp, 1).clamp_min(0) * 1e-3)
        # The last step of such a vector takes M for nothing along p, and so is no longer than B alone makes it.
        curvature = torch.where(negative, inner(p, Bp, 1), curvature)
        alpha = torch.where(active, rho / torch.where(curvature > 0, curvature, 1.0), 0.0)
        bent, active = bent | negative, active & ~negative
        w, Bw, r = w + alpha * p, Bw + alpha * Bp, r - alpha * Kp
        Br = B(r)
        fresh = inner(r, Br, 1)
        # ⟨r, r⟩_B ≤ 0 is rounding at the end, and otherwise a direction in which B is no covariance.
        ended = active & ~(fresh > 0)
        bent = bent | (ended & ~(-fresh <= 1e-6 * first))
        residual = (fresh.clamp_min(0) / first).sqrt()
        history.append(float(torch.where(active, residual, 0.0).max()))
        if callback is not None:
            callback(len(history), max_iterations, history[-1])
        active = active & ~ended & (residual > tolerance)
        beta = torch.where(active, fresh / torch.where(rho > 0, rho, 1.0), 0.0)
        p, Bp, rho = r + beta * p, Br + beta * Bp, fresh
    r = v - w - M(Bw)
    left = (inner(r, B(r), 1).clamp_min(0) / first).sqrt()
    worst = float(torch.where(bent | (rho == 0), 0.0, left).max())
    truncated, done = int(bent.sum()), not bool(active.any())
    message = f"{len(history)} steps of conjugate gradients to a residual of {worst:.1e}"
    message += f"; {truncated} of {len(v)} vectors met negative curvature" if truncated else ""
    reason = "max-iterations" if not done else "converged" if worst <= 10 * tolerance else "stagnation"
    status = Status(reason == "converged", reason, message)
    return Result(scale * Bw, status, len(history), worst, tuple(history)), truncated


@dataclass(frozen=True)
class UpdatedEigen(Eigen):
    """Leading eigenpairs of Σ.

    Args:
        left_out: directions in which B or K was not positive, of the space that the products span.
    """

    left_out: int = 0


def updated_eigenpairs(
    B: Map,
    M: Map,
    shape: tuple[int, ...],
    k: int,
    *,
    block: int | None = None,
    products: int = 400,
    tolerance: float = 1e-3,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
    callback: Callback | None = None,
) -> UpdatedEigen:
    """The k largest eigenpairs of Σ.

    Args:
        B, M: as for `updated_solve`.
        shape: of one vector.
        k: number of eigenpairs.
        block: vectors a step; k + 3 by default.
        products: the most vectors that B may be given.
        tolerance: on every residual ‖Σu − λu‖, relative to the largest λ.
        generator: of the start.
        callback: told (products, budget, largest relative residual).
    """
    size = math.prod(shape)
    if not 1 <= k <= size or products < k:
        raise InputError(f"expected 1 <= k <= {size} and products of at least k, got {k} and {products}")
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    block = min(k + 3 if block is None else block, products, size)
    if block < 1:
        raise InputError(f"expected a block of at least 1, got {block}")
    space = _Space(guard(B, "B"), guard(M, "M"), shape)
    space.extend(pink(block, shape, generator, dtype, device))
    while True:
        values, weights, left_out = space.ritz(2 * max(k, block))
        vectors, misses = space.pairs(values, weights)
        lengths = torch.linalg.vector_norm(vectors, dim=1)
        residuals = torch.linalg.vector_norm(misses, dim=1) / lengths
        # Where B has negative directions, w between them and others have next to no ⟨w, w⟩_B, and so a λ of any size.
        order = torch.argsort(residuals > _CREDIBLE * values, stable=True)
        values, residuals, vectors, misses = (part[order] for part in (values, residuals, vectors, misses))
        worst = float(residuals[:k].max() / values[0]) if len(values) >= k else math.inf
        if callback is not None:
            callback(space.count, products, worst)
        room = min(products, size) - space.count
        if worst <= tolerance or room <= 0:
            break
        wanted = misses[:block][residuals[:block] > tolerance * values[:1]][:room]
        # Where B has few positive directions, or all that were found are exact, look elsewhere.
        if not (len(wanted) and space.extend(wanted)):
            space.extend(pink(min(block, room), shape, generator, dtype, device))
    lacking = k - len(values)
    order = torch.argsort(values[:k], descending=True)
    values, residuals, vectors = (part[order] for part in (values[:k], residuals[:k], vectors[:k]))
    # u = K w are orthogonal only as far as they have converged.
    if lacking > 0:
        vectors = torch.cat([vectors, pink(lacking, shape, generator, dtype, device)])
    vectors = torch.linalg.qr(vectors.mT).Q.mT
    if lacking > 0:
        rest = torch.linalg.vector_norm(space.B(vectors[-lacking:].reshape(-1, *shape)).reshape(lacking, -1), dim=1)
        values, residuals = torch.cat([values, torch.zeros_like(rest)]), torch.cat([residuals, rest])
    exact = space.count == size
    done = worst <= tolerance or exact
    reached = f"largest residual {worst:.1e} of the leading variance after {space.count} products"
    if lacking > 0:
        reached = f"B has only {k - lacking} positive directions among {space.count} that were looked at"
    if not done:
        reached += f", above {tolerance:.0e}: allow more products, or accept the residuals reported"
    status = Status(done, "converged" if done else "max-products", reached)
    return UpdatedEigen(values[:k], vectors.reshape(-1, *shape), residuals[:k], space.count, status, left_out)


class _Space:
    """Orthonormal w, with B w and K w, and the projections of B², B K and B on them."""

    def __init__(self, B: Map, M: Map, shape: tuple[int, ...]):
        self.B, self.M, self.shape = B, M, shape
        self.w = self.Bw = self.Kw = torch.empty(0)

    @property
    def count(self) -> int:
        return len(self.w)

    def extend(self, candidates: Tensor) -> bool:
        """Add what is new in the candidates `(b, size)`; whether anything was."""
        rows = candidates / torch.linalg.vector_norm(candidates, dim=1, keepdim=True).clamp_min(1e-300)
        for _ in range(2):
            if self.count:
                rows = rows - (rows @ self.w.mT) @ self.w
        q, r = torch.linalg.qr(rows.mT)
        keep = r.diagonal().abs() > 1e3 * torch.finfo(rows.dtype).eps
        fresh = q.mT[keep]
        if not len(fresh):
            return False
        Bw = self.B(fresh.reshape(-1, *self.shape))
        if not bool(Bw.isfinite().all()):
            raise NumericsError("expected finite products with B, got NaN or infinity; check the denoiser")
        Kw = fresh + self.M(Bw).reshape(len(fresh), -1)
        Bw = Bw.reshape(len(fresh), -1)
        if self.count:
            fresh, Bw, Kw = (torch.cat(pair) for pair in ((self.w, fresh), (self.Bw, Bw), (self.Kw, Kw)))
        self.w, self.Bw, self.Kw = fresh, Bw, Kw
        return True

    def ritz(self, k: int) -> tuple[Tensor, Tensor, int]:
        """The k largest λ of B² c = λ B K c on the space, c `(count, k)`, and the directions left out or raised."""
        plain, information, square = (
            _symmetric(a.double() @ b.double().mT)
            for a, b in ((self.w, self.Bw), (self.Bw, self.Kw), (self.Bw, self.Bw))
        )
        sizes, turn = torch.linalg.eigh(plain)
        positive = sizes > 1e-9 * sizes.abs().max().clamp_min(1e-300)
        turn = turn[:, positive] * sizes[positive].rsqrt()  # orthonormal in ⟨·,·⟩_B
        stiffness, axes = torch.linalg.eigh(_symmetric(turn.mT @ information @ turn))
        raised = stiffness < _LEAST
        turn = turn @ axes * stiffness.clamp_min(_LEAST).rsqrt()
        values, inside = torch.linalg.eigh(_symmetric(turn.mT @ square @ turn))
        values, inside = values.flip(0)[:k], inside.flip(1)[:, :k]
        return values.to(self.w.dtype), (turn @ inside).to(self.w.dtype), int((~positive).sum() + raised.sum())

    def pairs(self, values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """u = K w and Σu − λu, `(k, size)` each."""
        u = weights.mT @ self.Kw
        return u, weights.mT @ self.Bw - values[:, None] * u


def _symmetric(matrix: Tensor) -> Tensor:
    return (matrix + matrix.mT) / 2
