"""Variational inference of a network's weights: another objective with noise in the weights, and what that costs.

    −log p(data | w) = (N/2e²) Σ_i ℓ_i(w)/I + const,     min  E_q ℓ(w) + (2e²/N) KL(q ‖ p)

ℓ is the mean squared error of the wrapped objective, I its items, N the numbers that they count as and e² what of ℓ no
weights remove: about the loss of the network when trained without noise (of "Denoising", the weighted loss). The
network has layers of `networks.GaussianWeights` (Bayes-by-backprop with local reparametrisation) or `networks.Dropout`.
Neighbouring pixels err alike, so N may be taken smaller than all pixels: with fewer the weights stay wider. Noise of
item i comes from its own stream.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import InputError
from ...networks.stochastic import divergence, noisy
from ..data import Dataset, Place

__all__ = ["WeightInference"]

_SQUARED = ("Denoising", "Supervised")


class WeightInference:
    """Train the law of a network's weights.

    Args:
        objective: one with a squared error: "Denoising", or "Supervised" with loss "l2".
        error: e, the root of the loss that remains.
        count: N.
    """

    def __init__(self, objective: Mapping[str, Any], error: float, count: float):
        from . import make_objective

        kind = objective.get("kind")
        if kind not in _SQUARED:
            raise InputError(f"WeightInference expects an objective of kind {', '.join(_SQUARED)}, got {kind!r}")
        if not (0 < error < math.inf and 1 <= count < math.inf):
            raise InputError(f"WeightInference expects a positive error and a count from 1, got {error} and {count}")
        self.objective = make_objective(objective)
        if not getattr(self.objective, "squared", True):
            raise InputError('WeightInference expects a squared error, got "l1"; set loss to "l2"')
        self.metric, self.weight = self.objective.metric, 2 * error**2 / count

    @property
    def sigma_range(self) -> tuple[float, float] | None:
        """Lowest and highest noise level seen, for a denoiser."""
        return getattr(self.objective, "sigma_range", None)

    def loss(self, network: nn.Module, data: Dataset, batch: Sequence[Place], device: torch.device) -> Tensor:
        """Mean error of a batch under random weights, and the divergence's share."""
        with noisy(network, [place.generator for place in batch]):
            error = self.objective.loss(network, data, batch, device)
        return error + self.weight * divergence(network)

    def validate(self, network: nn.Module, data: Dataset, device: torch.device) -> dict[str, float]:
        """The objective's figures with the weights' means."""
        return self.objective.validate(network, data, device)
