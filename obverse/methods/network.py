"""Direct networks: one pass from a crude inversion to the image.

    x̂ = f(A†y, σ),     A†y = (AᴴA + d)⁻¹Aᴴy  or  Aᴴy scaled;     optionally  x ← argmin ‖A x − y‖²/σ² + ‖x − x̂‖²/e²

The network knows the operator only through A†; the optional last step, with e the error that the network is trusted to
have, moves its image towards the data with the true operator.

Reference: Jin, McCann, Froustey, Unser, "Deep convolutional neural network for inverse problems in imaging", IEEE TIP
2017.
"""

__all__ = ["Network"]

import dataclasses
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import InputError
from ..posterior.estimate import Estimate
from ..problem import Problem
from ..solvers.result import Status
from .base import Callback, silent
from .schemes import start
from .trained import require_range, trained
from .whitened import Whitened, through


@dataclass(frozen=True, eq=False)
class Network:
    """A network from A†y to the image, for any data shape: what it has to fit is the image's channels.

    Args:
        network: f(x, σ), `(B, C, H, W)` and `(B,)` → `(B, C, H, W)`, such as `networks.Preconditioned`; used as it is.
        start: A†: "solve", ridge regression, or "adjoint", Aᴴ y scaled.
        consistency: e, standard deviation of the network's error in units of the image, for a last data step; None for
            no such step.
        channels: of the network; 2 for complex images of one channel, 1 also serves images of more channels one by one.
        low: value of the image that the network sees as 0.
        high: value of the image that the network sees as 1.
        tolerance: relative residual of solves without a closed form; by default 1e-4, in float64 1e-10.
        card: what is known of the weights.

    Raises:
        InputError: an argument is out of range.

    Example:
        >>> import torch, obverse as ob
        >>> net = ob.networks.build({"kind": "Preconditioned",
        ...     "network": {"kind": "UNet", "inputs": 3, "outputs": 1, "widths": [4, 8], "blocks": 1}})
        >>> problem = ob.Problem(ob.operators.Downsample((1, 16, 16), 2), ob.noise.Gaussian(0.03))
        >>> Network(net, consistency=0.1)(torch.rand(3, 1, 8, 8), problem).image.shape
        torch.Size([3, 1, 16, 16])
    """

    network: Any
    _: KW_ONLY
    start: Literal["solve", "adjoint"] = "solve"
    consistency: float | None = None
    channels: int = 1
    low: float = 0.0
    high: float = 1.0
    tolerance: float | None = None
    card: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        require_range(self.low, self.high, "Network")
        if self.consistency is not None and not 0 < self.consistency < math.inf:
            raise InputError(f"Network expects a positive consistency, the network's error, got {self.consistency}")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Network":
        """Weights trained by a recipe whose objective names this method, with the settings they were trained with."""
        return cls(**trained(path, "Network"))

    def scaled(self, low: float, high: float) -> "Network":
        """The same method for images whose values run from `low` to `high`."""
        factor = (float(high) - float(low)) / (self.high - self.low)
        error = None if self.consistency is None else self.consistency * factor
        return dataclasses.replace(self, low=float(low), high=float(high), consistency=error)

    def reconstruct(self, y: Tensor, problem: Problem | Sequence[Problem]) -> Tensor:
        """The image of each measurement, differentiable in weights and data.

        Args:
            y: data `(*batch, *data_shape)`.
            problem: one for all items, or one for each along the first batch axis.
        """
        data = Whitened(y, problem, self.low, self.high, method="Network", tolerance=self.tolerance)
        return data.image(self._consistent(self._passed(data), data))

    @torch.no_grad()
    def __call__(self, y: Tensor, problem: Problem, *, callback: Callback | None = None) -> Estimate:
        """Reconstruct every measurement of a batch.

        Args:
            y: data `(*batch, *data_shape)`.
            problem: a linear operator and a law of independent noise.
            callback: told (1, 1, chi²).

        Returns:
            Estimate: `history` holds chi², the mean squared whitened residual of the data, of the network's image and,
            if there is a data step, after it.

        Raises:
            InputError: the operator is not linear, the noise correlated, or data or channels do not fit.
        """
        began = time.perf_counter()
        data = Whitened(y, problem, self.low, self.high, method="Network", tolerance=self.tolerance)
        passed = self._passed(data)
        image = self._consistent(passed, data)
        history = [data.chi2(passed)] if self.consistency is None else [data.chi2(passed), data.chi2(image)]
        (callback or silent)(1, 1, history[-1])
        step = "" if self.consistency is None else " and a data step was taken"
        message = f"the network was run once{step}; the data's chi² is {history[-1]:.3g}"
        diagnostics = {"chi2": history[-1], "start": self.start, "seconds": time.perf_counter() - began}
        return Estimate(data.image(image), Status(True, "completed", message), tuple(history), diagnostics)

    def _passed(self, data: Whitened) -> Tensor:
        return through(self.network, start(data, self.start), data.sigma, self.channels, "Network")

    def _consistent(self, u: Tensor, data: Whitened) -> Tensor:
        if self.consistency is None:
            return u
        return data.solve(u, (data.sigma * data.span / self.consistency).square())
