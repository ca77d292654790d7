"""Tiles put together: every core in its place, and the posterior of the whole from the posteriors of the parts.

The factors of a tile are zero outside its core. Of all tiles' components the leading ones are kept, and the remainder
makes up for the rest, so that marginal variances stay exact; its correlation kernel is the mean of the tiles' kernels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from ..io.safe import read_safetensors
from ..posterior import Covariance, LowRankDiagonal, Posterior
from .plan import Plan, Tile

__all__ = ["Assembly", "join"]

ACROSS = (
    "The volume was reconstructed in {count} tiles: between pixels of different tiles only the correlation of near "
    "neighbours is represented, as the mean over tiles."
)


@dataclass(frozen=True)
class Assembly:
    """The whole, in the data's counts: float32 arrays (C, H, W) or (C, D, H, W), and a posterior if there is one.

    What else an instrument stores is in `others`: more arrays on that grid, and curves.
    """

    image: np.ndarray
    prediction: np.ndarray | None
    noise_std: np.ndarray | None
    posterior: Posterior | None
    warnings: tuple[str, ...]
    others: Mapping[str, np.ndarray] = field(default_factory=dict)


def join(work: Path, tiles: Plan, shape: tuple[int, ...], rank: int | None) -> Assembly:
    """Read the stored tiles in `work` and put them together.

    Args:
        work: folder of the stored tiles.
        tiles: the plan they belong to.
        shape: of the whole, channels first.
        rank: components to keep of the whole; all when None.
    """
    found: dict[str, np.ndarray] = {}
    for tile in tiles.tiles:
        stored, _ = read_safetensors(work / f"{tile.index:04d}.arrays.safetensors")
        for name, part in stored.items():
            if part.ndim != len(shape):  # a curve, of which one tile has as much as all
                found.setdefault(name, part)
                continue
            found.setdefault(name, np.empty(shape, dtype=np.float32))[(slice(None), *tile.core)] = part
    arrays: dict = {name: found.pop(name, None) for name in ("image", "prediction", "noise_std")} | {"others": found}
    paths = [work / f"{tile.index:04d}.posterior.safetensors" for tile in tiles.tiles]
    if not all(path.is_file() for path in paths):
        return Assembly(**arrays, posterior=None, warnings=())
    if tiles.whole:
        return Assembly(**arrays, posterior=Posterior.load(paths[0]), warnings=())
    parts = [Posterior.load(path) for path in paths]
    posterior = _whole(parts, tiles.tiles, torch.from_numpy(arrays["image"]), rank)
    return Assembly(**arrays, posterior=posterior, warnings=(ACROSS.format(count=len(parts)),))


def _whole(parts: list[Posterior], tiles: tuple[Tile, ...], mean: torch.Tensor, rank: int | None) -> Posterior:
    dtype = parts[0].mean.dtype
    factors = [part.covariance.factors(rank=_kept(part)) for part in parts]
    ranked = sorted(
        ((float(value), t, k) for t, (_, values, _) in enumerate(factors) for k, value in enumerate(values)),
        reverse=True,
    )
    ranked = ranked[: len(ranked) if rank is None else rank]
    variance = torch.empty(mean.shape, dtype=dtype)
    U = torch.zeros((len(ranked), *mean.shape), dtype=dtype)
    for part, tile in zip(parts, tiles, strict=True):
        variance[(slice(None), *tile.core)] = part.covariance.diagonal()
    for row, (_, t, k) in enumerate(ranked):
        U[(row, slice(None), *tiles[t].core)] = factors[t][0][:, k].reshape(parts[t].mean.shape)
    eigenvalues = torch.tensor([value for value, _, _ in ranked], dtype=dtype)
    flat = U.reshape(len(ranked), -1).T
    diagonal = (variance.reshape(-1) - flat.square() @ eigenvalues).clamp_min(0)
    kernel = _mean_kernel([part.covariance for part in parts])
    covariance = LowRankDiagonal.locally_correlated(flat, eigenvalues, diagonal, tuple(mean.shape), kernel)
    first = next((part for part in parts if not part.status.converged), parts[0])
    return Posterior(
        mean.to(dtype),
        first.status,
        covariance=covariance,
        target=first.target,
        provenance={**first.provenance, "tiles": len(parts)},
    )


def _kept(part: Posterior) -> int:
    return part.covariance.rank if isinstance(part.covariance, LowRankDiagonal) else 16


def _mean_kernel(covariances: list[Covariance]) -> torch.Tensor | None:
    """The mean of the tiles' correlation kernels, each zero beyond its own window; None if no tile has one."""
    kernels = [c.correlation for c in covariances if isinstance(c, LowRankDiagonal) and c.correlation is not None]
    if not kernels:
        return None
    window = [max(sizes) for sizes in zip(*(kernel.shape for kernel in kernels), strict=True)]
    total = torch.zeros(window, dtype=kernels[0].dtype)
    for kernel in kernels:
        inner = tuple(slice((w - k) // 2, (w + k) // 2) for w, k in zip(window, kernel.shape, strict=True))
        total[inner] += kernel / len(kernels)
    return total
