"""Denoising at every level: the posterior mean by least squares.

    min E w(σ) ‖D(x + σε, σ) − x‖²,      w = (σ s/√(σ² + s²))^(−3/2)

Least squares makes D the mean E[x | x + σε], which Tweedie's formulas need (absolute error would give a median). The
weight flattens the loss over noise levels: the squared error of photographs grows about as σ^1.5 up to their own
variance s². Most levels are drawn uniformly from the range where images are restored; a share is drawn log-uniformly
above it, for sampling.

Reference: Karras, Aittala, Aila, Laine, "Elucidating the design space of diffusion-based generative models", 2022.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...errors import InputError
from ...noise.base import stream
from ..data import Dataset, Place
from .spectrum import spectrum_excess

__all__ = ["Denoising", "flat_loss", "psnr_by_level"]

_EXPONENT = 1.5
_LOWEST = 1e-4  # of the image's range: below the rounding of 8-bit images
_VALIDATION_LEVELS = (15 / 255, 25 / 255, 50 / 255)


class Denoising:
    """Train D(x, σ).

    Args:
        sigma: lowest and highest noise level drawn uniformly, in units of the image.
        high: highest level of the log-uniform share, or None.
        share: of the items whose level is drawn from [sigma[1], high].
        deviation: s, standard deviation of the images.
        spectrum: weight of `spectrum_excess`, on a quarter of a batch; for networks with a symmetric Jacobian.
    """

    metric = "psnr_25"

    def __init__(
        self,
        sigma: Sequence[float] = (0.0, 55 / 255),
        high: float | None = 4.0,
        share: float = 0.125,
        deviation: float = 0.25,
        spectrum: float = 0.0,
    ):
        low, top = sigma
        if not 0 <= spectrum < math.inf:
            raise InputError(f"Denoising expects a weight spectrum of at least 0, got {spectrum}; 0.1 is usual")
        if not (0 <= low < top and 0 <= share < 1 and (high is None or high > top)):
            raise InputError(f"Denoising expects 0 <= sigma[0] < sigma[1] < high, got {low, top, high}, share {share}")
        self.low, self.top, self.deviation = low, top, deviation
        self.high, self.share = high or top, share if high else 0.0
        self.spectrum = spectrum

    @property
    def sigma_range(self) -> tuple[float, float]:
        """Lowest and highest noise level seen."""
        return max(self.low, _LOWEST), self.high

    def loss(self, network: nn.Module, data: Dataset, batch: Sequence[Place], device: torch.device) -> Tensor:
        """Mean weighted squared error of a batch."""
        clean, noisy, sigma = [], [], []
        for place in batch:
            x = data.item(place.index, place.generator)
            which, where = torch.rand(2, generator=place.generator).tolist()
            if which < self.share:
                level = self.top * (self.high / self.top) ** where
            else:
                level = max(self.low + (self.top - self.low) * where, _LOWEST)
            clean.append(x)
            noisy.append(x + level * torch.randn(x.shape, generator=place.generator))
            sigma.append(level)
        x, z = torch.stack(clean).to(device), torch.stack(noisy).to(device)
        level = torch.tensor(sigma, device=device)
        value = flat_loss(network(z, level).float(), x, level, self.deviation)
        if self.spectrum:
            some = max(1, len(batch) // 4)
            seed = int(torch.randint(2**62, (), generator=batch[0].generator))
            value = value + self.spectrum * spectrum_excess(network, z[:some], level[:some], seed)
        return value

    def validate(self, network: nn.Module, data: Dataset, device: torch.device) -> dict[str, float]:
        """Mean PSNR in dB (peak 1) at σ = 15, 25 and 50 of 255, with the same noise every time."""
        return psnr_by_level(network, data, _VALIDATION_LEVELS, device)


def flat_loss(found: Tensor, truth: Tensor, sigma: Tensor, deviation: float) -> Tensor:
    """Mean squared error of images `(B, C, H, W)`, each weighted by (σs/√(σ² + s²))^(−3/2), σ of shape `(B,)`."""
    scale = sigma * deviation / (sigma.square() + deviation**2).sqrt()
    return ((found - truth).square().mean((1, 2, 3)) / scale**_EXPONENT).mean()


def psnr_by_level(network: nn.Module, data: Dataset, levels: Sequence[float], device: torch.device) -> dict[str, float]:
    """Mean PSNR in dB (peak 1) of a denoiser at some noise levels, with the same noise every time."""
    items = [data.item(i, stream(0, i)) for i in range(len(data))]
    found = {}
    for level in levels:
        decibels = []
        for start in range(0, len(items), 8):
            x = torch.stack(items[start : start + 8])
            noise = torch.stack([torch.randn(item.shape, generator=stream(1, start + i)) for i, item in enumerate(x)])
            z = (x + level * noise).to(device)
            sigma = torch.full((len(x),), level, device=device)
            error = (network(z, sigma).float().cpu() - x).square().mean((1, 2, 3))
            decibels += [-10 * math.log10(float(e)) for e in error]
        found[f"psnr_{round(level * 255)}"] = sum(decibels) / len(decibels)
    return found
