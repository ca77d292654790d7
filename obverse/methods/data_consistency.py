"""A last step towards the data, for images that a network made.

    x̂ = argmin_x ‖A x − y‖²_W + μ ‖x − x₀‖²  =  x₀ + (AᴴWA + μ)⁻¹ AᴴW (y − A x₀),      W = 1/variance

What the data do not see (the null space of A) stays as the network made it; what they see moves towards them, no
further than their noise allows. Unless it is given, μ follows Morozov's discrepancy principle: the largest damping,
hence the smallest change, for which

    χ²(μ) = mean |A x̂ − y|² W ≤ level                                                           (level 1: the noise)

An image that already fits is returned untouched. With β = 1/μ, χ²(β)^(−1/2) is concave and increasing (Reinsch), so
that secant steps kept within a bracket find the root in a few solves.

The principle is cautious: it stops as soon as the fit is plausible, where the least mean square error would lie
further on. If the network's error is known to be white of standard deviation e, pass damping = 1/e², which is then the
posterior mean.

References: Morozov, "On the solution of functional equations by the method of regularization", 1966. Reinsch,
"Smoothing by spline functions II", 1971. Schwab, Antholzer, Haltmeier, "Deep null space learning for inverse problems",
Inverse Problems 2019.
"""

__all__ = ["Consistent", "data_consistent"]

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from ..noise import ColouredGaussian, ComplexGaussian, Gaussian, Poisson, PoissonGaussian
from ..operators.base import LinearOperator
from ..problem import Problem

_LAWS = (Gaussian, ComplexGaussian, Poisson, PoissonGaussian)
_CLOSE = 0.01  # relative: how near χ² has to come to the level
_STRONGEST = 1e-6  # damping over the largest eigenvalue of AᴴWA: beyond, float32 solves are no longer accurate
_TRIALS = 30


@dataclass(frozen=True, eq=False)
class Consistent:
    """An image made consistent with its data.

    Args:
        image: `(*batch, *image_shape)`.
        damping: μ of each item, batch shape; infinite where the image already fitted and was left alone.
        chi2_before: χ² of each item before the step, with the weights of the step.
        chi2: χ² after it; above the level where data and operator contradict each other by more than the noise.
    """

    image: Tensor
    damping: Tensor
    chi2_before: Tensor
    chi2: Tensor


def data_consistent(
    x: Tensor, y: Tensor, problem: Problem, level: float = 1.0, damping: float | None = None
) -> Consistent:
    """Move images towards their data, as far as the noise says and no further.

    The damping is chosen without gradients; through the step itself the image is differentiable in `x` and `y`.

    Args:
        x: images `(*batch, *image_shape)`, such as a network's output.
        y: their data, `(*batch, *data_shape)`.
        problem: a linear operator and a Gaussian, Poisson or Poisson–Gaussian law; the variance of counts is taken at
            A x.
        level: mean squared whitened residual to reach, 1 for data that are off by just their noise.
        damping: μ, in 1/(units of the image)²; chosen by the discrepancy principle if None.

    Returns:
        Consistent: the images, and what was done to each.

    Raises:
        InputError: operator, law, shapes or numbers do not fit.

    Example:
        >>> import obverse as ob
        >>> problem = ob.Problem(ob.operators.Identity((1, 2, 2)), ob.noise.Gaussian(0.1))
        >>> done = data_consistent(torch.zeros(1, 2, 2), torch.ones(1, 2, 2), problem)
        >>> round(done.image.mean().item(), 2), round(done.chi2.item(), 2)
        (0.9, 1.0)
    """
    operator = _operator(problem)
    shape, given = operator.image_shape, tuple(x.shape)
    batch = given[: len(given) - len(shape)]
    if given[len(batch) :] != shape or tuple(y.shape) != (*batch, *operator.data_shape):
        raise InputError(
            f"data_consistent expects images (*batch, {', '.join(map(str, shape))}) and as many data "
            f"{operator.data_shape}, got {given} and {tuple(y.shape)}"
        )
    problem._check(y)
    if not (level > 0 and math.isfinite(level)):
        raise InputError(f"data_consistent expects a positive level, got {level}; 1 stands for the noise")
    if damping is not None and not (damping > 0 and math.isfinite(damping)):
        raise InputError(f"data_consistent expects a positive damping, got {damping}; leave it out to have it chosen")
    images, data = x.reshape(-1, *shape), y.reshape(-1, *operator.data_shape)
    items = [_Item(a, b, operator, problem) for a, b in zip(images, data, strict=True)]
    dampings = [item.damping(level) if damping is None else damping for item in items]
    moved = [item.at(value) for item, value in zip(items, dampings, strict=True)]
    like = {"dtype": torch.float64, "device": x.device}

    def figures(values: list[float]) -> Tensor:
        return torch.tensor(values, **like).reshape(batch)

    return Consistent(
        torch.stack(moved).reshape(x.shape) if moved else x,
        figures(dampings),
        figures([item.chi2(item.x) for item in items]),
        figures([item.chi2(image) for item, image in zip(items, moved, strict=True)]),
    )


class _Item:
    """One image, its data, and their weights."""

    def __init__(self, x: Tensor, y: Tensor, operator: LinearOperator, problem: Problem):
        self.x, self.y, self.operator = x, y, operator
        with torch.no_grad():
            ideal = operator(x)
            weight = problem.noise.weight(ideal)
            # one number where it can be one: then solves have their closed form
            first = weight.reshape(-1)[0]
            self.weight = first if bool((weight == first).all()) else weight
            # a place where nothing was measured has neither data nor prediction, and does not count
            self.count = max(int(((y != 0) | (ideal != 0)).sum()), 1)
        self.pull = operator.adjoint(self.weight * (y - operator(x)))

    def at(self, damping: float) -> Tensor:
        """x̂ for one μ."""
        if math.isinf(damping):
            return self.x
        return self.x + self.operator.solve(self.pull, damping, self.weight)

    def chi2(self, image: Tensor) -> float:
        with torch.no_grad():
            return float((self.weight * (self.operator(image) - self.y).abs().square()).sum()) / self.count

    @torch.no_grad()
    def damping(self, level: float) -> float:
        """The largest μ that reaches the level; the smallest that can be solved for, where none does."""
        start = self.chi2(self.x)
        if start <= level:
            return math.inf
        largest = self.operator.norm() ** 2 * float(self.weight.max())
        beta, most = 1.0 / largest, 1.0 / (_STRONGEST * largest)  # of 1/μ
        near, far = 0.0, math.inf
        earlier, goal = (0.0, start**-0.5), level**-0.5
        for _ in range(_TRIALS):
            value = self.chi2(self.at(1.0 / beta))
            if abs(value - level) <= _CLOSE * level or (value > level and beta >= most):
                break
            near, far = (beta, far) if value > level else (near, beta)
            root = value**-0.5
            steepness = (root - earlier[1]) / (beta - earlier[0])
            earlier = (beta, root)
            # hard solves only where they are needed: outwards by a factor of ten at most
            furthest = min(10 * beta, most, far)
            beta = beta + (goal - root) / steepness if steepness > 0 else math.inf
            if not near < beta < far:
                beta = furthest if math.isinf(far) else math.sqrt(near * far) if near > 0 else 0.1 * far
            beta = min(beta, furthest)
        return 1.0 / beta


def _operator(problem: Problem) -> LinearOperator:
    if not isinstance(problem.operator, LinearOperator):
        raise InputError(
            f"data_consistent expects a linear operator, got {type(problem.operator).__name__}; linearise it first"
        )
    if not isinstance(problem.noise, _LAWS):
        hint = "whiten data and operator first" if isinstance(problem.noise, ColouredGaussian) else "leave the step out"
        raise InputError(
            f"data_consistent expects Gaussian, Poisson or Poisson–Gaussian noise, got "
            f"{type(problem.noise).__name__}; {hint}"
        )
    return problem.operator
