"""Tiles put together: every core in its place, and the posterior of the whole from the posteriors of the parts.

The factors of a tile are zero outside its core. Of all tiles' components the leading ones are kept, and the diagonal
makes up for the rest, so that marginal variances stay exact; covariance across cores is not represented, which is said.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..io.safe import read_safetensors
from ..posterior import LowRankDiagonal, Posterior
from .plan import Plan, Tile

__all__ = ["Assembly", "join"]

ACROSS = (
    "The volume was reconstructed in {count} tiles: correlations between pixels of different tiles are not "
    "represented, so an interval for a region that spans tiles is too narrow where neighbouring errors agree."
)


@dataclass(frozen=True)
class Assembly:
    """The whole, in the data's counts: float32 arrays (C, H, W) or (C, D, H, W), and a posterior if there is one."""

    image: np.ndarray
    prediction: np.ndarray
    noise_std: np.ndarray
    posterior: Posterior | None
    warnings: tuple[str, ...]


def join(work: Path, tiles: Plan, shape: tuple[int, ...], rank: int | None) -> Assembly:
    """Read the stored tiles in `work` and put them together.

    Args:
        work: folder of the stored tiles.
        tiles: the plan they belong to.
        shape: of the whole, channels first.
        rank: components to keep of the whole; all when None.
    """
    arrays = {name: np.empty(shape, dtype=np.float32) for name in ("image", "prediction", "noise_std")}
    for tile in tiles.tiles:
        stored, _ = read_safetensors(work / f"{tile.index:04d}.arrays.safetensors")
        for name, whole in arrays.items():
            whole[(slice(None), *tile.core)] = stored[name]
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
    covariance = LowRankDiagonal(flat, eigenvalues, diagonal, tuple(mean.shape))
    first = next((part for part in parts if not part.status.converged), parts[0])
    return Posterior(
        mean.to(dtype),
        first.status,
        covariance=covariance,
        target=first.target,
        provenance={**first.provenance, "tiles": len(parts)},
    )


def _kept(part: Posterior) -> int:
    return part.covariance.U.shape[1] if isinstance(part.covariance, LowRankDiagonal) else 16
