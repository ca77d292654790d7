"""A local covariance B to which the data add information M: Σ = (B⁻¹ + M)⁻¹, of which B and M are known as products."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..solvers.algebra import Callback
from ..solvers.update import UpdatedEigen, updated_eigenpairs, updated_solve
from .covariance import Components, solved
from .product import ProductCovariance

__all__ = ["UpdatedCovariance"]

# Numbers in one batch of solves.
_BATCH_NUMBERS = 2**20


class UpdatedCovariance(ProductCovariance):
    """(B⁻¹ + M)⁻¹ without inverses; see `solvers.update`.

    Args:
        B: symmetric product on images `(b, *image_shape)`.
        M: symmetric product of any sign.
        image_shape: `(C, H, W)`.
        tolerance: relative residual of the solves, in B's norm.
        max_iterations: of one solve.
        probes: budget of solves for the diagonal.
        seed: of probes and starts.

    Attributes:
        truncated: vectors whose solve ended at negative curvature so far, of `solves`.
        callback: told (iteration, limit, residual) of every solve and search while it is set.
    """

    def __init__(
        self,
        B: Callable[[Tensor], Tensor],
        M: Callable[[Tensor], Tensor],
        image_shape: Sequence[int],
        *,
        tolerance: float = 1e-3,
        max_iterations: int = 200,
        probes: int = 128,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        super().__init__(self._updated, image_shape, probes=probes, seed=seed, dtype=dtype, device=device)
        self.B, self.M, self.tolerance, self.max_iterations = B, M, tolerance, max_iterations
        self.solves = self.truncated = 0
        self.callback: Callback | None = None
        self._eigen: UpdatedEigen | None = None

    def _updated(self, images: Tensor) -> Tensor:
        parts = []
        for part in images.split(max(1, _BATCH_NUMBERS // self.size)):
            result, truncated = updated_solve(
                self.B,
                self.M,
                part,
                tolerance=self.tolerance,
                max_iterations=self.max_iterations,
                callback=self.callback,
            )
            self.solves, self.truncated = self.solves + len(part), self.truncated + truncated
            parts.append(solved(result, self.tolerance, "the product with a covariance"))
        return torch.cat(parts)

    def _found(self, k: int, products: int | None, seed: int) -> Components:
        """By block Davidson: one product with B for each vector of its space, max(240, 20 k) by default."""
        found = self._eigen = updated_eigenpairs(
            self.B,
            self.M,
            self.image_shape,
            k,
            products=max(240, 20 * k) if products is None else products,
            tolerance=self.tolerance,
            generator=torch.Generator().manual_seed(seed),
            dtype=self.dtype,
            device=self.device,
            callback=self.callback,
        )
        return self._ranked(found.values.clamp_min(0), found.vectors, found.residuals)

    def components_report(self) -> dict[str, Any]:
        """How the components were found: products, largest relative residual, share of directions left out."""
        if self._eigen is None:
            return {}
        found = self._eigen
        return {
            "products": found.products,
            "residual": float(found.residuals.max() / found.values[0].clamp_min(1e-300)),
            "left_out": found.left_out / found.products,
        }
