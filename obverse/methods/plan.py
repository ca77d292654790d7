"""Which kernel and which step a Langevin sampler takes.

    MYULA      δ = ½ / L
    SK-ROCK    δ = min(½ limit(S) / L, 1/ā),   ā = tr(∇²U)/n,   S the fewest stages, at most 15, with δ L ≤ ½ limit(S)

A mode of precision a comes out right while δ a ≪ 1, and too narrow beyond δ a ≈ 1. With δ = 1/ā that is the lot of the
stiff minority only; where all modes are alike, as in denoising, few stages then do.
"""

__all__ = ["plan"]

from typing import Any

from torch import Tensor

from ..errors import InputError
from .kernels import SKROCK, Euler, Kernel
from .target import Target


def plan(settings: Any, target: Target, x: Tensor) -> tuple[Kernel, float]:
    """Kernel and step for a target, from its largest curvature and the typical one near the states `x`.

    Args:
        settings: the `Langevin` method; `kernel`, `step`, `stages` and `damping` are read.
        target: the density to sample.
        x: states `(chains, *image_shape)`.

    Raises:
        InputError: the given step is beyond the stability limit.
    """
    largest = target.lipschitz
    if settings.kernel == "myula":
        kernel: Kernel = Euler()
        step = 0.25 * kernel.limit / largest if settings.step is None else settings.step
    else:
        most = SKROCK(_MOST_STAGES if settings.stages is None else settings.stages, settings.damping)
        step = settings.step
        if step is None:
            step = min(0.5 * most.limit / largest, 1.0 / target.typical_curvature(x))
        counts = range(2, _MOST_STAGES + 1) if settings.stages is None else (settings.stages,)
        margin = 0.5 if settings.step is None else 1.0
        able = (SKROCK(stages, settings.damping) for stages in counts)
        kernel = next((k for k in able if step * largest <= margin * k.limit * (1 + 1e-9)), most)
    if step * largest > kernel.limit:
        raise InputError(
            f"Langevin expects a step of at most {kernel.limit / largest:.3e}, the stability limit of this kernel "
            f"and target, got {step:.3e}; leave it out to have it chosen"
        )
    return kernel, step


# Most gradients a step; Pereyra et al. (2020) use 10 to 15.
_MOST_STAGES = 15
