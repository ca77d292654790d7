"""EPLL: an image whose every patch is likely under a mixture of Gaussians.

    min_x  n ‖x − y‖²/(2σ²) − Σ_i log p(P_i x),      p(v) = Σ_k w_k N(v − v̄; 0, C_k),      n = side²

by half-quadratic splitting: with b = 1, 4, 8, 16, 32 and the patch's noise variance t = σ²/b,

    k_i = argmax_k  log w_k + log N(P_i x − v̄_i; 0, C_k + t)
    z_i = v̄_i + C_{k_i} (C_{k_i} + t)⁻¹ (P_i x − v̄_i)                   (Wiener's filter of the patch)
    x   = (y + b z̄)/(1 + b),      z̄ the mean over the patches at each pixel

v̄ is a patch's mean. Finding k is nearly all the work. Of each C_k only the eigenvalues that t does not drown are kept;
the others count with their mean, which on average changes log N by less than a thousandth of their number. With a
stride, the patches' places move from one b to the next.

References: Zoran, Weiss, "From learning models of natural image patches to whole image restoration", ICCV 2011.
Parameswaran, Deledalle, Denis, Nguyen, "Accelerating GMM-based patch priors for image restoration: three ingredients
for a 100× speed-up", IEEE TIP 2019.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..errors import InputError

__all__ = ["PatchMixture"]

_SCHEDULE = (1.0, 4.0, 8.0, 16.0, 32.0)
_DROWNED = 0.05  # eigenvalues below this part of the noise variance count with their mean
_AT_ONCE = 8192  # patches


class PatchMixture(nn.Module):
    """D(x, σ) from a mixture of Gaussians over patches of one channel, without their means.

    Args:
        components: K.
        side: of a patch, pixels.
        stride: between patches; 1 is the published method, 2 is four times as fast.

    Attributes:
        weights: `(K,)`, positive, summing to one.
        variances: eigenvalues of C_k, `(K, n)`, for images from 0 to 1.
        axes: eigenvectors in columns, `(K, n, n)`.

    Example:
        >>> net = PatchMixture(components=2, side=4)
        >>> net(torch.zeros(3, 1, 9, 7), torch.full((3,), 0.1)).shape
        torch.Size([3, 1, 9, 7])
    """

    weights: nn.Parameter
    variances: nn.Parameter
    axes: nn.Parameter

    def __init__(self, components: int, side: int = 8, stride: int = 1):
        super().__init__()
        if components < 1 or side < 2 or not 1 <= stride <= side:
            raise InputError(
                f"PatchMixture expects components, a side of at least 2 and a stride up to it, got "
                f"{components, side, stride}"
            )
        self.side, self.stride, n = side, stride, side**2
        self.weights = nn.Parameter(torch.full((components,), 1.0 / components))
        self.variances = nn.Parameter(torch.full((components, n), 0.01))
        self.axes = nn.Parameter(torch.eye(n).expand(components, n, n).clone())

    @classmethod
    def of(cls, weights: Tensor, covariances: Tensor, stride: int = 1) -> "PatchMixture":
        """The network of a mixture with weights `(K,)` and covariances `(K, n, n)`, row by row within a patch."""
        side = math.isqrt(covariances.shape[-1])
        if covariances.shape != (len(weights), side**2, side**2):
            raise InputError(
                f"PatchMixture.of expects weights (K,) and covariances (K, n, n), n a square, got "
                f"{tuple(weights.shape)} and {tuple(covariances.shape)}"
            )
        network = cls(len(weights), side, stride)
        variances, axes = torch.linalg.eigh(covariances.double())
        with torch.no_grad():
            network.weights.copy_(weights / weights.sum())
            network.variances.copy_(variances.clamp_min(0.0))
            network.axes.copy_(axes)
        return network

    def log_joint(self, patches: Tensor, variance: float) -> Tensor:
        """log w_k + log N(v − v̄; 0, C_k + t), `(N, n)` → `(N, K)`, exactly."""
        v = patches - patches.mean(-1, keepdim=True)
        total = self.variances + variance
        energy = torch.einsum("kij,bi->bkj", self.axes, v).square() / total
        log = self.weights.log() - 0.5 * total.log().sum(-1) - 0.5 * v.shape[-1] * math.log(2 * math.pi)
        return log - 0.5 * energy.sum(-1)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The restored images of `x`, `(B, C, H, W)`, for `sigma` `(B,)`, positive; channels one by one."""
        if min(x.shape[-2:]) < self.side:
            raise InputError(
                f"PatchMixture expects images at least {self.side} pixels wide and high, got {tuple(x.shape)}; pad them"
            )
        with torch.autocast(x.device.type, enabled=False):
            levels = sigma.repeat_interleave(x.shape[1]).tolist()
            found = [self._restored(y, level) for y, level in zip(x.flatten(0, 1), levels, strict=True)]
        return torch.stack(found).reshape(x.shape)

    def _restored(self, y: Tensor, sigma: float) -> Tensor:
        x = y
        for turn, b in enumerate(_SCHEDULE):
            x = (y + b * self._filtered(x, sigma**2 / b, turn)) / (1 + b)
        return x

    def _filtered(self, x: Tensor, variance: float, turn: int) -> Tensor:
        """z̄: the mean of all patches' Wiener filters at each pixel of one image `(H, W)`."""
        within = torch.arange(self.side, device=x.device)
        columns = _places(x.shape[1], self.side, self.stride, turn % 2, x.device)
        rows = _places(x.shape[0], self.side, self.stride, turn // 2, x.device)
        total, count = torch.zeros_like(x), torch.zeros_like(x)
        search = self._search(variance)
        for band in rows.split(max(1, _AT_ONCE // len(columns))):
            place = ((band[:, None] + within)[:, None, :, None], (columns[:, None] + within)[None, :, None, :])
            patches = x[place].reshape(-1, self.side**2)
            means = patches.mean(-1, keepdim=True)
            z = (self._wiener(patches - means, search, variance) + means).reshape(len(band), len(columns), -1)
            for offset in range(self.side**2):
                down, across = divmod(offset, self.side)
                here = ((band + down)[:, None], columns + across)
                total[here] += z[..., offset]
                count[here] += 1
        return total / count

    def _search(self, variance: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What finding k takes: rows a, their components, and of each component 1/(tail + t) and a constant, so that
        log w_k + log N(v) = constant_k − ½ (|v|²/(tail_k + t) − Σ_{rows of k} (a·v)²)."""
        variances, n = self.variances, self.variances.shape[1]
        kept = variances > _DROWNED * variance
        drowned = n - kept.sum(1)
        tail = torch.where(kept, 0.0, variances).sum(1) / drowned.clamp_min(1)
        floor = (tail + variance).reciprocal()
        gain = (floor[:, None] - (variances + variance).reciprocal()).clamp_min(0.0).sqrt()
        rows = (gain[:, None] * self.axes).mT[kept]
        logs = torch.where(kept, (variances + variance).log(), 0.0).sum(1) - drowned * floor.log()
        return rows, kept.nonzero()[:, 0], floor, self.weights.log() - 0.5 * logs

    def _wiener(self, v: Tensor, search: tuple[Tensor, Tensor, Tensor, Tensor], variance: float) -> Tensor:
        rows, owners, floor, constant = search
        with torch.no_grad():
            score = torch.outer(floor, v.square().sum(1))
            score.index_add_(0, owners, (rows @ v.mT).square_(), alpha=-1.0)
            best = (constant[:, None] - 0.5 * score).argmax(0)
        z = torch.empty_like(v)
        for k, members in _groups(best):
            axes, own = self.axes[k], self.variances[k]
            z[members] = ((v[members] @ axes) * (own / (own + variance))) @ axes.mT
        return z


def _places(size: int, side: int, stride: int, shifted: int, device: torch.device) -> Tensor:
    """First pixels of the patches along one axis: the outermost always, the others moved by half a stride or not."""
    inner = range((stride // 2) * shifted, size - side, stride)
    return torch.tensor(sorted({0, size - side, *inner}), device=device)


def _groups(labels: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Each label that occurs and the places where it does."""
    order = labels.argsort()
    found, counts = labels[order].unique_consecutive(return_counts=True)
    yield from zip(found.tolist(), order.split(counts.tolist()), strict=True)
