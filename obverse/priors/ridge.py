"""A learned ridge regulariser as a prior: explicit, smooth, and convex or weakly convex to a stated degree.

    value(x) = R_σ(x)/σ²,      R_σ(x) = Σ_c Σ_i ψ_{c,σ}((W_c x)_i)
    denoise(y, σ) = argmin_x ½‖x − y‖² + R_σ(x)                        (MAP of y = x + σε under this prior, weight 1)
    −ρ‖W‖²/σ² ≤ ∇² value ≤ L‖W‖²/σ²                                     (`weak_convexity`, `lipschitz`)

σ sets the size of the details that count as noise; it is the noise level when denoising, and a parameter to choose
besides the weight in other problems. Each channel of an image is an image of its own.

References: Goujon, Neumayer, Bohra, Ducotterd, Unser, "A neural-network-based convex regularizer for inverse problems",
IEEE TCI 2023. Goujon, Neumayer, Unser, "Learning weakly convex regularizers for convergent image-reconstruction
algorithms", SIAM J. Imaging Sciences 2024.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError, NumericsError
from ..networks.ridge import RidgeEnergy
from ..networks.ridges import Ridges
from .base import Hessian, Prior, check_step

__all__ = ["Ridge"]


@dataclass(frozen=True, eq=False)
class Ridge(Prior):
    """R_σ/σ² of a network.

    Args:
        network: trained for images from 0 to 1; its weights are taken as they are now.
        sigma: noise level, in units of the image.
        low: physical value that the network sees as 0.
        high: physical value that the network sees as 1.
        accuracy: of `denoise` and `prox`: certified root mean square error, relative to σ.
        card: what is known of the weights.

    Example:
        >>> prior = Ridge(RidgeEnergy((1, 4), kernel=3), sigma=0.1)
        >>> x = torch.rand(1, 8, 8)
        >>> prior.gradient(x).shape, float(prior.value(torch.full((1, 8, 8), 0.5))) < 1e-6
        (torch.Size([1, 8, 8]), True)
    """

    network: RidgeEnergy
    sigma: float = 25 / 255
    low: float = 0.0
    high: float = 1.0
    accuracy: float = 1e-3
    card: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if not (self.high > self.low and math.isfinite(self.sigma) and self.sigma > 0 and self.accuracy > 0):
            raise InputError(
                f"Ridge expects low < high and a positive sigma and accuracy, got [{self.low}, {self.high}], "
                f"{self.sigma} and {self.accuracy}"
            )
        with torch.no_grad():
            ridges = self._ridges_at(torch.tensor([self.sigma]))
        object.__setattr__(self, "_ridges", ridges)

    @property
    def smooth(self) -> bool:
        return True

    @property
    def proximable(self) -> bool:
        """False, so that methods take the gradient: `prox` is there, but each one is a problem to be solved."""
        return False

    @property
    def channels(self) -> int:
        """Of the network: one, each channel of an image being an image of its own."""
        return 1

    @property
    def sigma_range(self) -> tuple[float, float]:
        """Noise levels that the network was trained for, in units of the image."""
        low, high = self.card.get("sigma_range", (0.0, float("inf")))
        return low * self._span, high * self._span

    @property
    def lipschitz(self) -> float:
        """Lipschitz constant of the gradient: the largest curvature, or the largest negative one."""
        low, high = self._ridges.bounds  # type: ignore[attr-defined]
        return max(high, -low) / self.sigma**2

    @property
    def weak_convexity(self) -> float:
        """Least number that makes value(x) + ½ number ‖x‖² convex for certain; 0 for a convex prior."""
        return -self._ridges.bounds[0] / self.sigma**2  # type: ignore[attr-defined]

    def at(self, sigma: float) -> "Ridge":
        """The same prior for another noise level."""
        return dataclasses.replace(self, sigma=float(sigma))

    def scaled(self, low: float, high: float) -> "Ridge":
        """The same prior for images whose values run from `low` to `high`; sigma goes along."""
        slope = (float(high) - float(low)) / self._span
        return dataclasses.replace(self, low=float(low), high=float(high), sigma=self.sigma * slope)

    def value(self, x: Tensor) -> Tensor:
        energies = self._like(x).value(self._images(x)).reshape(x.shape[:-2])
        return energies.sum(-1) / self._unit(self.sigma) ** 2

    def gradient(self, x: Tensor) -> Tensor:
        slope = self._like(x).gradient(self._images(x)).reshape(x.shape)
        return slope / (self._span * self._unit(self.sigma) ** 2)

    def prox(self, x: Tensor, step: float) -> Tensor:
        """argmin_u value(u) + ‖u − x‖²/(2 step), certified to the `accuracy`.

        Raises:
            InputError: the prior is weakly convex and the step so long that the problem is not convex.
            NumericsError: the accuracy was not reached.
        """
        weight = check_step(step, "Ridge") / self.sigma**2
        return self._solved(x, self._like(x), self._unit(self.sigma), weight)

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """The most probable image under this prior at noise level σ, certified to the `accuracy`.

        Args:
            x: noisy images `(*batch, C, H, W)`, real.
            sigma: noise level in the image's unit, positive: a number, or one per image in the batch's shape.

        Raises:
            InputError: shape, type or noise level do not fit.
            NumericsError: the accuracy was not reached.
        """
        self._images(x)
        level = torch.as_tensor(sigma, dtype=torch.float32)
        if not bool(((level > 0) & level.isfinite()).all()):
            raise InputError(f"denoise expects a positive sigma, got {sigma}; pass the noise's standard deviation")
        levels = level.expand(x.shape[:-3]).reshape(-1).repeat_interleave(x.shape[-3])
        with torch.no_grad():
            return self._solved(x, self._ridges_at(levels).to(x), (levels / self._span).to(x), 1.0)

    def hessian(self, x: Tensor) -> Hessian:
        """Second derivative at one image; where a weakly convex ridge bends down, there are no draws from N(0, H)."""
        ridges = self._like(x)
        bend = ridges.curvature(self._images(x)) / self.sigma**2

        def matvec(v: Tensor) -> Tensor:
            responses = ridges.responses(self._images(v, centred=True)).reshape(-1, *bend.shape)
            stacked = (bend * responses).reshape(-1, *bend.shape[1:])
            return ridges.backprojected(stacked, (len(stacked), 1, *v.shape[-2:])).reshape(v.shape)

        def perturbation(generator: torch.Generator) -> Tensor:
            if bool((bend < 0).any()):
                raise InputError(
                    "draws from N(0, Hessian) expect a convex prior here, got negative curvatures; use a Ridge with "
                    "weak_convexity 0, or methods.Langevin"
                )
            white = torch.randn(bend.shape, generator=generator, dtype=x.dtype, device=generator.device).to(x.device)
            return ridges.backprojected(bend.sqrt() * white, (len(white), 1, *x.shape[-2:])).reshape(x.shape)

        return Hessian(matvec, perturbation)

    def bind(self, image_shape: Sequence[int]) -> "Ridge":
        if len(tuple(image_shape)) != 3:
            raise InputError(f"Ridge expects images (channels, height, width), got {tuple(image_shape)}")
        return self

    @property
    def _span(self) -> float:
        return self.high - self.low

    def _unit(self, sigma: float) -> float:
        return sigma / self._span

    def _ridges_at(self, sigma: Tensor) -> Ridges:
        like = next(self.network.parameters())
        return self.network.at((sigma / self._span).to(like))

    def _like(self, x: Tensor) -> Ridges:
        return self._ridges.to(x)  # type: ignore[attr-defined]

    def _images(self, x: Tensor, centred: bool = False) -> Tensor:
        """`(*batch, C, H, W)` in physical units → `(B·C, 1, H, W)`, from 0 to 1 unless they are differences."""
        if x.ndim < 3 or not x.is_floating_point():
            raise InputError(f"Ridge expects real images (*batch, channels, height, width), got {x.shape} {x.dtype}")
        return (x if centred else (x - self.low) / self._span).reshape(-1, 1, *x.shape[-2:])

    def _solved(self, x: Tensor, ridges: Ridges, level: float | Tensor, weight: float) -> Tensor:
        with torch.no_grad():
            result = ridges.denoise(self._images(x), self.accuracy * level, weight)
        if not result.status.converged:
            raise NumericsError(f"Ridge: {result.status.message}")
        return (self.low + self._span * result.x).reshape(x.shape)
