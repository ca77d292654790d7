"""The image gradient by forward differences.

    (∇x)_i [n] = (x[n + e_i] − x[n]) / spacing_i

At the far edge the difference is zero ("neumann") or wraps around ("circular"). The Gram operator ∇ᴴ∇ is minus the
Laplacian; its eigenvalues are Σ_i 4 sin²(θ_i) / spacing_i² with θ = π k / N on the circular grid and θ = π k / (2N) on
the Neumann one, which gives `norm` in closed form.

References: Chambolle, "An algorithm for total variation minimization and applications", JMIV 2004.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from .arguments import as_numbers
from .base import LinearOperator
from .boundary import require_boundary

__all__ = ["Gradient"]


class Gradient(LinearOperator):
    """Forward differences along every spatial axis.

    Data have shape `(axes, *image_shape)`: component 0 is along the first spatial axis (D in 3-D, H in 2-D).

    Args:
        image_shape: `(C, H, W)` or `(C, D, H, W)`.
        spacing: pixel size along each spatial axis, or one for all, positive; 1 everywhere by default.
        boundary: "neumann" (no difference across the far edge) or "circular".
        dtype: precision of the images.

    >>> A = Gradient((1, 3, 3))
    >>> A(torch.arange(9.0).reshape(1, 3, 3))[0, 0]
    tensor([[3., 3., 3.],
            [3., 3., 3.],
            [0., 0., 0.]])
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        spacing: float | Sequence[float] | None = None,
        boundary: str = "neumann",
        dtype: torch.dtype = torch.float32,
    ):
        axes = len(image_shape) - 1
        if axes < 1:
            raise InputError(f"Gradient expects an image_shape such as (1, 64, 64), got {tuple(image_shape)}")
        super().__init__(image_shape, (axes, *image_shape), dtype)
        lengths = as_numbers(1.0 if spacing is None else spacing, "Gradient expects spacings", torch.float64)
        spacing = tuple((lengths.expand(axes) if lengths.ndim == 0 else lengths).tolist())
        if len(spacing) != axes or not all(math.isfinite(s) and s > 0 for s in spacing):
            raise InputError(
                f"Gradient expects {axes} positive spacings, got {spacing}; give one for each spatial axis"
            )
        self.spacing = spacing
        self.boundary = require_boundary(boundary, ("neumann", "circular"), "Gradient")

    def _apply(self, x: Tensor) -> Tensor:
        axes = len(self.spacing)
        parts = []
        for i, spacing in enumerate(self.spacing):
            dim = i - axes
            if self.boundary == "circular":
                part = x.roll(-1, dim) - x
            else:
                part = F.pad(x.diff(dim=dim), (0, 0) * (-dim - 1) + (0, 1))
            parts.append(part if spacing == 1.0 else part / spacing)
        return torch.stack(parts, dim=-axes - 2)

    def _adjoint(self, y: Tensor) -> Tensor:
        axes = len(self.spacing)
        total = None
        for i, spacing in enumerate(self.spacing):
            dim = i - axes
            part = y.select(-axes - 2, i)
            if self.boundary == "circular":
                part = part.roll(1, dim) - part
            else:
                inner = part.narrow(dim, 0, part.shape[dim] - 1)
                part = -F.pad(inner, (0, 0) * (-dim - 1) + (1, 1)).diff(dim=dim)
            part = part if spacing == 1.0 else part / spacing
            total = part if total is None else total + part
        assert total is not None
        return total

    def gram_spectrum(self) -> Tensor | None:
        if self.boundary != "circular":
            return None
        grid = self.image_shape[1:]
        total = torch.zeros((), dtype=torch.float64)
        for i, (n, spacing) in enumerate(zip(grid, self.spacing)):
            count = n // 2 + 1 if i == len(grid) - 1 else n
            values = (2 / spacing * torch.sin(math.pi / n * torch.arange(count, dtype=torch.float64))).square()
            total = total + values.reshape(-1, *(1,) * (len(grid) - 1 - i))
        return total[None].to(self.real_dtype)

    def norm(self, iterations: int = 200, tolerance: float = 1e-6, seed: int = 0) -> float:
        total = 0.0
        for n, spacing in zip(self.image_shape[1:], self.spacing):
            angle = math.pi * (n // 2) / n if self.boundary == "circular" else math.pi * (n - 1) / (2 * n)
            total += (2 * math.sin(angle) / spacing) ** 2
        return math.sqrt(total)
