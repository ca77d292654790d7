"""Networks whose weights are random: what dropout and Bayes-by-backprop share.

A layer has a law of its weights. Without further ado a network computes with their mean. While training, noise is
switched on for a batch, a stream of random numbers for every item (`noisy`); to explore the law, `drawn` gives copies
with one draw of all weights each, ordinary networks that hold their weights through every call: an unrolled algorithm
that asks its denoiser eight times asks the same one.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..errors import InputError

__all__ = ["RandomLayer", "divergence", "drawn", "item_noise", "linear_layers", "noisy", "replaced"]

_LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class RandomLayer(nn.Module):
    """A layer around `layer`, which is linear in its weights, that makes them random.

    Args:
        layer: whose weights are the mean.
    """

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer
        self.streams: Sequence[torch.Generator] | None = None

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if self.streams is None else self.random(x, self.streams)

    def random(self, x: Tensor, streams: Sequence[torch.Generator]) -> Tensor:
        """The layer with fresh random weights for every item."""
        raise NotImplementedError(f"{type(self).__name__} must define random")

    def draw(self, generator: torch.Generator) -> nn.Module:
        """The plain layer with one draw of its weights."""
        raise NotImplementedError(f"{type(self).__name__} must define draw")

    def divergence(self) -> Tensor:
        """Kullback–Leibler divergence of the weights' law from their prior."""
        raise NotImplementedError(f"{type(self).__name__} must define divergence")


@contextmanager
def noisy(network: nn.Module, streams: Sequence[torch.Generator]) -> Iterator[None]:
    """Random weights within the block, drawn anew at every call, item i of a batch from stream i."""
    layers = [module for module in network.modules() if isinstance(module, RandomLayer)]
    if not layers:
        raise InputError("expected a network with random weights, got none; wrap it in Dropout or GaussianWeights")
    try:
        for layer in layers:
            layer.streams = streams
        yield
    finally:
        for layer in layers:
            layer.streams = None


def drawn(network: nn.Module, generator: torch.Generator) -> nn.Module:
    """A copy with one draw of all random weights; the network itself if it has none."""
    if not any(isinstance(module, RandomLayer) for module in network.modules()):
        return network
    if isinstance(network, RandomLayer):
        return network.draw(generator)
    return replaced(
        copy.deepcopy(network), lambda module: module.draw(generator) if isinstance(module, RandomLayer) else None
    )


def divergence(network: nn.Module) -> Tensor:
    """The sum of the divergences of all random layers."""
    return torch.stack([part.divergence() for part in network.modules() if isinstance(part, RandomLayer)]).sum()


def replaced(network: nn.Module, function) -> nn.Module:
    """`network`, changed in place: every inner module for which `function` gives another is replaced by it."""
    for name, module in network.named_children():
        other = function(module)
        if other is None:
            replaced(module, function)
        else:
            setattr(network, name, other)
    return network


def linear_layers(network: nn.Module) -> list[nn.Module]:
    """Convolutions, transposed ones and linear maps, in the order in which the network names them."""
    return [module for module in network.modules() if isinstance(module, _LINEAR)]


def item_noise(x: Tensor, shape: Sequence[int], streams: Sequence[torch.Generator], normal: bool = True) -> Tensor:
    """Random numbers of shape `(len(x), *shape)`: rows of item i from stream i, whatever the others are."""
    rows = len(x) // len(streams)
    if rows * len(streams) != len(x):
        raise InputError(f"expected as many rows for each of {len(streams)} items, got {len(x)}; pass whole items")
    source = torch.randn if normal else torch.rand
    return torch.cat([source((rows, *shape), generator=own, dtype=x.dtype) for own in streams]).to(x.device)
