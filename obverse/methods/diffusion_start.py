"""Where diffusion starts: draws of the posterior under a Gaussian prior of smooth images.

    p(x) ∝ exp(−‖∇x‖²/(2 r²)):      (AᴴWA + ∇ᵀ∇/r²) x = AᴴW (y + W^−½ ε) + ∇ᵀ ε'/r,      ε, ε' white

Solving for each pair of ε, ε' gives an exact draw ("perturb and optimise"), whose mean is the smoothest image that
explains the data. For r a twentieth of the range this is the spectrum 1/|f|² that photographs have on average.

References: Papandreou, Yuille, "Gaussian sampling by local perturbations", NeurIPS 2010.
"""

__all__ = ["SmoothStart"]

import torch
from torch import Tensor

from ..operators.base import LinearOperator
from ..operators.differences import Gradient
from ..solvers.linear import cg
from .plug_and_play_data import ROUGHNESS, DataTerm

_TOLERANCE, _STEPS = 1e-3, 100  # of a start, which need not be exact


class SmoothStart:
    """The Gaussian posterior of one measurement.

    Args:
        data: of a linear operator; other laws than Gaussian enter by their curvature at the data.
        span: range of the images.
    """

    def __init__(self, data: DataTerm, span: float):
        assert isinstance(data.operator, LinearOperator)
        self.operator: LinearOperator = data.operator
        self.y, self.roughness = data.y, ROUGHNESS * span
        real = data.y.real if data.y.is_complex() else data.y
        self.weight = torch.as_tensor(data.law.curvature(data.y), dtype=real.dtype, device=real.device)

    def draws(self, like: Tensor, generators: list[torch.Generator]) -> Tensor:
        """One draw from each generator, `(b, *image_shape)`, in the precision of `like`."""
        differences = Gradient(self.operator.image_shape, dtype=like.dtype)
        rows = []
        for generator in generators:
            noise = torch.randn(self.y.shape, generator=generator, dtype=self.y.dtype).to(self.y)
            noise = noise * 2**0.5 if self.y.is_complex() else noise  # W is of real and imaginary part each
            jumps = torch.randn(differences.data_shape, generator=generator, dtype=like.dtype).to(like)
            seen = self.operator.adjoint(self.weight * self.y + self.weight.sqrt() * noise)
            rows.append(seen + differences.adjoint(jumps) / self.roughness)

        def normal(x: Tensor) -> Tensor:
            return self.operator.gram(x, self.weight) + differences.gram(x) / self.roughness**2

        return cg(normal, torch.stack(rows), tolerance=_TOLERANCE, max_iterations=_STEPS, batch_dims=1).x.to(like)
