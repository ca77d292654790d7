"""Amortised components: a network that tells, in one pass, the mean and the leading uncertainties of an image.

    e = x − m(y),   p_k = w_kᵀ e,   ρ = e − Σ p_k w_k;      [·] is held constant, t = [Σ λ_k + Σ v_i]
    L = ‖e‖²/(n c²) − λ₁ Σ_k p_k²/t + λ₂ (mean_k s(λ_k, [p_k²]) + mean_i s(v_i, [ρ_i²]))
    s(v, q) = ½ (log v + q/v)                 "log", for both
    s(v, q) = (v − q)²/(n c²)²                "square", as published, for λ_k

Whatever the weights, the optimum is m = E[x | y], w_k the leading eigenvectors of Cov[x | y], λ_k = E[p_k² | y] and
v_i = E[ρ_i² | y]. Division by t, the squared error that the network expects, lets flat and busy images count alike, and
changes no optimum, since t depends on y alone. The published code divides e and λ_k by ‖e‖ instead, which depends on x:
its λ_k tends to E[p²/‖e‖⁴]/E[1/‖e‖⁴], too small where ‖e‖ varies. The log score is proper for a variance whatever
the law of the error; squares have the same optimum but follow the few items with the largest errors. λ₂ rises
from 0 while the first items pass, since the early mean's errors are no uncertainty.

Reference: Nehme, Yair, Michaeli, "Uncertainty quantification via neural posterior principal components", NeurIPS 2023.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ...errors import InputError
from ...methods import ComponentNetwork
from ...methods.component_network import low_rank_diagonal
from ...networks.components import Prediction
from ...noise.base import stream
from ..data import Dataset, Place
from ..simulation import Simulation

__all__ = ["Amortised", "PrincipalComponents", "component_loss", "log_score"]

_TOGETHER = 16  # items validated at once
_NINETY = 1.6448536  # normal quantile of 0.95


class Amortised:
    """What the objectives of `methods.ComponentNetwork` share: simulated data, the mean, figures.

    Args:
        method: `kind` "ComponentNetwork" and its settings other than the network.
        operator: what measures, see `learning.simulation`.
        noise: its noise, see there.
        warmup: items until the variances count in full.
    """

    metric = "log_score"
    form = ""

    def __init__(
        self, method: Mapping[str, Any], operator: Mapping[str, Any], noise: Mapping[str, Any], warmup: int = 0
    ):
        self.settings = dict(method)
        kind, known = self.settings.pop("kind", None), {"start", "channels", "tolerance"}
        if kind != "ComponentNetwork" or not set(self.settings) <= known:
            raise InputError(
                f"{type(self).__name__} expects a method of kind ComponentNetwork with settings out of "
                f"{', '.join(sorted(known))}, got {dict(method)}"
            )
        if warmup < 0:
            raise InputError(f"{type(self).__name__} expects a warm-up of at least 0 items, got {warmup}")
        self.simulation, self.warmup = Simulation(operator, noise), warmup

    def loss(self, network: nn.Module, data: Dataset, batch: Sequence[Place], device: torch.device) -> Tensor:
        """Mean of a batch."""
        x, found = self._predicted(network, data, batch, device)
        share = [min(place.number / self.warmup, 1.0) if self.warmup else 1.0 for place in batch]
        mean = (found.mean - x).flatten(1).square().mean(1) / network.scale**2  # type: ignore[operator]
        terms = self.terms(found, x, network.scale, torch.tensor(share).to(x))  # type: ignore[arg-type]
        return (mean + terms).mean()

    def terms(self, found: Prediction, x: Tensor, scale: float, share: Tensor) -> Tensor:
        """Each item's loss `(B,)` beside that of its mean, variances weighted by `share` `(B,)`."""
        raise NotImplementedError(f"{type(self).__name__} must define terms")

    def validate(self, network: nn.Module, data: Dataset, device: torch.device) -> dict[str, float]:
        """Mean PSNR in dB (peak 1), share of the squared error along the factors, squared error over the variance
        stated, pixels inside their 90 % intervals, and log density in nats per pixel; with the same noise every time.
        """
        decibels, scores, inside, along, stated, errors = [], [], [], 0.0, 0.0, 0.0
        for first in range(0, len(data), _TOGETHER):
            places = [Place(i, stream(3, i)) for i in range(first, min(first + _TOGETHER, len(data)))]
            x, found = self._predicted(network, data, places, device)
            factors, diagonal = low_rank_diagonal(found, self.form)
            scores += log_score(found.mean, factors, diagonal, x).tolist()
            error, variance = (x - found.mean).flatten(1), (factors.square().sum(1) + diagonal).flatten(1)
            basis = torch.linalg.qr(factors.flatten(2).mT).Q
            decibels += (-10 * error.square().mean(1).log10()).tolist()
            inside += (error.abs() <= _NINETY * variance.sqrt()).float().mean(1).tolist()
            along += float((error[:, None] @ basis).square().sum())
            stated, errors = stated + float(variance.sum()), errors + float(error.square().sum())
        count = len(data)
        return {
            "psnr": sum(decibels) / count,
            "captured": along / errors,
            "error_over_variance": errors / stated,
            "inside_90": sum(inside) / count,
            "log_score": sum(scores) / count,
        }

    def _predicted(
        self, network: nn.Module, data: Dataset, batch: Sequence[Place], device: torch.device
    ) -> tuple[Tensor, Prediction]:
        if getattr(network, "form", None) != self.form:
            raise InputError(
                f"{type(self).__name__} expects a network of form {self.form!r}, got "
                f"{getattr(network, 'form', type(network).__name__)!r}; correct the recipe's network"
            )
        x, y, problems = self.simulation.batch(data, batch, device)
        found = ComponentNetwork(network, **self.settings).predict(y, problems)
        return x, Prediction(*(part.float() for part in found))


class PrincipalComponents(Amortised):
    """Train `networks.ComponentPredictor` of form "components".

    Args:
        method, operator, noise, warmup: see `Amortised`.
        directions: λ₁.
        variances: λ₂.
        score: s for λ_k, "log" or "square".
    """

    form = "components"

    def __init__(
        self,
        method: Mapping[str, Any],
        operator: Mapping[str, Any],
        noise: Mapping[str, Any],
        warmup: int = 0,
        directions: float = 1.0,
        variances: float = 1.0,
        score: Literal["log", "square"] = "log",
    ):
        super().__init__(method, operator, noise, warmup)
        if score not in ("log", "square"):
            raise InputError(f'PrincipalComponents expects a score "log" or "square", got {score!r}')
        if not (0 < directions < math.inf and 0 < variances < math.inf):
            raise InputError(f"PrincipalComponents expects positive weights, got {directions} and {variances}")
        self.directions, self.variances = directions, variances
        self.score: Literal["log", "square"] = score

    def terms(self, found: Prediction, x: Tensor, scale: float, share: Tensor) -> Tensor:
        aligned, spread = component_loss(found, x, scale, self.score)
        return self.directions * aligned + self.variances * share * spread


def component_loss(
    found: Prediction, truth: Tensor, scale: float, score: Literal["log", "square"] = "log"
) -> tuple[Tensor, Tensor]:
    """The loss of the directions and that of the variances, `(B,)` each.

    Args:
        found: factors orthogonal; no gradient goes to the mean.
        truth: x.
        scale: c.
        score: of λ_k.
    """
    error = (truth - found.mean).detach().flatten(1)
    factors, v = found.factors.flatten(2), found.remainder.flatten(1)
    variances = factors.square().sum(2).clamp_min(torch.finfo(error.dtype).tiny)
    axes = factors / variances.sqrt()[..., None]
    along = (axes @ error[..., None])[..., 0]
    expected = (variances.sum(1) + v.sum(1)).detach()
    aligned = -along.square().sum(1) / expected
    along = along.detach()
    left = error - (along[:, None] @ axes.detach())[:, 0]
    whole = error.shape[1] * scale**2
    if score == "log":
        spread = _log_loss(variances / whole, along.square() / whole)
    else:
        spread = ((variances - along.square()) / whole).square().mean(1)
    return aligned, spread + _log_loss(v / scale**2, left.square() / scale**2)


def log_score(mean: Tensor, factors: Tensor, diagonal: Tensor, truth: Tensor) -> Tensor:
    """log N(truth; mean, F Fᵀ + diag d) per pixel, `(B,)`, by Woodbury in O(n K²).

    Args:
        mean, diagonal, truth: `(B, *image_shape)`.
        factors: F, `(B, K, *image_shape)`.
    """
    d = diagonal.flatten(1)
    white, scaled = (truth - mean).flatten(1) / d.sqrt(), factors.flatten(2) / d.sqrt()[:, None]
    inner = scaled @ scaled.mT + torch.eye(scaled.shape[1], dtype=d.dtype, device=d.device)
    root = torch.linalg.cholesky(inner)
    explained = torch.linalg.solve_triangular(root, scaled @ white[..., None], upper=False)[..., 0]
    distance = white.square().sum(1) - explained.square().sum(1)
    logdet = d.log().sum(1) + 2 * root.diagonal(dim1=1, dim2=2).log().sum(1)
    return -0.5 * ((distance + logdet) / d.shape[1] + math.log(2 * math.pi))


def _log_loss(variance: Tensor, square: Tensor) -> Tensor:
    return 0.5 * (variance.log() + square / variance).mean(1)
