"""A network as a prior: its denoiser is the posterior mean under white noise, and with it the score of every level.

    D(x, σ) = E[image | image + σε = x],        ∇ log p_σ(x) = (D(x, σ) − x)/σ²       (Tweedie)

The network works on images from 0 to 1. Physical images are brought there by the affine map that sends [low, high] to
[0, 1], the noise level by its slope, and the answer back again.

References: Venkatakrishnan, Bouman, Wohlberg, "Plug-and-play priors for model based reconstruction", GlobalSIP 2013.
Efron, "Tweedie's formula and selection bias", JASA 2011.
"""

import copy
import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ..errors import InputError
from .tiles import HALO, by_tiles, tile_side

__all__ = ["Denoiser", "Denoises", "check_denoiser", "check_level", "check_range", "known_levels", "value_span"]


@runtime_checkable
class Denoises(Protocol):
    """Anything that can denoise: a shipped network, a Gaussian field, a mixture, your own class."""

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """E[image | image + σε = x] for `x` of shape `(*batch, C, H, W)`, σ a number or of the batch's shape."""
        ...


def check_denoiser(denoiser: object, method: str) -> None:
    """Refuse what cannot denoise.

    Raises:
        InputError: it has no `denoise`.
    """
    if not isinstance(denoiser, Denoises):
        raise InputError(
            f"{method} expects a denoiser with denoise(x, sigma), got {type(denoiser).__name__}; "
            "obverse.priors.load(name) gives one, obverse.priors.available() has the names"
        )


def check_level(level: float, denoiser: object, words: str) -> None:
    """Refuse a noise level outside those that a denoiser knows.

    Raises:
        InputError: it is, or it is not positive.
    """
    low, high = known_levels(denoiser)
    if not (0 < level < math.inf and low <= level <= high):
        raise InputError(
            f"{words} that the denoiser knows, from {low:.3g} to {high:.3g}, got {level}; it is in units of the image"
        )


def check_range(images: Tensor, denoiser: object, method: str) -> None:
    """Refuse images of other units than a denoiser's: whose median is more than its range away from its range.

    Raises:
        InputError: they are.
    """
    if not (hasattr(denoiser, "low") and hasattr(denoiser, "high")):
        return
    low, high, span = float(denoiser.low), float(denoiser.high), value_span(denoiser)  # type: ignore[attr-defined]
    for part in (images.real, images.imag) if images.is_complex() else (images,):
        middle = float(part.median())
        if not low - span <= middle <= high + span:
            raise InputError(
                f"{method} expects images in the denoiser's range, from {low:.3g} to {high:.3g}, got values of about "
                f"{middle:.3g}; denoiser.scaled(low, high) gives it the range of your images"
            )


def known_levels(denoiser: object) -> tuple[float, float]:
    """The noise levels that a denoiser knows: its `sigma_range`, or all."""
    return getattr(denoiser, "sigma_range", (0.0, math.inf))


def value_span(denoiser: object) -> float:
    """The range of the images that a denoiser knows; 1 where it names none."""
    return float(getattr(denoiser, "high", 1.0)) - float(getattr(denoiser, "low", 0.0))


@dataclass(frozen=True, eq=False)
class Denoiser:
    """A denoising network with its working range.

    A network for one channel treats the channels of an image as images of their own.

    Args:
        network: D(x, σ) on `(B, C, H, W)` with σ `(B,)`, for images from 0 to 1; used as it is, so in evaluation mode.
        channels: of the network.
        low: physical value that the network sees as 0.
        high: physical value that the network sees as 1.
        card: what is known of the weights.
        tile: side of the tiles that larger images are cut into, a multiple of 32; None takes every image whole.
        halo: pixels that a tile sees around itself, a multiple of 32.
        fast: compute convolutions in bfloat16, about twice as fast where the processor has it; what the network removes
            is then known to three digits, which is too few for derivatives and tight fixed points.

    Example:
        >>> class Shrink(nn.Module):
        ...     def forward(self, x, sigma):
        ...         return x / (1 + sigma.reshape(-1, 1, 1, 1) ** 2)
        >>> Denoiser(Shrink(), channels=1).denoise(torch.ones(1, 4, 4), 1.0).mean().item()
        0.5
    """

    network: nn.Module
    channels: int = 1
    low: float = 0.0
    high: float = 1.0
    card: Mapping[str, Any] = field(default_factory=dict)
    tile: int | None = None
    halo: int = HALO
    fast: bool = False

    def __post_init__(self):
        if not self.high > self.low:
            raise InputError(
                f"Denoiser expects low < high, got [{self.low}, {self.high}]; name the range of the images"
            )

    @property
    def sigma_range(self) -> tuple[float, float]:
        """Noise levels that the network was trained for, in units of the image."""
        low, high = self.card.get("sigma_range") or (0.0, float("inf"))
        return low * (self.high - self.low), high * (self.high - self.low)

    def scaled(self, low: float, high: float) -> "Denoiser":
        """The same prior for images whose values run from `low` to `high`."""
        return dataclasses.replace(self, low=float(low), high=float(high))

    def tiled(self, memory: float) -> "Denoiser":
        """The same prior with images cut into tiles, so that the network's activations stay within `memory` bytes."""
        return dataclasses.replace(self, tile=tile_side(self.network, memory, self.halo))

    def to(self, *args: Any, **kwargs: Any) -> "Denoiser":
        """A copy on another device or in another precision; arguments as for `torch.nn.Module.to`."""
        return dataclasses.replace(self, network=copy.deepcopy(self.network).to(*args, **kwargs))

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """E[image | image + σε = x].

        Args:
            x: noisy images `(*batch, C, H, W)`, real; computed in the network's precision, returned in its own.
            sigma: noise level in the image's unit, positive: a number, or one per image in the batch's shape.

        Raises:
            InputError: shape, type or noise level do not fit.
        """
        images, levels = self._arranged(x, sigma)
        clean = (
            self._network(images, levels)
            if self.tile is None
            else by_tiles(self._network, images, levels, self.tile, self.halo)
        )
        return self.low + (self.high - self.low) * clean.reshape(x.shape).to(x)

    def _arranged(self, x: Tensor, sigma: float | Tensor) -> tuple[Tensor, Tensor]:
        """Images and levels as the network takes them: from 0 to 1, with its channels, in its precision."""
        if x.ndim < 3 or not x.is_floating_point() or (self.channels > 1 and x.shape[-3] != self.channels):
            raise InputError(
                f"denoise expects real images (*batch, {self.channels}, height, width), got {tuple(x.shape)} {x.dtype}"
            )
        span = self.high - self.low
        level = torch.as_tensor(sigma, dtype=x.dtype, device=x.device) / span
        if not bool(((level > 0) & level.isfinite()).all()):
            raise InputError(f"denoise expects a positive sigma, got {sigma}; pass the noise's standard deviation")
        like = next(self.network.parameters(), x)
        images = ((x - self.low) / span).reshape(-1, *x.shape[-3:]).to(like)
        levels = level.expand(x.shape[:-3]).reshape(-1).to(like)
        if self.channels == 1 and x.shape[-3] > 1:
            levels = levels.repeat_interleave(x.shape[-3])
            images = images.reshape(-1, 1, *x.shape[-2:])
        return images, levels

    def _network(self, images: Tensor, levels: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.fast):
            return self.network(images.contiguous(memory_format=torch.channels_last), levels)

    def score(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """∇ log p_σ(x), in units of 1/image; arguments as in `denoise`."""
        level = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
        level = level.reshape(*level.shape, *(1,) * 3) if level.ndim else level
        return (self.denoise(x, sigma) - x) / level.square()
