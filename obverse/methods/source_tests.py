"""Tests of a source in the patches that it visits: one about the pixel nearest to it in each frame, through all frames.

With d the residuals of those patches once a trial source is removed, C₋ₜ the law that the frames other than t teach
(see `patch_statistics`), and templates g_j (a source, and its derivatives along its place), t being the frame whose own
the patch is,

    G_j = Σ_t g_jtᵀ C₋ₜ⁻¹ d_t,     R_jk = Σ_t g_jtᵀ C₋ₜ⁻¹ (g_kt − mean over the other frames of g_k)

and κ is the mean over patches and frames of b²/a for the first template. Noise that lasts adds up over the frames: with
z = b/√a, and z_n that of the patch about the source's place in frame n, the variance of Σ b is more by the factor

    1 + 2/(N κ) Σ_n Σ_k [ mean over t of z_n(t) z_{n+k}(t + k) − mean over t ≠ t' of z_n(t) z_{n+k}(t') ],    k = 1, 2

Only the pixels of these patches are computed.
"""

__all__ = ["SourcePatches", "SourceTests"]

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from ..operators.field_rotation import FieldRotation
from .patch_statistics import PatchStatistics, disc, seen_pixels

_LASTING = 2  # frames: over more, in the sequences seen so far, hardly any noise that patches leave lasts
_LEAST = 1.0  # of the factor above, whose estimate in independent frames scatters by 0.14 (61 frames) to 0.4 (8)


@dataclass(frozen=True, eq=False)
class SourceTests:
    """G `(L, J)`, R `(L, J, J)`, κ `(L,)`, the factor of lasting noise `(L,)`, the channels' correlation `(L, L)`."""

    score: Tensor
    response: Tensor
    dispersion: Tensor
    persistence: Tensor
    correlation: Tensor

    @property
    def inflation(self) -> Tensor:
        """By how much the variance exceeds that of independent channels."""
        weight = self._weight
        return (weight @ self.correlation @ weight) / weight.square().sum()

    @property
    def lasting(self) -> Tensor:
        """By how much it exceeds that of independent frames, the mean over channels."""
        weight = self._weight.square()
        return (weight * self.persistence).sum() / weight.sum()

    @property
    def _weight(self) -> Tensor:
        return (self.response[:, 0, 0] / self.dispersion).clamp(min=0).sqrt()


class SourcePatches:
    """The patches of a cube about a source at a position, N of them: of the frames that have it.

    Args:
        cube: `operator.data_shape`; a pixel that is NaN in some frame is not used.
        operator: of the same precision.
        position: (row, column) on the sky.
        radius: of the patches.
        frame_scales: give each frame of a patch its own scale.

    Raises:
        InputError: the source is in no frame.
    """

    def __init__(
        self,
        cube: Tensor,
        operator: FieldRotation,
        position: tuple[float, float],
        radius: int,
        frame_scales: bool = False,
    ):
        height, width = cube.shape[-2:]
        nearest = operator.positions(position).round().long()
        inside = ((nearest >= 0) & (nearest < torch.tensor([height, width]))).all(1)
        if not bool(inside.any()):
            raise InputError(f"PACO expects a position whose source is in some frame, got {position}; see the coverage")
        self.operator, self._scales = operator, frame_scales
        self._own = torch.nonzero(inside)[:, 0]
        pixels = nearest[inside][:, None] + disc(radius)  # (N, K, 2)
        first = pixels.amin((0, 1)).clamp(min=0)
        past = torch.minimum(pixels.amax((0, 1)) + 1, torch.tensor([height, width]))
        self.rows, self.columns = (slice(a, b) for a, b in zip(first.tolist(), past.tolist(), strict=True))
        within = ((pixels >= first) & (pixels < past)).all(-1)
        rows, columns = (pixels - first).clamp(min=0).minimum(past - first - 1).unbind(-1)
        self._index = rows * int(past[1] - first[1]) + columns
        channels = (cube if cube.ndim == 4 else cube[None])[..., self.rows, self.columns]
        known = torch.stack([seen_pixels(channel) for channel in channels])
        self.seen = known.flatten(1)[:, self._index] & within  # (L, N, K)
        self.values = self._gathered(torch.where(known[:, None], channels, 0.0))

    def source(self, place: Tensor, spectrum: Tensor | float = 1.0) -> Tensor:
        """A source of unit flux in these patches: `(L, N, K, T)`."""
        cube = self.operator.source(place, spectrum, rows=self.rows, columns=self.columns)
        return self._gathered(cube if cube.ndim == 4 else cube[None])

    def law(self, removed: Tensor | float = 0.0) -> PatchStatistics:
        """Of the L N patches once a source is removed."""
        return PatchStatistics.learned((self.values - removed).flatten(0, 1), self.seen.flatten(0, 1), self._scales)

    def own(self, values: Tensor) -> Tensor:
        """Of each patch the frame that it belongs to: `(L, N, K)` of `(L, N, K, T)`."""
        return values[:, torch.arange(len(self._own)), :, self._own].transpose(0, 1)

    def others(self, values: Tensor, law: PatchStatistics) -> Tensor:
        """Of each patch the mean over the frames that it does not belong to, as the law weighs them: `(L, N, K)`."""
        share = law.weights / law.weights.sum(-1, keepdim=True)
        share = share.unflatten(0, values.shape[:2])[:, :, None]
        mine = self.own(share.expand_as(values))
        return ((values * share).sum(-1) - mine * self.own(values)) / (1 - mine)

    def own_residuals(self, law: PatchStatistics) -> Tensor:
        """Of each patch the residual of its frame about the mean of the others: `(L, N, K)`."""
        total = law.weights.sum(-1, keepdim=True)
        return self._mine(law.residuals * (total / (total - law.weights))[:, None])

    def own_precisions(self, law: PatchStatistics) -> Tensor:
        """Of each patch the inverse covariance that the other frames teach, for its own frame: `(L, N, K, K)`."""
        frames, total = law.residuals.shape[-1], law.weights.sum(-1, keepdim=True)
        u, d = self._mine(law.weights), self._mine(law.residuals)
        c = self._mine(law.weights * total / ((total - law.weights) * frames))
        rho = law.shrinkage.reshape_as(c)
        one, diagonal = ((1 - rho) * c)[..., None, None], (rho * c)[..., None]
        covariance = (law.factor @ law.factor.mT).unflatten(0, self.seen.shape[:2])
        covariance = covariance - one * d[..., :, None] * d[..., None, :] - torch.diag_embed(diagonal * d.square())
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(covariance))
        return ((frames - 1) / frames * u)[..., None, None] * inverse

    def score(self, removed: Tensor | float, templates: list[Tensor]) -> Tensor:
        """G, `(L, J)`, with a source removed."""
        b, _ = self.law(removed).left_out(torch.stack([self.own(g).flatten(0, 1) for g in templates], -1))
        return self._mine(b).sum(1)

    def tests(self, removed: Tensor | float, templates: list[Tensor], *, left_out: bool = True) -> SourceTests:
        """G and R of templates, each `(L, N, K, T)`, with a source removed; without `left_out` all frames teach."""
        law, count = self.law(removed), len(templates)
        here, away = [self.own(g) for g in templates], [self.others(g, law) for g in templates]
        both = torch.stack([v.flatten(0, 1) for v in here + away], -1)
        b, a = (law.left_out if left_out else law.tested)(both)
        mine = self._mine(a[:, :count])
        response = (mine[..., :count] - mine[..., count:]).sum(1)
        power = a[:, 0, 0]
        z = torch.where(power > 0, b[:, 0] / torch.where(power > 0, power, 1.0).sqrt(), 0.0)
        z = z.unflatten(0, self.seen.shape[:2])
        dispersion = z.square().mean((1, 2)) if left_out else z.new_ones(len(z))
        correlation = torch.corrcoef(z.flatten(1)).reshape(len(z), len(z))
        return SourceTests(self._mine(b[:, :count]).sum(1), response, dispersion, self._persistence(z), correlation)

    def _persistence(self, z: Tensor) -> Tensor:
        """The factor of noise that lasts, of tests `(L, N, T)`: `(L,)`."""
        frames, total, more = z.shape[-1], z.sum(-1), z.new_zeros(len(z))
        for lag in range(1, min(_LASTING, frames - 2) + 1):
            later = torch.searchsorted(self._own, self._own + lag).clamp(max=len(self._own) - 1)
            pairs = self._own[later] == self._own + lag
            one, other = z[:, pairs], z[:, later[pairs]]
            near = (one[..., :-lag] * other[..., lag:]).mean(-1)
            far = (total[:, pairs] * total[:, later[pairs]] - (one * other).sum(-1)) / (frames * (frames - 1))
            more = more + 2 * (near - far).sum(-1)
        power = z.square().mean(-1).sum(-1)
        return (1 + more / torch.where(power > 0, power, 1.0)).clamp(min=_LEAST)

    def _mine(self, values: Tensor) -> Tensor:
        """`(L, N, …)` of `(L N, …, T)`: of each patch the frame that it belongs to."""
        parts = values.unflatten(0, self.seen.shape[:2])
        index = self._own.reshape(1, -1, *[1] * (parts.ndim - 2)).expand(*parts.shape[:-1], 1)
        return parts.gather(-1, index)[..., 0]

    def _gathered(self, cube: Tensor) -> Tensor:
        """`(L, N, K, T)` of what lies in the window, `(L, T, rows, columns)`; zero where a patch sees nothing."""
        return cube.flatten(2).mT.contiguous()[:, self._index] * self.seen[..., None]
