"""The total-variation step of ADMM in one pass over the image, compiled by numba where it is installed.

    q = α ∇x + (1 − α) z + u,      z⁺ = q · max(0, 1 − t/|q|),      u⁺ = q − z⁺,      returned: ∇ᴴ(z⁺ − u⁺)

∇ takes circular forward differences, so that ∇ᴴ∇ is diagonal in Fourier; a difference that wraps around the edge is not
penalised (z⁺ = q there), which makes the total variation the one with Neumann differences, exactly.
"""

__all__ = ["compiled_step", "plain_step"]

import inspect
import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

Step = Callable[[Tensor, Tensor, Tensor, float, float], Tensor]


def plain_step(x: Tensor, z: Tensor, u: Tensor, threshold: float, relaxation: float) -> Tensor:
    """The step in plain torch, for images `(C, *grid)` and fields `(axes, C, *grid)`; `z` and `u` are overwritten."""
    axes = z.shape[0]
    q = torch.stack([x.roll(-1, i - axes) for i in range(axes)]).sub_(x).mul_(relaxation)
    q.add_(z, alpha=1 - relaxation).add_(u)
    inside = q.clone()
    for i in range(axes):
        inside[i].narrow(i - axes, x.shape[i - axes] - 1, 1).zero_()
    wrapped = q - inside
    length = inside.square().sum(0).sqrt_()
    factor = (1 - threshold / length.clamp_min(torch.finfo(x.dtype).tiny)).clamp_min_(0)
    torch.add(inside.mul_(factor), wrapped, out=z)
    torch.sub(q, z, out=u)
    field = z - u
    total = torch.zeros_like(x)
    for i in range(axes):
        total += field[i].roll(1, i - axes) - field[i]
    return total


@cache
def compiled_step() -> Step | None:
    """The same for images `(C, H, W)`, compiled; None where numba is missing."""
    try:
        import numba
    except ImportError:
        return None

    shrink = numba.njit(fastmath=True, nogil=True, cache=True)(inspect.unwrap(_shrink))

    def step(x: Tensor, z: Tensor, u: Tensor, threshold: float, relaxation: float) -> Tensor:
        number = x.numpy().dtype.type
        field, out = torch.empty_like(z), torch.empty_like(x)
        tiny, rest = number(torch.finfo(x.dtype).tiny), number(1 - relaxation)
        arrays = (x.contiguous().numpy(), z.numpy(), u.numpy())
        shrink(*arrays, number(threshold), number(relaxation), rest, tiny, field.numpy(), out.numpy())
        return out

    return step


def _shrink(x, z, u, threshold, relaxation, rest, tiny, field, out):  # pragma: no cover - compiled
    channels, height, width = x.shape
    one, zero = relaxation + rest, rest - rest
    for c in range(channels):
        for i in range(height):
            below = i + 1 if i + 1 < height else 0
            for j in range(width):
                right = j + 1 if j + 1 < width else 0
                a = relaxation * (x[c, below, j] - x[c, i, j]) + rest * z[0, c, i, j] + u[0, c, i, j]
                b = relaxation * (x[c, i, right] - x[c, i, j]) + rest * z[1, c, i, j] + u[1, c, i, j]
                inner_a = a if below != 0 else zero
                inner_b = b if right != 0 else zero
                length = math.sqrt(inner_a * inner_a + inner_b * inner_b)
                factor = max(zero, one - threshold / max(length, tiny))
                shrunk_a = factor * a if below != 0 else a
                shrunk_b = factor * b if right != 0 else b
                z[0, c, i, j] = shrunk_a
                z[1, c, i, j] = shrunk_b
                u[0, c, i, j] = a - shrunk_a
                u[1, c, i, j] = b - shrunk_b
                field[0, c, i, j] = shrunk_a + shrunk_a - a
                field[1, c, i, j] = shrunk_b + shrunk_b - b
        for i in range(height):
            above = i - 1 if i > 0 else height - 1
            for j in range(width):
                left = j - 1 if j > 0 else width - 1
                down = field[0, c, above, j] - field[0, c, i, j]
                out[c, i, j] = down + field[1, c, i, left] - field[1, c, i, j]
