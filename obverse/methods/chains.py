"""The state of several Markov chains, and the random directions in which their convergence is watched."""

__all__ = ["ChainState", "projections_like"]

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..noise.base import stream
from ..posterior import StreamingMoments
from .kernels import Kernel


@dataclass
class ChainState:
    """Where the chains are: all that is needed to go on.

    Args:
        step: kernel steps done, burn-in included.
        x: present states, `(chains, *image_shape)`.
        kernel: how they move.
        step_size: δ.
        noise_weight: inverse noise variances in use, where the likelihood is a Gaussian standing in for counting noise.
        generators: one random stream a chain.
        moments: of the draws after the burn-in.
        traces: of the projections and the log-posterior, one `(chains, functionals)` tensor a draw.
        draws: the draws themselves, if kept.
        pending: draws not yet in `moments`, which takes them in a batch at a time.
        burn_in_mean: running mean over chains and the first half of the burn-in.
        evaluations: gradients spent on all chains.
        seconds: spent.
    """

    step: int
    x: Tensor
    kernel: Kernel
    step_size: float
    noise_weight: Tensor | None
    generators: list[torch.Generator]
    moments: StreamingMoments
    burn_in_mean: Tensor
    traces: list[Tensor] = field(default_factory=list)
    draws: list[Tensor] = field(default_factory=list)
    pending: list[Tensor] = field(default_factory=list)
    evaluations: int = 0
    seconds: float = 0.0

    def record(self, trace: Tensor, keep: bool) -> None:
        """Take in the present states as one draw of every chain."""
        self.traces.append(trace)
        self.pending.append(self.x)
        if len(self.pending) * len(self.x) >= _BATCH:
            self.flush()
        if keep:
            self.draws.append(self.x)

    def flush(self) -> None:
        """Bring `moments` up to date."""
        if self.pending:
            self.moments.update(torch.cat(self.pending))
            self.pending = []


def projections_like(like: Tensor, seed: int) -> Tensor:
    """Sixteen random unit directions `(n, 16)`: half are white, half smooth, since smooth modes are the slow ones."""
    generator = stream(seed, _OF_PROJECTIONS)
    white = torch.randn((16, *like.shape), generator=generator, dtype=torch.float64)
    axes = tuple(range(2, white.ndim))
    frequency = torch.zeros(white.shape[2:], dtype=torch.float64)
    for axis, size in enumerate(white.shape[2:]):
        shape = [-1 if a == axis else 1 for a in range(frequency.ndim)]
        frequency = frequency + torch.fft.fftfreq(size, dtype=torch.float64).reshape(shape).square() * size**2
    smooth = torch.fft.ifftn(torch.fft.fftn(white[8:], dim=axes) / (1 + frequency), dim=axes).real
    rows = torch.cat([white[:8], smooth]).reshape(16, -1)
    return (rows / rows.norm(dim=1, keepdim=True)).mT.to(like)


# Index of the random stream that makes the projections, far from those of the chains.
_OF_PROJECTIONS = 2**31
# Draws that enter the moments together: one QR factorisation for all of them.
_BATCH = 32
