"""Amortised components: mean, leading components and marginal variances of a posterior in one pass of a network.

    m, F, v = network(A†y, σ),      λ_k = ‖F_k‖²,  u_k = F_k/‖F_k‖
    components:   Σ = U diag(λ − h) Uᵀ + diag(v + U² h),      h_k = u_kᵀ diag(v + U² h) u_k
    likelihood:   Σ = F Fᵀ + diag(v)

What a network trained for components says is kept exactly: variance λ_k along u_k, and the marginal variances U²λ + v.
A diagonal remainder has variance along u_k too, h_k; that much is taken off the factor and put on the diagonal. Where
the remainder alone has more than λ_k along u_k, nothing is left to take off and the variance along u_k is larger.

The network knows one kind of problem: the operators, noise levels and images that it was trained on. Its answer is the
posterior as far as it learnt it, which calibration on held-out pairs has to show.

References: Nehme, Yair, Michaeli, "Uncertainty quantification via neural posterior principal components", NeurIPS 2023.
Dorta, Vicente, Agapito, Campbell, Simpson, "Structured uncertainty prediction networks", CVPR 2018.
"""

__all__ = ["ComponentNetwork", "low_rank_diagonal"]

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import InputError
from ..networks.components import Prediction
from ..posterior import LowRankDiagonal, Posterior
from ..problem import Problem
from ..solvers.result import Status
from .base import Callback, check_item, described, linear_part, real_image, silent
from .schemes import start
from .trained import Ranged, require_range, trained
from .whitened import Whitened


@dataclass(frozen=True, eq=False)
class ComponentNetwork(Ranged):
    """Posterior by a network that was trained for one kind of problem.

    Args:
        network: A†y `(B, C, H, W)`, σ `(B,)` → `Prediction`, with an attribute `form`, such as
            `networks.ComponentPredictor`; used as it is.
        start: A†, as in training: "solve", ridge regression, or "adjoint", Aᴴ y scaled, which for denoising is y.
        channels: of the network's images.
        low: value of the image that the network sees as 0.
        high: value of the image that the network sees as 1.
        tolerance: relative residual of a ridge regression without a closed form; by default 1e-4, in float64 1e-10.
        card: what is known of the weights.

    Raises:
        InputError: an argument is out of range.

    Example:
        >>> import torch, obverse as ob
        >>> mean = ob.networks.Direct(ob.networks.UNet(2, 1, widths=(4,), blocks=1))
        >>> net = ob.networks.ComponentPredictor(mean, ob.networks.UNet(3, 4, widths=(4,), blocks=1), rank=3)
        >>> problem = ob.Problem(ob.operators.Downsample((1, 16, 16), 2), ob.noise.Gaussian(0.03))
        >>> posterior = ComponentNetwork(net)(torch.rand(1, 8, 8), problem)
        >>> posterior.std.shape, posterior.components(3).directions.shape, posterior.diagnostics["evaluations"]
        (torch.Size([1, 16, 16]), torch.Size([3, 1, 16, 16]), 1)
    """

    network: Any
    _: KW_ONLY
    start: Literal["solve", "adjoint"] = "solve"
    channels: int = 1
    low: float = 0.0
    high: float = 1.0
    tolerance: float | None = None
    card: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        require_range(self.low, self.high, "ComponentNetwork")
        if getattr(self.network, "form", None) not in ("components", "likelihood"):
            raise InputError(
                f"ComponentNetwork expects a network whose form is components or likelihood, got "
                f"{type(self.network).__name__}; see networks.ComponentPredictor"
            )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "ComponentNetwork":
        """Weights trained by a recipe with the objective PrincipalComponents or LowRankLikelihood.

        Raises:
            InputError: the weights were trained as something else.
            FormatError: the file is damaged.
        """
        return cls(**trained(path, "ComponentNetwork"))

    def predict(self, y: Tensor, problem: Problem | Sequence[Problem]) -> Prediction:
        """What the network says of each measurement of a batch, differentiable; images run from 0 to 1.

        Args:
            y: data `(B, *data_shape)`.
            problem: one for all items, or one for each.
        """
        return self._passed(
            Whitened(y, problem, self.low, self.high, method="ComponentNetwork", tolerance=self.tolerance)
        )

    @torch.no_grad()
    def __call__(self, y: Tensor, problem: Problem, *, callback: Callback | None = None) -> Posterior:
        """The posterior of one measurement.

        Args:
            y: data of exactly the operator's `data_shape`.
            problem: a linear operator and a law of independent noise, of the kind trained for.
            callback: told (1, 1, chi² of the mean).

        Returns:
            Posterior: low rank plus diagonal; `history` holds chi², the mean squared whitened residual of the mean.

        Raises:
            InputError: data, operator or channels do not fit.
        """
        began = time.perf_counter()
        check_item(y, problem, "ComponentNetwork")
        like = real_image(linear_part(problem, "ComponentNetwork"), y, "ComponentNetwork")
        data = Whitened(y[None], problem, self.low, self.high, method="ComponentNetwork", tolerance=self.tolerance)
        found = self._passed(data)
        chi2 = data.chi2(found.mean.to(like))
        mean = data.image(found.mean.to(like))[0]
        factors, diagonal = low_rank_diagonal(found, self.network.form)
        U, roots, _ = torch.linalg.svd(factors[0].flatten(1).mT.to(like), full_matrices=False)
        variances, diagonal = data.span**2 * roots.square(), data.span**2 * diagonal[0].to(like)
        covariance = LowRankDiagonal(U, variances, diagonal, like.shape)
        (callback or silent)(1, 1, chi2)
        stated = float(found.factors.square().sum())
        diagnostics = {
            "chi2": chi2,
            "form": self.network.form,
            "start": self.start,
            "overlap": float(1 - factors.square().sum() / stated) if stated else 0.0,
            "evaluations": 1,
            "seconds": time.perf_counter() - began,
        }
        message = f"the network was run once; the data's chi² at its mean is {chi2:.3g}"
        return described(self, mean, Status(True, "completed", message), (chi2,), diagnostics, covariance)

    def _passed(self, data: Whitened) -> Prediction:
        if data.complex or len(data.image_shape) != 3 or data.image_shape[0] != self.channels:
            raise InputError(
                f"ComponentNetwork expects real images ({self.channels}, H, W), got {data.image_shape}; load weights "
                "for such images"
            )
        x = start(data, self.start)
        like = next(iter(self.network.parameters()), x)
        return self.network(x.to(like).contiguous(memory_format=torch.channels_last), data.sigma.to(like))


def low_rank_diagonal(found: Prediction, form: str) -> tuple[Tensor, Tensor]:
    """Factors `(B, K, *image_shape)` and diagonal `(B, *image_shape)` whose F Fᵀ + diag v is the covariance meant."""
    if form == "likelihood":
        return found.factors, found.remainder
    F, v = found.factors.flatten(2).double(), found.remainder.flatten(1).double()
    variances = F.square().sum(2)
    power = F.square() / variances.clamp_min(1e-300)[..., None]
    # h = U²ᵀ(v + U²h), a system of K equations; a direction that is one pixel makes it singular, hence the last digit.
    crossed = power @ power.mT
    eye = torch.eye(crossed.shape[-1], dtype=torch.float64, device=crossed.device)
    held = torch.linalg.solve((1 + 1e-12) * eye - crossed, power @ v[..., None])[..., 0]
    shared = torch.where(held >= 0, held, variances).minimum(variances)
    factors = F * (1 - shared / variances.clamp_min(1e-300)).sqrt()[..., None]
    diagonal = v + (shared[..., None] * power).sum(1)
    return factors.reshape(found.factors.shape).to(found.factors), diagonal.reshape(found.remainder.shape).to(
        found.remainder
    )
