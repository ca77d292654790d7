"""Variational autoencoders by the evidence lower bound, of images or of images given a measurement.

    Evidence               max E_q[log p(x | z)] − β KL(q(z | x) ‖ p(z)),               a bound of log p(x)
    ConditionalEvidence    max E_q[log p(x | z, c)] − β KL(q(z | x, c) ‖ p(z | c)),     a bound of log p(x | y)

The decoder's variance is learnt along, so that the first term is a log density and no weight between the two is left to
choose. β rises from 0 to 1 over the first items and free nats, which a latent variable may take without being charged,
fall to 0 meanwhile: both keep latent variables in use until the decoder needs them, and the bound that is maximised at
the end is untempered. Values are nats per pixel.

References: Kingma, Welling, "Auto-encoding variational Bayes", ICLR 2014. Bowman et al., "Generating sentences from a
continuous space", CoNLL 2016 (the warm-up). Kingma et al., "Improved variational inference with inverse autoregressive
flow", NeurIPS 2016 (free nats). Rybkin, Daniilidis, Levine, "Simple and effective VAE training with calibrated
decoders", ICML 2021.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ...errors import InputError
from ...methods.conditional_vae import condition
from ...methods.whitened import Whitened
from ...noise.base import stream
from ..data import Dataset, Place
from ..simulation import Simulation

__all__ = ["ConditionalEvidence", "Evidence"]

_TOGETHER = 32  # items validated at once
_DRAWS = 16  # of the latent, for the validation's mean image


class _Schedule:
    """β and free nats of an item by the number of items before it."""

    def __init__(self, warmup: int, free: float):
        if not (warmup >= 0 and 0 <= free < math.inf):
            raise InputError(f"an evidence bound expects a warm-up and free nats of at least 0, got {warmup}, {free}")
        self.warmup, self.free = warmup, free

    def charged(self, divergence: Tensor, batch: Sequence[Place]) -> Tensor:
        """What each item of the batch pays for its latent variables' divergences `(B, *latent)`: `(B,)`."""
        parts = [min(place.number / self.warmup, 1.0) if self.warmup else 1.0 for place in batch]
        share = torch.tensor(parts, dtype=divergence.dtype, device=divergence.device)
        nats = divergence.flatten(1)
        return share * torch.maximum(nats, self.free * (1 - share)[:, None]).sum(1)


class Evidence:
    """Train `networks.VAE`, or any network with its `encode` and `decode`.

    Args:
        warmup: items until β is 1.
        free: nats that each latent variable has free at the start.
    """

    metric = "evidence"

    def __init__(self, warmup: int = 0, free: float = 0.0):
        self.schedule = _Schedule(warmup, free)

    def loss(self, network: Any, data: Dataset, batch: Sequence[Place], device: torch.device) -> Tensor:
        """Mean over the batch of −(bound), in nats per pixel."""
        x = torch.stack([data.item(place.index, place.generator) for place in batch]).to(device)
        fit, divergence, _ = self._terms(network, x, batch)
        return (fit + self.schedule.charged(divergence, batch)).mean() / x[0].numel()

    def validate(self, network: Any, data: Dataset, device: torch.device) -> dict[str, float]:
        """The bound in nats per pixel, the divergence in nats an image, and the PSNR in dB (peak 1) of G(E[z | x])."""

        def figures(batch: list[Place]) -> dict[str, Tensor]:
            x = torch.stack([data.item(place.index, place.generator) for place in batch]).to(device)
            fit, divergence, mean = self._terms(network, x, batch)
            return _figures(fit, divergence, network.decode(mean)[0], x)

        return _over(data, figures)

    def _terms(self, network: Any, x: Tensor, batch: Sequence[Place]) -> tuple[Tensor, Tensor, Tensor]:
        """−log p(x | z) for a draw of z, the divergence of each latent variable, and the mean of z."""
        mean, log_variance = (value.float() for value in network.encode(x))
        z = mean + (0.5 * log_variance).exp() * _white(batch, mean)
        return _misfit(x, *network.decode(z)), _divergence(mean, log_variance), mean


class ConditionalEvidence:
    """Train `networks.ConditionalVAE`, or any network with its `prior`, `posterior` and `decode`.

    Args:
        operator: what measures, see `learning.simulation`.
        noise: its noise, see there.
        start: "solve" or "adjoint": what the network is given of the data, see `methods.ConditionalVAE`.
        warmup: items until β is 1.
        free: nats that each latent variable has free at the start.
    """

    metric = "evidence"

    def __init__(
        self,
        operator: Mapping[str, Any],
        noise: Mapping[str, Any],
        start: Literal["solve", "adjoint"] = "solve",
        warmup: int = 0,
        free: float = 0.0,
    ):
        self.simulation, self.start = Simulation(operator, noise), start
        self.schedule = _Schedule(warmup, free)

    def loss(self, network: Any, data: Dataset, batch: Sequence[Place], device: torch.device) -> Tensor:
        """Mean over the batch of −(bound), in nats per pixel."""
        x, c = self._drawn(data, batch, device)
        fit, divergence, _ = self._terms(network, x, c, batch)
        return (fit + self.schedule.charged(divergence, batch)).mean() / x[0].numel()

    def validate(self, network: Any, data: Dataset, device: torch.device) -> dict[str, float]:
        """The bound in nats per pixel, the divergence in nats an image, the PSNR in dB (peak 1) of 16 draws' mean."""

        def figures(batch: list[Place]) -> dict[str, Tensor]:
            x, c = self._drawn(data, batch, device)
            fit, divergence, (mean, scale) = self._terms(network, x, c, batch)
            images = [network.decode(mean + scale * _white(batch, mean), c)[0] for _ in range(_DRAWS)]
            return _figures(fit, divergence, torch.stack(images).mean(0), x)

        return _over(data, figures)

    def _drawn(self, data: Dataset, batch: Sequence[Place], device: torch.device) -> tuple[Tensor, Tensor]:
        x, y, problems = self.simulation.batch(data, batch, device)
        return x, condition(Whitened(y, problems, method="ConditionalVAE"), self.start)

    def _terms(
        self, network: Any, x: Tensor, c: Tensor, batch: Sequence[Place]
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """−log p(x | z, c) for a draw of z, the divergence of each latent variable, mean and deviation of z | c."""
        centre, spread = (value.float() for value in network.prior(c))
        shift, log_variance = (value.float() for value in network.posterior(x, c))
        scale = (0.5 * spread).exp()
        z = centre + scale * (shift + (0.5 * log_variance).exp() * _white(batch, centre))
        return _misfit(x, *network.decode(z, c)), _divergence(shift, log_variance), (centre, scale)


def _white(batch: Sequence[Place], like: Tensor) -> Tensor:
    return torch.stack([torch.randn(like.shape[1:], generator=place.generator) for place in batch]).to(like)


def _misfit(x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """−log N(x; mean, diag variance) of each image, `(B,)`."""
    variance = variance.float()
    return 0.5 * ((x - mean.float()).square() / variance + variance.log() + math.log(2 * math.pi)).flatten(1).sum(1)


def _divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, e^log_variance) ‖ N(0, 1)) of each latent variable."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)


def _figures(fit: Tensor, divergence: Tensor, image: Tensor, x: Tensor) -> dict[str, Tensor]:
    nats = divergence.flatten(1).sum(1)
    error = (image.float() - x).square().flatten(1).mean(1)
    return {"evidence": -(fit + nats) / x[0].numel(), "divergence": nats, "psnr": -10 * error.log10()}


def _over(data: Dataset, figures: Callable[[list[Place]], dict[str, Tensor]]) -> dict[str, float]:
    """Means over all items, with the same random numbers every time."""
    found: dict[str, list[Tensor]] = {}
    for first in range(0, len(data), _TOGETHER):
        batch = [Place(i, stream(2, i)) for i in range(first, min(first + _TOGETHER, len(data)))]
        for name, values in figures(batch).items():
            found.setdefault(name, []).append(values.cpu())
    return {name: float(torch.cat(values).mean()) for name, values in found.items()}
