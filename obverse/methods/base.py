"""What every method checks before it starts, and how it reports progress.

A method is a frozen dataclass; calling it with one measurement and a problem gives an `Estimate` or a `Posterior`:

    result = method(y, problem, callback=None)

`callback(iteration, total, value)` is told of progress; an exception raised in it, such as KeyboardInterrupt, ends the
method at a point where nothing is left half done.
"""

__all__ = [
    "Callback",
    "check_item",
    "check_least",
    "check_pair",
    "default_tolerance",
    "described",
    "linear_part",
    "real_image",
    "silent",
]

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..operators.base import LinearOperator, Operator
from ..posterior import Covariance, Posterior
from ..priors.denoiser import Denoiser
from ..problem import Problem
from ..solvers.result import Status

Callback = Callable[[int, int | None, float], None]


def silent(iteration: int, total: int | None, value: float) -> None:
    """The callback of those who passed none."""


def check_least(settings: Any, **least: int) -> None:
    """Refuse settings below their least values; one that is None is left to be chosen.

    Raises:
        InputError: one is too small.
    """
    for name, bound in least.items():
        value = getattr(settings, name)
        if value is not None and value < bound:
            raise InputError(f"{type(settings).__name__} expects {name} of at least {bound}, got {value}; raise it")


def check_pair(y: object, problem: object, method: str) -> None:
    """Refuse arrays that are no tensors, and the two arguments in the wrong order.

    Raises:
        InputError: they are not a tensor and a problem.
    """
    if not isinstance(problem, Problem):
        raise InputError(
            f"{method} expects data and then a Problem, got {type(problem).__name__} second; call method(y, problem)"
        )
    if not isinstance(y, Tensor):
        raise InputError(f"{method} expects data as a tensor, got {type(y).__name__}; pass torch.as_tensor(y)")


def check_item(y: Tensor, problem: Problem, method: str) -> None:
    """Refuse anything but one finite measurement of exactly the operator's data shape.

    Raises:
        InputError: no tensor, wrong shape, an integer type, or a value that is not finite.
    """
    check_pair(y, problem, method)
    expected = problem.operator.data_shape
    if tuple(y.shape) != expected:
        raise InputError(
            f"{method} expects one measurement of shape {expected}, got {tuple(y.shape)}; call it once for each item"
        )
    if not (y.is_floating_point() or y.is_complex()):
        raise InputError(
            f"{method} expects floating-point data, got {y.dtype}; convert them with .float() or .double()"
        )
    bad = int((~torch.isfinite(y)).sum())
    if bad:
        raise InputError(
            f"{method} expects finite data, got {bad} values that are NaN or infinite; mask them out of the operator"
        )


def linear_part(problem: Problem, method: str) -> LinearOperator:
    """The problem's operator, if it is linear.

    Raises:
        InputError: the operator is not linear.
    """
    if not isinstance(problem.operator, LinearOperator):
        raise InputError(
            f"{method} expects a linear operator, got {type(problem.operator).__name__}; use methods.Laplace, "
            "which linearises it at the most probable image"
        )
    return problem.operator


def real_image(operator: Operator, y: Tensor, method: str) -> Tensor:
    """A zero image in the precision and on the device of the data.

    Raises:
        InputError: the operator works on complex images, for which there is no covariance algebra.
    """
    if operator.dtype.is_complex:
        raise InputError(
            f"{method} expects an operator on real images, got {operator.dtype}; the covariance algebra is that of "
            "real images, so put real and imaginary part into two channels"
        )
    return torch.zeros(operator.image_shape, dtype=y.real.dtype if y.is_complex() else y.dtype, device=y.device)


def default_tolerance(dtype: torch.dtype) -> float:
    """Relative residual that conjugate gradients are asked for: near what the precision holds."""
    return 1e-5 if dtype == torch.float32 else 1e-10


def described(
    method: Any,
    mean: Tensor,
    status: Status,
    history: tuple[float, ...],
    diagnostics: Mapping[str, Any],
    covariance: Covariance,
    target: str = "posterior",
    draws: Tensor | None = None,
) -> Posterior:
    """A posterior that carries the settings of the method that made it."""
    settings = {f.name: _told(getattr(method, f.name)) for f in dataclasses.fields(method)}
    return Posterior(
        mean,
        status,
        history,
        diagnostics,
        covariance=covariance,
        target=target,
        provenance={"method": type(method).__name__, "settings": settings},
        draws=draws,
    )


def _told(value: Any) -> Any:
    if isinstance(value, Denoiser):
        return f"{value.card.get('name', type(value).__name__)}, for values from {value.low:.4g} to {value.high:.4g}"
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)
