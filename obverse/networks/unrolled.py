"""The learned part of an unrolled algorithm: a denoiser for every stage, its noise level and its step.

    D_k(x, λ_k),     log λ_k = (1 − t_k) log λ_top + t_k log(φ σ) + c_k,     s_k = exp(a_k)

σ is the noise level of the measurement as the image sees it; t_k, c_k and a_k are learned. They start at the schedule
of plug-and-play methods, from λ_top in the first stage down to φσ in the last (t_k = 0 … 1), with s_k = 1. Since levels
follow σ, and D_k is told its level, the network adapts to noise that it was not trained for. What is done with D_k,
λ_k and s_k is the method's business (`methods.Unrolled`): nothing here knows of operators.

References: Gregor, LeCun, "Learning fast approximations of sparse coding", ICML 2010. Zhang, Li, Zuo, Zhang, Van Gool,
Timofte, "Plug-and-play image restoration with deep denoiser prior", TPAMI 2021 (the schedule).
"""

import copy
import math

import torch
from torch import Tensor, nn

from ..errors import InputError

__all__ = ["Stages"]

_LOWEST = 1e-4  # of the image's range: below the rounding of 8-bit images


class Stages(nn.Module):
    """K learned stages.

    Args:
        network: D(x, λ), `(B, C, H, W)` and `(B,)` → `(B, C, H, W)`, such as `Preconditioned`.
        stages: K.
        shared: one network for all stages, or a copy of the architecture with weights of its own for each.
        top: λ_top, level of the first stage at the start of training, for images from 0 to 1.
        final: φ, level of the last stage over σ, at the start of training.
        gain: factor of the last layer's fresh weights. A small one makes a `Preconditioned` network begin as a mere
            shrinkage: a contraction, which `methods.Equilibrium` needs from the first step on.

    Example:
        >>> class Shrink(nn.Module):
        ...     def forward(self, x, level):
        ...         return x / (1 + level.reshape(-1, 1, 1, 1) ** 2)
        >>> cells = Stages(Shrink(), stages=3, top=0.16, final=1.0)
        >>> [round(float(cells.schedule(k, torch.tensor([0.01]))[1]), 3) for k in range(3)]
        [0.16, 0.04, 0.01]
    """

    def __init__(
        self,
        network: nn.Module,
        stages: int = 4,
        shared: bool = True,
        top: float = 0.2,
        final: float = 1.0,
        gain: float = 1.0,
    ):
        super().__init__()
        if isinstance(stages, bool) or not isinstance(stages, int) or stages < 1:
            raise InputError(f"Stages expects at least one stage, got {stages!r}; 4 is usual")
        if not (0 < top < math.inf and 0 < final < math.inf):
            raise InputError(f"Stages expects positive levels, got top {top} and final {final}; 0.2 and 1 are usual")
        self.stages, self.top, self.final = stages, float(top), float(final)
        self.networks = nn.ModuleList(
            [network] if shared else [network, *(_afresh(network) for _ in range(stages - 1))]
        )
        for one in self.networks if gain != 1.0 else ():
            with torch.no_grad():
                _last_weight(one).mul_(gain)
        self.slope = nn.Parameter(torch.linspace(0, 1, stages) if stages > 1 else torch.ones(1))
        self.offset = nn.Parameter(torch.zeros(stages))
        self.log_step = nn.Parameter(torch.zeros(stages))

    def schedule(self, stage: int, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Step s_k, a positive scalar, and level λ_k, shape of `sigma`, of a stage 0 … K − 1."""
        slope, offset = self.slope[stage].to(sigma), self.offset[stage].to(sigma)
        low = (self.final * sigma).clamp_min(_LOWEST).log()
        level = ((1 - slope) * math.log(self.top) + slope * low + offset).exp()
        return self.log_step[stage].to(sigma).exp(), level.clamp_min(_LOWEST)

    def forward(self, stage: int, x: Tensor, level: Tensor) -> Tensor:
        """D_k(x, λ) for `x` `(B, C, H, W)` and `level` `(B,)`."""
        return self.networks[stage if len(self.networks) > 1 else 0](x, level)


def _last_weight(network: nn.Module) -> Tensor:
    """The weights of the last convolution."""
    found = [module.weight for module in network.modules() if isinstance(module, nn.Conv2d)]
    if not found:
        raise InputError("Stages expects a network with convolutions for a gain, got none; leave the gain at 1")
    return found[-1]


def _afresh(network: nn.Module) -> nn.Module:
    """A copy with weights of its own."""
    twin = copy.deepcopy(network)
    for module in twin.modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
    return twin
