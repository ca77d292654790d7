"""A regulariser learnt through the denoiser that it defines, by implicit differentiation.

    min_θ E w(σ) ‖x̂ − x‖²,      x̂ = argmin_u ½‖u − (x + σε)‖² + R_σ(u; θ),      w = (σ s/√(σ² + s²))^(−3/2)

The minimiser is found to a certified distance and the gradient carried through it by conjugate gradients
(`learning.bilevel.implicit`), not through the steps of a solver: what is learnt is the energy, and it denoises as well
with any solver and any number of steps. The certificate that the problem is strongly convex is the network's own.

Reference: Goujon, Neumayer, Unser, "Learning weakly convex regularizers for convergent image-reconstruction
algorithms", SIAM J. Imaging Sciences 2024.
"""

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...errors import InputError
from ...networks.ridge import RidgeEnergy
from ..bilevel.implicit import through_minimiser
from ..data import Dataset, Place
from .denoising import flat_loss, psnr_by_level

__all__ = ["VariationalDenoising"]

_VALIDATION_LEVELS = (5 / 255, 15 / 255, 25 / 255)
_NORM = 1.02  # ‖W‖² while training: the filters are divided by its value inside the image; borders add about a percent


class VariationalDenoising:
    """Train R_σ.

    Args:
        sigma: lowest and highest noise level, drawn uniformly, in units of the image.
        accuracy: certified root mean square error of the minimiser, relative to σ.
        tolerance: relative residual of the adjoint equation.
        deviation: s, standard deviation of the images.
    """

    metric = "psnr_25"

    def __init__(
        self,
        sigma: Sequence[float] = (5 / 255, 30 / 255),
        accuracy: float = 0.03,
        tolerance: float = 0.01,
        deviation: float = 0.25,
    ):
        low, high = sigma
        if not (0 < low < high and accuracy > 0 and 0 < tolerance < 1):
            raise InputError(
                f"VariationalDenoising expects 0 < sigma[0] < sigma[1], a positive accuracy and a tolerance below 1, "
                f"got {low, high}, {accuracy}, {tolerance}"
            )
        self.low, self.high, self.accuracy, self.tolerance, self.deviation = low, high, accuracy, tolerance, deviation

    @property
    def sigma_range(self) -> tuple[float, float]:
        """Lowest and highest noise level seen."""
        return self.low, self.high

    def loss(self, network: nn.Module, data: Dataset, batch: Sequence[Place], device: torch.device) -> Tensor:
        """Mean weighted squared error of a batch."""
        assert isinstance(network, RidgeEnergy)
        clean, noisy, sigma = [], [], []
        for place in batch:
            x = data.item(place.index, place.generator)
            level = self.low + (self.high - self.low) * float(torch.rand((), generator=place.generator))
            clean.append(x)
            noisy.append(x + level * torch.randn(x.shape, generator=place.generator))
            sigma.append(level)
        x, y = torch.stack(clean).to(device), torch.stack(noisy).to(device)
        level = torch.tensor(sigma, device=device)
        ridges = dataclasses.replace(network.at(level), norm_squared=_NORM)
        with torch.no_grad():
            minimiser = ridges.denoise(y, self.accuracy * level).x
            curvature = ridges.curvature(minimiser)
        gradient = minimiser - y + ridges.gradient(minimiser)
        found = through_minimiser(
            minimiser, gradient, lambda v: v + ridges.product(curvature, v), self.tolerance, batch_dims=1
        )
        return flat_loss(found, x, level, self.deviation)

    def validate(self, network: nn.Module, data: Dataset, device: torch.device) -> dict[str, float]:
        """Mean PSNR in dB (peak 1) at σ = 5, 15 and 25 of 255, with the same noise every time."""
        return psnr_by_level(network, data, _VALIDATION_LEVELS, device)
