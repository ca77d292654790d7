"""The weight of the prior, chosen from the data alone.

    sure          minimise an unbiased estimate of the mean squared error, for Gaussian noise of known σ:
                      ‖x̂(y) − y‖²/n − σ² + 2σ²/n · div x̂(y),    div ≈ bᵀ(x̂(y + εb) − x̂(y))/ε,  b = ±1 at random;
                  where A is not the identity but a convolution that loses nothing (min |h| ≥ 0.1 max |h|), the same
                  with A⁻¹y for y (generalised SURE)
    whiteness     minimise Σ|r̂|⁴ / (Σ|r̂|²)² of the whitened residual r, its normalised squared autocorrelation, among
                  weights that leave a mean |r|² of at least one half, times 1 + 5 max(0, mean |r|² − 1)
    discrepancy   mean |r|² = 1: the residual is as large as the noise; it smooths more than the error asks for

Data that depend on no pixel (masked, or left out of k-space) do not count.

"auto" takes SURE where it holds, whiteness where the data are a picture of the image (equal shapes), discrepancy
otherwise. Each rule is evaluated on a logarithmic grid around a weight at which prior and data speak with equal force,
and refined by golden section about the best grid point.

References: Stein, "Estimation of the mean of a multivariate normal distribution", Annals of Statistics 1981. Ramani,
Blu, Unser, "Monte-Carlo SURE", IEEE TIP 2008. Eldar, "Generalized SURE for exponential families", IEEE TSP 2009. Lanza,
Pragliola, Sgallari, "Residual whiteness principle for parameter-free image restoration", ETNA 2020.
"""

__all__ = ["Choice", "choose", "whiteness"]

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from ..noise import Gaussian
from ..operators.base import LinearOperator, Operator
from ..operators.elementary import Identity
from ..priors.base import Prior
from ..problem import Problem

_DECADES = 4.0  # the grid spans this many around the reference
_GRID = 9
_REFINEMENTS = 5
_PROBE = 0.1  # step of the divergence probe, in units of σ
_LEAST_CHI2 = 0.5  # below this mean squared residual, in units of the noise, whiteness says nothing
_EXCESS = 5.0  # price of a residual larger than the noise: it settles what whiteness leaves open in small images
_BLIND = 1e-9  # response to noise, over the largest, below which a datum does not depend on the image
_INVERTIBLE = 0.1  # least |h|/max|h| at which generalised SURE is still of use: its noise grows as 1/|h|²

Solve = Callable[[Tensor, float], Tensor]


@dataclass(frozen=True)
class Choice:
    """A weight and how it was found.

    Args:
        weight: the weight.
        rule: "sure", "whiteness" or "discrepancy".
        value: the criterion at the weight.
        tried: (weight, criterion) pairs in the order of evaluation.
        at_edge: whether the best weight is the first or the last of the grid.
    """

    weight: float
    rule: str
    value: float
    tried: tuple[tuple[float, float], ...]
    at_edge: bool


def choose(solve: Solve, y: Tensor, problem: Problem, prior: Prior, rule: str = "auto", seed: int = 0) -> Choice:
    """Choose the weight of a prior for one measurement.

    Args:
        solve: (data, weight) ↦ image.
        y: the measurement.
        problem: operator and noise law.
        prior: the energy that the weight multiplies.
        rule: "auto", "sure", "whiteness" or "discrepancy".
        seed: of the probe of SURE.

    Raises:
        InputError: the rule does not apply to this problem.
    """
    operator = problem.operator
    assert isinstance(operator, LinearOperator)
    rule = _default(problem) if rule == "auto" else rule
    criterion = {"sure": _sure, "whiteness": _whiteness, "discrepancy": _discrepancy}[rule](solve, y, problem, seed)
    reference = _reference(y, operator, prior)
    exponents = [_DECADES * (i / (_GRID - 1) - 0.5) for i in range(_GRID)]
    tried: list[tuple[float, float]] = []

    def score(exponent: float) -> float:
        weight = reference * 10**exponent
        value = criterion(weight)
        value = value if math.isfinite(value) else math.inf
        tried.append((weight, value))
        return value

    values = [score(e) for e in exponents]
    best = min(range(_GRID), key=values.__getitem__)
    left, right = exponents[max(best - 1, 0)], exponents[min(best + 1, _GRID - 1)]
    _golden(score, left, right)
    weight, value = min(tried, key=lambda pair: pair[1])
    return Choice(weight, rule, value, tuple(tried), best in (0, _GRID - 1))


def whiteness(residual: Tensor, dimensions: int) -> float:
    """Σ|r̂|⁴ / (Σ|r̂|²)² over the last `dimensions` axes: 1/n for a flat spectrum, 1 for a single mode.

    For white noise of n values it is about 2/n.
    """
    axes = tuple(range(-dimensions, 0))
    power = torch.fft.fftn(residual, dim=axes).abs().double().square()
    return float(power.square().sum() / power.sum().square().clamp_min(1e-300))


def _default(problem: Problem) -> str:
    if _sure_inverse(problem) is not None:
        return "sure"
    same = problem.operator.data_shape == problem.operator.image_shape
    return "whiteness" if same and not problem.noise.complex else "discrepancy"


def _sure_inverse(problem: Problem) -> Callable[[Tensor], Tensor] | None:
    """A⁻¹ where SURE holds: Gaussian noise of one σ and an operator that loses nothing; else None."""
    operator, noise = problem.operator, problem.noise
    if not isinstance(noise, Gaussian) or torch.as_tensor(noise.sigma).numel() > 1:
        return None
    if isinstance(operator, Identity):
        return lambda v: v
    spectrum = operator.spectrum() if isinstance(operator, LinearOperator) else None
    if spectrum is None or float(spectrum.abs().min()) < _INVERTIBLE * float(spectrum.abs().max()):
        return None
    axes = tuple(range(-len(operator.image_shape) + 1, 0))

    def inverse(v: Tensor) -> Tensor:
        modes = torch.fft.rfftn(v, dim=axes)
        return torch.fft.irfftn(modes / spectrum.to(modes), s=v.shape[-len(axes) :], dim=axes)

    return inverse


def _sure(solve: Solve, y: Tensor, problem: Problem, seed: int) -> Callable[[float], float]:
    """E‖x̂ − x‖² up to the constant ‖x‖²-terms: ‖x̂‖² − 2⟨x̂, A⁻¹y⟩ + 2σ² tr(A⁻¹ ∂x̂/∂y)."""
    inverse = _sure_inverse(problem)
    if inverse is None:
        raise InputError(
            "SURE expects Gaussian noise of one sigma and the identity or a convolution without near-zeros, got "
            f"{problem.operator!r} with {type(problem.noise).__name__} noise; use another selection"
        )
    sigma = float(problem.noise.sigma)  # type: ignore[attr-defined]
    signs = torch.randint(0, 2, y.shape, generator=torch.Generator().manual_seed(seed)).to(y) * 2 - 1
    direct, step = inverse(y), _PROBE * sigma
    # tr(A⁻¹ ∂x̂/∂y) = E bᵀA⁻¹(x̂(y + εb) − x̂(y))/ε, with A⁻¹ moved to the other side
    probe = signs if isinstance(problem.operator, Identity) else _transposed(problem, signs)

    def value(weight: float) -> float:
        x = solve(y, weight)
        moved = solve(y + step * signs, weight)
        divergence = float((probe * (moved - x)).double().sum()) / step
        misfit = float((x - direct).double().square().sum())
        return (misfit + 2 * sigma**2 * divergence) / y.numel() - _inverse_variance(problem, sigma)

    return value


def _transposed(problem: Problem, v: Tensor) -> Tensor:
    """A⁻ᵀ v for a circular convolution."""
    spectrum = problem.operator.spectrum()  # type: ignore[attr-defined]
    axes = tuple(range(-len(problem.operator.image_shape) + 1, 0))
    modes = torch.fft.rfftn(v, dim=axes)
    return torch.fft.irfftn(modes / spectrum.conj().to(modes), s=v.shape[-len(axes) :], dim=axes)


def _inverse_variance(problem: Problem, sigma: float) -> float:
    """E‖A⁻¹n‖²/n, so that the criterion estimates the mean squared error itself."""
    operator = problem.operator
    if isinstance(operator, Identity):
        return sigma**2
    impulse = torch.zeros(operator.image_shape, dtype=torch.float64)
    impulse[(slice(None), *(0,) * (impulse.ndim - 1))] = 1.0
    return sigma**2 * float(_transposed(problem, impulse).square().sum()) / operator.image_shape[0]


def _whiteness(solve: Solve, y: Tensor, problem: Problem, seed: int) -> Callable[[float], float]:
    shape = problem.operator.data_shape
    if len(shape) < 3 or problem.noise.complex:
        raise InputError(f"whiteness expects real data on a grid (C, H, W), got {shape}; use selection='discrepancy'")

    seen = _seen(problem.operator, y)

    def value(weight: float) -> float:
        residual = _residual(problem, solve(y, weight), y) * seen
        chi2 = float(residual.double().square().sum() / seen.sum())
        # an image that fits the noise leaves a residual that is white because it is next to nothing
        if chi2 < _LEAST_CHI2:
            return math.inf
        return whiteness(residual, len(shape) - 1) * (1 + _EXCESS * max(0.0, chi2 - 1))

    return value


def _discrepancy(solve: Solve, y: Tensor, problem: Problem, seed: int) -> Callable[[float], float]:
    seen = _seen(problem.operator, y)

    def value(weight: float) -> float:
        energy = float((_residual(problem, solve(y, weight), y) * seen).abs().double().square().sum() / seen.sum())
        return math.log(energy) ** 2 if energy > 0 else math.inf

    return value


def _seen(operator: Operator, y: Tensor) -> Tensor:
    """1 where a datum depends on the image, 0 where it never does: a masked pixel, a point of k-space left out, a ray
    that misses. Whatever stands there says nothing about the residual."""
    probe = torch.randn(operator.image_shape, generator=torch.Generator().manual_seed(0), dtype=y.real.dtype).to(
        y.device
    )
    response = operator(probe.to(operator.dtype if operator.dtype.is_complex else y.real.dtype)).abs()
    return (response > _BLIND * response.max()).to(y.real.dtype)


def _residual(problem: Problem, x: Tensor, y: Tensor) -> Tensor:
    """Whitened residual; a prediction of counts is kept at or above zero."""
    mean = problem.operator(x)
    if not problem.noise.gaussian:
        mean = mean.clamp_min(0)
    return (y - mean) * problem.noise.weight(mean).sqrt()


def _reference(y: Tensor, operator: LinearOperator, prior: Prior) -> float:
    """n/prior(x₀): a prior of degree one in x has E[weight·prior] = n at its own weight."""
    back = operator.adjoint(y)
    forth = operator(back)
    energy = float(forth.abs().square().sum())
    x0 = back * (float((forth.conj() * y).real.sum()) / energy) if energy > 0 else back
    level = float(prior.value(x0 if x0.is_complex() else x0.clamp_min(0)))
    if not (math.isfinite(level) and level > 0):
        raise InputError("the weight cannot be chosen from data on which the prior is zero; give a weight by hand")
    return math.prod(operator.image_shape) / level


def _golden(score: Callable[[float], float], left: float, right: float) -> None:
    """Golden-section search; `score` remembers what it saw."""
    ratio = (math.sqrt(5) - 1) / 2
    a, b = right - ratio * (right - left), left + ratio * (right - left)
    fa, fb = score(a), score(b)
    for _ in range(_REFINEMENTS - 2):
        if fa <= fb:
            right, b, fb = b, a, fa
            a = right - ratio * (right - left)
            fa = score(a)
        else:
            left, a, fa = a, b, fb
            b = left + ratio * (right - left)
            fb = score(b)
