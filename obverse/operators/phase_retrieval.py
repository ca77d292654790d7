"""Detectors see intensities only: y = |B x|², with B linear and complex. The phase is lost.

    J v = 2 Re(conj(B x) · B v),     Jᴴ u = 2 Bᴴ(u · B x),     Re⟨J v, u⟩ = Re⟨v, Jᴴ u⟩

The derivative is linear over the real numbers only: a complex image counts as a pair of real ones (`real_linear`). The
image is found at most up to a global phase, since |B(e^{iφ} x)| = |B x|.

A start comes from the leading eigenvector of Bᴴ diag(t(y)) B: where y is large, x lies along that row of B. For random
B the best t is 1 − 1/y, with y of mean one; it is cut off below, where a dark datum would outweigh all others.

References: Candès, Li, Soltanolkotabi, "Phase retrieval via Wirtinger flow: theory and algorithms", IEEE TIT 2015.
Luo, Alghamdi, Lu, "Optimal spectral initialization for signal recovery with applications to phase retrieval", IEEE
TSP 2019.
"""

from math import prod

import torch
from torch import Tensor

from ..errors import InputError
from ..solvers.algebra import squared
from ..solvers.eigen import block_krylov
from .base import LinearOperator, Operator, constant_like
from .compose import LinearComposition

__all__ = ["IntensityDerivative", "PhaseRetrieval"]

_DARKEST = -5.0
"""Least value of 1 − 1/y in the spectral start: data below a sixth of the mean count alike."""


class PhaseRetrieval(Operator):
    """Intensities of a linear operator's data, |B x|²; real, of B's data shape.

    Args:
        operator: B, usually on complex images; for real ones the sign is lost.

    >>> from obverse.operators import Fourier
    >>> A = PhaseRetrieval(Fourier((1, 2, 2)))
    >>> A(torch.ones(1, 2, 2, dtype=torch.complex64))
    tensor([[[0., 0.],
             [0., 4.]]])
    """

    def __init__(self, operator: LinearOperator):
        if not isinstance(operator, LinearOperator) or operator.real_linear:
            raise InputError(
                f"PhaseRetrieval expects a LinearOperator with complex data, got {operator!r}; see obverse.operators"
            )
        super().__init__(operator.image_shape, operator.data_shape, operator.dtype)
        self.operator = operator

    @property
    def data_dtype(self) -> torch.dtype:
        return self.real_dtype

    def _apply(self, x: Tensor) -> Tensor:
        return squared(self.operator._apply(x))

    def linearise(self, x: Tensor) -> LinearOperator:
        """J at the image `x`, `image_shape`: a composition whose inner operator is B."""
        if tuple(x.shape) != self.image_shape:
            raise InputError(f"linearise expects an image of shape {self.image_shape}, got {tuple(x.shape)}")
        return LinearComposition(IntensityDerivative(self.operator(x.detach())), self.operator)

    def spectral_start(self, y: Tensor, products: int = 60, seed: int = 0) -> Tensor:
        """An image from which iterations lead to the solution, if the data are many and B mixes well.

        Args:
            y: intensities `(*batch, *data_shape)`, not negative.
            products: with BᴴtB that the search for its leading eigenvector may take, one B and one Bᴴ each.
            seed: of the search's starting image, the same for all items of a batch.

        Returns:
            `(*batch, *image_shape)`, of a global phase that means nothing, with ‖B x‖² the sum of `y`.

        Raises:
            InputError: the shape is wrong, the data are negative or not finite, or all of them are zero.
        """
        data = tuple(range(-len(self.data_shape), 0))
        if not isinstance(y, Tensor):
            raise InputError(f"spectral_start expects a torch tensor, got {type(y).__name__}; use torch.as_tensor")
        if tuple(y.shape[y.ndim - len(self.data_shape) :]) != self.data_shape or y.is_complex():
            raise InputError(
                f"spectral_start expects real intensities (*batch, {', '.join(map(str, self.data_shape))}), "
                f"got {y.dtype} of shape {tuple(y.shape)}; reshape them"
            )
        total = y.sum(data, keepdim=True)
        if not bool(((y >= 0).all() & y.isfinite().all()) & (total > 0).all()):
            raise InputError("spectral_start expects intensities that are finite, not negative and not all zero")
        level = y * prod(self.data_shape) / total
        trust = torch.where(level > 0, 1 - 1 / level, _DARKEST).clamp(min=_DARKEST)
        batch = y.shape[: y.ndim - len(self.data_shape)]
        with torch.no_grad():
            x = torch.stack([self._leading(t, products, seed) for t in trust.reshape(-1, *self.data_shape)])
            x = x.reshape(*batch, *self.image_shape)
            scale = (total / squared(self.operator._apply(x)).sum(data, keepdim=True)).sqrt()
            return scale.reshape(*batch, *(1,) * len(self.image_shape)) * x

    def _leading(self, trust: Tensor, products: int, seed: int) -> Tensor:
        """Leading eigenvector of Bᴴ diag(trust) B; a shift, which Krylov spaces do not feel, makes it positive."""
        shift = -_DARKEST * self.operator.norm() ** 2

        def shifted(v: Tensor) -> Tensor:
            return self.operator._adjoint(trust * self.operator._apply(v)) + shift * v

        dtype = torch.promote_types(trust.dtype, self.dtype)
        generator = torch.Generator().manual_seed(seed)
        found = block_krylov(
            shifted,
            self.image_shape,
            1,
            block=1,
            products=min(products, prod(self.image_shape)),
            generator=generator,
            dtype=dtype,
            device=trust.device,
        )
        return found.vectors[0]


class IntensityDerivative(LinearOperator):
    """v ↦ 2 Re(conj(z) v), pixel by pixel: the derivative of |z|² at the field `z`.

    Args:
        field: z, complex or real; images and data have its shape.
    """

    def __init__(self, field: Tensor):
        super().__init__(field.shape, field.shape, field.dtype)
        self.field = field.detach().clone()

    @property
    def data_dtype(self) -> torch.dtype:
        return self.real_dtype

    def _apply(self, x: Tensor) -> Tensor:
        field = constant_like(self.field, x)
        return 2 * (field.real * x.real + field.imag * x.imag if field.is_complex() else field * x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return 2 * constant_like(self.field, y) * y

    def norm(self, iterations: int = 200, tolerance: float = 1e-6, seed: int = 0) -> float:
        return 2 * float(self.field.abs().max())

    def _solve(self, b: Tensor, damping: Tensor, weight: Tensor | None) -> Tensor:
        # pixel by pixel 4 w z zᵀ + d over pairs of real numbers: one direction, that of z, is damped by more than d
        field = constant_like(self.field, b)
        direction = field.sgn()
        along = (direction.conj() * b).real * direction if field.is_complex() else direction.abs() * b
        power = 4 * squared(field) if weight is None else 4 * weight * squared(field)
        return (b - along) / damping + along / (power + damping)
