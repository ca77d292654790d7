"""Plug and play: an image from its data and a denoiser that stands for the prior.

    f(x) = −log p(y | A x),     D(x, σ) the denoiser;  if it is a prior's proximal operator, f + λ·(−log p) is minimised

    scheme           what is done                                                   evaluations of D   stops
    "hqs"            half-quadratic splitting along falling levels σ (DPIR)         8                  when all are done
    "hqs", one σ     the same at one level                                          tens               at a fixed point
    "pgd"            proximal gradient, D for the prox: no linear system            tens to hundreds   at a fixed point
    "admm"           alternating directions, D for the prox                         tens               at a fixed point
    "red"            regularisation by denoising, gradient steps                    hundreds           at a fixed point
    "gradient-step"  proximal gradient on a true energy, with line search           tens               where it is flat

The weight λ multiplies the prior in natural units, as `methods.MAP` has it: 1 is the prior as it stands, so that with
an exact Gaussian denoiser "admm" gives the posterior mean. The files `plug_and_play_*` have the mathematics of each
scheme, and what is known of its convergence: "gradient-step" alone has an energy with networks.

Any operator and any law of independent data will do. Data steps are solved in closed form where the operator has one,
else by conjugate gradients; counting noise and non-linear operators by Fisher scoring. "pgd" and "red" solve nothing.
Values outside the denoiser's range are the one common mistake: give `denoiser.scaled(low, high)` the range of the
images, for complex ones that of their real and imaginary parts, which are denoised as two images.

References: Venkatakrishnan, Bouman, Wohlberg, "Plug-and-play priors for model based reconstruction", GlobalSIP 2013.
Zhang et al., "Plug-and-play image restoration with deep denoiser prior", IEEE TPAMI 2022. Kamilov et al.,
"Plug-and-play methods for integrating physical and learned models in computational imaging", IEEE SPM 2023.
"""

__all__ = ["PlugAndPlay"]

import math
import time
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import InputError
from ..posterior.estimate import Estimate
from ..priors.denoiser import check_denoiser, check_range
from ..problem import Problem
from ..solvers.result import Result, Status
from .base import Callback, check_pair, silent
from .plug_and_play_data import DataTerm, smoothest_start
from .plug_and_play_fixed_point import MAPS, iterate
from .plug_and_play_gradient_step import descend
from .plug_and_play_prior import CountedDenoiser, CountedEnergy
from .plug_and_play_schedule import follow, levels

_SCHEMES = (*MAPS, "gradient-step")
_LEVELS = 8  # of DPIR's schedule
_LIMIT = 200
_MEMORY = 5
# Weights and level: best of a few on validation images of BSDS500 under camera shake and noise of 7.65/255.
_WEIGHTS = {"hqs": 0.23, "pgd": 0.25, "admm": 0.5, "red": 0.5, "gradient-step": 0.5}
_ACCURACY = 0.1  # of a data step, over the tolerance
# The denoiser's σ over the noise of the data, where none is given; of the energy the best of 1, 1.4 and 2 with the
# shipped weights, as a mean over four such images.
_LEVELS_OF = {"admm": 2.0, "red": 2.0, "gradient-step": 1.4}


@dataclass(frozen=True, eq=False)
class PlugAndPlay:
    """Reconstruction with a denoiser as the prior.

    Args:
        denoiser: anything with `denoise(x, sigma)`; for "gradient-step" with `value` and `gradient(x, sigma)` too.
        scheme: "hqs", "pgd", "admm", "red" or "gradient-step".
        sigma: noise level that the denoiser is told, in units of the image; for "hqs" also the levels one after the
            other. By default "hqs" goes from 49/255 of the denoiser's range down to the noise of the data, "pgd" takes
            the largest step that surely converges, "admm" and "red" twice the noise, "gradient-step" 1.4 times.
        weight: λ > 0 of the prior; by default 0.23 for "hqs", 0.25 for "pgd" (with a `sigma`: what follows from its
            step) and 0.5 for the others, which is best with networks; 1 with an exact Gaussian denoiser.
        iterations: levels of the schedule (8; 24 to 48 where pixels are missing, which fill in from their
            neighbours level by level), or the most evaluations of a map (200).
        acceleration: "anderson" for schemes that look for a fixed point.
        tolerance: on the relative change of one application of the map, or the relative gradient of "gradient-step".
        start: image to start from; by default the smoothest one that explains the data.

    Raises:
        InputError: an argument is out of range, or does not go with the scheme.

    Example:
        >>> import torch, obverse as ob
        >>> field = ob.priors.GaussianField(torch.ones(4, 4), (1, 4, 4))
        >>> problem = ob.Problem(ob.operators.Identity((1, 4, 4)), ob.noise.Gaussian(1.0))
        >>> result = PlugAndPlay(field, "admm", sigma=1.0, weight=1.0, tolerance=1e-6)(torch.ones(1, 4, 4), problem)
        >>> result.status.converged, round(result.image.mean().item(), 4)
        (True, 0.5)
    """

    denoiser: Any
    scheme: Literal["hqs", "pgd", "admm", "red", "gradient-step"] = "hqs"
    _: KW_ONLY
    sigma: float | Sequence[float] | None = None
    weight: float | None = None
    iterations: int | None = None
    acceleration: Literal["anderson"] | None = None
    tolerance: float = 1e-3
    start: Tensor | None = None

    def __post_init__(self):
        check_denoiser(self.denoiser, "PlugAndPlay")
        if self.scheme not in _SCHEMES:
            raise InputError(f"PlugAndPlay expects a scheme out of {', '.join(_SCHEMES)}, got {self.scheme!r}")
        if isinstance(self.sigma, Sequence | Tensor):
            object.__setattr__(self, "sigma", tuple(float(s) for s in self.sigma))
        several = self.sigma if isinstance(self.sigma, tuple) else ()
        given = several or (() if self.sigma is None else (self.sigma,))
        if not all(_positive(s) for s in given) or self.sigma == ():
            raise InputError(f"PlugAndPlay expects a positive sigma, got {self.sigma!r}; it is in units of the image")
        if several and (self.scheme != "hqs" or self.iterations is not None):
            raise InputError('PlugAndPlay expects several sigmas for scheme "hqs" only, and then no iterations')
        if self.weight is not None and not _positive(self.weight):
            raise InputError(f"PlugAndPlay expects a positive weight, got {self.weight!r}; 1 is the prior as it stands")
        if self.iterations is not None and self.iterations < 1:
            raise InputError(f"PlugAndPlay expects at least one iteration, got {self.iterations}")
        if self.acceleration not in (None, "anderson"):
            raise InputError(f'PlugAndPlay expects acceleration "anderson" or None, got {self.acceleration!r}')
        if self.acceleration and (self._scheduled or self.scheme == "gradient-step"):
            raise InputError(
                'PlugAndPlay accelerates schemes that look for a fixed point: "pgd", "admm", "red", and "hqs" with one '
                "sigma; leave acceleration out"
            )
        if not 0 < self.tolerance < 1:
            raise InputError(f"PlugAndPlay expects a tolerance between 0 and 1, got {self.tolerance}; 1e-3 is usual")
        if self.scheme == "gradient-step":
            CountedEnergy(self.denoiser)

    @property
    def _scheduled(self) -> bool:
        return self.scheme == "hqs" and not isinstance(self.sigma, int | float)

    @torch.no_grad()
    def __call__(self, y: Tensor, problem: Problem, *, callback: Callback | None = None) -> Estimate:
        """The reconstruction of each measurement.

        Args:
            y: data `(*batch, *data_shape)`; the items of a batch are reconstructed one by one.
            problem: any operator (a non-linear one needs a `start`) and a law of independent data.
            callback: told (iteration, total, value), the value being that of `history`.

        Returns:
            Estimate: `history` (of the last item) holds the relative changes, or with "gradient-step" the energy, which
            falls at every step. `diagnostics` tells the levels, the weight, the noise of the data in units of the
            image, evaluations of the denoiser, chi2 and seconds. A schedule that was gone through counts as converged,
            for "schedule-completed".

        Raises:
            InputError: the data do not fit, the image is not of the denoiser's units, or the step of "pgd" is too
                large.
        """
        began = time.perf_counter()
        check_pair(y, problem, "PlugAndPlay")
        problem._check(y)
        operator = problem.operator
        items = y.reshape(-1, *operator.data_shape)
        if not len(items):
            raise InputError("PlugAndPlay expects at least one measurement, got an empty batch")
        batch = y.shape[: y.ndim - len(operator.data_shape)]
        starts = [None] * len(items) if self.start is None else self._starts(problem, batch)
        outcomes = [
            self._item(item, problem, start, callback or silent) for item, start in zip(items, starts, strict=True)
        ]
        image = torch.stack([result.x for result, _ in outcomes]).reshape(*batch, *operator.image_shape)
        first = outcomes[0][1]
        diagnostics = {k: first[k] if len(outcomes) == 1 else [d[k] for _, d in outcomes] for k in first}
        diagnostics["seconds"] = time.perf_counter() - began
        results = [result for result, _ in outcomes]
        return Estimate(image, _status(results), results[-1].history, diagnostics)

    def _starts(self, problem: Problem, batch: tuple[int, ...]) -> list[Tensor]:
        assert self.start is not None
        shape = problem.operator.image_shape
        try:
            return list(self.start.expand(*batch, *shape).reshape(-1, *shape))
        except RuntimeError:
            raise InputError(
                f"PlugAndPlay expects a start that broadcasts to {(*batch, *shape)}, got {tuple(self.start.shape)}"
            ) from None

    def _item(
        self, y: Tensor, problem: Problem, start: Tensor | None, callback: Callback
    ) -> tuple[Result, dict[str, Any]]:
        counted = CountedEnergy(self.denoiser) if self.scheme == "gradient-step" else CountedDenoiser(self.denoiser)
        start = None if start is None else start.to(dtype=_image_type(y, problem), device=y.device)
        data = DataTerm(y, problem, start, _ACCURACY * self.tolerance)
        x0 = smoothest_start(data, counted.span) if start is None else start
        check_range(data.flattest() if data.linear else x0, self.denoiser, "PlugAndPlay")
        sigma, weight = self._parameters(data, counted)
        if isinstance(sigma, tuple):
            result = follow(data, counted, x0, sigma, weight, callback)
        else:
            limit = self.iterations or _LIMIT
            if isinstance(counted, CountedEnergy):
                result = descend(data, counted, x0, sigma, weight, self.tolerance, limit, callback)
            else:
                memory = _MEMORY if self.acceleration else 0
                result = iterate(self.scheme, data, counted, x0, sigma, weight, memory, self.tolerance, limit, callback)
        diagnostics = {
            "scheme": self.scheme,
            "sigma": sigma,
            "weight": weight,
            "noise_level": data.level,
            "iterations": result.iterations,
            "evaluations": counted.evaluations,
            "residual": result.residual,
            "chi2": float(problem.chi2(result.x, y)),
        }
        return result, diagnostics

    def _parameters(self, data: DataTerm, denoiser: CountedDenoiser) -> tuple[float | tuple[float, ...], float]:
        """The level or levels of the denoiser, and the weight."""
        weight = _WEIGHTS[self.scheme] if self.weight is None else float(self.weight)
        if isinstance(self.sigma, tuple):
            return self.sigma, weight
        if self.scheme == "hqs" and self.sigma is None:
            return levels(data, denoiser, self.iterations or _LEVELS), weight
        sigma = None if self.sigma is None else float(self.sigma)  # type: ignore[arg-type]
        if self.scheme != "pgd":
            return denoiser.within(_LEVELS_OF[self.scheme] * data.level) if sigma is None else sigma, weight
        if sigma is None:
            return math.sqrt(weight / data.lipschitz), weight
        if self.weight is None:
            return sigma, sigma**2 * data.lipschitz
        largest = math.sqrt(2 * weight / data.lipschitz)
        if sigma >= largest:
            raise InputError(
                f'PlugAndPlay expects sigma below {largest:.3g} for scheme "pgd" and weight {weight:g}, whose step has '
                f'to be below 2/L, got {sigma:g}; use scheme "admm", which has no such bound'
            )
        return sigma, weight


def _positive(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and value > 0


def _image_type(y: Tensor, problem: Problem) -> torch.dtype:
    """The type of the images of these data: their precision, complex if the operator's images are."""
    real = y.real.dtype if y.is_complex() else y.dtype
    return torch.promote_types(real, torch.complex32) if problem.operator.dtype.is_complex else real


def _status(results: list[Result]) -> Status:
    failed = [(i, result.status) for i, result in enumerate(results) if not result.status.converged]
    if not failed or len(results) == 1:
        return results[-1].status
    number, first = failed[0]
    message = f"{len(failed)} of {len(results)} items did not converge; item {number}: {first.message}"
    return Status(False, first.reason, message)
