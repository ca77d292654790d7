"""The data's side of plug and play: f(x) = −log p(y | A x), its proximal step and the image to start from.

    prox     argmin_x f(x) + ½ α ‖x − v‖²
    by Fisher scoring    x ← x − (JᴴFJ + α)⁻¹ (∇f(x) + α (x − v)),     from x = v

with J the Jacobian at x and F the Fisher information of the data. For Gaussian laws and linear operators the first step
is exact: it is v + (AᴴWA + α)⁻¹ AᴴW (y − A v).

Counts, with read noise by the shifted Poisson approximation (u = m + σ²/gain, t = max(y + σ²/gain, 0)), have the slope
f'(m) = (u − t)/(gain · max(u, u₀)): the exact one above u₀, which is one count or the shift if that is more, and that
of a Gaussian law below, so that images may become negative on the way.

The start is the smoothest image that explains the data, argmin f(x) + ‖∇x‖²/(2 s²): it fills holes and finer grids.

References: Snyder, Hammoud, White, "Image recovery from data acquired with a charge-coupled-device camera", JOSA A
1993.
"""

__all__ = ["DataTerm", "ROUGHNESS", "SoftCounting", "smoothest_start"]

import math

import torch
from torch import Tensor

from ..errors import InputError
from ..noise import Noise, Poisson, PoissonGaussian
from ..operators.base import LinearOperator
from ..operators.differences import Gradient
from ..problem import Problem
from ..solvers.algebra import resolution
from ..solvers.linear import cg
from .fidelity import Fidelity, Quadratic, fidelity

_SCORING = 50  # Fisher scoring steps at most in one proximal step
_INEXACT = 1e-2  # relative residual of a scoring step's system, which the next step makes up for
_MARGIN = 1.02  # power iteration approaches the norm from below
ROUGHNESS = 0.05  # s over the range of the images: differences of neighbouring pixels in photographs
_START_STEPS = 60  # conjugate gradients for the start, which need not converge


class DataTerm:
    """−log p(y | A x) of one measurement.

    Args:
        y: data of exactly the operator's `data_shape`.
        problem: operator and law.
        point: an image at which a non-linear operator is linearised for its norm; a linear one needs none.
        accuracy: of proximal steps, relative: residual of linear systems and change at which scoring stops.

    Attributes:
        lipschitz: of ∇f, with the curvature at the data.
        level: noise of the data in units of the image, 1/√(‖A‖² · mean curvature).
    """

    def __init__(self, y: Tensor, problem: Problem, point: Tensor | None, accuracy: float):
        if not problem.noise.independent:
            raise InputError(
                f"PlugAndPlay expects independent noise, got {type(problem.noise).__name__}; pass noise.whiten(y), an "
                "operator followed by noise.whiten, and Gaussian(1.0)"
            )
        self.y, self.operator, self.problem = y, problem.operator, problem
        self.law = _law(y, problem.noise)
        self.linear = isinstance(self.operator, LinearOperator)
        if not self.linear and point is None:
            raise InputError(
                f"PlugAndPlay expects a start for the non-linear {type(self.operator).__name__}; pass start=image"
            )
        real = y.real if y.is_complex() else y
        curvature = torch.as_tensor(self.law.curvature(y), dtype=real.dtype, device=y.device)
        jacobian = self.operator if self.linear else self.operator.linearise(point)  # type: ignore[arg-type]
        squared = (_MARGIN * jacobian.norm(iterations=50, tolerance=1e-3)) ** 2  # type: ignore[attr-defined]
        self.lipschitz = squared * float(curvature.max())
        self.level = (squared * float(curvature.mean())) ** -0.5 if squared * float(curvature.mean()) > 0 else math.inf
        if not (math.isfinite(self.level) and self.level > 0):
            raise InputError("PlugAndPlay expects an operator that sees something, got one of norm zero; check it")
        self.accuracy = max(accuracy, 10 * resolution(y.dtype))

    def flattest(self) -> Tensor:
        """The constant image that explains the data best, one number; 0 where the operator sees none."""
        real = self.y.real if self.y.is_complex() else self.y
        flat = self.operator(torch.ones(self.operator.image_shape, dtype=self.operator.dtype, device=self.y.device))
        seen = torch.as_tensor(self.law.curvature(self.y), dtype=real.dtype, device=self.y.device) * flat.conj()
        power = (seen * flat).sum().real
        return (seen * self.y).sum() / power if power > 0 else torch.zeros_like(power)

    def value(self, x: Tensor) -> float:
        """f(x) without its constants, summed in double precision."""
        ideal = self.operator(x)
        return float(self.law.value(ideal.to(torch.complex128 if ideal.is_complex() else torch.float64)))

    def gradient(self, x: Tensor) -> Tensor:
        """∇f(x); for complex images ∂/∂Re + i ∂/∂Im."""
        if isinstance(self.operator, LinearOperator):
            return self.operator.adjoint(self.law.gradient(self.operator(x)))
        ideal, pull = torch.func.vjp(self.operator, x)[:2]
        return pull(self.law.gradient(ideal))[0]

    def prox(self, v: Tensor, damping: float) -> Tensor:
        """argmin_x f(x) + ½ damping ‖x − v‖²."""
        real, x = (v.real.dtype if v.is_complex() else v.dtype), v
        exact = self.linear and isinstance(self.law, Quadratic)
        inner = self.accuracy if exact else max(self.accuracy, _INEXACT)
        for _ in range(1 if exact else _SCORING):
            weight = torch.as_tensor(self.law.curvature(self.operator(x)), dtype=real, device=v.device)
            slope = self.gradient(x) + damping * (x - v)
            step = self.operator.linearise(x).solve(slope, damping, weight, tolerance=inner)
            x = x - step
            if float(torch.linalg.vector_norm(step)) <= self.accuracy * float(torch.linalg.vector_norm(x)):
                break
        return x


class SoftCounting(Fidelity):
    """Counts with the slope (u − t)/(gain · max(u, u₀)): convex, with bounded curvature, defined for every u.

    Args:
        y: data.
        gain: of the law.
        shift: σ²/gain, a number or a tensor; 0 without read noise.
    """

    def __init__(self, y: Tensor, gain: float, shift: float | Tensor):
        self.gain, self.shift = gain, torch.as_tensor(shift, dtype=y.dtype, device=y.device)
        self.t = (y + self.shift).clamp_min(0)
        self.lowest = self.shift.clamp_min(gain)

    def value(self, z: Tensor) -> Tensor:
        u, t, low = z + self.shift, self.t.to(z), self.lowest.to(z)
        high = u.maximum(low)
        each = (
            high - low - torch.xlogy(t, high / low) + ((u.minimum(low) - t).square() - (low - t).square()) / (2 * low)
        )
        return each.sum() / self.gain

    def gradient(self, z: Tensor) -> Tensor:
        u = z + self.shift
        return (u - self.t) / (self.gain * u.maximum(self.lowest))

    def curvature(self, z: Tensor) -> Tensor:
        return 1.0 / (self.gain * (z + self.shift).maximum(self.lowest))


def smoothest_start(data: DataTerm, span: float) -> Tensor:
    """argmin f(x) + ‖∇x‖²/(2 s²) with the curvature at the data; `span` is the range of the images."""
    operator = data.operator
    assert isinstance(operator, LinearOperator)
    weight = data.law.curvature(data.y)
    right = operator.adjoint(weight * data.y)
    differences = Gradient(operator.image_shape, dtype=right.dtype)
    penalty = (ROUGHNESS * span) ** -2

    def normal(x: Tensor) -> Tensor:
        return operator.gram(x, weight) + penalty * differences.gram(x)

    return cg(normal, right, tolerance=1e-3, max_iterations=_START_STEPS).x


def _law(y: Tensor, noise: Noise) -> Fidelity:
    if isinstance(noise, PoissonGaussian):
        sigma = torch.as_tensor(noise.sigma, dtype=y.dtype, device=y.device)
        return SoftCounting(y, noise.gain, sigma.square() / noise.gain)
    return SoftCounting(y, noise.gain, 0.0) if isinstance(noise, Poisson) else fidelity(y, noise)
