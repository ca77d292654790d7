"""Measured pairs: a network that takes the measurement straight to the truth.

    min E ρ(f(y) − x),      ρ the squared or the absolute error

Least squares makes f the mean E[x | y] over the pairs, the absolute error a median of every pixel.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ...errors import InputError
from ...noise.base import stream
from ..data import Dataset, Place
from ..pairs import Pair

__all__ = ["Paired"]


class Paired:
    """Train f(y) on data of kind "pairs".

    Args:
        loss: "l2" or "l1".
    """

    metric = "psnr"
    data = "pairs"

    def __init__(self, loss: Literal["l1", "l2"] = "l2"):
        if loss not in ("l1", "l2"):
            raise InputError(f'Paired expects loss "l1" or "l2", got {loss!r}')
        self.squared = loss == "l2"

    def loss(self, network: nn.Module, data: Dataset, batch: Sequence[Place], device: torch.device) -> Tensor:
        """Mean error of a batch."""
        pairs = [data.item(place.index, place.generator) for place in batch]
        error = _error(network, pairs, device)
        return (error.abs().square() if self.squared else error.abs()).mean()

    def validate(self, network: nn.Module, data: Dataset, device: torch.device) -> dict[str, float]:
        """Mean PSNR in dB (peak 1)."""
        decibels = []
        for index in range(len(data)):
            error = _error(network, [data.item(index, stream(0, index))], device)
            decibels.append(-10 * math.log10(max(float(error.abs().square().mean()), 1e-30)))
        return {"psnr": sum(decibels) / len(decibels)}


def _error(network: nn.Module, pairs: Sequence[Pair], device: torch.device) -> Tensor:
    measurement = torch.stack([pair.measurement for pair in pairs]).to(device)
    truth = torch.stack([pair.truth for pair in pairs]).to(device)
    found = network(measurement)
    if found.shape != truth.shape:
        raise InputError(f"Paired expects a network that gives {tuple(truth.shape)}, got {tuple(found.shape)}; mend it")
    return found.to(truth.dtype) - truth
