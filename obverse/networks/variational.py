"""Variational autoencoders: an image from a few latent numbers, and a learned variance of what these leave open.

    VAE               z ~ N(0, I),         x | z ~ N(G(z), v(z)),             q(z | x) = N(m, e^ℓ)
    ConditionalVAE    z | c ~ N(m_c, s²),  x | z, c ~ N(G(z, c), v(z, c)),    q(z | x, c) = N(m_c + s δ, s² e^ℓ)

    v = f² + softplus(a),      a one learned number ("scalar"), or an output of the decoder for every pixel ("pixel")

c is an image made from the measurement, and its noise level. The conditional posterior is told relative to the prior,
so that both can move together, and its divergence from it is that of N(δ, e^ℓ) from N(0, 1). f keeps the variance of
pixels that never change away from zero; ℓ is bent into (−8, 8), so that neither e^ℓ nor its gradient overflows.

References: Kingma, Welling, "Auto-encoding variational Bayes", ICLR 2014. Sohn, Lee, Yan, "Learning structured output
representation using deep conditional generative models", NeurIPS 2015. Rybkin, Daniilidis, Levine, "Simple and
effective VAE training with calibrated decoders", ICML 2021.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, cat, nn
from torch.nn.functional import interpolate, softplus

from ..errors import InputError

__all__ = ["ConditionalVAE", "VAE"]

_BEND = 8.0  # bound of log variances of the latent
_BEGIN = -3.0  # a, at first: a standard deviation of 0.22, about that of pictures from 0 to 1


class VAE(nn.Module):
    """A prior of images of one shape.

    Args:
        image_shape: `(C, H, W)`; height and width are multiples of 2^len(widths).
        latent: number of latent variables.
        widths: channels after each halving of the image, and before each doubling on the way back.
        variance: of the decoder: "scalar", one number for all pixels of all images, or "pixel", depending on both.
        floor: f, least standard deviation of the decoder, in units of the image.

    Example:
        >>> vae = VAE((1, 8, 8), latent=3, widths=(4, 8))
        >>> mean, log_variance = vae.encode(torch.zeros(2, 1, 8, 8))
        >>> image, variance = vae.decode(mean)
        >>> mean.shape, image.shape, variance.shape
        (torch.Size([2, 3]), torch.Size([2, 1, 8, 8]), torch.Size([2, 1, 8, 8]))
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        latent: int = 16,
        widths: Sequence[int] = (32, 64),
        variance: Literal["scalar", "pixel"] = "scalar",
        floor: float = 0.01,
    ):
        super().__init__()
        self.image_shape, self.latent = tuple(image_shape), latent
        multiple = 2 ** len(widths)
        if len(self.image_shape) != 3 or any(n < multiple or n % multiple for n in self.image_shape[1:]):
            raise InputError(f"VAE expects an image (C, H, W) in multiples of {multiple}, got {tuple(image_shape)}")
        if min(*self.image_shape, latent, *widths) < 1:
            raise InputError(f"VAE expects positive sizes, got {tuple(image_shape)}, latent {latent}, widths {widths}")
        channels, *size = self.image_shape
        self._coarse = (widths[-1], *(n // multiple for n in size))
        self.encoder = nn.Sequential(
            _halvings(channels, widths), nn.Flatten(), nn.Linear(math.prod(self._coarse), 2 * latent)
        )
        self.first = nn.Linear(latent, math.prod(self._coarse))
        doublings: list[nn.Module] = []
        for coarse, fine in zip(reversed(widths), [*reversed(widths[:-1]), widths[0]], strict=True):
            doublings += [nn.SiLU(), nn.ConvTranspose2d(coarse, fine, 4, 2, 1)]
        self.doublings = nn.Sequential(*doublings, nn.SiLU())
        self.variance = _Variance(channels, variance, floor, "VAE")
        self.tail = nn.Conv2d(widths[0], self.variance.outputs, 3, padding=1)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(z | x): `(B, C, H, W)` → twice `(B, latent)`."""
        mean, spread = self.encoder(x).chunk(2, 1)
        return mean, _bent(spread)

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of x | z: `(B, latent)` → twice `(B, C, H, W)`."""
        return self.variance(self.tail(self.doublings(self.first(z).unflatten(1, self._coarse))))


class ConditionalVAE(nn.Module):
    """Images that fit a measurement; of any size, since latent variables lie on a coarse grid.

    Args:
        network: the decoder, `(B, channels + 1 + latent, H, W)` → `(B, 2·channels, H, W)`, or `channels` where the
            variance is a scalar: the mean, as a difference from the image in c, and the numbers a.
        channels: of the images.
        latent: latent variables at each place of the coarse grid.
        widths: channels of the two encoders, which halve the image as often.
        variance: of the decoder: "pixel" or "scalar".
        floor: f, least standard deviation of the decoder, in units of the image.

    Example:
        >>> from obverse.networks import UNet
        >>> net = ConditionalVAE(UNet(4, 2, widths=(4, 8), blocks=1), latent=2, widths=(4, 8))
        >>> c = torch.zeros(3, 2, 8, 12)
        >>> net.prior(c)[0].shape, net.decode(net.prior(c)[0], c)[0].shape
        (torch.Size([3, 2, 2, 3]), torch.Size([3, 1, 8, 12]))
    """

    def __init__(
        self,
        network: nn.Module,
        channels: int = 1,
        latent: int = 4,
        widths: Sequence[int] = (32, 64),
        variance: Literal["scalar", "pixel"] = "pixel",
        floor: float = 0.01,
    ):
        super().__init__()
        if min(channels, latent, *widths) < 1:
            raise InputError(f"ConditionalVAE expects positive sizes, got {channels, latent, tuple(widths)}")
        self.network, self.channels, self.latent = network, channels, latent
        self.prior_encoder = nn.Sequential(_halvings(channels + 1, widths), nn.Conv2d(widths[-1], 2 * latent, 1))
        self.encoder = nn.Sequential(_halvings(2 * channels + 1, widths), nn.Conv2d(widths[-1], 2 * latent, 1))
        self.variance = _Variance(channels, variance, floor, "ConditionalVAE")

    def prior(self, c: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of z | c: `(B, channels + 1, H, W)` → twice `(B, latent, h, w)`."""
        mean, spread = self.prior_encoder(c).chunk(2, 1)
        return mean, _bent(spread)

    def posterior(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """δ and ℓ: mean and log variance of (z − m_c)/s under q(z | x, c), as `prior`'s."""
        mean, spread = self.encoder(cat([x, c], 1)).chunk(2, 1)
        return mean, _bent(spread)

    def decode(self, z: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of x | z, c: twice `(B, channels, H, W)`."""
        maps = interpolate(z, size=c.shape[-2:], mode="nearest")
        mean, variance = self.variance(self.network(cat([c, maps], 1)))
        return c[:, : self.channels] + mean, variance


class _Variance(nn.Module):
    """The decoder's last step: what it put out becomes mean and variance."""

    def __init__(self, channels: int, kind: str, floor: float, owner: str):
        super().__init__()
        if kind not in ("scalar", "pixel"):
            raise InputError(f'{owner} expects a variance "scalar" or "pixel", got {kind!r}')
        if not 0 < floor < math.inf:
            raise InputError(f"{owner} expects a positive floor, got {floor}; 0.01 is usual for images from 0 to 1")
        self.outputs, self.floor = channels * (1 if kind == "scalar" else 2), floor
        self.number = nn.Parameter(torch.tensor(_BEGIN)) if kind == "scalar" else None

    def forward(self, found: Tensor) -> tuple[Tensor, Tensor]:
        if found.shape[1] != self.outputs:
            raise InputError(
                f"a decoder's network expects {self.outputs} outputs here, got {found.shape[1]}; mend its description"
            )
        if self.number is None:
            mean, a = found.float().chunk(2, 1) if found.dtype != torch.float64 else found.chunk(2, 1)
            a = a + _BEGIN
        else:
            mean, a = found, self.number.to(found).expand_as(found)
        return mean, self.floor**2 + softplus(a)


def _halvings(inputs: int, widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in zip([inputs, *widths[:-1]], widths, strict=True):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.SiLU(), nn.Conv2d(after, after, 4, 2, 1), nn.SiLU()]
    return nn.Sequential(*layers)


def _bent(log_variance: Tensor) -> Tensor:
    return _BEND * torch.tanh(log_variance / _BEND)
