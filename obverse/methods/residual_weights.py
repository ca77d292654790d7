"""The subtraction of principal components as weights on frames, found from the frames' inner products alone.

With the frames y_t in the rows of M, G = M Mᵀ, and for frame t the set S_t of n_t frames to learn from:

    m_t = (1/n_t) Σ_{s ∈ S_t} y_s,     C_t = the rows y_s − m_t, s ∈ S_t,     C_t C_tᵀ = V Λ Vᵀ      (leading k)
    projection of y_t − m_t = (y_t − m_t) C_tᵀ V Λ⁻¹ Vᵀ C_t
    r_t = y_t − m_t − projection = y_t − Σ_s w_ts y_s,      Σ_s w_ts = 1

The centred products are P_t G P_tᵀ with P_t = D_t − (1/n_t) d_t d_tᵀ, d_t the indicator of S_t and D_t the diagonal
matrix of it, so that each frame costs one eigenvalue problem of the size of the number of frames, whatever the number
of pixels. With one set for all frames there is a single problem.
"""

__all__ = ["frames_apart", "residual_weights"]

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InputError

_RANK = 1e-12  # of the largest eigenvalue: components below are rounding
_AT_ONCE = 2**24  # numbers in the matrices that are decomposed together


def frames_apart(degrees: Sequence[float], radius: float, distance: float) -> Tensor:
    """Which frames see a source at `radius` further than `distance` away, both in pixels: `(T, T)`, boolean.

    The distance is along the arc. A frame is never apart from itself.

    Example:
        >>> frames_apart([0.0, 1.0, 10.0], 20.0, 2.0)
        tensor([[False, False,  True],
                [False, False,  True],
                [ True,  True, False]])
    """
    angle = torch.tensor(degrees, dtype=torch.float64)
    turn = (angle[:, None] - angle + 180.0) % 360.0 - 180.0
    return radius * turn.abs() * (math.pi / 180) > distance


def residual_weights(frames: Tensor, components: int, apart: Tensor | None = None) -> Tensor:
    """w with which r = y − w y has neither the mean nor the leading components of the frames that it was learnt from.

    Args:
        frames: `(T, pixels)`.
        components: k; at most n_t − 1 are taken for frame t.
        apart: `(T, T)`, in row t the frames that frame t learns from; all of them, itself included, by default.

    Returns:
        `(T, T)` in float64.

    Raises:
        InputError: a frame has fewer than two others to learn from.
    """
    wide = frames.double()
    gram = wide @ wide.mT
    count = len(gram)
    if apart is None:
        return _weights(gram, torch.ones(1, count, dtype=gram.dtype, device=gram.device), None, components)
    fewest, frame = apart.sum(1).min(0)
    if int(fewest) < 2:
        raise InputError(
            f"annular components expect at least two frames to learn from, got {int(fewest)} for frame {int(frame)}: "
            "the sky turns too little between frames at this radius; lower gap, or raise inner_radius"
        )
    together = max(1, _AT_ONCE // count**2)
    allowed = apart.to(gram)
    rows = torch.arange(count, device=gram.device)
    parts = [_weights(gram, allowed[t], t, components) for t in rows.split(together)]
    return torch.cat(parts)


def _weights(gram: Tensor, allowed: Tensor, frame: Tensor | None, components: int) -> Tensor:
    """Rows of w for the given frames, each with its set; for all frames with the only set where `frame` is None."""
    number = allowed.sum(1)
    mean = allowed / number[:, None]
    centring = torch.diag_embed(allowed) - allowed[:, :, None] * mean[:, None, :]
    values, vectors = torch.linalg.eigh(centring @ gram @ centring.mT)
    values, vectors = values.flip(-1)[:, :components], vectors.flip(-1)[:, :, :components]
    kept = values > _RANK * values[:, :1].clamp_min(torch.finfo(values.dtype).tiny)
    kept &= torch.arange(values.shape[1], device=values.device) < number[:, None] - 1
    inverse = torch.where(kept, 1 / torch.where(kept, values, 1.0), 0.0)
    # the frame less the mean, against the centred frames: rows of (I − 1 mᵀ) G Pᵀ
    if frame is None:
        products = (gram - mean @ gram) @ centring[0].mT
        coefficients = (products @ vectors[0] * inverse[0]) @ vectors[0].mT
        return mean + coefficients @ centring[0]
    products = (gram[frame] - mean @ gram)[:, None, :] @ centring.mT
    coefficients = (products @ vectors * inverse[:, None, :]) @ vectors.mT
    return mean + (coefficients @ centring)[:, 0]
