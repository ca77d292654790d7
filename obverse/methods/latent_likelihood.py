"""The likelihood of latent variables, and what is left to know of the image once they are known.

    x = G(z) + e,  e ~ N(0, V);   y = A x + n,  n ~ N(0, S)    ⇒    y | z ~ N(A G(z), S + A V Aᵀ)
    Φ(z) = −log p(y | z) = ½ rᵀ(S + A V Aᵀ)⁻¹ r + ½ log det(S + A V Aᵀ),      r = y − A G(z)
    x | z, y ~ N(G + V Aᵀ(S + A V Aᵀ)⁻¹ r,  V − V Aᵀ(S + A V Aᵀ)⁻¹ A V)

"pixels"     A is a mask or the identity: all is a formula for each pixel, for any V = diag v(z) and independent S.
"ridge"      A is any linear operator and V = v I is the same for all z: with W = S⁻¹ and h = (AᵀWA + I/v)⁻¹ AᵀW r,
             Φ = ½ (rᵀW r − rᵀWA h) up to a constant, and x | z, y ~ N(G + h, (AᵀWA + I/v)⁻¹), of which draws are given.
"decoder"    anything else, counting noise among it: e is left out of the likelihood, Φ = −log p(y | x = G(z)), so that
             z is known too well, and put back in the image unnarrowed by the data.
"""

__all__ = ["LatentLikelihood"]

from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..operators import Identity, Mask
from ..operators.base import LinearOperator
from ..problem import Problem
from .base import check_item, real_image

_EQUAL = 1e-5  # relative differences of variances that count as none


class LatentLikelihood:
    """−log p(y | z) of a decoder's latent variables.

    Args:
        y: one measurement.
        problem: its operator and noise law.
        vae: with `latent`, `image_shape` and `decode(z) → mean, variance`.
        low: value of the image that the decoder knows as 0.
        high: value of the image that it knows as 1.
        method: who asks, for messages.

    Attributes:
        words: which of the three kinds it is.
        evaluations: latent variables decoded so far.

    Raises:
        InputError: the decoder's images are not the operator's.
    """

    def __init__(self, y: Tensor, problem: Problem, vae: Any, low: float, high: float, method: str):
        check_item(y, problem, method)
        self.like = real_image(problem.operator, y, method)
        if tuple(vae.image_shape) != tuple(self.like.shape):
            raise InputError(
                f"{method} expects an operator on the decoder's images {tuple(vae.image_shape)}, got "
                f"{tuple(self.like.shape)}; crop the data or train another decoder"
            )
        self.y, self.problem, self.vae, self.low, self.span = y, problem, vae, low, high - low
        self.evaluations = 0
        operator, noise = problem.operator, problem.noise
        gaussian = noise.gaussian and noise.independent and not noise.complex
        self.weight = problem.fisher_weight().to(self.like) if gaussian else self.like.new_ones(())
        if gaussian and isinstance(operator, Identity | Mask):
            self.words = "pixels"
            self._gain = operator(torch.ones_like(self.like))
        elif gaussian and isinstance(operator, LinearOperator) and (variance := self._constant()) is not None:
            self.words = "ridge"
            self._damping = 1.0 / variance
        else:
            self.words = "decoder"

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of x | z in units of the image: `(B, latent)` → twice `(B, *image_shape)`."""
        self.evaluations += len(z)
        mean, variance = self.vae.decode(z)
        return self.low + self.span * mean.to(self.like), self.span**2 * variance.to(self.like)

    def potential(self, z: Tensor) -> Tensor:
        """Φ of each z, `(B, latent)` → `(B,)`, differentiable."""
        mean, variance = self.decode(z)
        if self.words == "decoder":
            return -self.problem.log_likelihood(mean, self.y)
        residual = self.y - self.problem.operator(mean)
        if self.words == "pixels":
            total = 1 / self.weight + self._gain.square() * variance
            return 0.5 * (residual.square() / total + total.log()).flatten(1).sum(1)
        back, step = self._ridge(residual)
        return 0.5 * ((self.weight * residual.square()).flatten(1).sum(1) - (back * step).flatten(1).sum(1))

    @torch.no_grad()
    def images(self, z: Tensor, white: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What is known of x once z is, for streaming, and draws.

        Args:
            z: `(B, latent)`.
            white: standard normal numbers `(B, 2, n)`, n the larger of image and data, flattened.

        Returns:
            Means m and variances v `(B, *image_shape)`, so that Cov m + E diag v is the covariance of x, and draws of
            x. Where Cov[x | z, y] is not diagonal m are the draws and v is zero.
        """
        mean, variance = self.decode(z)
        fresh = white[:, 0, : self.like.numel()].reshape(mean.shape)
        if self.words == "pixels":
            total = 1 / self.weight + self._gain.square() * variance
            gain = self._gain * variance / total
            mean = mean + gain * (self.y - self.problem.operator(mean))
            variance = variance - gain * self._gain * variance
        elif self.words == "ridge":
            # Perturb and optimise: the ridge solution for perturbed data and a perturbed G is a draw.
            noise = white[:, 1, : self.y.numel()].reshape(len(z), *self.y.shape) / self.weight.sqrt()
            around = mean + variance.sqrt() * fresh
            draws = around + self._ridge(self.y + noise - self.problem.operator(around))[1]
            return draws, torch.zeros_like(draws), draws
        return mean, variance, mean + variance.sqrt() * fresh

    def _ridge(self, residual: Tensor) -> tuple[Tensor, Tensor]:
        """AᵀW r and (AᵀWA + I/v)⁻¹ AᵀW r."""
        operator = self.problem.operator
        assert isinstance(operator, LinearOperator)
        back = operator.adjoint(self.weight * residual)
        return back, operator.solve(back, self._damping, self.weight)

    @torch.no_grad()
    def _constant(self) -> float | None:
        """The decoder's variance, if it is one number."""
        generator = torch.Generator().manual_seed(0)
        variance = self.decode(torch.randn(8, self.vae.latent, generator=generator).to(self.like))[1]
        self.evaluations = 0
        same = float(variance.max() - variance.min()) <= _EQUAL * float(variance.max())
        return float(variance.mean()) if same else None
