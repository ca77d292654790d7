"""What a patch of a cube looks like when no source is there: a Gaussian law learned from the frames, and its tests.

The patch of K pixels about a pixel is in frame t a vector r_t, independent from frame to frame,

    r_t ~ N(m, s_t² C),    m = Σ u_t r_t / U,    S = (1/T) Σ u_t d_t d_tᵀ,    d_t = r_t − m,  u_t = 1/s_t²,  U = Σ u_t

with s_t = 1, or with scales of the fixed point s_t² = (1/K) d_tᵀ C⁻¹ d_t, which take bad frames back. S is drawn
towards its diagonal F, by as much as its sampling error asks for:

    C = (1 − ρ) S + ρ F,    ρ = (tr S² + tr² S − 2 Σ S_ii²) / ((T + 1) (tr S² − Σ S_ii²)), between 0 and 1

(T stands for U²/Σ u_t² where frames have scales; ρ = 1 where S is diagonal). A template h of a source gives in frame t

    a_t = u_t hᵀ C⁻¹ h,    b_t = u_t hᵀ C⁻¹ d_t,     flux Σ b / Σ a,    variance 1 / Σ a

Frame t helped to learn m and C, and with as many pixels as frames it is then found to be ordinary whatever it holds.
Left out, with c_t = u_t U / ((U − u_t) T), ρ and the scales kept,

    r_t − m₋ₜ = d_t U / (U − u_t),    C₋ₜ = T/(T − 1) (C − (1 − ρ) c_t d_t d_tᵀ − ρ c_t diag(d_t²))

whose inverse follows from C⁻¹: exactly for the term of rank one (Sherman and Morrison), to first order for the diagonal
one, which is smaller than F by a factor of 1/T on average.

References: Flasseur, Denis, Thiébaut, Langlois, "Exoplanet detection in angular differential imaging by statistical
learning of the nonstationary patch covariances. The PACO algorithm", A&A 2018. The same, "Robustness to bad frames in
angular differential imaging: a local weighting approach", A&A 2020. Chen, Wiesel, Eldar, Hero, "Shrinkage algorithms
for MMSE covariance estimation", IEEE TSP 2010.
"""

__all__ = ["PatchStatistics", "Patches", "disc", "seen_pixels", "shrinkage"]

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError

_SCALE_ROUNDS = 20
_SCALE_TOLERANCE = 1e-2  # of every scale, relatively: far below the error of a scale from one patch
_RIDGE = 1e-9  # of the mean variance of a patch: bounds the weight of a pixel that hardly varies


def disc(radius: int) -> Tensor:
    """Offsets (row, column) of the pixels within `radius` of the middle one: (K, 2).

    >>> len(disc(1)), len(disc(4))
    (5, 49)
    """
    side = torch.arange(-radius, radius + 1)
    offsets = torch.cartesian_prod(side, side)
    return offsets[offsets.square().sum(1) <= radius * radius]


def shrinkage(covariance: Tensor, count: Tensor | float) -> Tensor:
    """ρ of sample covariances `(*, K, K)` from `count` frames: `(*,)`.

    >>> shrinkage(torch.tensor([[1.0, 0.9], [0.9, 1.0]]), 40)
    tensor(0.0545)
    """
    variances = covariance.diagonal(dim1=-2, dim2=-1)
    total, power = variances.sum(-1).square(), covariance.square().sum((-2, -1))
    diagonal = variances.square().sum(-1)
    above, below = power + total - 2 * diagonal, (count + 1) * (power - diagonal)
    known = below > torch.finfo(covariance.dtype).eps * total
    return torch.where(known, above / torch.where(known, below, 1.0), 1.0).clamp(0, 1)


class Patches:
    """The patches of a cube, one for each pixel, zero where it is not seen and beyond the frames.

    Args:
        cube: `(T, H, W)`.
        seen: pixels to be used, `(H, W)`; see `seen_pixels`.
        radius: of the patches, in pixels.
    """

    def __init__(self, cube: Tensor, seen: Tensor, radius: int):
        frames, height, width = cube.shape
        margin = (radius,) * 4
        columns = torch.nn.functional.pad(torch.where(seen, cube, 0.0), margin).permute(1, 2, 0)
        self._columns = columns.reshape(-1, frames)  # one row for each pixel, so that a patch is K rows
        self._seen = torch.nn.functional.pad(seen, margin).reshape(-1)
        self._stride, self._radius = width + 2 * radius, radius
        self.offsets = disc(radius).to(cube.device)

    def at(self, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """The patches about N pixels through all frames, `(N, K, T)`, and which of their pixels are seen, `(N, K)`."""
        middle = (rows + self._radius) * self._stride + columns + self._radius
        index = middle[:, None] + (self.offsets[:, 0] * self._stride + self.offsets[:, 1])
        return self._columns[index], self._seen[index]


def seen_pixels(cube: Tensor) -> Tensor:
    """Pixels of a cube `(T, H, W)` that are finite in every frame and change with time: `(H, W)`.

    Raises:
        InputError: there is none.
    """
    cube = cube.detach()
    seen = cube.isfinite().all(0) & (cube != cube[:1]).any(0)
    if not bool(seen.any()):
        raise InputError("PACO expects pixels that are finite and change with time, got none; check the cube")
    return seen


@dataclass(frozen=True, eq=False)
class PatchStatistics:
    """Laws of N patches, each learned from its T frames; see `learned`.

    Args:
        residuals: d, `(N, K, T)`, zero where a pixel is unseen.
        factor: Cholesky factor of C, `(N, K, K)`.
        shrinkage: ρ, `(N,)`.
        weights: u, `(N, T)`.
        rounds: of the fixed point of the scales; 0 without.
    """

    residuals: Tensor
    factor: Tensor
    shrinkage: Tensor
    weights: Tensor
    rounds: int = 0

    @staticmethod
    def learned(patches: Tensor, seen: Tensor, frame_scales: bool = False) -> "PatchStatistics":
        """The law of patches `(N, K, T)` of which the pixels `(N, K)` are seen."""
        frames = patches.shape[-1]
        weights = patches.new_ones(len(patches), frames)
        size = seen.sum(-1, keepdim=True).clamp_min(1)
        for turn in range(_SCALE_ROUNDS + 1 if frame_scales else 1):
            total = weights.sum(-1, keepdim=True)
            residuals = patches - (patches @ weights[:, :, None]) / total[:, None]
            weighted = residuals if turn == 0 else residuals * weights[:, None]
            sample = weighted @ residuals.mT / frames
            rho = shrinkage(sample, total[:, 0].square() / weights.square().sum(-1))
            factor = torch.linalg.cholesky(_drawn(sample, rho, seen, size))
            if not frame_scales or turn == _SCALE_ROUNDS:
                break
            distance = (residuals * torch.cholesky_solve(residuals, factor)).sum(1)
            floor = torch.finfo(patches.dtype).eps * distance.mean(-1, keepdim=True) + torch.finfo(patches.dtype).tiny
            renewed = 1 / torch.maximum(distance, floor)
            renewed = renewed / renewed.mean(-1, keepdim=True)  # only u C⁻¹ counts, and their common scale is free
            change = float((renewed / weights - 1).abs().max().detach())
            weights = renewed
            if change < _SCALE_TOLERANCE:
                break
        return PatchStatistics(residuals, factor, rho, weights, turn)

    def tested(self, templates: Tensor) -> tuple[Tensor, Tensor]:
        """b `(N, J, T)` and a `(N, J, J, T)` of templates `(N, K, J)`, with every frame among those learned from."""
        filters = torch.cholesky_solve(templates, self.factor)
        precision = (filters.mT @ templates)[..., None] * self.weights[:, None, None]
        return (filters.mT @ self.residuals) * self.weights[:, None], precision

    def left_out(self, templates: Tensor) -> tuple[Tensor, Tensor]:
        """b and a as `tested` has them, with every frame tested by the law that is learned from the others."""
        d, u, frames = self.residuals, self.weights, self.residuals.shape[-1]
        count, total = templates.shape[-1], self.weights.sum(-1, keepdim=True)
        solved = torch.cholesky_solve(torch.cat([templates, d], -1), self.factor)
        w, z = solved[..., :count], solved[..., count:]
        c = u * total / ((total - u) * frames)
        one, diagonal = (1 - self.shrinkage)[:, None] * c, self.shrinkage[:, None] * c
        e = d * z
        gain = 1 / (1 - one * e.sum(1))  # of Sherman and Morrison
        p = w.mT @ d
        # contractions of diag(d²) with w and with z gain
        mixed, both = (w.mT @ (d * e)) * gain[:, None], e.square().sum(1) * gain.square()
        b = p * gain[:, None] + diagonal[:, None] * (mixed + one[:, None] * p * both[:, None])
        b = b * (u * total / (total - u) * (frames - 1) / frames)[:, None]
        pairs = (w[..., :, None] * w[..., None, :]).flatten(-2).mT @ d.square()
        squares = pairs.unflatten(1, (count, count))
        outer = p[:, :, None] * p[:, None, :]
        cross = p[:, :, None] * mixed[:, None, :]
        one, gain, both, diagonal = (v[:, None, None] for v in (one, gain, both, diagonal))
        a = (w.mT @ templates)[..., None] + one * gain * outer
        a = a + diagonal * (squares + one * (cross + cross.transpose(1, 2)) + one.square() * outer * both)
        return b, a * ((frames - 1) / frames * u)[:, None, None]


def _drawn(sample: Tensor, rho: Tensor, seen: Tensor, size: Tensor) -> Tensor:
    """C: the sample covariance drawn to its diagonal, with the mean variance in place of what is not seen."""
    variances = sample.diagonal(dim1=-2, dim2=-1)
    mean = variances.sum(-1, keepdim=True) / size
    mean = torch.where(mean > 0, mean, 1.0)
    diagonal = torch.where(seen, variances + _RIDGE * mean, mean)
    off = (1 - rho)[:, None, None] * sample
    return off + torch.diag_embed(diagonal - off.diagonal(dim1=-2, dim2=-1))
