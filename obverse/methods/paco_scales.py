"""PACO with patches of several sizes: one test of each place from those of every size.

Small patches learn their law from few frames; large ones hold more of a source, and more of what tells it from
speckles. Which is best changes with the place and with the number of frames. With patches of radius r there are Σ b_r
and its variance P_r, and z_r = Σ b_r/√P_r ~ N(0, 1) off the sources, all from the same frames: their correlations Q are
0.7 to 0.95. All see the same flux α, so that z ~ N(α u, Q) with u_r = √P_r, and

    b = uᵀ Q⁻¹ z,    P = uᵀ Q⁻¹ u,    S/N = b/√P

take their place. Q is measured as that of channels is, and is exact where it matters: S/N stays N(0, 1) with any
weights, if Q is right. In white noise all that small patches know large ones know too, and the weights say so.

References: as in `patch_statistics`. Bodrito, Flasseur, Mairal, Ponce, Langlois, Lagrange, "A new statistical model of
star speckles for learning to detect and characterize exoplanets in direct imaging observations", CVPR 2025.
"""

__all__ = ["joined_scales"]

from collections.abc import Sequence

import torch
from torch import Tensor

from .paco_spectral import combined


def joined_scales(
    sums: Sequence[tuple[Tensor, Tensor, Tensor]], distance: Tensor, width: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Σ b on the sky, its variance, and the fraction of the frames that see each place, from those of every size.

    Args:
        sums: of `derotated`, one for each radius.
        distance: of each pixel from the star, `(H, W)`.
        width: full width at half maximum of the PSF in pixels.
    """
    if len(sums) == 1:
        return sums[0]
    score, variance, seen = (torch.stack(parts) for parts in zip(*sums))
    flux, spread, _ = combined(score, variance, score.new_ones(1, len(sums)), distance, width)
    known = flux[0].isfinite()
    precision = torch.where(known, 1 / torch.where(known, spread[0], 1.0), 0.0)
    return torch.where(known, flux[0], 0.0) * precision, precision, seen.amin(0)
