"""The smoothed posterior density that the Langevin samplers work on: gradient, energy and Lipschitz constant.

    U(x) = −log p(y | x) + Σ_smooth E_j(x) + Σ_other g_i^λ(x)
    L    = λ_max(AᴴFA) + Σ_j λ_max(∇²E_j) + (number of envelopes)/λ,      λ = 1/(the first two terms) by default

Hessians of smooth parts are taken at a constant image, where the smoothed total variation and its like bend most, and
at an image where the chains are, where a network is what it was trained to be; the larger counts.
"""

__all__ = ["Target", "largest_eigenvalue", "level_image", "starting_image"]

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import InputError
from ..operators.base import LinearOperator
from ..priors.base import Prior, Scaled, Sum
from ..priors.score import Score
from ..problem import Problem
from ..solvers.algebra import squared
from .curvature import constant

# Power iteration approaches the norm from below.
_MARGIN = 1.02


class Target:
    """A smoothed posterior density.

    Args:
        y: one measurement.
        problem: its operator and noise law.
        prior: a prior whose parts have a gradient or a proximal operator.
        smoothing: λ of the Moreau envelopes, or None to have it chosen.
        noise_weight: inverse noise variances that replace the noise law by a Gaussian; None keeps the law.
        point: an image where the chains are.
        bend: the first two terms of L, where they are known already.

    Attributes:
        bend: λ_max(AᴴFA) + Σ_j λ_max(∇²E_j).
        smoothing: λ, or None without envelopes.
        lipschitz: L.
    """

    def __init__(
        self,
        y: Tensor,
        problem: Problem,
        prior: Prior,
        smoothing: float | None = None,
        noise_weight: Tensor | None = None,
        *,
        point: Tensor | None = None,
        bend: float | None = None,
    ):
        operator = problem.operator
        self.y, self.problem, self.noise_weight = y, problem, noise_weight
        self.axes = tuple(range(-len(operator.image_shape), 0))
        self.data_axes = tuple(range(-len(operator.data_shape), 0))
        prior = prior.bind(operator.image_shape)
        self.smooth, self.enveloped = _split(prior)
        flat = torch.zeros(operator.image_shape, dtype=_real(y.dtype), device=y.device)
        weight = noise_weight
        if weight is None and problem.noise.gaussian:
            weight = problem.fisher_weight().to(flat)
        self._weight = None if weight is None else constant(weight)
        self._quadratic = isinstance(operator, LinearOperator) and self._weight is not None
        self._backprojected = self._modes = None
        if self._quadratic:
            assert isinstance(operator, LinearOperator) and self._weight is not None
            self._backprojected = operator.adjoint(self._weight * y)
            self._modes = _normal_modes(operator, self._weight, flat)
        if bend is None:
            images = [flat] if point is None else [flat, point]
            bend = self._likelihood_norm(flat)
            bend += sum(max(largest_eigenvalue(part.hessian(at).matvec, flat) for at in images) for part in self.smooth)
        if not (math.isfinite(bend) and bend > 0):
            raise InputError(f"Langevin expects a curved likelihood, got a curvature of {bend:g}; check the operator")
        self.bend = bend
        self.smoothing = None if not self.enveloped else (1.0 / bend if smoothing is None else smoothing)
        self.lipschitz = bend + (len(self.enveloped) / self.smoothing if self.smoothing is not None else 0.0)

    @property
    def words(self) -> str:
        """What the likelihood is, for the diagnostics."""
        if self.noise_weight is not None:
            return "gaussian, with the variance at the predicted mean"
        return "gaussian" if self.problem.noise.gaussian else "exact"

    @property
    def prior_words(self) -> str:
        """What the prior is, for the diagnostics."""
        levels = [score.sigma for score, _ in self._scores]
        return f"smoothed by white noise of {' and '.join(f'{s:.3g}' for s in levels)}" if levels else "as it stands"

    @property
    def tempered(self) -> bool:
        """Whether the law that a denoiser knows was raised to a power."""
        return any(power != 1.0 for _, power in self._scores)

    @property
    def _scores(self) -> list[tuple[Score, float]]:
        bare = [(part.prior, part.factor) if isinstance(part, Scaled) else (part, 1.0) for part in self.smooth]
        return [(part, power) for part, power in bare if isinstance(part, Score)]

    def gradient(self, x: Tensor) -> Tensor:
        """∇U of images `(*batch, *image_shape)`."""
        total = self._likelihood_gradient(x)
        for part in self.smooth:
            total = total + part.gradient(x)
        for part in self.enveloped:
            assert self.smoothing is not None
            total = total + (x - part.prox(x, self.smoothing)) / self.smoothing
        return total

    def energy(self, x: Tensor) -> Tensor:
        """U of each image, up to a constant: batch shape; of the likelihood alone where the prior's is not known."""
        if self._quadratic and self._weight is not None:
            residual = self.y - self.problem.operator(x)
            total = 0.5 * (self._weight * squared(residual)).sum(self.data_axes)
        else:
            total = -self.problem.log_likelihood(x, self.y)
        if not all(part.valued for part in self.smooth):
            return total
        for part in self.smooth:
            total = total + part.value(x)
        for part in self.enveloped:
            assert self.smoothing is not None
            nearest = part.prox(x, self.smoothing)
            total = total + part.value(nearest) + squared(x - nearest).sum(self.axes) / (2 * self.smoothing)
        return total

    def typical_curvature(self, x: Tensor) -> float:
        """tr(∇²U)/n near the images `(b, *image_shape)`: by finite differences along random signs, over a distance
        1/√L, the width of the stiffest mode."""
        generator = torch.Generator().manual_seed(0)
        signs = (2 * torch.randint(0, 2, x.shape, generator=generator) - 1).to(x)
        reach = self.lipschitz**-0.5
        change = self.gradient(x + reach * signs) - self.gradient(x)
        return max(float((signs * change).mean()) / reach, 1e-12 * self.lipschitz)

    def _likelihood_gradient(self, x: Tensor) -> Tensor:
        operator = self.problem.operator
        if self._backprojected is None:
            return self.problem.gradient(x, self.y)
        if self._modes is not None:
            axes = self.axes[1:]
            return torch.fft.irfftn(torch.fft.rfftn(x, dim=axes) * self._modes, s=x.shape[-len(axes) :], dim=axes) - (
                self._backprojected
            )
        assert isinstance(operator, LinearOperator)
        return operator.gram(x, self._weight) - self._backprojected

    def _likelihood_norm(self, flat: Tensor) -> float:
        if self._modes is not None:
            return float(self._modes.max())
        if self._quadratic:
            assert isinstance(self.problem.operator, LinearOperator)
            operator, weight = self.problem.operator, self._weight
        else:
            level = level_image(self.y, self.problem, flat)
            operator, weight = self.problem.operator.linearise(level), self.problem.fisher_weight(level)
        return largest_eigenvalue(lambda v: operator.gram(v, weight), flat)


def level_image(y: Tensor, problem: Problem, like: Tensor) -> Tensor:
    """The constant image that predicts the mean of the data, or the zero image where there is none."""
    if y.is_complex():
        return like
    response = float(problem.operator(like + 1.0).mean() - problem.operator(like).mean())
    level = float(y.mean() - problem.operator(like).mean()) / response if abs(response) > 1e-6 else 0.0
    return like + level


def starting_image(y: Tensor, problem: Problem, like: Tensor) -> Tensor:
    """A damped least-squares image, near the data where they say something and flat elsewhere."""
    level = level_image(y, problem, like)
    operator = problem.operator.linearise(level)
    weight = constant(problem.fisher_weight(level))
    bend = largest_eigenvalue(lambda v: operator.gram(v, weight), like)
    if bend == 0:
        return level
    residual = operator.adjoint(weight * (y - problem.operator(level)))
    return level + operator.solve(residual, 0.05 * bend, weight, tolerance=1e-3)


def _split(prior: Prior) -> tuple[tuple[Prior, ...], tuple[Prior, ...]]:
    """Parts that enter by their gradient, and parts that enter by their Moreau envelope."""
    parts = _addends(prior)
    enveloped = tuple(part for part in parts if not part.smooth)
    for part in enveloped:
        if not part.proximable:
            raise InputError(f"Langevin expects parts with a gradient or a proximal operator, got {part}; smooth it")
    return tuple(part for part in parts if part.smooth), enveloped


def _addends(prior: Prior) -> tuple[Prior, ...]:
    if isinstance(prior, Scaled) and isinstance(prior.prior, Sum):
        return tuple(prior.factor * part for part in prior.prior.priors)
    return prior.priors if isinstance(prior, Sum) else (prior,)


def _normal_modes(operator: LinearOperator, weight: Tensor, like: Tensor) -> Tensor | None:
    """Eigenvalues of AᴴFA where it is a convolution: one FFT pair instead of two."""
    spectrum = operator.spectrum()
    if spectrum is None or weight.numel() != 1:
        return None
    return (weight * spectrum.abs().square()).to(like)


def largest_eigenvalue(product: Callable[[Tensor], Tensor], like: Tensor, iterations: int = 60) -> float:
    """Largest eigenvalue of a positive product by power iteration, with a margin since it is approached from below."""
    v = torch.randn(like.shape, generator=torch.Generator().manual_seed(0), dtype=like.dtype).to(like.device)
    value = 0.0
    for _ in range(iterations):
        v = product(v / v.norm())
        previous, value = value, float(v.norm())
        if value == 0.0 or abs(value - previous) <= 1e-4 * value:
            break
    return _MARGIN * value


def _real(dtype: torch.dtype) -> torch.dtype:
    return torch.empty(0, dtype=dtype).real.dtype
