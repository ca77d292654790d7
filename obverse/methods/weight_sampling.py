"""The spread of a network's image as its weights are drawn: Monte-Carlo dropout, Bayes-by-backprop.

    w_m ~ q(w),    x̂_m = x̂(y; w_m),     mean and covariance of the x̂_m                           target "epistemic"

q is whatever law the method's networks have (`networks.Dropout`, `networks.GaussianWeights`). Each draw is one ordinary
network, the same in all stages and at all pixels, so that the spread has the correlations that weights give it.
"""

__all__ = ["WeightSampling"]

import dataclasses
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..networks.stochastic import drawn
from ..noise.base import stream
from ..posterior import Estimate, Posterior
from ..problem import Problem
from .base import Callback
from .ensemble import epistemic


@dataclass(frozen=True, eq=False)
class WeightSampling:
    """An ensemble of draws of one method's weights.

    Args:
        method: with a network of random weights in a field, or in a denoiser that is a field.
        draws: M, at least 2; the covariance has rank M − 1 at most.
        aleatoric: add the mean of the draws' own covariances, as `methods.Ensemble` does.
        seed: of the draws.

    Example:
        >>> import torch, obverse as ob
        >>> unet = {"kind": "UNet", "inputs": 3, "outputs": 1, "widths": [4, 8], "blocks": 1}
        >>> net = ob.networks.build({"kind": "Dropout", "network": {"kind": "Preconditioned", "network": unet}})
        >>> problem, y = ob.Problem(ob.operators.Identity((1, 8, 8)), ob.noise.Gaussian(0.1)), torch.rand(1, 8, 8)
        >>> found = WeightSampling(ob.methods.Network(net), draws=5)(y, problem)
        >>> found.target, found.covariance.rank
        ('epistemic', 4)
    """

    method: Callable[..., Estimate]
    _: KW_ONLY
    draws: int = 16
    aleatoric: bool = False
    seed: int = 0

    def __post_init__(self):
        if self.draws < 2:
            raise InputError(f"WeightSampling expects at least two draws, got {self.draws}; 16 is usual")
        if _with_weights(self.method, torch.Generator().manual_seed(0)) is self.method:
            raise InputError(
                f"WeightSampling expects a method whose network has random weights, got {type(self.method).__name__} "
                "without; wrap the network in networks.Dropout or networks.GaussianWeights and train it"
            )

    def __call__(self, y: Tensor, problem: Problem, callback: Callback | None = None) -> Posterior:
        """The images of one measurement under draws of the weights, and their spread.

        Args:
            y: of exactly the operator's `data_shape`.
            problem: whatever the method can do.
            callback: told (draw, draws, 0).

        Raises:
            InputError: the data do not fit, or draws have no covariance and `aleatoric` asks for one.
        """
        members = (_with_weights(self.method, stream(self.seed, number)) for number in range(self.draws))
        answers = (member(y, problem) for member in members)
        what = "draws of the weights"
        return epistemic(self, answers, self.draws, y, problem, callback, aleatoric=self.aleatoric, what=what)


def _with_weights(part: Any, generator: torch.Generator) -> Any:
    """`part` with one draw of every random network in it; itself if there is none."""
    if isinstance(part, nn.Module):
        return drawn(part, generator)
    if not dataclasses.is_dataclass(part) or isinstance(part, type):
        return part
    fields = {f.name: getattr(part, f.name) for f in dataclasses.fields(part) if f.init}
    found = {name: _with_weights(value, generator) for name, value in fields.items()}
    changed = {name: value for name, value in found.items() if value is not fields[name]}
    return dataclasses.replace(part, **changed) if changed else part
