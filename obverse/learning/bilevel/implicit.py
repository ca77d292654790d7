"""Derivatives through the minimiser of a smooth, strongly convex energy, with bounds of what was left unsolved.

    F(θ) = ℓ(x̂(θ)),      x̂(θ) = argmin_x h(x, θ)
    h_xx q = ∇ℓ(x̂),      ∇F = −h_xθᵀ q                                      (the implicit function theorem)

x̂ is known only to be near x̃, and q only up to a residual r = h_xx(x̃) q − ∇ℓ(x̃). With m-strong convexity, and
Lipschitz constants L_ℓ of ∇ℓ, L_H of h_xx and L_J of h_xθ in x,

    ‖x̃ − x̂‖ ≤ ε = ‖∇h(x̃)‖/m
    |ℓ(x̃) − F| ≤ ‖∇ℓ(x̃)‖ ε + ½ L_ℓ ε²
    ‖q − q̂‖ ≤ e = (L_H ε ‖q‖ + ‖r‖ + L_ℓ ε)/m
    ‖z − ∇F‖ ≤ L_J ε ‖q‖ + (‖h_xθ(x̃)‖ + L_J ε) e           with z = −h_xθ(x̃)ᵀ q

All on the right is known once x̃ and q are, so that the bounds cost nothing more.

References: Pedregosa, "Hyperparameter optimization with approximate gradient", ICML 2016. Ehrhardt, Roberts, "Analyzing
inexact hypergradients for bilevel learning", IMA J. Applied Mathematics 2024.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...errors import InputError
from ...solvers.accelerated import accelerated_gradient
from ...solvers.linear import cg
from ...solvers.result import Result

__all__ = ["Bilevel", "Hypergradient", "LowerSolution", "through_minimiser"]

_FEW = 256  # parameters up to which ‖h_xθ‖ is computed column by column
_LOOSEST = 0.1  # relative residual of the adjoint equation: at 1, zero would do for its solution


@dataclass(frozen=True)
class LowerSolution:
    """A point near the minimiser of the lower level.

    Args:
        x: x̃.
        distance: ε, bound of ‖x̃ − x̂‖.
        value: ℓ(x̃).
        radius: bound of |ℓ(x̃) − F(θ)|.
        gradients: gradients of h that it took.
        reached: whether the accuracy asked for was reached.
    """

    x: Tensor
    distance: float
    value: float
    radius: float
    gradients: int
    reached: bool

    @property
    def low(self) -> float:
        """Lower bound of F(θ)."""
        return self.value - self.radius

    @property
    def high(self) -> float:
        """Upper bound of F(θ)."""
        return self.value + self.radius


@dataclass(frozen=True)
class Hypergradient:
    """z ≈ ∇F(θ).

    Args:
        gradient: z, of θ's shape.
        error: bound of ‖z − ∇F(θ)‖; infinite where a constant that it needs was not given.
        products: products with h_xx that it took.
    """

    gradient: Tensor
    error: float
    products: int


@dataclass(frozen=True, eq=False)
class Bilevel:
    """Learn θ such that the minimiser of h(·, θ) has a small loss ℓ.

    Args:
        lower: (x, θ) ↦ h(x, θ), a scalar tensor, twice differentiable by autograd and strongly convex in x.
        upper: x ↦ ℓ(x), a scalar tensor.
        start: first guess of x̂; the shape of x.
        convexity: θ ↦ m, or a number if it is the same for all.
        lipschitz: θ ↦ L of ∇h in x.
        upper_lipschitz: L_ℓ; 1 for ½‖x − x*‖².
        hessian_lipschitz: θ ↦ L_H; without it there is no bound of the hypergradient's error.
        mixed_lipschitz: θ ↦ L_J, in the norm of matrices; the same holds.

    Example:
        >>> y, truth = torch.tensor([2.0, 4.0]), torch.tensor([1.0, 2.0])
        >>> problem = Bilevel(
        ...     lower=lambda x, theta: 0.5 * (x - y).square().sum() + 0.5 * theta * x.square().sum(),
        ...     upper=lambda x: 0.5 * (x - truth).square().sum(),
        ...     start=y, convexity=lambda theta: 1 + float(theta), lipschitz=lambda theta: 1 + float(theta),
        ... )
        >>> solved = problem.solve(torch.tensor(1.0), accuracy=1e-6)
        >>> abs(problem.hypergradient(torch.tensor(1.0), solved).gradient.item()) < 1e-4
        True
    """

    lower: Callable[[Tensor, Tensor], Tensor]
    upper: Callable[[Tensor], Tensor]
    start: Tensor
    convexity: float | Callable[[Tensor], float]
    lipschitz: float | Callable[[Tensor], float]
    upper_lipschitz: float = 1.0
    hessian_lipschitz: float | Callable[[Tensor], float] | None = None
    mixed_lipschitz: float | Callable[[Tensor], float] | None = field(default=None)

    def solve(
        self, theta: Tensor, accuracy: float, start: Tensor | None = None, max_iterations: int = 20_000
    ) -> LowerSolution:
        """A point certified to lie within `accuracy` of x̂(θ), if rounding and the limit allow.

        Args:
            start: where to begin, such as the solution for a neighbouring θ.
        """
        theta = theta.detach()

        def gradient(x: Tensor) -> Tensor:
            with torch.enable_grad():
                x = x.detach().requires_grad_(True)
                return torch.autograd.grad(self.lower(x, theta), x)[0]

        result = accelerated_gradient(
            gradient, self.start if start is None else start, accuracy=accuracy, max_iterations=max_iterations,
            lipschitz=_number(self.lipschitz, theta), convexity=_number(self.convexity, theta),
        )  # fmt: skip
        value, slope = self._upper(result.x)
        distance = result.residual
        radius = float(slope.norm()) * distance + 0.5 * self.upper_lipschitz * distance**2
        return LowerSolution(result.x, distance, value, radius, result.iterations, result.status.converged)

    def hypergradient(self, theta: Tensor, solved: LowerSolution, accuracy: float = 1e-6) -> Hypergradient:
        """∇F(θ) at a solution of the lower level.

        Args:
            accuracy: δ, largest ‖r‖ accepted.
        """
        _, slope = self._upper(solved.x)
        size = float(slope.norm())
        with torch.enable_grad():
            x, variable = solved.x.detach().requires_grad_(True), theta.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(self.lower(x, variable), x, create_graph=True)

            def product(v: Tensor) -> Tensor:
                return torch.autograd.grad(gradient, x, v, retain_graph=True)[0]

            adjoint = cg(product, slope, tolerance=min(accuracy / size, _LOOSEST) if size > 0 else _LOOSEST)
            (back,) = torch.autograd.grad(gradient, variable, adjoint.x, retain_graph=True, allow_unused=True)
        if back is None:
            raise InputError("lower expects an energy that depends on theta, got one that does not; check its closure")
        error = self._error(theta.detach(), solved, adjoint, size)
        return Hypergradient(-back, error, adjoint.iterations)

    def _error(self, theta: Tensor, solved: LowerSolution, adjoint: Result, size: float) -> float:
        if self.hessian_lipschitz is None or self.mixed_lipschitz is None or theta.numel() > _FEW:
            return math.inf
        bend, mixed = _number(self.hessian_lipschitz, theta), _number(self.mixed_lipschitz, theta)
        away, length = solved.distance, float(adjoint.x.norm())
        residual = adjoint.residual * size
        wrong = (bend * away * length + residual + self.upper_lipschitz * away) / _number(self.convexity, theta)
        return mixed * away * length + (self._mixed_norm(solved.x, theta) + mixed * away) * wrong

    def _mixed_norm(self, x: Tensor, theta: Tensor) -> float:
        """‖h_xθ‖, from its columns."""

        def gradient(variable: Tensor) -> Tensor:
            return torch.func.grad(self.lower)(x, variable)

        directions = torch.eye(theta.numel(), dtype=theta.dtype, device=theta.device).reshape(-1, *theta.shape)
        columns = [torch.func.jvp(gradient, (theta,), (v,))[1].flatten() for v in directions]
        return float(torch.linalg.matrix_norm(torch.stack(columns), 2))

    def _upper(self, x: Tensor) -> tuple[float, Tensor]:
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            value = self.upper(x)
            return float(value.detach()), torch.autograd.grad(value, x)[0]


def through_minimiser(
    x: Tensor, gradient: Tensor, product: Callable[[Tensor], Tensor], tolerance: float = 1e-3, batch_dims: int = 0
) -> Tensor:
    """The minimiser `x`, made differentiable in whatever `gradient` depends on.

    Args:
        x: x̂, found without gradients.
        gradient: ∇h(x̂, θ), about zero, computed at the fixed `x̂` with a graph to θ.
        product: v ↦ h_xx v; called without gradients.
        tolerance: relative residual of the adjoint equation.
        batch_dims: number of leading axes that are problems of their own.

    Example:
        >>> theta = torch.tensor(2.0, requires_grad=True)
        >>> x = torch.tensor([3.0])  # minimises ½(x − 1)² θ − 2 θ x ⇒ x = 3, whatever θ
        >>> through_minimiser(x, theta * (x - 1) - 2 * theta, lambda v: theta * v).sum().backward()
        >>> theta.grad.item()
        0.0
    """
    return _Implicit.apply(x.detach(), gradient, product, tolerance, batch_dims)


class _Implicit(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gradient: Tensor, product: Any, tolerance: float, batch_dims: int) -> Tensor:
        ctx.settings = product, tolerance, batch_dims
        return x.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        product, tolerance, batch_dims = ctx.settings
        adjoint = cg(product, slope, tolerance=tolerance, batch_dims=batch_dims)
        return None, -adjoint.x, None, None, None


def _number(constant: float | Callable[[Tensor], float], theta: Tensor) -> float:
    return float(constant(theta.detach())) if callable(constant) else float(constant)
