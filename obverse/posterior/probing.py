"""The diagonal of a matrix known only through products, by coloured random signs.

    z = ±1 on the pixels of one colour and 0 elsewhere:   diag(Σ)ᵢ ≈ zᵢ (Σ z)ᵢ = Σᵢᵢ + Σ_{j≠i, same colour} zᵢ zⱼ Σᵢⱼ

Pixels of one colour lie a stride apart, so that only correlations at that distance and beyond disturb; random signs
make the disturbance zero on average, and repeating them gives the standard error. If a similar matrix C with known
diagonal is at hand, Σ − βC is probed instead, with β from the repeats: where Σ resembles C, nearly nothing disturbs.
The mean square of draws is the alternative whose relative error, √(2/n), does not depend on correlations.

References: Tang, Saad, "A probing method for computing the diagonal of a matrix inverse", Numer. Linear Algebra Appl.
2012. Bekas, Kokiopoulou, Saad, "An estimator for the diagonal of a matrix", Appl. Numer. Math. 2007.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from .covariance import Covariance

__all__ = ["Probed", "drawn_diagonal", "probe_diagonal"]

# Repeats of every colour: enough for a standard error, few enough to leave the budget to the stride.
_REPEATS = 4
# Draws held in memory together.
_DRAWS_AT_ONCE = 8
# A variance is kept above this fraction of the mean variance.
_FLOOR = 1e-6
# Numbers in one batch of probes.
_BATCH_NUMBERS = 2**21


@dataclass(frozen=True, eq=False)
class Probed:
    """A probed diagonal.

    Args:
        diagonal: the estimate, `image_shape`.
        standard_error: of each entry, from the spread over repeats smoothed over the image's colours, `image_shape`.
        products: products with the matrix that it took.
        clipped: number of entries raised to the floor.
        kind: "probing" or "draws".
    """

    diagonal: Tensor
    standard_error: Tensor
    products: int
    clipped: int
    kind: str = "probing"


def probe_diagonal(
    matvec: Callable[[Tensor], Tensor],
    like: Covariance,
    budget: int,
    generator: torch.Generator,
    control: Covariance | None = None,
) -> Probed:
    """Estimate the diagonal of `matvec`, a symmetric positive product on images `(b, *like.image_shape)`.

    Args:
        matvec: the product.
        like: gives image shape, precision and device.
        budget: about how many products may be spent; at least four per channel are.
        generator: of the signs.
        control: a similar covariance with a known diagonal.
    """
    shape = like.image_shape
    dimensions = len(shape) - 1
    stride = max(1, int((budget / (shape[0] * _REPEATS) + 1e-9) ** (1 / dimensions)))
    colours = list(itertools.product(range(shape[0]), *(range(min(stride, m)) for m in shape[1:])))
    batch = max(1, _BATCH_NUMBERS // like.size)
    estimates, controls = [], []
    for _ in range(_REPEATS):
        signs = torch.randint(0, 2, shape, generator=generator, device=generator.device) * 2 - 1
        signs = signs.to(dtype=like.dtype, device=like.device)
        total, known = torch.zeros_like(signs), torch.zeros_like(signs)
        for start in range(0, len(colours), batch):
            probes = torch.stack([_coloured(signs, colour, stride) for colour in colours[start : start + batch]])
            # Each pixel belongs to one colour, so that the sum over probes puts every product in its place.
            total = total + (probes * matvec(probes)).sum(0)
            if control is not None:
                known = known + (probes * control.matvec(probes)).sum(0)
        estimates.append(total)
        controls.append(known)
    values = torch.stack(estimates)
    if control is not None:
        values = _controlled(values, torch.stack(controls), control.diagonal())
    diagonal = values.mean(0)
    floor = _FLOOR * float(diagonal.mean().clamp_min(0))
    # The spread over four repeats is itself noisy; its neighbourhood shares one law, so it is averaged locally.
    square = values.var(0) / _REPEATS
    # An estimate below its own error may be any small number: the error is the safe one, for an interval.
    raised = diagonal.maximum(square.sqrt()).clamp_min(floor)
    return Probed(raised, _smoothed(square).sqrt(), _REPEATS * len(colours), int((diagonal < floor).sum()))


def _coloured(signs: Tensor, colour: tuple[int, ...], stride: int) -> Tensor:
    """The signs of one colour, (channel, offset of each spatial axis), and zero elsewhere."""
    where = (colour[0], *(slice(offset, None, stride) for offset in colour[1:]))
    probe = torch.zeros_like(signs)
    probe[where] = signs[where]
    return probe


def drawn_diagonal(
    sample: Callable[[int, torch.Generator], Tensor | None], n: int, generator: torch.Generator, spent: int = 0
) -> Probed:
    """The mean square of `n` zero-mean draws: relative standard error √(2/n) at every pixel, never negative.

    Args:
        sample: `(n, generator) → (n, *image_shape)`.
        n: number of draws; they are taken a few at a time.
        generator: of the draws.
        spent: products already spent, to be counted.
    """
    total: Tensor | None = None
    for start in range(0, n, _DRAWS_AT_ONCE):
        draws = sample(min(_DRAWS_AT_ONCE, n - start), generator)
        if draws is None:
            raise InputError("marginal variances by draws expect a covariance that can be sampled; give a perturbation")
        square = draws.square().sum(0)
        total = square if total is None else total + square
    if total is None:
        raise InputError(f"marginal variances by draws expect at least one draw, got {n}")
    diagonal = total / n
    return Probed(diagonal, diagonal * math.sqrt(2 / n), spent + n, 0, "draws")


def _controlled(values: Tensor, controls: Tensor, truth: Tensor) -> Tensor:
    spread = controls - controls.mean(0)
    power = float(spread.square().sum())
    if power == 0:
        return values
    beta = float((spread * (values - values.mean(0))).sum()) / power
    return values - beta * (controls - truth)


def _smoothed(image: Tensor) -> Tensor:
    """Moving average over 5 pixels along each spatial axis, by edge replication."""
    for axis in range(1, image.ndim):
        index = torch.arange(image.shape[axis], device=image.device)
        shifted = [image.index_select(axis, (index + k).clamp(0, image.shape[axis] - 1)) for k in range(-2, 3)]
        image = torch.stack(shifted).mean(0)
    return image
