"""Supervised reconstruction: data are simulated on the fly, and the method's image is compared with the truth.

    min E ρ(method(A x + n) − x),      ρ the absolute or the squared error, in units of the image (0 to 1)

The method is any that has a differentiable `reconstruct`: its settings are the recipe's `method`, its network what is
trained. Every item has its own operator and noise level. Equilibrium methods may add weight · E‖vᵀJ‖²/n, which keeps
their fixed point attractive.
"""

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ... import methods
from ...errors import InputError
from ...noise.base import stream
from ..data import Dataset, Place
from ..simulation import Simulation

__all__ = ["Supervised"]

_METHODS = ("Unrolled", "Equilibrium", "Network")
_TOGETHER = 8  # items validated at once


class Supervised:
    """Train a method's network on simulated pairs.

    Args:
        method: `kind` "Unrolled", "Equilibrium" or "Network", and its settings other than the network.
        operator: what measures, see `learning.simulation`.
        noise: its noise, see there.
        loss: "l1" or "l2".
        jacobian: weight of the Jacobian penalty, for "Equilibrium".
    """

    metric = "psnr"

    def __init__(
        self,
        method: Mapping[str, Any],
        operator: Mapping[str, Any],
        noise: Mapping[str, Any],
        loss: Literal["l1", "l2"] = "l1",
        jacobian: float = 0.0,
    ):
        self.settings = dict(method)
        self.kind = self.settings.pop("kind", None)
        if self.kind not in _METHODS:
            raise InputError(f"Supervised expects a method of kind {', '.join(_METHODS)}, got {self.kind!r}")
        known = set(inspect.signature(getattr(methods, self.kind)).parameters) - {"network", "card"}
        if not set(self.settings) <= known:
            unknown = ", ".join(sorted(set(self.settings) - known))
            raise InputError(f"{self.kind} expects settings out of {', '.join(sorted(known))}, got {unknown}")
        if loss not in ("l1", "l2"):
            raise InputError(f'Supervised expects loss "l1" or "l2", got {loss!r}')
        if not 0 <= jacobian < math.inf or (jacobian and self.kind != "Equilibrium"):
            raise InputError(
                f"Supervised expects a Jacobian weight of at least 0, and 0 for {self.kind}, got {jacobian}"
            )
        self.simulation = Simulation(operator, noise)
        self.squared, self.jacobian = loss == "l2", jacobian

    def loss(self, network: nn.Module, data: Dataset, batch: Sequence[Place], device: torch.device) -> Tensor:
        """Mean error of a batch, of which each item is measured by a problem of its own."""
        x, y, problems = self.simulation.batch(data, batch, device)
        method = getattr(methods, self.kind)(network, **self.settings)
        found = method.reconstruct(y, problems)
        error = found - x
        value = (error.abs().square() if self.squared else error.abs()).mean()
        if self.jacobian:
            value = value + self.jacobian * method.jacobian_penalty(found.detach(), y, problems, batch[0].generator)
        return value

    def validate(self, network: nn.Module, data: Dataset, device: torch.device) -> dict[str, float]:
        """Mean PSNR in dB (peak 1) with the same operators and noise every time."""
        method = getattr(methods, self.kind)(network, **self.settings)
        decibels: list[float] = []
        for first in range(0, len(data), _TOGETHER):
            places = [Place(i, stream(2, i)) for i in range(first, min(first + _TOGETHER, len(data)))]
            x, y, problems = self.simulation.batch(data, places, device)
            error = (method.reconstruct(y, problems).float() - x).cpu()
            decibels += [-10 * math.log10(float(e)) for e in error.abs().square().flatten(1).mean(1)]
        return {"psnr": sum(decibels) / len(decibels)}
