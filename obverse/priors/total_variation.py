"""Total variation, isotropic or anisotropic, in two or three dimensions, with a weight that may vary over the image.

    TV_w(x) = Σ_i w_i |(∇x)_i|             |·| the Euclidean norm over the axes, or the sum of magnitudes (anisotropic)
    smoothed:  Σ_i w_i √(|(∇x)_i|² + ε²)    with gradient ∇ᴴ(w ∇x/r) and Hessian ∇ᴴ B ∇,
               B_i = (w_i/r_i)(I − g gᵀ/r_i²),  g = (∇x)_i,  r_i = √(|g|² + ε²)

∇ takes forward differences, divided by the pixel's size along each axis, with no difference across the far edge. B_i
has the symmetric root √(w_i/r_i)(I − g gᵀ/(r_i (r_i + ε))), so that ∇ᴴ B^½ n with white n is a draw from N(0, Hessian).

The proximal operator solves the dual problem by accelerated projected gradients and stops on the relative duality gap,
so that equal inputs give equal outputs whatever was computed before (see `tv_prox`).

References: Rudin, Osher, Fatemi, "Nonlinear total variation based noise removal algorithms", Physica D 1992. Beck,
Teboulle, "Fast gradient-based algorithms for constrained total variation image denoising and deblurring problems", IEEE
TIP 2009.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError, NumericsError
from ..solvers.algebra import squared
from .base import Functional, Hessian, Prior, Term, batch_sum, check_step
from .differences import checked_spacing, gradient, gradient_adjoint
from .tv_prox import TotalVariationProx, total_variation_prox

__all__ = ["TotalVariation"]


@dataclass(frozen=True, eq=False)
class TotalVariation(Prior):
    """Σ_i w_i |(∇x)_i|, each channel on its own.

    Args:
        isotropic: Euclidean norm over the axes; otherwise the sum of magnitudes.
        smoothing: ε, in units of the image per unit of length; 0 is total variation itself.
        dimensions: 2 for images `(C, H, W)`, 3 for `(C, D, H, W)`; methods set it with `bind`.
        spacing: pixel size along each spatial axis; 1 everywhere by default.
        weight: w, a map that broadcasts to the image, at least zero; 1 everywhere by default. Scale the prior to weigh
            the whole: `0.1 * TotalVariation()`.
        tolerance: relative duality gap at which the prox stops; by default 1e-5 in float32, 1e-6 in float64.
        max_iterations: of the prox.

    Example:
        >>> import torch
        >>> step = torch.tensor([[[0.0, 0.0, 4.0, 4.0]]])
        >>> float(TotalVariation().value(step))
        4.0
        >>> TotalVariation(tolerance=1e-7).prox(step, 1.0).round(decimals=2)
        tensor([[[0.5000, 0.5000, 3.5000, 3.5000]]])
    """

    isotropic: bool = True
    smoothing: float = 0.0
    dimensions: int = 2
    spacing: Sequence[float] | None = None
    weight: Tensor | None = None
    tolerance: float | None = None
    max_iterations: int = 10_000

    def __post_init__(self):
        if not (math.isfinite(self.smoothing) and self.smoothing >= 0):
            raise InputError(f"TotalVariation expects a smoothing of at least zero, got {self.smoothing}")
        if self.dimensions not in (1, 2, 3):
            raise InputError(f"TotalVariation expects 1, 2 or 3 dimensions, got {self.dimensions}")
        if self.spacing is not None:
            object.__setattr__(self, "spacing", checked_spacing(self.spacing, self.dimensions, "TotalVariation"))
        if self.weight is not None:
            if not bool(((self.weight >= 0) & self.weight.isfinite()).all()):
                raise InputError("TotalVariation expects a weight map of finite numbers of at least zero")
            object.__setattr__(self, "weight", self.weight.detach().clone())

    @property
    def smooth(self) -> bool:
        return self.smoothing > 0

    @property
    def proximable(self) -> bool:
        return self.smoothing == 0

    def value(self, x: Tensor) -> Tensor:
        return batch_sum(self._weight(x) * self._radius(self._gradient(x))[0], self.dimensions + 1, "TotalVariation")

    def gradient(self, x: Tensor) -> Tensor:
        self._require_smooth("gradient")
        g = self._gradient(x)
        _, r = self._radius(g)
        return self._adjoint(self._stacked(self._weight(x)) * g / r)

    def prox(self, x: Tensor, step: float) -> Tensor:
        """argmin_u TV(u) + ‖u − x‖²/(2 step), to the relative duality gap `tolerance`.

        Raises:
            NumericsError: the gap was not reached within `max_iterations`.
        """
        result = self.prox_result(x, step)
        if not result.status.converged:
            raise NumericsError(f"TotalVariation.prox: {result.status.message}")
        return result.x

    def prox_result(self, x: Tensor, step: float, dual: Tensor | None = None) -> TotalVariationProx:
        """The prox with its dual point, its certificate and its status; `dual` starts from an earlier call's point."""
        if self.smoothing > 0:
            raise InputError(
                "smoothed total variation has no prox here, got smoothing > 0; use smoothing=0 or gradients"
            )
        step = check_step(step, "TotalVariation")
        bound = step if self.weight is None else step * self.weight.to(dtype=x.real.dtype, device=x.device)
        return total_variation_prox(
            x,
            bound,
            dimensions=self.dimensions,
            isotropic=self.isotropic,
            spacing=self.spacing,
            tolerance=self.tolerance,
            max_iterations=self.max_iterations,
            dual=dual,
        )

    def hessian(self, x: Tensor) -> Hessian:
        self._require_smooth("Hessian")
        if x.is_complex():
            raise InputError("TotalVariation.hessian expects a real image, got a complex one; use its gradient")
        g = self._gradient(x.detach())
        _, r = self._radius(g)
        strength, unit = self._stacked(self._weight(x)) / r, g / r
        shortened = r / (r + self.smoothing)
        axis = -self.dimensions - 2

        def along(d: Tensor) -> Tensor:
            return (unit * d).sum(axis, keepdim=True) if self.isotropic else unit * d

        def curvature(d: Tensor) -> Tensor:
            return torch.addcmul(d, unit, along(d), value=-1).mul_(strength)

        def perturbation(generator: torch.Generator) -> Tensor:
            n = torch.randn(g.shape, generator=generator, dtype=x.dtype, device=generator.device).to(x.device)
            return self._adjoint(strength.sqrt() * (n - unit * along(n) * shortened))

        return Hessian(lambda v: self._adjoint(curvature(self._gradient(v))), perturbation)

    def terms(self, image_shape: Sequence[int] | None = None, dtype: torch.dtype = torch.float32) -> list[Term]:
        from ..operators.differences import Gradient

        if self.smoothing > 0:
            raise InputError("smoothed total variation is not split into terms, got smoothing > 0; use its gradient")
        shape = self._shape(image_shape)
        bound = self.bind(shape)
        return [Term(Gradient(shape, spacing=bound.spacing, dtype=dtype), _GroupNorm(bound))]

    def bind(self, image_shape: Sequence[int]) -> "TotalVariation":
        if self.spacing is not None and len(self.spacing) != len(image_shape) - 1:
            raise InputError(
                f"TotalVariation with {len(self.spacing)} spacings cannot act on images {tuple(image_shape)}; give one "
                "spacing for each spatial axis"
            )
        return super().bind(image_shape)  # type: ignore[return-value]

    def _steps(self) -> tuple[float, ...]:
        return checked_spacing(self.spacing, self.dimensions, "TotalVariation")

    def _gradient(self, x: Tensor) -> Tensor:
        if x.ndim < self.dimensions + 1:
            raise InputError(
                f"TotalVariation expects images with {self.dimensions + 1} axes, channel first, got {tuple(x.shape)}; "
                "add a channel axis"
            )
        return gradient(x, self._steps())

    def _adjoint(self, p: Tensor) -> Tensor:
        return gradient_adjoint(p, self._steps())

    def _weight(self, x: Tensor) -> Tensor:
        real = x.real.dtype if x.is_complex() else x.dtype
        one = torch.ones((), dtype=real, device=x.device)
        return one if self.weight is None else self.weight.to(dtype=real, device=x.device)

    def _stacked(self, weight: Tensor) -> Tensor:
        """A weight with a place for the axes' index in front of the channel."""
        return weight if weight.ndim <= self.dimensions else weight.unsqueeze(-self.dimensions - 2)

    def _radius(self, g: Tensor) -> tuple[Tensor, Tensor]:
        """√(|g|² + ε²): summed over axes per pixel, and shaped to divide `g`."""
        axis = -self.dimensions - 2
        energy = squared(g)
        if self.isotropic:
            energy = energy.sum(axis, keepdim=True)
        r = (energy + self.smoothing**2).sqrt()
        return r.sum(axis), r

    def _require_smooth(self, what: str) -> None:
        if self.smoothing == 0:
            raise InputError(
                f"TotalVariation has no {what} at flat places; use prox, or TotalVariation(smoothing=0.01)"
            )


class _GroupNorm(Functional):
    """Σ_i w_i |z_i| for z of shape `(*batch, axes, C, *grid)`."""

    def __init__(self, prior: TotalVariation):
        super().__init__(prior.dimensions + 2)
        self.prior = prior

    def value(self, z: Tensor) -> Tensor:
        return self.total(self._weight(z) * self._size(z))

    def prox(self, z: Tensor, step: float) -> Tensor:
        size = self._size(z)
        return z * (1.0 - step * self._weight(z) / size.clamp_min(torch.finfo(size.dtype).tiny)).clamp_min(0.0)

    def prox_conjugate(self, z: Tensor, step: float) -> Tensor:
        """Projection onto |z_i| ≤ w_i, whatever the step."""
        size, weight = self._size(z), self._weight(z)
        return z * torch.where(size > weight, weight / size.clamp_min(torch.finfo(size.dtype).tiny), 1.0)

    def _weight(self, z: Tensor) -> Tensor:
        return self.prior._stacked(self.prior._weight(z))

    def _size(self, z: Tensor) -> Tensor:
        if not self.prior.isotropic:
            return z.abs()
        # several times as fast as torch's vector_norm over a leading axis
        return squared(z).sum(-self.axes, keepdim=True).sqrt()
