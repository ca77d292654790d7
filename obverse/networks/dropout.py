"""Monte-Carlo dropout: every channel inside a network goes missing with a probability, when training and when asked.

    layer with input channels c:   W diag(b/(1 − p)) x,     b_c ~ Bernoulli(1 − p)

A mask is a draw of the weights: columns of W vanish. Read as a variational posterior of the weights, with a prior
N(0, τ²), the divergence is about (1 − p)‖W‖²/(2τ²): weight decay. p is not learnt, and neither the spread nor its limit
with more data is: how far draws differ says as much of p as of the data.

Reference: Gal, Ghahramani, "Dropout as a Bayesian approximation: representing model uncertainty in deep learning",
ICML 2016.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from .stochastic import RandomLayer, item_noise, linear_layers, replaced

__all__ = ["Dropout"]


class Dropout(nn.Module):
    """A network with dropout of the channels that enter each of its layers but the first.

    Args:
        network: with convolutions or linear layers, ungrouped.
        rate: p.
        prior: τ.

    Example:
        >>> from obverse.networks import DnCNN
        >>> from obverse.networks.stochastic import drawn
        >>> net, x = Dropout(DnCNN(1, 1, width=8, depth=3), rate=0.5), torch.rand(1, 1, 8, 8)
        >>> one, other = (drawn(net, torch.Generator().manual_seed(seed)) for seed in (0, 1))
        >>> bool(torch.equal(one(x), one(x))), bool(torch.equal(one(x), other(x)))
        (True, False)
    """

    def __init__(self, network: nn.Module, rate: float = 0.1, prior: float = 1.0):
        super().__init__()
        layers = linear_layers(network)
        if not 0 < rate < 1 or not prior > 0:
            raise InputError(f"Dropout expects a rate between 0 and 1 and a positive prior, got {rate} and {prior}")
        if len(layers) < 2 or any(getattr(layer, "groups", 1) != 1 for layer in layers):
            raise InputError(f"Dropout expects at least two ungrouped layers, got {len(layers)}; use another network")
        later = set(layers[1:])
        self.network = replaced(network, lambda module: _Dropped(module, rate, prior) if module in later else None)

    def forward(self, *arguments: Any) -> Tensor:
        return self.network(*arguments)


class _Dropped(RandomLayer):
    def __init__(self, layer: nn.Module, rate: float, prior: float):
        super().__init__(layer)
        self.rate, self.prior = rate, prior
        # Transposed convolutions name the inputs first.
        self.axis = 0 if "Transpose" in type(layer).__name__ else 1
        weight: Tensor = layer.weight  # type: ignore[assignment]
        self.inputs = weight.shape[self.axis]

    def random(self, x: Tensor, streams: Sequence[torch.Generator]) -> Tensor:
        mask = self._mask(item_noise(x, (self.inputs,), streams, normal=False))
        where = (*mask.shape[:1], *(1,) * (x.ndim - 2), -1) if isinstance(self.layer, nn.Linear) else None
        return self.layer(x * mask.reshape(where or (*mask.shape, *(1,) * (x.ndim - 2))))

    def draw(self, generator: torch.Generator) -> nn.Module:
        layer = copy.deepcopy(self.layer)
        weight: Tensor = layer.weight  # type: ignore[assignment]
        mask = self._mask(torch.rand(self.inputs, generator=generator, dtype=weight.dtype)).to(weight.device)
        with torch.no_grad():
            weight.mul_(mask.reshape([-1 if axis == self.axis else 1 for axis in range(weight.ndim)]))
        return layer

    def _mask(self, uniform: Tensor) -> Tensor:
        return (uniform >= self.rate).to(uniform) / (1 - self.rate)

    def divergence(self) -> Tensor:
        weight: Tensor = self.layer.weight  # type: ignore[assignment]
        return (1 - self.rate) * weight.square().sum() / (2 * self.prior**2)
