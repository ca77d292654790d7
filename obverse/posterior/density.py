"""The density of one number that depends linearly on an image, such as where it lies along a principal component.

    t = ⟨v, x⟩,     z = (t − ⟨v, mean⟩)/√(vᵀΣv):
    Gaussian            log p(z) = −z²/2 − ½ log 2π
    kernel              p(z) = 1/n Σ_i N(z; z_i, h²) over draws; the z_i drawn together by √(1 − h²/s²), so that mean
                        and standard deviation s are those of the draws; h = 0.9 min(s, IQR/1.349) n^(−1/5)
    maximum entropy     log p(z) = c₀ + c₁ z + … + c₄ z⁴, the least informative density with the given skewness and
                        kurtosis; c by Newton's method on the convex dual, log ∫exp(Σ c_k z^k) − Σ c_k E[z^k]

Four moments need not have such a density on the whole line: the kurtosis must exceed skewness² + 1, which every law
obeys, and must stay below a limit (3 where there is no skewness), beyond which tails are heavier than any of these.
Then the Gaussian is returned, and says why.

References: Jaynes, "Information theory and statistical mechanics", Phys. Rev. 1957. Zellner, Highfield, "Calculation
of maximum entropy distributions and approximation of marginal posterior distributions", J. Econometrics 1988.
Silverman, "Density estimation for statistics and data analysis", 1986.
"""

__all__ = ["Density", "DirectionalMoments", "gaussian_density", "kernel_density", "maximum_entropy_density"]

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from .diagnostics import effective_samples

_LEAST_DRAWS = 100  # independent draws; with fewer the peak of a kernel density is off by more than an eighth
_REACH, _NODES = 10.0, 4001  # of the grid on which maximum entropy is sought, in standard deviations
_NARROW = 40  # nodes that a density must spread over (the exponential of its entropy) to be resolved by the grid
_STEPS, _CLOSE = 200, 1e-13  # of Newton's method; error of Legendre moments, within [−1, 1], that ends it
_TAIL = 1e-6  # of the largest density, to which it must have fallen at the ends of the grid
_NORMAL = 1e-3  # of skewness and excess kurtosis: less cannot be seen, and is often rounding
_ALIGNED = 1e-5  # 1 − |cos| of the angle up to which two directions count as one


@dataclass(frozen=True, eq=False)
class Density:
    """A density on the line.

    Args:
        mean: its mean.
        std: its standard deviation.
        kind: "gaussian", "kernel" or "maximum-entropy".
        reason: why that kind, in a few words.
        coefficients: c₀, c₁, … of log p(z) = Σ c_k z^k with z = (t − mean)/std, unless it is a kernel density.
        points: of the kernel density, in z.
        width: of each of its kernels, in z.
    """

    mean: float
    std: float
    kind: str
    reason: str
    coefficients: tuple[float, ...] = ()
    points: Tensor | None = None
    width: float = 0.0

    def log_prob(self, values: Tensor) -> Tensor:
        """log p of numbers in the unit of the mean, of any shape."""
        z = (values - self.mean) / self.std
        if self.points is None:
            total = torch.zeros_like(z)
            for coefficient in reversed(self.coefficients):
                total = total * z + coefficient
        else:
            points = self.points.to(z)
            apart = -0.5 * ((z.unsqueeze(-1) - points) / self.width).square()
            total = apart.logsumexp(-1) - math.log(len(points) * self.width * math.sqrt(2 * math.pi))
        return total - math.log(self.std)


@dataclass(frozen=True, eq=False)
class DirectionalMoments:
    """Skewness and kurtosis of an image along some directions.

    Args:
        directions: `(k, *image_shape)`, of length one.
        skewness: E[z³], `(k,)`.
        kurtosis: E[z⁴], `(k,)`; 3 for a normal law.
    """

    directions: Tensor
    skewness: Tensor
    kurtosis: Tensor

    def __post_init__(self):
        count = (len(self.directions),)
        if tuple(self.skewness.shape) != count or tuple(self.kurtosis.shape) != count:
            raise InputError(
                f"moments expect one skewness and kurtosis for each of {count[0]} directions, got "
                f"{tuple(self.skewness.shape)} and {tuple(self.kurtosis.shape)}; leave none out"
            )

    def along(self, direction: Tensor) -> tuple[float, float] | None:
        """Skewness and kurtosis along a direction of any length, or None where they are not known."""
        flat = self.directions.flatten(1).double()
        v = direction.flatten().to(flat)
        cosines = flat @ v / (flat.norm(dim=1) * v.norm()).clamp_min(1e-300)
        if not len(cosines) or 1 - float(cosines.abs().max()) > _ALIGNED:
            return None
        nearest = int(cosines.abs().argmax())
        return float(self.skewness[nearest] * cosines[nearest].sign()), float(self.kurtosis[nearest])

    def scaled(self, factor: float) -> "DirectionalMoments":
        """Those of factor · image."""
        return replace(self, skewness=self.skewness * math.copysign(1.0, factor))


def gaussian_density(mean: float, std: float, reason: str = "from mean and covariance") -> Density:
    """The normal density.

    Example:
        >>> round(float(gaussian_density(1.0, 2.0).log_prob(torch.tensor(1.0))), 4)
        -1.6121
    """
    _check(mean, std)
    return Density(mean, std, "gaussian", reason, (-0.5 * math.log(2 * math.pi), 0.0, -0.5))


def kernel_density(values: Tensor) -> Density | None:
    """The kernel density of draws `(n,)`, or None where they are worth fewer than a hundred independent ones."""
    drawn = values.detach().cpu().double()
    if len(drawn) < _LEAST_DRAWS:
        return None
    mean, std = float(drawn.mean()), float(drawn.std())
    _check(mean, std)
    independent = min(float(effective_samples(drawn[None, :, None])[0]), float(len(drawn)))
    if independent < _LEAST_DRAWS:
        return None
    z = (drawn - mean) / std
    low, high = np.quantile(z.numpy(), [0.25, 0.75])
    width = 0.9 * min(1.0, float(high - low) / 1.349 or 1.0) * independent**-0.2
    reason = f"from {len(drawn)} draws worth {independent:.0f} independent ones"
    return Density(mean, std, "kernel", reason, points=z * math.sqrt(1 - width**2), width=width)


def maximum_entropy_density(mean: float, std: float, skewness: float, kurtosis: float) -> Density:
    """The density exp(polynomial of degree four) with these moments, or the normal one where there is none.

    Args:
        mean, std: of t.
        skewness: E[z³] of z = (t − mean)/std.
        kurtosis: E[z⁴], 3 for a normal law.

    Example:
        >>> flat = maximum_entropy_density(0.0, 1.0, 0.0, 1.8)
        >>> flat.kind, maximum_entropy_density(0.0, 1.0, 0.0, 4.0).kind
        ('maximum-entropy', 'gaussian')
    """
    _check(mean, std)
    told = f"skewness {skewness:.3g}, kurtosis {kurtosis:.3g}"
    if not (math.isfinite(skewness) and math.isfinite(kurtosis)):
        return gaussian_density(mean, std, "the third and fourth moments are not finite")
    if max(abs(skewness), abs(kurtosis - 3)) < _NORMAL:
        return gaussian_density(mean, std, "four moments are those of a normal law")
    if kurtosis <= skewness**2 + 1:
        return gaussian_density(mean, std, f"no law has these moments ({told})")
    found = _matched(np.array([0.0, 1.0, skewness, kurtosis]))
    if isinstance(found, str):
        return gaussian_density(mean, std, f"{found} ({told})")
    return Density(mean, std, "maximum-entropy", f"from four moments ({told})", found)


def _matched(moments: np.ndarray) -> tuple[float, ...] | str:
    """Coefficients c₀ … c₄ for E[z], …, E[z⁴], or why there are none."""
    z = np.linspace(-_REACH, _REACH, _NODES)
    # Legendre polynomials keep Newton's equations well conditioned, where powers of z do not.
    basis = np.polynomial.legendre.legvander(z / _REACH, 4)[:, 1:]
    raised = np.concatenate([[1.0], moments]) / _REACH ** np.arange(5)
    powers = [np.polynomial.legendre.leg2poly([0] * k + [1]) for k in range(1, 5)]
    wanted = np.array([own @ raised[: len(own)] for own in powers])
    spacing = math.log(z[1] - z[0])

    def dual(c: np.ndarray) -> tuple[float, np.ndarray]:
        exponent = basis @ c
        top = float(exponent.max())
        total = top + math.log(np.exp(exponent - top).sum()) + spacing
        return total - float(c @ wanted), np.exp(exponent - total + spacing)

    start = np.polynomial.legendre.poly2leg([0, 0, -0.5 * _REACH**2, 0, 0])
    c = np.zeros(4)
    c[: len(start) - 1] = start[1:]
    value, mass = dual(c)
    for _ in range(_STEPS):
        # Convex: the first steps are shortened, the last ones double the digits until rounding stops them.
        centred = basis - mass @ basis
        slope = mass @ basis - wanted
        if np.abs(slope).max() < _CLOSE:
            break
        curvature = (centred.T * mass) @ centred
        step = np.linalg.solve(curvature + 1e-14 * np.trace(curvature) * np.eye(4), -slope)
        size, drop = 1.0, float(slope @ step)
        while size > 1e-6:
            fresh, fresh_mass = dual(c + size * step)
            if np.isfinite(fresh) and fresh <= value + 1e-4 * size * drop:
                break
            size /= 2
        else:
            break
        c, value, mass = c + size * step, fresh, fresh_mass
    reached = mass @ np.stack([z, z**2, z**3, z**4], 1)
    if np.abs(reached - moments).max() > 1e-6:
        return "the density with these moments was not found"
    if math.exp(-float((mass * np.log(np.maximum(mass, 1e-300))).sum())) < _NARROW:
        return "a density with these moments is next to a few points"
    polynomial = np.polynomial.legendre.leg2poly(np.concatenate([[0.0], c])) / _REACH ** np.arange(5)
    # On the grid some density always has these moments; on the line only if it goes on falling beyond the grid.
    turns = np.roots(np.polynomial.polynomial.polyder(polynomial)[::-1])
    turns = turns[np.abs(turns.imag) < 1e-9].real
    ends = max(mass[0], mass[-1]) / mass.max()
    if polynomial[4] >= 0 or np.abs(turns).max(initial=0.0) > _REACH or ends > _TAIL:
        return "tails are heavier than those of any exp(polynomial of degree four)"
    polynomial[0] = math.log(mass[_NODES // 2]) - spacing
    return tuple(float(a) for a in polynomial)


def _check(mean: float, std: float) -> None:
    if not (math.isfinite(mean) and 0 < std < math.inf):
        raise InputError(
            f"a density expects a finite mean and a positive standard deviation, got {mean:g} and {std:g}; "
            "choose a direction along which the image is uncertain"
        )
