"""(AᴴWA + d·I)⁻¹ b as a differentiable function of b, d, W and A's own constants θ, whatever computes it.

    x = N⁻¹ b,   N = AᴴWA + d·I:      ∂b = N⁻¹ g,   ∂d = −Re⟨x, N⁻¹ g⟩,   ∂W = −Re(conj(A N⁻¹ g) · A x)
                                      ∂θ = −∂/∂θ Re⟨N⁻¹ g, N x⟩  with x and N⁻¹ g held fixed

by the implicit function theorem: a derivative takes one more solve, and for θ one pass of autograd through A at the
solution, so that no iteration is ever differentiated through. Derivatives of derivatives are right as well.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import InputError, NumericsError
from ..solvers.linear import cg

if TYPE_CHECKING:
    from .base import LinearOperator

__all__ = ["divide_spectrum", "require_weight", "solve_normal"]


def solve_normal(
    operator: "LinearOperator",
    b: Tensor,
    damping: Tensor,
    weight: Tensor | None,
    tolerance: float,
    max_iterations: int,
) -> Tensor:
    """N⁻¹ b by the operator's closed form if it has one, else by conjugate gradients."""
    from .parameters import differentiable_tensors

    inverse = _Inverse(operator, tolerance, max_iterations)
    return _ImplicitSolve.apply(b, damping, weight, inverse, *differentiable_tensors(operator))  # type: ignore[return-value]


def require_weight(weight: Tensor, data_shape: tuple[int, ...], name: str) -> None:
    """An InputError unless `weight` holds inverse variances that broadcast to the data, with batch axes or not."""
    last = tuple(weight.shape[max(weight.ndim - len(data_shape), 0) :])
    fits = all(n in (1, m) for n, m in zip(reversed(last), reversed(data_shape), strict=False))
    if not fits:
        raise InputError(
            f"{name} expects a weight that broadcasts to data of shape {data_shape}, got {tuple(weight.shape)}; "
            "reshape it"
        )
    if not bool(((weight >= 0) & weight.isfinite()).all()):
        raise InputError(
            f"{name} expects weights of at least zero, the inverse variances, got negative or infinite ones or NaN; "
            "give zero to data that do not count"
        )


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

            apply, precondition, vectors = normal, self.operator.preconditioner(damping, weight), b
            if self.operator.real_linear:  # Hermitian over pairs of real numbers, not over complex ones
                apply, vectors = _on_pairs(normal), torch.view_as_real(b.resolve_conj())
                precondition = None if precondition is None else _on_pairs(precondition)
            result = cg(
                apply,
                vectors,
                preconditioner=precondition,
                tolerance=self.tolerance,
                max_iterations=self.max_iterations,
                batch_dims=b.ndim - len(self.operator.image_shape),
            )
            if not result.status.converged:
                raise NumericsError(f"{type(self.operator).__name__}.solve: {result.status.message}")
            return torch.view_as_complex(result.x) if self.operator.real_linear else result.x


class _ImplicitSolve(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, b: Tensor, damping: Tensor, weight: Tensor | None, inverse: _Inverse, *parameters: Tensor
    ) -> Tensor:
        x = inverse(b, damping, weight)
        ctx.inverse, ctx.parameters = inverse, parameters
        ctx.save_for_backward(x, damping, weight)
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, damping, weight = ctx.saved_tensors
        operator, parameters = ctx.inverse.operator, ctx.parameters
        g: Tensor = _ImplicitSolve.apply(gradients[0], damping, weight, ctx.inverse, *parameters)  # type: ignore[assignment]
        to_damping = to_weight = None
        if ctx.needs_input_grad[1]:
            to_damping = -_real_product(g, x).sum().reshape(damping.shape)
        if weight is not None and ctx.needs_input_grad[2]:
            to_weight = -_real_product(operator(g), operator(x)).sum_to_size(weight.shape)
        to_parameters = _parameter_gradients(operator, parameters, g, x, weight) if parameters else ()
        return g, to_damping, to_weight, None, *to_parameters


def _parameter_gradients(
    operator: "LinearOperator", parameters: tuple[Tensor, ...], g: Tensor, x: Tensor, weight: Tensor | None
) -> tuple[Tensor | None, ...]:
    """−∂/∂θ Re⟨g, AᴴWA x⟩ for each constant by itself."""
    from .parameters import with_tensors

    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        copies = tuple(tensor.view_as(tensor) for tensor in parameters)
        value = _real_product(g, with_tensors(operator, parameters, copies)._gram(x, weight)).sum()
        found = torch.autograd.grad(value, copies, create_graph=create_graph, allow_unused=True)
    return tuple(None if one is None else -one for one in found)


def _on_pairs(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A function of complex vectors as one of pairs of real numbers, their last axis."""
    return lambda pairs: torch.view_as_real(function(torch.view_as_complex(pairs)).resolve_conj())


def _real_product(a: Tensor, b: Tensor) -> Tensor:
    return (a.conj() * b).real if a.is_complex() else a * b
