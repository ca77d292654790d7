"""A conditional variational autoencoder: one look at the measurement, and the posterior as a mixture of Gaussians.

    p(x | y) ≈ ∫ N(x; G(z, c), diag v(z, c)) N(z; m_c, s_c²) dz,       c = (A†y, σ)
    mean = E_z G,      Σ = Cov_z G + E_z diag v                          (law of total variance)

Everything is drawn from the prior of z given the measurement: nothing is iterated, one pass of the decoder a draw. The
first part of Σ is what pixels have in common, streamed into low-rank factors; the second is the decoder's own noise,
independent from pixel to pixel. It is the posterior of the pictures that the network was trained on, as far as the
family reaches; the network knows the problem through A†y and the noise level alone.

Reference: Sohn, Lee, Yan, "Learning structured output representation using deep conditional generative models", NeurIPS
2015.
"""

__all__ = ["ConditionalVAE", "condition"]

import os
import time
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from .. import networks
from ..errors import InputError
from ..noise.base import stream
from ..posterior import Posterior, StreamingMoments
from ..problem import Problem
from ..solvers.result import Status
from .base import Callback, check_item, check_least, described, real_image, silent
from .schemes import start
from .trained import Ranged, require_range
from .whitened import Whitened

_NUMBERS = 2**20  # pixels of draws in one pass


@dataclass(frozen=True, eq=False)
class ConditionalVAE(Ranged):
    """Mean, covariance and draws by a network trained for one kind of problem.

    Args:
        network: `networks.ConditionalVAE`, or any with its `prior` and `decode`.
        samples: draws of the latent variables.
        rank: factors of the covariance.
        keep_samples: keep the draws, with the decoder's noise, for quantile intervals and `sample`.
        start: A†, as in training: "solve", ridge regression, or "adjoint", Aᴴ y scaled.
        low: value of the image that the network sees as 0.
        high: value of the image that the network sees as 1.
        tolerance: relative residual of a ridge regression without a closed form; by default 1e-4, in float64 1e-10.
        seed: draw i has a stream of its own, made from `seed` and i.
        card: what is known of the weights.

    Raises:
        InputError: an argument is out of range.

    Example:
        >>> import torch, obverse as ob
        >>> net = ob.networks.ConditionalVAE(ob.networks.UNet(4, 2, widths=(4, 8), blocks=1), latent=2, widths=(4, 8))
        >>> problem = ob.Problem(ob.operators.Downsample((1, 16, 16), 2), ob.noise.Gaussian(0.1))
        >>> posterior = ConditionalVAE(net, samples=20)(torch.rand(1, 8, 8), problem)
        >>> posterior.mean.shape, posterior.diagnostics["evaluations"]
        (torch.Size([1, 16, 16]), 20)
    """

    network: Any
    _: KW_ONLY
    samples: int = 256
    rank: int = 16
    keep_samples: bool = False
    start: Literal["solve", "adjoint"] = "solve"
    low: float = 0.0
    high: float = 1.0
    tolerance: float | None = None
    seed: int = 0
    card: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        require_range(self.low, self.high, "ConditionalVAE")
        check_least(self, samples=2, rank=0)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "ConditionalVAE":
        """Weights trained by a recipe with the objective ConditionalEvidence.

        Raises:
            InputError: the weights were trained as something else.
            FormatError: the file is damaged.
        """
        network, card = networks.load(path)
        if not isinstance(network, networks.ConditionalVAE):
            raise InputError(f"expected weights of a ConditionalVAE in {path}, got those of a {type(network).__name__}")
        return cls(network, start=card.get("objective", {}).get("start", "solve"), card=card)

    @torch.no_grad()
    def __call__(self, y: Tensor, problem: Problem, *, callback: Callback | None = None) -> Posterior:
        """The posterior of one measurement.

        Args:
            y: data of exactly the operator's `data_shape`.
            problem: a linear operator and a law of independent noise, of the kind trained for.
            callback: told (draws, samples, chi² of the mean so far).

        Raises:
            InputError: the operator is not linear, the noise correlated, or the image has other channels.
        """
        began = time.perf_counter()
        check_item(y, problem, "ConditionalVAE")
        zero = real_image(problem.operator, y, "ConditionalVAE")
        data = Whitened(y, problem, self.low, self.high, method="ConditionalVAE", tolerance=self.tolerance)
        c = condition(data, self.start)
        prior = self._prior(c)
        moments = StreamingMoments(tuple(zero.shape), self.rank, dtype=zero.dtype, device=zero.device)
        within, kept = torch.zeros_like(zero, dtype=torch.float64), []
        for first in range(0, self.samples, together := max(1, _NUMBERS // zero.numel())):
            streams = [stream(self.seed, i) for i in range(first, min(first + together, self.samples))]
            means, variances = (part.to(zero) for part in self._decoded(prior, c, streams))
            moments.update(means)
            within += variances.double().sum(0) / self.samples
            if self.keep_samples:
                kept.append(means + variances.sqrt() * _white(streams, zero))
            (callback or silent)(moments.count, self.samples, data.chi2(moments.mean.to(zero)[None]))
        covariance = moments.covariance(within=within)
        diagnostics = {
            "chi2": data.chi2(moments.mean.to(zero)[None]),
            "latent_share": float(moments.variance.sum() / (moments.variance + within).sum()),
            "samples": self.samples,
            "evaluations": self.samples,
            "seconds": time.perf_counter() - began,
        }
        message = f"{self.samples} draws of the latent variables were decoded; nothing was iterated"
        status = Status(True, "completed", message)
        unit = described(
            self,
            moments.mean.to(zero),
            status,
            (),
            diagnostics,
            covariance,
            draws=torch.cat(kept) if kept else None,
        )
        return unit.affine(self.high - self.low, self.low)

    def _prior(self, c: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of z given the measurement."""
        like = next(iter(self.network.parameters()), c)
        try:
            mean, log_variance = self.network.prior(c.to(like))
        except RuntimeError as error:
            detail = " ".join(str(error).split())[:200]
            raise InputError(
                f"ConditionalVAE expects images that its network takes, got {tuple(c.shape)} with the noise level "
                f"({detail}); load weights for such images"
            ) from error
        return mean, (0.5 * log_variance).exp()

    def _decoded(
        self, prior: tuple[Tensor, Tensor], c: Tensor, streams: list[torch.Generator]
    ) -> tuple[Tensor, Tensor]:
        mean, deviation = prior
        z = mean + deviation * _white(streams, mean[0])
        return self.network.decode(z, c.to(z).expand(len(z), *c.shape[1:]))


def condition(data: Whitened, kind: str) -> Tensor:
    """What the network is given of measurements: A†y and a map of the noise level, `(B, C + 1, H, W)`."""
    image = start(data, kind)
    return torch.cat([image, data.sigma.reshape(-1, 1, 1, 1).expand(len(image), 1, *image.shape[2:])], 1)


def _white(streams: list[torch.Generator], like: Tensor) -> Tensor:
    return torch.stack([torch.randn(like.shape, generator=one, dtype=like.dtype) for one in streams]).to(like.device)
