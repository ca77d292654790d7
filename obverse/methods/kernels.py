"""Transition kernels of the overdamped Langevin diffusion dX = −∇f(X) dt + √2 dB, and the law they really sample.

    Euler (MYULA when f holds Moreau envelopes)     X⁺ = X − δ ∇f(X) + √(2δ) ξ
    SK-ROCK, S stages, damping η                    ω₀ = 1 + η/S²,  ω₁ = T_S(ω₀)/T_S'(ω₀),  Z = √(2δ) ξ
        X₁ = X − (ω₁/ω₀) δ ∇f(X + (S ω₁/2) Z) + (S ω₁/ω₀) Z
        X_j = −μ_j δ ∇f(X_{j−1}) + ν_j X_{j−1} + (1 − ν_j) X_{j−2},   μ_j = 2 ω₁ T_{j−1}/T_j,  ν_j = 2 ω₀ T_{j−1}/T_j

T_j = T_j(ω₀) are Chebyshev polynomials of the first kind. The Euler kernel is stable for δ L < 2, SK-ROCK for
δ L ≤ (S − ½)²(2 − 4η/3) − 3/2: the stable step grows like S² for S gradients. On a Gaussian target both are linear in
every mode of precision a, X⁺ = R(δa) X + √(2δ) N(δa) ξ, and their stationary variance is 2δ N²/(1 − R²) instead of 1/a.

References: Durmus, Moulines, Pereyra, "Efficient Bayesian computation by proximal Markov chain Monte Carlo", SIAM J.
Imaging Sciences 2018. Pereyra, Vargas Mieles, Zygalakis, "Accelerating proximal Markov chain Monte Carlo by using an
explicit stabilized method", SIAM J. Imaging Sciences 2020.
"""

__all__ = ["Euler", "Kernel", "SKROCK", "stationary_variance"]

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError


@dataclass(frozen=True)
class Euler:
    """The Euler–Maruyama step: one gradient, biased to a variance of 1/(a(1 − δa/2)) in a mode of precision a."""

    @property
    def stages(self) -> int:
        """Gradients per step."""
        return 1

    @property
    def limit(self) -> float:
        """Largest stable δ·L, where L is the Lipschitz constant of the gradient."""
        return 2.0

    def __call__(self, x: Tensor, gradient: Callable[[Tensor], Tensor], step: float, noise: Tensor) -> Tensor:
        return x - step * gradient(x) + math.sqrt(2 * step) * noise


@dataclass(frozen=True)
class SKROCK:
    """The stochastic Runge–Kutta–Chebyshev step with `stages` gradients and damping η.

    Args:
        stages: S ≥ 2; 10 to 15 in the reference.
        damping: η > 0; the reference uses 0.05. More damping contracts the stiff modes more and allows shorter steps.
    """

    stages: int = 10
    damping: float = 0.05

    def __post_init__(self):
        if self.stages < 2:
            raise InputError(
                f"SK-ROCK expects at least 2 stages, got {self.stages}; use kernel='myula' for one gradient a step"
            )
        if not 0 < self.damping < 1:
            raise InputError(
                f"SK-ROCK expects a damping between 0 and 1, got {self.damping:g}; the usual value is 0.05"
            )

    @property
    def limit(self) -> float:
        """Largest stable δ·L, where L is the Lipschitz constant of the gradient."""
        return (self.stages - 0.5) ** 2 * (2 - 4 * self.damping / 3) - 1.5

    def __call__(self, x: Tensor, gradient: Callable[[Tensor], Tensor], step: float, noise: Tensor) -> Tensor:
        stages, w0 = self.stages, 1 + self.damping / self.stages**2
        angle = math.acosh(w0)
        chebyshev = [math.cosh(j * angle) for j in range(stages + 1)]
        w1 = chebyshev[stages] * math.sinh(angle) / (stages * math.sinh(stages * angle))
        kick = math.sqrt(2 * step) * noise
        drift = gradient(x + (stages * w1 / 2) * kick)
        previous, current = x, x - (w1 / w0) * step * drift + (stages * w1 / w0) * kick
        for j in range(2, stages + 1):
            ratio = 2 * chebyshev[j - 1] / chebyshev[j]
            following = -w1 * ratio * step * gradient(current) + w0 * ratio * current + (1 - w0 * ratio) * previous
            previous, current = current, following
        return current


Kernel = Euler | SKROCK


def stationary_variance(kernel: Kernel, step: float, precision: Tensor) -> Tensor:
    """Variance that the kernel settles at in Gaussian modes of given precisions, where the exact one is 1/precision.

        X⁺ = R X + N ξ    ⇒    variance = N²/(1 − R²)

    Args:
        kernel: the transition kernel.
        step: δ.
        precision: a > 0 of each mode, any shape.

    Returns:
        Variances of the same shape, infinite where the step is unstable.

    Example:
        >>> round(float(stationary_variance(Euler(), 0.1, torch.tensor(1.0))), 4)  # 1/(1 − 0.05)
        1.0526
    """
    precision = torch.as_tensor(precision, dtype=torch.float64)
    zero, one = torch.zeros_like(precision), torch.ones_like(precision)
    decay = kernel(one, lambda x: precision * x, step, zero)
    gain = kernel(zero, lambda x: precision * x, step, one)
    stable = decay.abs() < 1
    return torch.where(stable, gain.square() / (1 - decay.square()).where(stable, one), torch.inf)
