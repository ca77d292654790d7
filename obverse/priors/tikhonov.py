"""Tikhonov's prior: a quadratic energy.

value(x) = ½ ‖K x‖²,   gradient KᴴK x,   prox(x, s) = (KᴴK + I/s)⁻¹ x/s,   Hessian KᴴK
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from ..operators.base import LinearOperator
from ..solvers.algebra import squared
from .base import Functional, Hessian, Prior, Term, batch_sum, check_step, identity

__all__ = ["Tikhonov"]


@dataclass(frozen=True, eq=False)
class Tikhonov(Prior):
    """½ ‖K x‖².

    Args:
        operator: K, a linear operator on the image, such as `operators.Gradient(image_shape)`; the identity when None.
        dimensions: number of spatial axes; taken from the operator if there is one.

    Example:
        >>> import torch
        >>> Tikhonov().prox(torch.tensor([[[2.0]]]), 1.0)
        tensor([[[1.]]])
    """

    operator: LinearOperator | None = None
    dimensions: int = 2

    def __post_init__(self):
        if self.operator is not None:
            if not isinstance(self.operator, LinearOperator):
                raise InputError(f"Tikhonov expects a LinearOperator, got {type(self.operator).__name__}")
            object.__setattr__(self, "image_shape", self.operator.image_shape)
            object.__setattr__(self, "dimensions", len(self.operator.image_shape) - 1)

    @property
    def smooth(self) -> bool:
        return True

    def value(self, x: Tensor) -> Tensor:
        z = x if self.operator is None else self.operator(x)
        axes = self.dimensions + 1 if self.operator is None else len(self.operator.data_shape)
        return 0.5 * batch_sum(squared(z), axes, "Tikhonov")

    def gradient(self, x: Tensor) -> Tensor:
        return x.clone() if self.operator is None else self.operator.gram(x)

    def prox(self, x: Tensor, step: float) -> Tensor:
        step = check_step(step, "Tikhonov")
        return x / (1.0 + step) if self.operator is None else self.operator.solve(x / step, 1.0 / step)

    def hessian(self, x: Tensor) -> Hessian:
        operator, shape, dtype, device = self.operator, tuple(x.shape), x.dtype, x.device
        data_shape = shape if operator is None else operator.data_shape

        def perturbation(generator: torch.Generator) -> Tensor:
            draw = torch.randn(data_shape, generator=generator, dtype=dtype, device=generator.device).to(device)
            return draw if operator is None else operator.adjoint(draw)

        if operator is None:
            modes = torch.ones((1,) * len(shape), dtype=x.real.dtype, device=device)
            modes = modes.expand(1, *shape[1:-1], shape[-1] // 2 + 1)
        else:
            modes = operator.gram_spectrum()
        return Hessian(self.gradient, perturbation, modes)

    def terms(self, image_shape: Sequence[int] | None = None, dtype: torch.dtype = torch.float32) -> list[Term]:
        shape = self._shape(image_shape)
        operator = identity(shape, dtype) if self.operator is None else self.operator
        return [Term(operator, _HalfSquare(len(operator.data_shape)))]


class _HalfSquare(Functional):
    def value(self, z: Tensor) -> Tensor:
        return 0.5 * self.total(squared(z))

    def prox(self, z: Tensor, step: float) -> Tensor:
        return z / (1.0 + step)
