"""PACO with patches of several sizes: one test of each place from those of every size.

Small patches learn their law from few frames; large ones hold more of a source, and more of what tells it from
speckles. Which is best changes with the place and with the number of frames. With patches of radius r there are Σ b_r
and its variance P_r, and z_r = Σ b_r/√P_r ~ N(0, 1) off the sources, all from the same frames: they are
correlated, by a matrix Q with entries of 0.5 to 0.9. All see the same flux α. So z ~ N(α u, Q) with u_r = √P_r, and

    b = uᵀ Q⁻¹ z,    P = uᵀ Q⁻¹ u,    S/N = b/√P

take their place. Q is measured at each distance from the star, as between channels (`paco_spectral`). Any weights leave
S/N N(0, 1), since P knows Q; these make a source stand out most. In white noise the largest patches know all that
the others know, and only they get weight.

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
