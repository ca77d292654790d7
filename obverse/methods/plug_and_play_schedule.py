"""Half-quadratic splitting along falling noise levels, a denoiser for the prior (DPIR).

    for σ_k from σ_1 down to σ_K:   x = argmin_x f(x) + (λ/σ_k²) ½ ‖x − z‖²,    z = D(x, σ_k)

With Gaussian noise of variance σ_n² this is argmin ‖y − Ax‖² + α_k ‖x − z‖² with α_k = λ σ_n²/σ_k². The levels are
even on a logarithmic scale: wide ones fill and smooth, narrow ones keep what the data say.

Why λ = 0.23: where A passes a mode by the factor a, its noise reaches x as a σ_n/(a² + α_k) ≤ σ_k/(2√λ), about the σ_k
that the denoiser takes away, whatever a and σ_n are. So λ should not be much below ¼; and one σ_k serves noise that
varies over the image.

References: Zhang et al., "Plug-and-play image restoration with deep denoiser prior", IEEE TPAMI 2022. Geman, Yang,
"Nonlinear image recovery with half-quadratic regularization", IEEE TIP 1995.
"""

__all__ = ["follow", "levels"]

import math

import torch
from torch import Tensor

from ..solvers.result import Result, Status
from .base import Callback
from .plug_and_play_data import DataTerm
from .plug_and_play_prior import CountedDenoiser
from .schedule import Schedule

_FIRST = 49 / 255  # of the range of the images: DPIR's first level
_LOWEST = 1 / 255  # of the range: below the steps of an 8-bit image there is nothing to denoise


def levels(data: DataTerm, denoiser: CountedDenoiser, count: int) -> tuple[float, ...]:
    """From 49/255 of the range down to the noise of the data, kept to what the denoiser knows."""
    last = denoiser.within(max(data.level, _LOWEST * denoiser.span))
    first = max(denoiser.within(_FIRST * denoiser.span), last)
    return Schedule(first, last, count, exponent=math.inf).levels()


def follow(
    data: DataTerm,
    denoiser: CountedDenoiser,
    start: Tensor,
    sigmas: tuple[float, ...],
    weight: float,
    callback: Callback,
) -> Result:
    """One data step and one denoising step at each level; `history` holds the relative changes of z."""
    z, history = start, []
    for k, sigma in enumerate(sigmas):
        following = denoiser(data.prox(z, weight / sigma**2), sigma)
        size = float(torch.linalg.vector_norm(following))
        moved = float(torch.linalg.vector_norm(following - z))
        history.append(moved / size if size > 0 else moved)
        z = following
        callback(k + 1, len(sigmas), history[-1])
        if not math.isfinite(history[-1]):
            message = f"the image was no longer finite at level {k + 1} of {len(sigmas)}; check denoiser and data"
            return Result(z, Status(False, "not-finite", message), k + 1, history[-1], tuple(history))
    message = (
        f"all {len(sigmas)} levels from {sigmas[0]:.3g} to {sigmas[-1]:.3g} were gone through, the last changing the "
        f"image by {history[-1]:.1e}: the schedule is the stopping rule, and no fixed point was looked for"
    )
    return Result(z, Status(True, "schedule-completed", message), len(sigmas), history[-1], tuple(history))
