"""Does a covariance agree with the estimator whose posterior it claims to be? On the range of the operator it has to.

    y = A x + n,  n ~ N(0, V),   m(y) = E[x | y]:        Σ Aᴴ u = ∂m/∂y · V u           for every u,  V = s² I: s² ∂m/∂y

True whatever the prior is, Gaussian or not: the derivative of a posterior mean along the data is a column of Σ AᴴV⁻¹.
So an estimator that learning or optimisation made and a covariance that came some other way can be held against each
other without any truth. What A does not see is not tested by this. For complex data under a real image, Aᴴ u stands for
its real part, and V for half of E|n|², the variance of each of the two parts.

References: Gribonval, "Should penalized least squares regression be interpreted as maximum a posteriori estimation?",
IEEE TSP 2011. Robbins, "An empirical Bayes approach to statistics", Berkeley Symposium 1956.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import InputError
from ..noise.base import stream
from ..operators.base import LinearOperator
from ..problem import Problem
from .posterior import Posterior

__all__ = ["RangeSpaceErrors", "range_space_errors"]


class RangeSpaceErrors(NamedTuple):
    """What `range_space_errors` found, per direction.

    Args:
        errors: ‖Σ Aᴴu − ∂m/∂y·Vu‖/‖∂m/∂y·Vu‖, `(k,)`: rounding where the covariance belongs to the estimator.
        ratios: ⟨Σ Aᴴu, ∂m/∂y·Vu⟩/‖∂m/∂y·Vu‖², `(k,)`: 0.5 for half the covariance, above 1 for too wide a one.
        derivative: "autograd" or "differences".
    """

    errors: Tensor
    ratios: Tensor
    derivative: str


def range_space_errors(
    estimator: Callable[[Tensor], Tensor],
    y: Tensor,
    problem: Problem,
    posterior: Posterior,
    *,
    directions: Tensor | None = None,
    count: int = 8,
    seed: int = 0,
) -> RangeSpaceErrors:
    """Relative errors of Σ Aᴴ u = ∂m/∂y · V u along directions u in data space.

    Derivatives are exact, backwards twice through autograd, where that follows the estimator from end to end; else, as
    with solvers that keep no graph, they are central differences, which want double precision and tight tolerances.

    Args:
        estimator: y ↦ m(y), one measurement to one image and the same at every call; for
            instance `lambda y: unrolled.reconstruct(y, problem)`, or `lambda y: method(y, problem).mean`.
        y: the measurement at which the posterior was made, exactly `data_shape`.
        problem: a linear operator, real or complex, of which the image is real, and a Gaussian law of independent data.
        posterior: of target "posterior", with the covariance in question.
        directions: u, `(k, *data_shape)`; by default white noise.
        count: number of random directions.
        seed: of these.

    Raises:
        InputError: the law or the operator is another, the posterior claims something else, shapes do not fit, or the
            estimate does not depend on the data.

    Example:
        >>> import obverse as ob
        >>> field = ob.priors.GaussianField(torch.ones(8, 8, dtype=torch.float64), (1, 8, 8))
        >>> mask = ob.operators.Mask((torch.arange(64).reshape(1, 8, 8) % 2).double())
        >>> problem, y = ob.Problem(mask, ob.noise.Gaussian(0.5)), torch.ones(1, 8, 8, dtype=torch.float64)
        >>> method = ob.methods.Gaussian(field)
        >>> found = range_space_errors(lambda y: method(y, problem).mean, y, problem, method(y, problem))
        >>> bool(found.errors.max() < 1e-5), round(float(found.ratios.mean()), 4), found.derivative
        (True, 1.0, 'differences')
    """
    operator, law = problem.operator, problem.noise
    if not isinstance(operator, LinearOperator):
        raise InputError(
            f"range_space_errors expects a linear operator, got {type(operator).__name__}; linearise it at the mean"
        )
    if not (law.gaussian and law.independent):
        raise InputError(
            f"range_space_errors expects Gaussian noise of independent data, got {type(law).__name__}: the identity "
            "holds for it alone"
        )
    if posterior.target != "posterior":
        raise InputError(
            f'range_space_errors expects a posterior of target "posterior", got "{posterior.target}": no other spread '
            "is tied to the derivative of the mean"
        )
    problem._check(y)
    if tuple(y.shape) != operator.data_shape:
        raise InputError(f"range_space_errors expects one measurement {operator.data_shape}, got {tuple(y.shape)}")
    if directions is None:
        directions = torch.stack([torch.randn(y.shape, dtype=y.dtype, generator=stream(seed, i)) for i in range(count)])
    if tuple(directions.shape[1:]) != tuple(y.shape) or not len(directions):
        raise InputError(f"directions expect shape (k, *{tuple(y.shape)}), got {tuple(directions.shape)}; reshape them")
    directions = directions.to(y)
    variance = 1 / problem.fisher_weight(y=y)
    found, kind = _derivatives(estimator, y, variance * directions)
    if found.shape[1:] != posterior.mean.shape or found.is_complex():
        raise InputError(
            f"range_space_errors expects an estimate {tuple(posterior.mean.shape)}, real, got {tuple(found.shape[1:])} "
            f"{found.dtype}; it has to be of the posterior's image"
        )
    flat = found.reshape(len(found), -1).double()
    size = flat.norm(dim=1)
    if not bool(size.any()):
        raise InputError("range_space_errors expects an estimate that depends on the data, got a derivative of zero")
    back = operator.adjoint(directions)
    claimed = posterior.covariance.matvec((back.real if back.is_complex() else back).to(posterior.mean))
    claimed = claimed.reshape(len(found), -1).double()
    smallest = torch.finfo(torch.float64).tiny
    errors = (claimed - flat).norm(dim=1) / size.clamp_min(smallest)
    return RangeSpaceErrors(errors, (claimed * flat).sum(1) / size.square().clamp_min(smallest), kind)


def _derivatives(estimator: Callable[[Tensor], Tensor], y: Tensor, directions: Tensor) -> tuple[Tensor, str]:
    """∂m/∂y · u of each direction, and how it was found."""

    def difference(u: Tensor) -> Tensor:
        step = _STEP[u.real.dtype] * max(float(y.norm()), _STEP[u.real.dtype] * y.numel() ** 0.5) / float(u.norm())
        with torch.no_grad():
            return (estimator(y + step * u) - estimator(y - step * u)) / (2 * step)

    exact, first = _backwards_twice(estimator, y, directions), difference(directions[0])
    # A graph that leads back to the data on some ways only gives a derivative too, and a wrong one.
    if exact is not None and float((exact[0] - first).norm()) <= _AGREE * float(first.norm()):
        return exact, "autograd"
    return torch.stack([first, *(difference(u) for u in directions[1:])]), "differences"


def _backwards_twice(estimator: Callable[[Tensor], Tensor], y: Tensor, directions: Tensor) -> Tensor | None:
    """Jᵀp is linear in p, and its derivative along p is J; None where there is no graph."""
    with torch.enable_grad():
        point = y.detach().requires_grad_()
        answer = estimator(point)
        if not answer.requires_grad:
            return None
        probe = torch.zeros_like(answer, requires_grad=True)
        try:
            (back,) = torch.autograd.grad(answer, point, probe, create_graph=True)
            rows = []
            for u in directions:
                inner = torch.view_as_real(back * u.conj())[..., 0] if back.is_complex() else back * u
                rows.append(torch.autograd.grad(inner.sum(), probe, retain_graph=True)[0])
        except RuntimeError:  # cut off from the data, or a step without a second derivative
            return None
    return torch.stack(rows)


# Relative to the data: rounding and the tolerance of solvers are divided by it, curvature is multiplied by its square.
_STEP = {torch.float32: 3e-3, torch.float64: 1e-4}
_AGREE = 0.05  # of central differences with the exact derivative: far more than they err, far less than a missing path
