"""A covariance known through its products, v ↦ Σ v, such as σ²J of a denoiser."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .correlation import TileSpectrum
from .covariance import Components, Covariance
from .probing import Probed, probe_diagonal

__all__ = ["ProductCovariance"]

# Products for the correlation of neighbours, which pixels average: as many as give so many pixels, within limits.
_PIXELS, _SIGNS = 2**17, (4, 32)


class ProductCovariance(Covariance):
    """Σ, matrix-free. Marginal variances are exact where `probes` products suffice for that, else probed.

    Args:
        product: Σ, symmetric on images `(b, *image_shape)`.
        image_shape: `(C, H, W)`.
        probes: budget of products for the diagonal.
        seed: of the probes.

    Example:
        >>> half = ProductCovariance(lambda v: v / 2, (1, 4, 4))
        >>> float(half.diagonal().mean())
        0.5
    """

    def __init__(
        self,
        product: Callable[[Tensor], Tensor],
        image_shape: Sequence[int],
        *,
        probes: int = 128,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        super().__init__(image_shape, dtype, device)
        self.product, self.probes, self.seed = product, probes, seed
        self._probed: Probed | None = None
        self._leading: dict[tuple[int | None, int], Components] = {}

    def components(self, k: int, *, products: int | None = None, seed: int = 0) -> Components:
        """As for every covariance; those found are kept, since products are dear."""
        self._check_rank(k, 1)
        kept = self._leading.get((products, seed))
        if kept is None or len(kept.variances) < k:
            kept = self._leading[products, seed] = self._found(k, products, seed)
        return Components(kept.variances[:k], kept.directions[:k], kept.residuals[:k])

    def _found(self, k: int, products: int | None, seed: int) -> Components:
        return super().components(k, products=products, seed=seed)

    def _matvec(self, images: Tensor) -> Tensor:
        return self.product(images)

    def diagonal(self) -> Tensor:
        return self._probe().diagonal

    def standard_error(self) -> Tensor:
        """Standard error of each entry of `diagonal()`; zero where it is exact."""
        return self._probe().standard_error

    def _left(self, U: Tensor, eigenvalues: Tensor, whiten: Tensor, seed: int) -> tuple[Tensor, float]:
        """From products with random signs: there need not be draws."""
        tiles, generator = TileSpectrum(self.image_shape[1:]), torch.Generator().manual_seed(seed)
        count = min(max(_PIXELS // self.size, _SIGNS[0]), _SIGNS[1])
        signs = torch.randint(0, 2, (count, self.size), generator=generator).to(U) * 2 - 1
        inner = whiten * signs
        inner = inner - (inner @ U) @ U.mT
        outer = self._matvec(inner.reshape(-1, *self.image_shape)).reshape(len(signs), -1).to(U)
        outer = whiten * (outer - (outer @ U) @ U.mT)
        shape = (len(signs), *self.image_shape)
        tiles.add(outer.reshape(shape), signs.reshape(shape))
        return tiles.mean, tiles.error

    def diagonal_report(self) -> dict[str, object]:
        """How the diagonal was found: `kind`, `products`, relative `standard_error`, and pixels raised to the floor."""
        found = self._probe()
        tiny = torch.finfo(self.dtype).tiny
        relative = float((found.standard_error / found.diagonal.clamp_min(tiny)).square().mean().sqrt())
        return {"kind": found.kind, "products": found.products, "standard_error": relative, "clipped": found.clipped}

    def _probe(self) -> Probed:
        if self._probed is None:
            if self.size <= self.probes:
                exact = self.dense().diagonal().to(self.dtype).reshape(self.image_shape)
                floor = 1e-6 * float(exact.mean().clamp_min(0))
                raised = int((exact < floor).sum())
                self._probed = Probed(exact.clamp_min(floor), torch.zeros_like(exact), self.size, raised, "exact")
            else:
                generator = torch.Generator().manual_seed(self.seed)
                self._probed = probe_diagonal(self._matvec, self, self.probes, generator)
        return self._probed
