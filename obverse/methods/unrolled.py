"""Unrolled networks: an optimisation algorithm of few stages, whose denoiser, levels and steps are learned end to end.

    x₀ = ridge regression;    for k = 1 … K:    data step of the true operator ⇄ learned D_k(·, λ_k)

The operator comes with every call, so a network trained on some blurs serves others, and multi-coil MRI or tomography
too. The data step is the operator's `solve`: closed form where there is one, conjugate gradients else, differentiated
by the implicit function theorem. `reconstruct` is what training differentiates, and calling the method runs the same.

References: Monga, Li, Eldar, "Algorithm unrolling", IEEE SPM 2021; of each scheme, see `schemes`.
"""

__all__ = ["Unrolled"]

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import InputError
from ..posterior.estimate import Estimate
from ..problem import Problem
from ..solvers.result import Status
from .base import Callback, silent
from .schemes import SCHEMES, start
from .trained import Ranged, require_range, trained
from .whitened import Whitened, through


@dataclass(frozen=True, eq=False)
class Unrolled(Ranged):
    """A learned reconstruction of K stages.

    Args:
        network: the stages, `networks.Stages`; used as it is, so in evaluation mode.
        scheme: "pgd", "hqs", "modl", "admm", "pdhg" or "gradient" (a variational network); see `methods.schemes`.
        channels: of the network; 2 for complex images of one channel, 1 also serves images of more channels one by one.
        low: value of the image that the network sees as 0.
        high: value of the image that the network sees as 1.
        start: "solve", ridge regression, or "adjoint", Aᴴ y scaled.
        tolerance: relative residual of the data step where it has no closed form; by default 1e-4, in float64 1e-10.
        card: what is known of the weights.

    Raises:
        InputError: an argument is out of range.

    Example:
        >>> import torch, obverse as ob
        >>> net = ob.networks.build({"kind": "Stages", "stages": 2, "network": {"kind": "Preconditioned",
        ...     "network": {"kind": "UNet", "inputs": 3, "outputs": 1, "widths": [4, 8], "blocks": 1}}})
        >>> problem = ob.Problem(ob.operators.Convolution(torch.ones(3, 3) / 9, (1, 16, 16)), ob.noise.Gaussian(0.03))
        >>> Unrolled(net, "admm")(torch.rand(5, 1, 16, 16), problem).image.shape
        torch.Size([5, 1, 16, 16])
    """

    network: Any
    scheme: Literal["pgd", "hqs", "modl", "admm", "pdhg", "gradient"] = "hqs"
    _: KW_ONLY
    channels: int = 1
    low: float = 0.0
    high: float = 1.0
    start: Literal["solve", "adjoint"] = "solve"
    tolerance: float | None = None
    card: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if self.scheme not in SCHEMES:
            raise InputError(f"Unrolled expects a scheme out of {', '.join(SCHEMES)}, got {self.scheme!r}")
        require_range(self.low, self.high, "Unrolled")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Unrolled":
        """Weights trained by a recipe whose objective names this method, with the settings they were trained with."""
        return cls(**trained(path, "Unrolled"))

    def reconstruct(
        self,
        y: Tensor,
        problem: Problem | Sequence[Problem],
        *,
        observe: Callable[[int, Whitened, Tensor], None] | None = None,
    ) -> Tensor:
        """The image of each measurement, differentiable in weights and data.

        Args:
            y: data `(*batch, *data_shape)`.
            problem: one for all items, or one for each along the first batch axis.
            observe: told (stage, whitened measurement, its image) after each stage.
        """
        data = Whitened(y, problem, self.low, self.high, method="Unrolled", tolerance=self.tolerance)
        scheme = SCHEMES[self.scheme]
        state = scheme.begin(start(data, self.start), data)
        for k in range(self.network.stages):
            step, level = self.network.schedule(k, data.sigma)

            def denoise(x: Tensor, level: Tensor, k: int = k) -> Tensor:
                return through(self.network, x, level, self.channels, "Unrolled", k)

            state = scheme.stage(state, data, denoise, step, level)
            if observe is not None:
                observe(k, data, state[0])
        return data.image(state[0])

    @torch.no_grad()
    def __call__(self, y: Tensor, problem: Problem, *, callback: Callback | None = None) -> Estimate:
        """Reconstruct every measurement of a batch.

        Args:
            y: data `(*batch, *data_shape)`.
            problem: a linear operator and a law of independent noise.
            callback: told (stage, stages, chi²).

        Returns:
            Estimate: `history` holds chi², the mean squared whitened residual of the data, after each stage (about 1
            where the noise is right); `diagnostics` the scheme, steps, levels and seconds.

        Raises:
            InputError: the operator is not linear, the noise correlated, or the data do not fit.
        """
        began, tell = time.perf_counter(), callback or silent
        history: list[float] = []
        steps: list[float] = []
        levels: list[float] = []

        def observe(k: int, data: Whitened, x: Tensor) -> None:
            step, level = self.network.schedule(k, data.sigma)
            history.append(data.chi2(x))
            steps.append(float(step))
            levels.append(float(level.mean()) * data.span)
            tell(k + 1, self.network.stages, history[-1])

        image = self.reconstruct(y, problem, observe=observe)
        message = (
            f"all {len(history)} learned stages were run; they end where training put them, not at a limit, and the "
            f"data's chi² there is {history[-1]:.3g}"
        )
        diagnostics = {
            "scheme": self.scheme,
            "stages": len(history),
            "steps": steps,
            "levels": levels,
            "chi2": history[-1],
            "seconds": time.perf_counter() - began,
        }
        return Estimate(image, Status(True, "completed", message), tuple(history), diagnostics)
