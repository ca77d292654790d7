"""(AᴴWA + d·I)⁻¹ b as a differentiable function of b, d and W, whatever computes it.

    x = N⁻¹ b,   N = AᴴWA + d·I:      ∂b = N⁻¹ g,   ∂d = −Re⟨x, N⁻¹ g⟩,   ∂W = −Re(conj(A N⁻¹ g) · A x)

by the implicit function theorem, so that no iteration is ever differentiated through.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import NumericsError
from ..solvers.linear import cg

if TYPE_CHECKING:
    from .base import LinearOperator

__all__ = ["divide_spectrum", "solve_normal"]


def solve_normal(
    operator: "LinearOperator",
    b: Tensor,
    damping: Tensor,
    weight: Tensor | None,
    tolerance: float,
    max_iterations: int,
) -> Tensor:
    """N⁻¹ b by the operator's closed form if it has one, else by conjugate gradients."""
    inverse = _Inverse(operator, tolerance, max_iterations)
    return _ImplicitSolve.apply(b, damping, weight, inverse)  # type: ignore[return-value]


def divide_spectrum(b: Tensor, eigenvalues: Tensor, axes: int) -> Tensor:
    """Divide by eigenvalues in `rfftn` layout over the last `axes` axes; a complex image part by part."""
    if b.is_complex():
        return torch.complex(divide_spectrum(b.real, eigenvalues, axes), divide_spectrum(b.imag, eigenvalues, axes))
    dims = tuple(range(-axes, 0))
    return torch.fft.irfftn(torch.fft.rfftn(b, dim=dims) / eigenvalues, s=b.shape[-axes:], dim=dims)


class _Inverse:
    """N⁻¹ without gradients."""

    def __init__(self, operator: "LinearOperator", tolerance: float, max_iterations: int):
        self.operator, self.tolerance, self.max_iterations = operator, tolerance, max_iterations

    def __call__(self, b: Tensor, damping: Tensor, weight: Tensor | None) -> Tensor:
        with torch.no_grad():
            closed = self.operator._solve(b, damping, weight)
            if closed is not None:
                return closed

            def normal(v: Tensor) -> Tensor:
                return self.operator.gram(v, weight) + damping * v

            batch = b.ndim - len(self.operator.image_shape)
            result = cg(
                normal,
                b,
                preconditioner=self.operator.preconditioner(damping, weight),
                tolerance=self.tolerance,
                max_iterations=self.max_iterations,
                batch_dims=batch,
            )
            if not result.status.converged:
                raise NumericsError(f"{type(self.operator).__name__}.solve: {result.status.message}")
            return result.x


class _ImplicitSolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, b: Tensor, damping: Tensor, weight: Tensor | None, inverse: _Inverse) -> Tensor:
        x = inverse(b, damping, weight)
        ctx.inverse = inverse
        ctx.save_for_backward(x, damping, weight)
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, damping, weight = ctx.saved_tensors
        operator = ctx.inverse.operator
        g: Tensor = _ImplicitSolve.apply(gradients[0], damping, weight, ctx.inverse)  # type: ignore[assignment]
        to_damping = to_weight = None
        if ctx.needs_input_grad[1]:
            to_damping = -_real_product(g, x).sum().reshape(damping.shape)
        if weight is not None and ctx.needs_input_grad[2]:
            to_weight = -_real_product(operator(g), operator(x)).sum_to_size(weight.shape)
        return g, to_damping, to_weight, None


def _real_product(a: Tensor, b: Tensor) -> Tensor:
    return (a.conj() * b).real if a.is_complex() else a * b
