"""Richardson–Lucy deconvolution, in two or three dimensions, with background, read noise and total variation.

For Poisson counts y ~ gain·Poisson((A x + b)/gain) the multiplicative step

    x ← x · Aᴴ(y / (A x + b)) / (Aᴴ1 − λ div(∇x/|∇x|))                       (λ = 0: expectation maximisation)

keeps x non-negative, whatever the gain, and with λ = 0 never lowers the likelihood. Read noise of standard deviation σ
enters through the shifted Poisson approximation: y and A x + b both grow by σ²/gain, and a shifted datum below zero
counts as zero. The number of iterations is itself a regulariser: run for ever, the method fits the noise.

Where A is a convolution its transfer function is cached, Aᴴ1 is computed once and the step runs in place: it is four
real FFTs long.

References: Richardson, "Bayesian-based iterative method of image restoration", JOSA 1972. Lucy, "An iterative
technique for the rectification of observed distributions", Astronomical J. 1974. Dey et al., "Richardson–Lucy algorithm
with total variation regularization for 3D confocal microscope deconvolution", Microscopy Research and Technique 2006.
Biggs, Andrews, "Acceleration of iterative image restoration algorithms", Applied Optics 1997. Snyder, Hammoud, White,
"Image recovery from data acquired with a charge-coupled-device camera", JOSA A 1993.
"""

__all__ = ["RichardsonLucy"]

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from ..errors import InputError
from ..noise import Poisson, PoissonGaussian
from ..operators.base import LinearOperator, constant_like
from ..operators.convolution import Convolution
from ..operators.differences import Gradient
from ..operators.spectral import fourier_filter, laid_out
from ..posterior.estimate import Estimate
from ..problem import Problem
from ..solvers.result import Status
from .base import check_pair

_Map = Callable[[Tensor], Tensor]

_TV_SMOOTHING = 1e-3  # of the mean intensity: rounds |∇x| where the image is flat
_LOWEST_DENOMINATOR = 0.1  # of Aᴴ1: keeps the step positive and bounded where λ·curvature would cancel it


@dataclass(frozen=True, eq=False)
class RichardsonLucy:
    """Multiplicative deconvolution of counts, stopped early.

    Args:
        iterations: number of steps; with a `tolerance`, the most that are taken.
        total_variation: λ ≥ 0, dimensionless for a point-spread function that sums to one; 0.002 is usual.
        background: ideal data of an empty image, in units of the data: a number or a tensor that broadcasts to
            `data_shape`.
        start: "mean" (a flat image that explains the mean of the data), "data" (Aᴴy / Aᴴ1) or a positive image.
        tolerance: stop when a step changes the image by less than this, relatively; 0 takes all `iterations`.
        accelerate: extrapolate along the previous steps (Biggs and Andrews): about as far in a third of the steps, and
            the likelihood may then fall now and then. Not with total variation.
        spacing: pixel size along each spatial axis for the total variation; 1 everywhere by default.

    Raises:
        InputError: an argument is out of range.

    Example:
        >>> import torch, obverse as ob
        >>> A = ob.operators.Identity((1, 1, 4))
        >>> problem = ob.Problem(A, ob.noise.Poisson(1.0))
        >>> estimate = RichardsonLucy(iterations=20, background=1.0)(torch.tensor([[[3.0, 3.0, 3.0, 3.0]]]), problem)
        >>> estimate.image.flatten().round(decimals=2)
        tensor([2., 2., 2., 2.])
    """

    iterations: int = 20
    _: KW_ONLY
    total_variation: float = 0.0
    background: float | Tensor = 0.0
    start: str | Tensor = "mean"
    tolerance: float = 0.0
    accelerate: bool = False
    spacing: Sequence[float] | None = None

    def __post_init__(self):
        if not isinstance(self.iterations, int) or self.iterations < 1:
            raise InputError(f"RichardsonLucy expects at least one iteration, got {self.iterations!r}; 20 is usual")
        if not 0 <= self.total_variation < 1:
            raise InputError(f"expected 0 ≤ total_variation < 1, got {self.total_variation}; 0.002 is usual")
        if not 0 <= self.tolerance < 1:
            raise InputError(f"expected 0 ≤ tolerance < 1, got {self.tolerance}; 0 takes all iterations")
        if isinstance(self.start, str) and self.start not in ("mean", "data"):
            raise InputError(f"RichardsonLucy expects start 'mean', 'data' or an image, got {self.start!r}")
        if self.accelerate and self.total_variation:
            raise InputError("RichardsonLucy cannot accelerate with total variation: set accelerate=False or λ = 0")
        low = float(self.background.min() if isinstance(self.background, Tensor) else self.background)
        if not (math.isfinite(low) and low >= 0):
            raise InputError(f"RichardsonLucy expects a background of at least zero, got {low}; subtract the offset")

    @torch.no_grad()
    def __call__(
        self, y: Tensor, problem: Problem, *, callback: Callable[[int, int | None, float], None] | None = None
    ) -> Estimate:
        """The image after the last step.

        Args:
            y: counts `(*batch, *data_shape)`, non-negative for a Poisson law.
            problem: a linear operator that maps non-negative images to non-negative data, and a Poisson or
                Poisson–Gaussian law.
            callback: called after each step with (step, total, relative change).

        Returns:
            Estimate: `history` holds the relative change of each step (the worst item of a batch). Without a
                `tolerance` the status is converged, for "stopped-as-asked": the criterion is the number of iterations,
                which the message says.

        Raises:
            InputError: the data, the operator or the noise law are not as above.
        """
        began = time.perf_counter()
        check_pair(y, problem, "RichardsonLucy")
        shift = _checked_shift(y, problem)
        operator = problem.operator
        assert isinstance(operator, LinearOperator)
        axes = tuple(range(-len(operator.image_shape), 0))
        data_axes = tuple(range(-len(operator.data_shape), 0))
        background = self.background.to(y) if isinstance(self.background, Tensor) else self.background
        added = background + shift if shift or isinstance(background, Tensor) or background else None
        data = (y + shift).clamp_min_(0)
        floor = (torch.finfo(y.dtype).eps * data.amax(data_axes, keepdim=True)).clamp_min(torch.finfo(y.dtype).tiny)
        forward, adjoint = _callables(operator, y)
        sensitivity, blind = _sensitivity(operator, y)
        x = self._first(data, adjoint, sensitivity, data_axes)
        curvature = _Curvature(x, operator.image_shape, self.spacing) if self.total_variation else None
        previous, steps, clamped, history = x, [], 0.0, []
        size = torch.linalg.vector_norm(x, dim=axes)
        for iteration in range(1, self.iterations + 1):
            point = _extrapolated(x, previous, steps, axes) if self.accelerate else x
            factor = forward(point)
            if added is not None:
                factor.add_(added)
            factor = torch.maximum(factor, floor, out=factor)
            factor = adjoint(torch.div(data, factor, out=factor)).clamp_min_(0)
            if blind is not None:  # a pixel that no datum sees keeps its value
                factor.add_(blind)
            if curvature is None:
                factor.div_(sensitivity)
            else:
                denominator = sensitivity - self.total_variation * curvature(point)
                lowest = _LOWEST_DENOMINATOR * sensitivity
                clamped = float((denominator < lowest).double().mean())
                factor.div_(torch.maximum(denominator, lowest))
            following = factor.mul_(point)
            if self.accelerate:
                steps = [*steps[-1:], following - point]
            # the old image is needed no more, unless the next step extrapolates from it
            moved = torch.linalg.vector_norm(following - x if self.accelerate else x.sub_(following), dim=axes)
            history.append(float((moved / size.clamp_min(torch.finfo(y.dtype).tiny)).max()))
            size = torch.linalg.vector_norm(following, dim=axes)
            previous, x = x, following
            if callback is not None:
                callback(iteration, self.iterations, history[-1])
            if history[-1] <= self.tolerance:
                break
        prediction = operator(x) + background
        chi2 = problem.noise.weight(prediction) * (y - prediction).square()
        diagnostics = {
            "seconds": time.perf_counter() - began,
            "evaluations": 2 * len(history),
            "relative_change": history[-1],
            "chi2": float(chi2.mean()),
        }
        if curvature is not None:
            diagnostics["clamped_fraction"] = clamped
        return Estimate(x, self._status(history), tuple(history), diagnostics)

    def _first(self, data: Tensor, adjoint: _Map, sensitivity: Tensor, data_axes: tuple[int, ...]) -> Tensor:
        batch = data.shape[: data.ndim - len(data_axes)]
        if isinstance(self.start, Tensor):
            if not bool((self.start >= 0).all()):
                raise InputError("RichardsonLucy expects a start without negative values; clamp it at a small number")
            return self.start.to(data).expand(*batch, *sensitivity.shape).clone()
        level = (data.sum(data_axes) / sensitivity.sum()).reshape(*batch, *(1,) * sensitivity.ndim)
        if self.start == "data":
            return torch.maximum(adjoint(data.clone()) / sensitivity, 1e-3 * level)
        return level.expand(*batch, *sensitivity.shape).clone()

    def _status(self, history: list[float]) -> Status:
        done, change = len(history), history[-1]
        if self.tolerance and change <= self.tolerance:
            message = f"step {done} changed the image by {change:.1e}, within the tolerance {self.tolerance:.1e}"
            return Status(True, "converged", message)
        if self.tolerance:
            message = (
                f"step {done} still changed the image by {change:.1e}, above the tolerance {self.tolerance:.1e}; "
                "raise iterations, or set tolerance=0 to stop early on purpose"
            )
            return Status(False, "max-iterations", message)
        message = (
            f"stopped at the {done} iterations asked for (the last changed the image by {change:.1e}): stopping early "
            "is this method's regularisation, and the image not the maximum of the likelihood"
        )
        return Status(True, "stopped-as-asked", message)


class _Curvature:
    """div(∇x/√(|∇x|² + ε²)) by forward differences without a difference across the edges."""

    def __init__(self, x: Tensor, shape: tuple[int, ...], spacing: Sequence[float] | None):
        self.gradient = Gradient(shape, spacing, dtype=x.dtype)
        self.axis = -len(shape) - 1
        level = x.mean(tuple(range(-len(shape), 0)), keepdim=True)
        self.floor = (_TV_SMOOTHING * level).square().unsqueeze(self.axis)

    def __call__(self, x: Tensor) -> Tensor:
        g = self.gradient(x)
        g *= (g.square().sum(self.axis, keepdim=True) + self.floor).rsqrt_()
        return -self.gradient.adjoint(g)


def _checked_shift(y: Tensor, problem: Problem) -> float:
    """σ²/gain, after every check of what was given."""
    operator, noise = problem.operator, problem.noise
    if not isinstance(operator, LinearOperator) or operator.dtype.is_complex:
        raise InputError(f"RichardsonLucy expects a real linear operator, got {operator!r}; use MAP for others")
    if not isinstance(noise, Poisson | PoissonGaussian):
        law = type(noise).__name__
        raise InputError(f"RichardsonLucy expects Poisson or PoissonGaussian noise, got {law}; use MAP with that law")
    problem._check(y)
    shift = float(noise.sigma) ** 2 / noise.gain if isinstance(noise, PoissonGaussian) else 0.0
    if not bool((y > -shift).any()):
        raise InputError("RichardsonLucy expects some positive counts, got none; check the offset that was subtracted")
    return shift


def _sensitivity(operator: LinearOperator, y: Tensor) -> tuple[Tensor, Tensor | None]:
    """Aᴴ1, set to 1 where no datum sees the pixel, and the indicator of those pixels if there are any."""
    spectrum = operator.spectrum()
    if spectrum is None:
        value = operator.adjoint(torch.ones(operator.data_shape, dtype=y.dtype, device=y.device))
    else:  # a circular convolution: the same everywhere, the sum of the PSF
        gain = constant_like(spectrum, y).real[(..., *(slice(1),) * (spectrum.ndim - 1))]
        value = gain.expand(operator.image_shape)
    lowest = 1e-5 * float(value.max())
    if not lowest > 0 or float(value.min()) < -lowest:
        raise InputError(
            f"RichardsonLucy expects a PSF without negative weights, got Aᴴ1 from {float(value.min()):g} to "
            f"{float(value.max()):g}; clamp the PSF at zero"
        )
    blind = value <= lowest
    return torch.where(blind, 1.0, value), blind.to(value) if bool(blind.any()) else None


def _callables(operator: LinearOperator, y: Tensor) -> tuple[_Map, _Map]:
    """A and Aᴴ whose results may be overwritten; a product or sum of circular convolutions as a single one."""
    spectrum = None if isinstance(operator, Convolution) else operator.spectrum()
    if spectrum is None:
        return lambda x: _own(operator._apply(x), x), lambda r: _own(operator._adjoint(r), r)
    grid = operator.image_shape[1:]
    otf = laid_out(constant_like(spectrum, y), len(grid))
    conjugate = otf.conj().resolve_conj()
    return lambda x: fourier_filter(x, otf, grid, grid), lambda r: fourier_filter(r, conjugate, grid, grid)


def _own(result: Tensor, argument: Tensor) -> Tensor:
    shared = result.untyped_storage().data_ptr() == argument.untyped_storage().data_ptr()
    return result.clone() if shared else result.contiguous()


def _extrapolated(x: Tensor, previous: Tensor, steps: list[Tensor], axes: tuple[int, ...]) -> Tensor:
    """x + α (x − previous), α from the last two steps of each item, between 0 and 1."""
    if len(steps) < 2:
        return x
    older, newer = steps
    energy = older.square().sum(axes, keepdim=True)
    alpha = (older * newer).sum(axes, keepdim=True) / energy.clamp_min(torch.finfo(x.dtype).tiny)
    return (x + alpha.clamp(0, 0.999) * (x - previous)).clamp_min(0)
