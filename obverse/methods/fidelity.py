"""−log p(y | z) as a function of the ideal data z = A x, without its constants: value, gradient and proximal operator.

    Gaussian             ½ w |z − y|²,  w = 1/σ² (2/σ² for a circular complex law)
    Poisson, and Poisson–Gaussian by the shifted Poisson approximation, with c = σ²/gain, t = max(y + c, 0), u = z + c:
                         (u − t − t log(u/t)) / gain
    LogPoisson, Saturated, Quantised, Rician, Gamma      −log p as it is; the last two are not convex in z

    prox(v, s) = argmin_z f(z) + |z − v|²/(2s):
        (v + s w y)/(1 + s w);      ½ (a + √(a² + 4 s t/gain)) − c  with  a = v + c − s/gain;
        else by Newton's method within a bracket, element by element

The shifted law has the mean and the variance of the exact one; it is exact for σ → 0 and tends to the Gaussian of equal
variance for many counts.

References: Snyder, Hammoud, White, "Image recovery from data acquired with a charge-coupled-device camera", JOSA A
1993. Figueiredo, Bioucas-Dias, "Restoration of Poissonian images using alternating direction optimization", IEEE TIP
2010.
"""

__all__ = ["Counting", "Fidelity", "Likelihood", "Quadratic", "fidelity"]

import math

import torch
from torch import Tensor

from ..errors import InputError
from ..noise import (
    ComplexGaussian,
    Gaussian,
    Noise,
    Poisson,
    PoissonGaussian,
)
from ..solvers.algebra import squared

_PROX_STEPS = 60  # halvings at most: from any bracket to rounding


class Fidelity:
    """A data term of one measurement; `value` sums over all of it."""

    convex = True

    def value(self, z: Tensor) -> Tensor:
        """f(z), a scalar."""
        raise NotImplementedError(f"{type(self).__name__} must define value")

    def gradient(self, z: Tensor) -> Tensor:
        """f'(z), elementwise."""
        raise NotImplementedError(f"{type(self).__name__} must define gradient")

    def curvature(self, z: Tensor) -> Tensor | float:
        """f''(z) ≥ 0, elementwise."""
        raise NotImplementedError(f"{type(self).__name__} must define curvature")

    def prox(self, v: Tensor, step: float) -> Tensor:
        """argmin_z f(z) + ‖z − v‖²/(2 step)."""
        raise NotImplementedError(f"{type(self).__name__} must define prox")


class Quadratic(Fidelity):
    """½ w |z − y|² with a number or a tensor w."""

    def __init__(self, y: Tensor, weight: float | Tensor):
        self.y, self.weight = y, weight

    def value(self, z: Tensor) -> Tensor:
        return 0.5 * (self.weight * squared(z - self.y)).sum()

    def gradient(self, z: Tensor) -> Tensor:
        return self.weight * (z - self.y)

    def curvature(self, z: Tensor) -> Tensor | float:
        return self.weight

    def prox(self, v: Tensor, step: float) -> Tensor:
        return (v + step * self.weight * self.y) / (1.0 + step * self.weight)


class Counting(Fidelity):
    """(u − t − t log(u/t))/gain with u = z + shift; infinite for u < 0 beyond rounding."""

    def __init__(self, y: Tensor, gain: float, shift: float):
        self.gain, self.shift = gain, shift
        self.t = (y + shift).clamp_min(0)
        self.largest = max(float(self.t.max()), torch.finfo(y.dtype).tiny)
        self.lowest = torch.finfo(y.dtype).eps * self.largest

    def value(self, z: Tensor) -> Tensor:
        u = z + self.shift
        allowed = u >= -100 * self.lowest
        u = u.clamp_min(self.lowest)
        each = (u - self.t - torch.xlogy(self.t, u) + torch.xlogy(self.t, self.t)) / self.gain
        return torch.where(allowed, each, math.inf).sum()

    def gradient(self, z: Tensor) -> Tensor:
        return (1.0 - self.t / (z + self.shift).clamp_min(self.lowest)) / self.gain

    def curvature(self, z: Tensor) -> Tensor | float:
        return self.t / (z + self.shift).clamp_min(self.lowest).square() / self.gain

    def prox(self, v: Tensor, step: float) -> Tensor:
        s = step / self.gain
        a = v + (self.shift - s)
        root = (a.square() + 4 * s * self.t).sqrt()
        # the root of z² − a z − s t that is not negative, without cancellation
        positive = torch.where(a >= 0, 0.5 * (a + root), 2 * s * self.t / (root - a).clamp_min(1e-30))
        return positive - self.shift


class Likelihood(Fidelity):
    """−log p(y | z) of any law of independent data, with its Fisher information for the curvature."""

    def __init__(self, y: Tensor, noise: Noise):
        self.y, self.noise, self.convex = y, noise, noise.log_concave

    @property
    def level(self) -> Tensor:
        """A first guess of the ideal data."""
        return self.y

    def value(self, z: Tensor) -> Tensor:
        return -self.noise.log_prob(self.y, z).sum()

    def gradient(self, z: Tensor) -> Tensor:
        return -self.noise.score(self.y, z)

    def curvature(self, z: Tensor) -> Tensor:
        return self.noise.information(z)

    def prox(self, v: Tensor, step: float) -> Tensor:
        """The zero of the increasing function z ↦ z − v + step f'(z), which lies between v and v − step f'(v)."""
        point = v.double()
        first = point - step * self.gradient(point)
        low, high = torch.minimum(point, first), torch.maximum(point, first)
        z = 0.5 * (low + high)
        for _ in range(_PROX_STEPS):
            slope = z - point + step * self.gradient(z)
            high, low = torch.where(slope > 0, z, high), torch.where(slope > 0, low, z)
            trial = z - slope / (1.0 + step * self.curvature(z))
            middle = 0.5 * (low + high)
            moved = torch.where((trial >= low) & (trial <= high), trial, middle)
            if float((moved - z).abs().max()) <= 1e-12 * float(z.abs().max() + 1e-12):
                return moved.to(v.dtype)
            z = moved
        return z.to(v.dtype)


def fidelity(y: Tensor, noise: Noise) -> Fidelity:
    """The data term of one measurement under a noise law.

    Raises:
        InputError: the data are correlated.
    """
    if isinstance(noise, Gaussian | ComplexGaussian):
        sigma = noise.sigma.to(y.real) if isinstance(noise.sigma, Tensor) else noise.sigma
        factor = 2.0 if isinstance(noise, ComplexGaussian) else 1.0
        if isinstance(sigma, Tensor) and sigma.numel() == 1:
            sigma = float(sigma)
        return Quadratic(y, factor / sigma**2)
    if isinstance(noise, PoissonGaussian):
        return Counting(y, noise.gain, float(noise.sigma) ** 2 / noise.gain)
    if isinstance(noise, Poisson):
        return Counting(y, noise.gain, 0.0)
    if not noise.independent:
        raise InputError(
            "MAP expects noise independent from datum to datum, got a correlated law; pass noise.whiten(y) with the "
            "whitened operator and Gaussian(1.0)"
        )
    return Likelihood(y, noise)
