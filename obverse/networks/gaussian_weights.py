"""Bayes-by-backprop: every weight of a network is Gaussian, with a mean and a deviation that are learnt.

    q(w) = Π_j N(μ_j, σ_j²),    prior N(0, τ²),     min −E_q log p(data | w) + KL(q ‖ p)
    KL = Σ_j log(τ/σ_j) + (σ_j² + μ_j²)/(2τ²) − ½

Local reparametrisation: a layer's output is Gaussian given its input, with mean μ·x and variance σ²·x², and is drawn
itself instead of its weights, item by item, which makes the gradient far less noisy. For a linear map that is exact.
For a convolution it is exact at every pixel, but noise of different pixels is drawn independently where one draw of the
weights would correlate it, and so is that of two calls of a shared network: training sees the right marginals. `drawn`
draws the weights themselves.

For a linear model the optimum is known: μ is the exact posterior mean and σ_j² = 1/Λ_jj, Λ the posterior precision.
That is never more than the true marginal variance (Λ⁻¹)_jj: the price of independence.

References: Blundell, Cornebise, Kavukcuoglu, Wierstra, "Weight uncertainty in neural networks", ICML 2015. Kingma,
Salimans, Welling, "Variational dropout and the local reparameterization trick", NeurIPS 2015.
"""

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from .stochastic import RandomLayer, item_noise, linear_layers, replaced

__all__ = ["GaussianWeights"]

_SMALLEST = 1e-3  # root mean square of weights, below which a layer that starts at zero counts as this
_PACE = (
    10.0  # log σ moves by this times the rate that suits weights: it has nats to go, weights a fraction of their size
)
_TINY = 1e-20  # variance of an output whose inputs are all zero, where a root has no slope


class GaussianWeights(nn.Module):
    """The Bayesian twin of a network: its weights become means, each with a deviation of its own.

    Args:
        network: with convolutions or linear layers.
        deviation: σ at the start, relative to the root mean square of a layer's weights.
        prior: τ, in the unit of the weights.

    Example:
        >>> from obverse.networks import DnCNN
        >>> twin = GaussianWeights(DnCNN(1, 1, width=4, depth=2), deviation=0.1)
        >>> [sum(p.numel() for p in net.parameters()) for net in (twin, DnCNN(1, 1, width=4, depth=2))]
        [154, 77]
    """

    def __init__(self, network: nn.Module, deviation: float = 0.05, prior: float = 1.0):
        super().__init__()
        if not (0 < deviation < math.inf and 0 < prior < math.inf):
            raise InputError(f"GaussianWeights expects positive deviation and prior, got {deviation} and {prior}")
        layers = set(linear_layers(network))
        if not layers:
            raise InputError("GaussianWeights expects a network with convolutions or linear layers, got none")

        def twin(module: nn.Module) -> nn.Module | None:
            return _GaussianLayer(module, deviation, prior) if module in layers else None

        self.network = twin(network) or replaced(network, twin)

    def forward(self, *arguments: Any) -> Tensor:
        return self.network(*arguments)


class _GaussianLayer(RandomLayer):
    def __init__(self, layer: nn.Module, deviation: float, prior: float):
        super().__init__(layer)
        self.prior = prior
        weight: Tensor = layer.weight.detach()  # type: ignore[operator, union-attr, assignment]
        size = 1.0 if weight.is_meta else max(float(weight.square().mean().sqrt()), _SMALLEST)
        # In one row, not in the weights' shape: a rate that suits matrices does not suit their deviations.
        start = math.log(deviation * size) / _PACE
        rows = {name: torch.full((value.numel(),), start).to(value) for name, value in layer.named_parameters()}
        self.paced_log = nn.ParameterDict({name: nn.Parameter(row) for name, row in rows.items()})

    def log_deviation(self, name: str) -> Tensor:
        """log σ of the weights or the biases, in one row."""
        return _PACE * self.paced_log[name]

    def _deviations(self) -> dict[str, Tensor]:
        return {n: self.log_deviation(n).exp().reshape(value.shape) for n, value in self.layer.named_parameters()}

    def random(self, x: Tensor, streams: Sequence[torch.Generator]) -> Tensor:
        mean = self.layer(x)
        squares = {name: deviation.square() for name, deviation in self._deviations().items()}
        variance = torch.func.functional_call(self.layer, squares, (x.square(),))
        return mean + variance.clamp_min(_TINY).sqrt() * item_noise(mean, mean.shape[1:], streams)

    def draw(self, generator: torch.Generator) -> nn.Module:
        layer = copy.deepcopy(self.layer)
        with torch.no_grad():
            for (_, value), deviation in zip(layer.named_parameters(), self._deviations().values(), strict=True):
                value.add_(deviation * torch.randn(value.shape, generator=generator, dtype=value.dtype).to(value))
        return layer

    def divergence(self) -> Tensor:
        parts = []
        for name, mean in self.layer.named_parameters():
            log = self.log_deviation(name)
            moments = ((2 * log).exp().sum() + mean.square().sum()) / (2 * self.prior**2)
            parts.append(moments + (math.log(self.prior) - log - 0.5).sum())
        return torch.stack(parts).sum()
