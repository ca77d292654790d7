"""What the data and the prior together say about the image: mean, covariance, draws, and what they claim to be.

    p(x | y) ≈ N(mean, Σ),    std = √diag Σ,    ⟨w, x⟩ ∈ ⟨w, mean⟩ ± z √(wᵀ Σ w)

Where draws were kept, intervals are their quantiles instead, as long as at least five draws lie beyond each end; the
diagnostics say which. `target` names what the spread is a spread *of*; posteriors of different targets are never mixed.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..errors import FormatError, InputError
from ..io.record import plain
from ..io.safe import DEFAULT_LIMIT, read_safetensors, write_safetensors
from ..solvers.result import Status
from .covariance import Components, Covariance
from .density import Density, DirectionalMoments, gaussian_density, kernel_density, maximum_entropy_density
from .estimate import Estimate
from .low_rank import LowRankDiagonal

__all__ = ["Components", "Posterior", "TARGETS"]

TARGETS = ("posterior", "tempered", "estimator-error", "epistemic")

_FORMAT = "obverse-posterior"
_VERSION = 1
# Draws beyond each end of an interval that a quantile needs; with fewer the Gaussian interval is the steadier one.
_TAIL_DRAWS = 5


@dataclass(frozen=True, eq=False, repr=False)
class Posterior(Estimate):
    """Mean, covariance, samples, provenance and diagnostics of one image.

    Args:
        image: the mean, exactly `covariance.image_shape`: `(C, H, W)` or `(C, D, H, W)`.
        status: how the computation ended.
        history: the stopping criterion, or the objective, at each iteration.
        diagnostics: named figures: evaluations, seconds, clipped mass, R-hat, ... ; "intervals" is filled in here.
        covariance: Σ.
        target: what the spread is a spread of: "posterior", "tempered" (a likelihood or prior raised to a power),
            "estimator-error" (of a point estimator, in the frequentist sense) or "epistemic" (of a model's weights).
        provenance: method, settings, seeds, versions: whatever lets one make it again.
        draws: kept draws `(n, *image_shape)`, if any.
        moments: skewness and kurtosis along some directions, if known.

    Raises:
        InputError: an unknown target, or shapes that do not agree.

    Example:
        >>> from obverse.posterior.stationary import StationaryCovariance
        >>> done = Status(True, "closed-form", "Closed form.")
        >>> known = Posterior(torch.zeros(1, 8, 8), done, covariance=StationaryCovariance(torch.ones(8, 8), (1, 8, 8)))
        >>> low, high = known.interval(torch.ones(1, 8, 8) / 64, level=0.95)
        >>> round(float(high), 3)
        0.245
    """

    covariance: Covariance = field(kw_only=True)
    target: str = field(default="posterior", kw_only=True)
    provenance: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    draws: Tensor | None = field(default=None, kw_only=True)
    moments: DirectionalMoments | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target not in TARGETS:
            raise InputError(
                f"target expects one of {', '.join(TARGETS)}, got {self.target!r}; name what the spread is of"
            )
        shape = self.covariance.image_shape
        if tuple(self.image.shape) != shape:
            raise InputError(f"a posterior's mean expects shape {shape}, got {tuple(self.image.shape)}; pass one image")
        if self.draws is not None and (tuple(self.draws.shape[1:]) != shape or len(self.draws) < 2):
            raise InputError(f"draws expects at least two of shape {shape}, got {tuple(self.draws.shape)}; keep more")
        object.__setattr__(self, "provenance", dict(self.provenance))
        object.__setattr__(self, "diagnostics", {**self.diagnostics, "intervals": self.interval_kind(0.9)})

    @property
    def mean(self) -> Tensor:
        """The posterior mean, `image_shape`."""
        return self.image

    @cached_property
    def std(self) -> Tensor:
        """Standard deviation of every pixel, `image_shape`; computed on first use."""
        return self.covariance.diagonal().sqrt()

    def components(self, k: int, region: Sequence[slice] | None = None) -> Components:
        """The `k` directions in which the image, or a region of it, is most uncertain.

        Args:
            k: number of components.
            region: slices as for `crop`; components of P Σ Pᵀ then, on the cropped grid. None for the whole image.
        """
        return (self if region is None else self.crop(region)).covariance.components(k)

    def sample(self, n: int, seed: int | torch.Generator = 0) -> Tensor:
        """`n` images of this posterior, `(n, *image_shape)`.

        Kept draws are handed out in random order (again from the start once all are used); without them the draws are
        Gaussian. The first ones do not depend on `n`.

        Raises:
            InputError: the covariance cannot be sampled and no draws were kept.
        """
        if n < 1:
            raise InputError(f"sample expects to draw at least one image, got {n}; ask for one or more")
        generator = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
        if self.draws is not None:
            order = torch.randperm(len(self.draws), generator=generator, device=generator.device)
            return self.draws[order.repeat(math.ceil(n / len(order)))[:n].to(self.draws.device)]
        zero_mean = self.covariance.sample(n, generator)
        if zero_mean is None:
            raise InputError(
                f"sample expects a covariance with a sampler, or kept draws, got {type(self.covariance).__name__} "
                "without; call compact(rank) first, whose low rank plus diagonal can be sampled"
            )
        return self.mean + zero_mean.to(self.mean)

    def interval(self, functional: Tensor | None = None, level: float = 0.9) -> tuple[Tensor, Tensor]:
        """Central credible interval, of every pixel or of linear functionals.

        Args:
            functional: weights w `(*batch, *image_shape)` of ⟨w, x⟩, so that the ends have shape `(*batch,)`; or a
                boolean mask, which stands for the mean over a region; or None for every pixel.
            level: probability of the interval, between 0 and 1.

        Returns:
            (low, high).
        """
        if not 0 < level < 1:
            raise InputError(f"level expects a probability between 0 and 1, got {level}; 0.9 is usual")
        weights = None if functional is None else self._weights(functional)
        if self.interval_kind(level) == "quantiles":
            assert self.draws is not None
            values = self.draws if weights is None else self._project(self.draws, weights)
            ordered = values.sort(0).values
            return _quantile(ordered, (1 - level) / 2), _quantile(ordered, (1 + level) / 2)
        z = math.sqrt(2) * float(torch.erfinv(torch.tensor(level, dtype=torch.float64)))
        centre, spread = (self.mean, self.std) if weights is None else self.functional(weights)
        return centre - z * spread, centre + z * spread

    def interval_kind(self, level: float) -> str:
        """ "quantiles" where enough draws were kept for this level, else "gaussian"."""
        enough = self.draws is not None and len(self.draws) * (1 - level) / 2 >= _TAIL_DRAWS
        return "quantiles" if enough else "gaussian"

    def functional(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of ⟨w, x⟩, for weights (or a mask) as in `interval`; each `(*batch,)`."""
        weights = self._weights(weights)
        batch = weights.shape[: weights.ndim - self.mean.ndim]
        flat = weights.reshape(-1, self.mean.numel())
        variance = (flat * self.covariance.matvec(flat)).sum(-1).clamp_min(0)
        return (flat @ self.mean.reshape(-1)).reshape(batch), variance.sqrt().reshape(batch)

    def marginal(self, direction: Tensor) -> Density:
        """The density of ⟨v, x⟩ along a direction, such as a component's: `log_prob`, and of which `kind` it is.

        From kept draws a kernel density, where they are worth a hundred independent ones; else where skewness and
        kurtosis along v are known that of maximum entropy; else the normal density with variance vᵀΣv.

        Args:
            direction: v, `image_shape`, of any length.

        Raises:
            InputError: the image has no variance along v.
        """
        weights = self._weights(direction).reshape(self.mean.shape)
        if self.draws is not None and (found := kernel_density(self._project(self.draws, weights))) is not None:
            return found
        mean, std = (float(part) for part in self.functional(weights))
        known = None if self.moments is None else self.moments.along(weights)
        if known is not None:
            return maximum_entropy_density(mean, std, *known)
        few = "too few independent draws were kept for a curve" if self.draws is not None else "mean and covariance"
        return gaussian_density(mean, std, few)

    def affine(self, scale: float, offset: float | Tensor = 0.0) -> "Posterior":
        """The posterior of scale·x + offset: a change of units."""
        if not (math.isfinite(scale) and scale != 0):
            raise InputError(f"affine expects a finite scale other than zero, got {scale}; pass the recorded scale")
        draws = None if self.draws is None else scale * self.draws + offset
        moments = None if self.moments is None else self.moments.scaled(scale)
        covariance = self.covariance.scaled(scale**2)
        return replace(self, image=scale * self.mean + offset, covariance=covariance, draws=draws, moments=moments)

    def crop(self, slices: Sequence[slice]) -> "Posterior":
        """The posterior of `image[slices]`: P Σ Pᵀ. Fewer slices than axes apply to the last axes."""
        missing = self.mean.ndim - len(slices)
        if missing < 0:
            raise InputError(f"crop expects at most {self.mean.ndim} slices, got {len(slices)}; one per image axis")
        whole = (slice(None),) * missing + tuple(slices)
        draws = None if self.draws is None else self.draws[(slice(None), *whole)]
        covariance = self.covariance.restricted(whole)
        # Moments along whole directions say nothing of their parts.
        return replace(self, image=self.mean[whole], covariance=covariance, draws=draws, moments=None)

    def compact(self, rank: int | None = None) -> "Posterior":
        """The same posterior with its covariance as low rank plus a locally correlated remainder.

        Marginal variances are kept. Where the covariance cannot be sampled the remainder is a diagonal.

        Args:
            rank: number of factors; by default those the covariance stores, or 16.
        """
        return replace(self, covariance=self.covariance.compact(rank))

    def save(self, path: str | os.PathLike[str], rank: int | None = None, overwrite: bool = False) -> str:
        """Write mean, compact covariance, kept draws, diagnostics and provenance to one safetensors file, atomically.

        Arrays: `mean` (*image_shape), `factors` (K, *image_shape), `eigenvalues` (K,), `diagonal` (*image_shape);
        `correlation` (kh, kw) or (kd, kh, kw) and `shared` (K,), where neighbours are correlated; `draws`, if kept;
        `moment_directions` (k, *image_shape), `skewness` and `kurtosis` (k,), if known. From `factors` to `shared` they
        are arguments of `LowRankDiagonal`. The metadata entry "obverse" is JSON.

        Args:
            path: destination.
            rank: number of factors; by default those the covariance stores, or 16.
            overwrite: replace an existing file.

        Returns:
            The SHA-256 that the file carries and `load` verifies.
        """
        compact = self.covariance.compact(rank)
        shape = self.mean.shape
        arrays = {"mean": self.mean, "factors": compact.U.mT.reshape(-1, *shape).contiguous()}
        arrays |= {"eigenvalues": compact.eigenvalues, "diagonal": compact.d.reshape(shape)}
        if compact.correlation is not None:
            arrays |= {"correlation": compact.correlation, "shared": compact.shared}
        if self.draws is not None:
            arrays["draws"] = self.draws
        if self.moments is not None:
            arrays |= {"moment_directions": self.moments.directions, "skewness": self.moments.skewness}
            arrays["kurtosis"] = self.moments.kurtosis
        facts = {
            "format": _FORMAT,
            "version": _VERSION,
            "target": self.target,
            "status": [self.status.converged, self.status.reason, self.status.message],
            "history": self.history,
            "diagnostics": self.diagnostics,
            "provenance": self.provenance,
        }
        text = json.dumps(plain(facts), allow_nan=False)
        return write_safetensors(path, arrays, {"obverse": text}, overwrite)

    @classmethod
    def load(cls, path: str | os.PathLike[str], limit: int = DEFAULT_LIMIT) -> "Posterior":
        """Read a saved posterior; its covariance is a `LowRankDiagonal`. No code is run.

        Raises:
            InputError: the file cannot be read.
            FormatError: it is not a posterior, or any of its bytes has changed.
        """
        arrays, metadata = read_safetensors(path, limit)
        try:
            facts = json.loads(metadata["obverse"])
            if facts["format"] != _FORMAT or facts["version"] != _VERSION:
                raise FormatError(
                    f"{path} expects {_FORMAT} version {_VERSION}, got {facts['format']} {facts['version']}; "
                    "update Obverse or make the file again"
                )
            tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
            mean, factors = tensors["mean"], tensors["factors"]
            U = factors.reshape(len(factors), -1).mT.contiguous() if len(factors) else mean.new_zeros(mean.numel(), 0)
            local = tensors.get("correlation"), tensors.get("shared")
            covariance = LowRankDiagonal(U, tensors["eigenvalues"], tensors["diagonal"], tuple(mean.shape), *local)
            shape_known = "moment_directions" in tensors
            named = ("moment_directions", "skewness", "kurtosis")
            moments = DirectionalMoments(*(tensors[name] for name in named)) if shape_known else None
            converged, reason, message = facts["status"]
            return Posterior(
                mean,
                Status(bool(converged), str(reason), str(message)),
                tuple(facts["history"]),
                facts["diagnostics"],
                covariance=covariance,
                target=facts["target"],
                provenance=facts["provenance"],
                draws=tensors.get("draws"),
                moments=moments,
            )
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, FormatError):
                raise
            raise FormatError(f"{path} expects a saved posterior, got another kind of file ({error})") from error

    def _spread(self) -> str:
        return f"{self.target} spread by {type(self.covariance).__name__}"

    def _weights(self, functional: Tensor) -> Tensor:
        shape = tuple(self.mean.shape)
        if tuple(functional.shape[-len(shape) :]) != shape:
            raise InputError(
                f"a functional expects weights (*batch, *{shape}), got {tuple(functional.shape)}; expand it"
            )
        if functional.dtype == torch.bool:
            axes = tuple(range(-len(shape), 0))
            pixels = functional.sum(axes, keepdim=True)
            if bool((pixels == 0).any()):
                raise InputError("a region expects at least one pixel, got an empty mask; draw a larger one")
            return functional.to(self.mean) / pixels
        return functional.to(self.mean)

    def _project(self, images: Tensor, weights: Tensor) -> Tensor:
        batch = weights.shape[: weights.ndim - self.mean.ndim]
        flat = weights.reshape(-1, self.mean.numel())
        return (images.reshape(len(images), -1).to(flat) @ flat.mT).reshape(len(images), *batch)


def _quantile(ordered: Tensor, probability: float) -> Tensor:
    """Linear interpolation between order statistics; `torch.quantile` refuses more than 16 million numbers."""
    position = probability * (len(ordered) - 1)
    below = min(int(position), len(ordered) - 2)
    return torch.lerp(ordered[below], ordered[below + 1], position - below)
