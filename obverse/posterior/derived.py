"""Covariances derived from another: c·Σ after a change of unit, D Σ D with a map, P Σ Pᵀ after a crop.

A crop of a covariance is the covariance of the cropped image; its principal components are *not* the cropped principal
components, which is why this goes through products: P Σ Pᵀ v embeds v, multiplies and cuts.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InputError
from .covariance import Components, Covariance, check_map
from .low_rank import LowRankDiagonal
from .product import ProductCovariance

__all__ = ["ModulatedCovariance", "RestrictedCovariance", "ScaledCovariance"]


class ScaledCovariance(Covariance):
    """c·Σ for a positive c.

    Args:
        base: Σ.
        factor: c, for example the square of a change of unit.
    """

    def __init__(self, base: Covariance, factor: float):
        super().__init__(base.image_shape, base.dtype, base.device)
        if not factor > 0:
            raise InputError(f"a covariance is scaled by a positive factor, got {factor}; pass the square of the scale")
        self.base = base
        self.factor = float(factor)

    def _matvec(self, images: Tensor) -> Tensor:
        return self.factor * self.base.matvec(images)

    def _solve(self, images: Tensor) -> Tensor:
        return self.base.solve(images) / self.factor

    def diagonal(self) -> Tensor:
        return self.factor * self.base.diagonal()

    def logdet(self) -> float:
        return self.base.logdet() + self.size * float(torch.tensor(self.factor, dtype=torch.float64).log())

    def dense(self) -> Tensor:
        return self.factor * self.base.dense()

    def components(self, k: int, *, products: int | None = None, seed: int = 0) -> Components:
        found = self.base.components(k, products=products, seed=seed)
        return Components(self.factor * found.variances, found.directions, self.factor * found.residuals)

    def sample(self, n: int, generator: torch.Generator) -> Tensor | None:
        draws = self.base.sample(n, generator)
        return None if draws is None else self.factor**0.5 * draws

    def compact(self, rank: int | None = None, *, seed: int = 0) -> LowRankDiagonal:
        return self.base.compact(rank, seed=seed).scaled(self.factor)

    def scaled(self, factor: float) -> Covariance:
        return ScaledCovariance(self.base, self.factor * factor)


class ModulatedCovariance(Covariance):
    """D Σ D with D = diag(s): a covariance of another's correlations whose standard deviations follow a map.

    Args:
        base: Σ.
        scale: s > 0, of the image's shape.
    """

    def __init__(self, base: Covariance, scale: Tensor):
        super().__init__(base.image_shape, base.dtype, base.device)
        self.base, self.scale = base, check_map(scale, base)

    def _matvec(self, images: Tensor) -> Tensor:
        scale = self.scale.to(images.dtype)
        return scale * self.base.matvec(scale * images)

    def _solve(self, images: Tensor) -> Tensor:
        scale = self.scale.to(images.dtype)
        return self.base.solve(images / scale) / scale

    def diagonal(self) -> Tensor:
        return self.scale.square() * self.base.diagonal()

    def logdet(self) -> float:
        return self.base.logdet() + 2 * float(self.scale.double().log().sum())

    def sample(self, n: int, generator: torch.Generator) -> Tensor | None:
        draws = self.base.sample(n, generator)
        return None if draws is None else self.scale * draws

    def modulated(self, scale: Tensor) -> Covariance:
        return ModulatedCovariance(self.base, self.scale * check_map(scale, self))


class RestrictedCovariance(Covariance):
    """P Σ Pᵀ, where P keeps `image[slices]`.

    Args:
        base: Σ.
        slices: one per axis of the image.
    """

    def __init__(self, base: Covariance, slices: Sequence[slice]):
        self.slices = tuple(slices)
        if len(self.slices) != len(base.image_shape):
            raise InputError(f"a crop expects {len(base.image_shape)} slices, one an axis, got {len(self.slices)}")
        if any(part.step is not None and part.step < 1 for part in self.slices):
            raise InputError(f"a crop expects slices with positive steps, got {self.slices}; flip the image instead")
        kept = [len(range(*part.indices(m))) for part, m in zip(self.slices, base.image_shape)]
        if min(kept) < 1:
            raise InputError(f"a crop expects to keep pixels of an image {base.image_shape}, got {self.slices}")
        super().__init__(kept, base.dtype, base.device)
        self.base = base

    def _matvec(self, images: Tensor) -> Tensor:
        whole = images.new_zeros(len(images), *self.base.image_shape)
        whole[(slice(None), *self.slices)] = images
        return self.base.matvec(whole)[(slice(None), *self.slices)]

    def diagonal(self) -> Tensor:
        return self.base.diagonal()[self.slices]

    def compact(self, rank: int | None = None, *, seed: int = 0) -> LowRankDiagonal:
        """Where products are dear, the crop of the compact form: its factors are those of the whole, cropped."""
        if isinstance(self.base, ProductCovariance):
            return self.base.compact(rank, seed=seed).restricted(self.slices)
        return super().compact(rank, seed=seed)

    def sample(self, n: int, generator: torch.Generator) -> Tensor | None:
        draws = self.base.sample(n, generator)
        return None if draws is None else draws[(slice(None), *self.slices)]
