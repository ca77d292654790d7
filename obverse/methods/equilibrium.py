"""Deep equilibrium: one learned stage, repeated until it no longer changes the image.

    z = f(z; y, θ),     f one stage of a scheme (see `schemes`) at one learned level

Forward: Anderson acceleration, which keeps no graph, so that memory does not grow with the iterations. Backward: the
implicit function theorem,

    dL/dθ = gᵀ ∂f/∂θ,     g = Jᵀ g + dL/dz,     J = ∂f/∂z at the fixed point,

where the adjoint fixed point is found in the same way; if its residual stays above what is asked for, that is an error
and not a wrong gradient. `jacobian_penalty` is Hutchinson's estimate of ‖J‖²_F over the number of pixels; training adds
a little of it, so that the fixed point stays attractive.

References: Bai, Kolter, Koltun, "Deep equilibrium models", NeurIPS 2019. Gilton, Ongie, Willett, "Deep equilibrium
architectures for inverse problems in imaging", IEEE TCI 2021. Bai, Koltun, Kolter, "Stabilizing equilibrium models by
Jacobian regularization", ICML 2021.
"""

__all__ = ["Equilibrium"]

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import InputError, NumericsError
from ..posterior.estimate import Estimate
from ..problem import Problem
from ..solvers.anderson import anderson
from ..solvers.result import Result, Status
from .base import Callback, silent
from .schemes import SCHEMES, start
from .trained import Ranged, require_range, trained
from .whitened import Whitened, through

_SCHEMES = ("pgd", "hqs", "modl", "gradient")  # their state is one image

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Equilibrium(Ranged):
    """The fixed point of a learned stage.

    Args:
        network: `networks.Stages` of one stage; used as it is, so in evaluation mode.
        scheme: "pgd", "hqs", "modl" or "gradient"; see `methods.schemes`.
        channels: of the network; 2 for complex images of one channel, 1 also serves images of more channels one by one.
        low: value of the image that the network sees as 0.
        high: value of the image that the network sees as 1.
        start: "solve", ridge regression, or "adjoint", Aᴴ y scaled.
        tolerance: relative residual ‖f(z) − z‖/‖f(z)‖ of the fixed point; data steps without a closed form are solved
            to a tenth of it.
        gradient_tolerance: the same of the adjoint fixed point, for training.
        max_iterations: most evaluations of f, forward, and of its transposed Jacobian, backward.
        memory: of Anderson's acceleration.
        card: what is known of the weights.

    Raises:
        InputError: an argument is out of range.

    Example:
        >>> import torch, obverse as ob
        >>> net = ob.networks.build({"kind": "Stages", "stages": 1, "network": {"kind": "Preconditioned",
        ...     "network": {"kind": "UNet", "inputs": 3, "outputs": 1, "widths": [4, 8], "blocks": 1}}})
        >>> problem = ob.Problem(ob.operators.Convolution(torch.ones(3, 3) / 9, (1, 16, 16)), ob.noise.Gaussian(0.03))
        >>> estimate = Equilibrium(net, max_iterations=3, tolerance=1e-12)(torch.rand(1, 16, 16), problem)
        >>> estimate.status.converged
        False
    """

    network: Any
    scheme: Literal["pgd", "hqs", "modl", "gradient"] = "hqs"
    _: KW_ONLY
    channels: int = 1
    low: float = 0.0
    high: float = 1.0
    start: Literal["solve", "adjoint"] = "solve"
    tolerance: float = 1e-3
    gradient_tolerance: float = 1e-2
    max_iterations: int = 50
    memory: int = 5
    card: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if self.scheme not in _SCHEMES:
            raise InputError(f"Equilibrium expects a scheme out of {', '.join(_SCHEMES)}, got {self.scheme!r}")
        if getattr(self.network, "stages", None) != 1:
            raise InputError(
                f"Equilibrium expects a network of one stage, got {getattr(self.network, 'stages', self.network)}; "
                "set stages to 1"
            )
        within = 0 < self.tolerance < 1 and 0 < self.gradient_tolerance < 1
        if not within or self.max_iterations < 1 or self.memory < 0:
            raise InputError(
                "Equilibrium expects tolerances between 0 and 1, max_iterations >= 1 and memory >= 0, got "
                f"{self.tolerance, self.gradient_tolerance, self.max_iterations, self.memory}"
            )
        require_range(self.low, self.high, "Equilibrium")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Equilibrium":
        """Weights trained by a recipe whose objective names this method, with the settings they were trained with."""
        return cls(**trained(path, "Equilibrium"))

    def reconstruct(self, y: Tensor, problem: Problem | Sequence[Problem]) -> Tensor:
        """The fixed point of each measurement, differentiable in weights and data by the implicit function theorem.

        Forward non-convergence is not an error here: training meets it in its first steps, and the gradient is that at
        the point reached.

        Args:
            y: data `(*batch, *data_shape)`.
            problem: one for all items, or one for each along the first batch axis.

        Raises:
            NumericsError: backward, if the adjoint fixed point is not found.
        """
        data = self._whitened(y, problem)
        point = self._forward(data, silent).x
        if not torch.is_grad_enabled():
            return data.image(point)
        return data.image(
            _implicit(self._stage(data), point, self.gradient_tolerance, self.max_iterations, self.memory)
        )

    def jacobian_penalty(
        self, image: Tensor, y: Tensor, problem: Problem | Sequence[Problem], generator: torch.Generator
    ) -> Tensor:
        """‖vᵀJ‖² over the number of pixels for a random v of white noise, at an image; its mean is ‖J‖²_F over it.

        Args:
            image: where, `(*batch, *image_shape)`, usually the fixed point; no gradient flows into it.
            y: data `(*batch, *data_shape)`.
            problem: as in `reconstruct`.
            generator: of v.
        """
        data = self._whitened(y, problem)
        point = ((image.detach() - data.low) / data.span).reshape(len(data.sigma), *data.image_shape)
        point.requires_grad_(True)
        probe = torch.randn(point.shape, generator=generator, dtype=point.dtype, device=generator.device).to(point)
        (product,) = torch.autograd.grad(self._stage(data)(point), point, probe, create_graph=True)
        return product.abs().square().sum() / product.numel()

    @torch.no_grad()
    def __call__(self, y: Tensor, problem: Problem, *, callback: Callback | None = None) -> Estimate:
        """Reconstruct every measurement of a batch.

        Args:
            y: data `(*batch, *data_shape)`.
            problem: a linear operator and a law of independent noise.
            callback: told (iteration, limit, residual).

        Returns:
            Estimate: `history` holds the largest relative residual of the fixed point at each iteration; `status` says
            whether it fell below the tolerance for every item; `diagnostics` the residual, chi², level and seconds.

        Raises:
            InputError: the operator is not linear, the noise correlated, or the data do not fit.
        """
        began = time.perf_counter()
        data = self._whitened(y, problem)
        result = self._forward(data, callback or silent)
        step, level = self.network.schedule(0, data.sigma)
        diagnostics = {
            "scheme": self.scheme,
            "iterations": result.iterations,
            "residual": result.residual,
            "chi2": data.chi2(result.x),
            "step": float(step),
            "level": float(level.mean()) * data.span,
            "seconds": time.perf_counter() - began,
        }
        return Estimate(data.image(result.x), _told(result.status), result.history, diagnostics)

    def _whitened(self, y: Tensor, problem: Problem | Sequence[Problem]) -> Whitened:
        return Whitened(y, problem, self.low, self.high, method="Equilibrium", tolerance=0.1 * self.tolerance)

    def _stage(self, data: Whitened) -> Map:
        step, level = self.network.schedule(0, data.sigma)

        def denoise(x: Tensor, level: Tensor) -> Tensor:
            return through(self.network, x, level, self.channels, "Equilibrium", 0)

        return lambda z: SCHEMES[self.scheme].stage((z,), data, denoise, step, level)[0]

    @torch.no_grad()
    def _forward(self, data: Whitened, tell: Callback) -> Result:
        return anderson(
            self._stage(data), start(data, self.start), memory=self.memory, tolerance=self.tolerance,
            max_iterations=self.max_iterations, batch_dims=1, callback=tell,
        )  # fmt: skip


def _implicit(f: Map, point: Tensor, tolerance: float, max_iterations: int, memory: int) -> Tensor:
    """f(z*) whose gradient is that of the fixed point, not of one application of f."""
    at = point.detach().requires_grad_(True)
    with torch.enable_grad():
        once = f(at)

    def adjoint(gradient: Tensor | None) -> Tensor | None:
        if gradient is None:  # autograd's word for zero
            return None

        def transposed(g: Tensor) -> Tensor:
            (product,) = torch.autograd.grad(once, at, g, retain_graph=True)
            return product + gradient

        result = anderson(
            transposed, gradient, memory=memory, tolerance=tolerance, max_iterations=max_iterations, batch_dims=1
        )
        if not result.status.converged:
            raise NumericsError(
                f"expected the adjoint fixed point to a residual of {tolerance:.1e}, got {result.residual:.1e}: "
                f"{result.status.message}; regularise the Jacobian, lower the rate, or allow more iterations"
            )
        return result.x

    reattached = f(point.detach())  # a graph to the weights and data, not through z
    if reattached.requires_grad:
        reattached.register_hook(adjoint)
    return reattached


def _told(status: Status) -> Status:
    if status.converged:
        return status
    message = f"{status.message}; or train with a larger Jacobian penalty: this stage does not contract here"
    return Status(False, status.reason, message)
