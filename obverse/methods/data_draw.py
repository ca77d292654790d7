"""Exact Gaussian draws of an image given data and a second, noisy look at it.

    y = A x + n,  n ~ N(0, F⁻¹);        Q = AᴴFA + ρ⁻²

    conditional    x ~ N(u + Q⁻¹ AᴴF (y − A u), Q⁻¹)                      of p(x | y) ∝ p(y | x) N(x; u, ρ²)
                   by perturbation and optimisation: Q⁻¹ (AᴴF y + u/ρ² + ε),  ε = AᴴF^½ ε₁ + ε₂/ρ ~ N(0, Q)
    coupled        x ~ N(u + ρ² AᴴF (y − A u), ρ² (1 − ρ² AᴴFA))          for  ρ² λ_max(AᴴFA) < 1

Both leave p(y | x) p(x | u) behind them, with p(x | u) = N(u, ρ²). The first takes the data as a look at x, so that
they are a look at u with the noise F⁻¹ + ρ² AAᴴ. The second takes less noise from x to y, F⁻¹ − ρ² AAᴴ, which together
with that from u to x is F⁻¹: nothing is added. It needs no linear system, but the square root of 1 − ρ² AᴴFA, which is
a Chebyshev polynomial in AᴴFA of some ten terms.

References: Orieux, Féron, Giovannelli, "Sampling high-dimensional Gaussian distributions for general linear inverse
problems", IEEE SPL 2012. Marnissi, Chouzenoux, Benazza-Benyahia, Pesquet, "An auxiliary variable method for Markov
chain Monte Carlo algorithms in high dimension", Entropy 2018 (the coupling). Vono, Dobigeon, Chainais,
"High-dimensional Gaussian sampling: a review and a unifying approach based on a stochastic proximal point algorithm",
SIAM Review 2022.
"""

__all__ = ["DataDraw", "data_weight"]

import math
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

from ..operators.base import LinearOperator
from ..solvers.algebra import squared
from .curvature import constant
from .plug_and_play_data import DataTerm
from .target import largest_eigenvalue

_COUPLED = 0.9  # largest ρ² λ_max(AᴴFA): the nearer to one, the longer the polynomial of the root
_TOLERANCE = 1e-5  # relative residual of the system of a draw, in which its own randomness is of order one
_TERMS, _NEGLIGIBLE = 40, 1e-8  # of the polynomial; its error at 0.9 is below 1e-6


class DataDraw:
    """The data's side of a sampler that splits it from the prior.

    Args:
        y: one measurement, of exactly the operator's `data_shape`.
        operator: A, on real images.
        weight: F, the information of each real coordinate of the data, broadcastable to them.
        bend: λ_max(AᴴFA), where it is known already.
    """

    def __init__(self, y: Tensor, operator: LinearOperator, weight: Tensor, bend: float | None = None):
        self.y, self.operator, self.weight = y, operator, constant(weight)
        self._bend = bend

    @cached_property
    def bend(self) -> float:
        """λ_max(AᴴFA), by power iteration with a margin."""
        if self._bend is not None:
            return self._bend
        like = torch.zeros(self.operator.image_shape, dtype=self.weight.dtype, device=self.y.device)
        return largest_eigenvalue(lambda v: self.operator.gram(v, self.weight), like)

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Shape of the white noise that `conditional` takes for the data."""
        return self.operator.data_shape

    def couples(self, rho: float) -> bool:
        """Whether ρ is small enough for `coupled`."""
        return rho**2 * self.bend <= _COUPLED

    def conditional(self, u: Tensor, rho: float, image_noise: Tensor, data_noise: Tensor) -> Tensor:
        """x | u, y for images u `(b, *image_shape)`, from white noise of the images' and of the data's shape."""
        # F is information per real coordinate; torch's complex normal has variance ½ in each of the two.
        scale = math.sqrt(2.0) if data_noise.is_complex() else 1.0
        residual = self.weight * (self.y - self.operator(u)) + scale * self.weight.sqrt() * data_noise
        right = self.operator.adjoint(residual) + image_noise / rho
        return u + self.operator.solve(right, rho**-2, self.weight, tolerance=_TOLERANCE)

    def coupled(self, u: Tensor, rho: float, image_noise: Tensor) -> Tensor:
        """x | u, y where the noise from u to x is part of that of the data."""
        pull = self.operator.adjoint(self.weight * (self.y - self.operator(u)))
        return u + rho**2 * pull + rho * self._root(image_noise, rho)

    def energy(self, x: Tensor) -> Tensor:
        """−log p(y | x) of images `(b, *image_shape)`, without its constants."""
        axes = tuple(range(-len(self.operator.data_shape), 0))
        return 0.5 * (self.weight * squared(self.y - self.operator(x))).sum(axes)

    def _root(self, v: Tensor, rho: float) -> Tensor:
        """(1 − ρ² AᴴFA)^½ v, by Clenshaw's recurrence."""
        top = rho**2 * self.bend
        if top < _NEGLIGIBLE:
            return v
        series = _root_series(top)

        def mapped(image: Tensor) -> Tensor:
            return (2 / self.bend) * self.operator.gram(image, self.weight) - image

        one, two = torch.zeros_like(v), torch.zeros_like(v)
        for coefficient in series[:0:-1]:
            one, two = coefficient * v + 2 * mapped(one) - two, one
        return series[0] * v + mapped(one) - two


@lru_cache(maxsize=64)
def _root_series(top: float) -> tuple[float, ...]:
    """Chebyshev coefficients of √(1 − t) for t from 0 to `top`, down to negligible ones."""
    nodes = np.polynomial.chebyshev.chebpts1(_TERMS + 1)
    series = np.polynomial.chebyshev.chebfit(nodes, np.sqrt(1 - top * (nodes + 1) / 2), _TERMS)
    return tuple(series[: int(np.flatnonzero(np.abs(series) > _NEGLIGIBLE)[-1]) + 1].tolist())


def data_weight(term: DataTerm, x: Tensor) -> Tensor:
    """F at an image: that of the noise, or the curvature of counts at what the image predicts."""
    curvature = torch.as_tensor(term.law.curvature(term.operator(x)), dtype=x.dtype, device=x.device)
    return curvature.expand(term.operator.data_shape) if curvature.ndim == 0 else curvature
