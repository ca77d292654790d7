"""Moments of draws that are seen once and not kept: mean, exact variance, low-rank covariance.

With a batch B of m draws (mean b) after n draws (mean μ), δ = b − μ:
    μ' = μ + m/(n+m) δ,     M' = M + Σ (B − b)² + nm/(n+m) δ²,     [U' S' ·] = svd([U S,  B − b,  √(nm/(n+m)) δ])

The last column is the correction for the moving mean; without it the leading factor is the drift of the mean. Since a
truncation only drops positive mass, diag(U Λ Uᵀ) never exceeds the variance, and the compact form keeps it exactly.

References: Ross, Lim, Lin, Yang, "Incremental learning for robust visual tracking", IJCV 2008. Brand, "Incremental
singular value decomposition of uncertain data with missing values", ECCV 2002. Chan, Golub, LeVeque, "Algorithms for
computing the sample variance", The American Statistician 1983.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..errors import InputError
from .low_rank import LowRankDiagonal

__all__ = ["StreamingMoments"]


class StreamingMoments:
    """Accumulates draws in batches; several accumulators (one a chain) merge into one.

    Args:
        image_shape: `(C, H, W)` or `(C, D, H, W)`.
        rank: factors that `covariance` returns.
        spare: further factors kept while streaming, so that a direction which grows late is not lost; default rank + 8.
        dtype: precision of the factors; mean and variance are always accumulated in float64.

    Example:
        >>> moments = StreamingMoments((1, 1, 2), rank=1)
        >>> moments.update(torch.tensor([[[[0.0, 1.0]]], [[[2.0, 1.0]]]]))
        >>> moments.mean.flatten().tolist(), moments.variance.flatten().tolist()
        ([1.0, 1.0], [2.0, 0.0])
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        rank: int,
        *,
        spare: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        if rank < 0 or (spare is not None and spare < 0):
            raise InputError(f"streaming moments expect a rank ≥ 0 and spare factors ≥ 0, got {rank} and {spare}")
        self.image_shape = tuple(int(m) for m in image_shape)
        self.rank, self.spare, self.dtype = rank, rank + 8 if spare is None else spare, dtype
        size = int(torch.Size(self.image_shape).numel())
        self.count = 0
        self._mean = torch.zeros(size, dtype=torch.float64, device=device)
        self._scatter = torch.zeros(size, dtype=torch.float64, device=device)
        # U·S of the scatter matrix: its columns are orthogonal, their squared norms its eigenvalues.
        self._root = torch.zeros(size, 0, dtype=dtype, device=device)

    def update(self, draws: Tensor) -> None:
        """Take in draws `(b, *image_shape)`, or one draw `image_shape`; they are not modified or kept."""
        batch = draws[None] if tuple(draws.shape) == self.image_shape else draws
        if tuple(batch.shape[1:]) != self.image_shape:
            raise InputError(f"draws expect shape (b, *{self.image_shape}), got {tuple(draws.shape)}; reshape them")
        if not bool(batch.isfinite().all()):
            raise InputError("draws expect finite values, got NaN or infinity: the chain diverged; use a smaller step")
        if len(batch) == 0:
            return
        flat = batch.detach().reshape(len(batch), -1).to(self._mean)
        mean = flat.mean(0)
        centred = flat - mean
        self._join(len(flat), mean, centred.square().sum(0), centred.mT.to(self.dtype))

    def merge(self, other: "StreamingMoments") -> None:
        """Take in what another accumulator has seen, for instance another chain."""
        if other.image_shape != self.image_shape:
            raise InputError(f"merge expects moments of {self.image_shape}, got {other.image_shape}")
        if other.count:
            self._join(other.count, other._mean, other._scatter, other._root.to(self.dtype))

    def _join(self, count: int, mean: Tensor, scatter: Tensor, root: Tensor) -> None:
        total = self.count + count
        weight = self.count * count / total
        shift = mean - self._mean
        columns = [self._root, root, (weight**0.5 * shift[:, None]).to(self.dtype)]
        self._mean = self._mean + (count / total) * shift
        self._scatter = self._scatter + scatter + weight * shift.square()
        self.count = total
        self._root = _truncated(torch.cat(columns, 1), self.rank + self.spare)

    @property
    def mean(self) -> Tensor:
        """Mean of the draws, `image_shape`, float64."""
        return self._mean.reshape(self.image_shape)

    @property
    def variance(self) -> Tensor:
        """Unbiased variance of every pixel, `image_shape`, float64; exact whatever the rank."""
        self._check_count()
        return (self._scatter / (self.count - 1)).reshape(self.image_shape)

    def covariance(self, rank: int | None = None, within: Tensor | None = None) -> LowRankDiagonal:
        """The compact covariance of the draws; its diagonal is `variance` exactly.

        Args:
            rank: factors kept.
            within: where the draws are means of laws with independent pixels, the mean of these laws' variances; the
                sum is the covariance of their mixture, Cov E[x | z] + E Cov[x | z].

        Raises:
            InputError: fewer than two draws were seen, or the variance is zero everywhere.
        """
        between = self.variance
        variance = (between if within is None else between + within.to(between)).to(self.dtype)
        if float(variance.max()) <= 0:
            raise InputError("a covariance expects draws that differ, got constant ones: the chain did not move")
        kept = self._root[:, : self.rank if rank is None else rank]
        norms = kept.norm(dim=0)
        alive = norms > 0
        U = kept[:, alive] / norms[alive]
        return LowRankDiagonal.from_marginals(U, norms[alive].square() / (self.count - 1), variance, self.image_shape)

    def state(self) -> dict[str, Tensor]:
        """Everything that `restored` needs, as tensors that a checkpoint can hold."""
        sizes = torch.tensor([self.count, self.rank, self.spare])
        return {"sizes": sizes, "mean": self.mean, "scatter": self._scatter.clone(), "root": self._root.clone()}

    @classmethod
    def restored(cls, state: Mapping[str, Tensor]) -> "StreamingMoments":
        """The accumulator whose `state` this was."""
        count, rank, spare = (int(number) for number in state["sizes"])
        mean, root = state["mean"], state["root"]
        built = cls(tuple(mean.shape), rank, spare=spare, dtype=root.dtype, device=root.device)
        built.count = count
        built._mean, built._scatter, built._root = mean.reshape(-1).clone(), state["scatter"].clone(), root.clone()
        return built

    def _check_count(self) -> None:
        if self.count < 2:
            raise InputError(f"a variance expects at least two draws, got {self.count}; run the sampler longer")


def _truncated(columns: Tensor, keep: int) -> Tensor:
    """The `keep` leading columns of U S, where U S Vᵀ = `columns`: by QR, then an SVD of the small factor."""
    q, r = torch.linalg.qr(columns)
    u, s, _ = torch.linalg.svd(r, full_matrices=False)
    return q @ (u[:, :keep] * s[:keep])
