"""Groups of pixels: by how uncertain, bright or steep the image is there, by what the operator sees, by a map.

    uncertainty: std        intensity: mean        edges: |∇ mean|        (A⁺A)ᵢᵢ: the share of pixel i that A sees

The first three are cut at quantiles of each image, so that every image has its share of every stratum and the groups
need no unit; they look at the posterior alone, never at the truth, so that they exist for a new image too.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...errors import InputError
from ...operators.base import LinearOperator
from ..posterior import Posterior
from ..product import ProductCovariance

__all__ = ["Strata", "seen_share"]

FEATURES = ("uncertainty", "intensity", "edges", "map")


@dataclass(frozen=True)
class Strata:
    """A partition of the pixels of any posterior.

    Args:
        feature: "uncertainty", "intensity", "edges", or "map" as `Strata.from_labels` and `Strata.seen_by` make it.
        cuts: ascending probabilities: the quantiles of each image at which the feature is cut. (0.5, 0.9) makes
            strata of the lower half, the next 40 % and the top 10 % of the pixels.
        names: of the strata, one more than cuts; made from the cuts by default.
        map: labels 0, 1, … of all pixels, flattened, for "map".
        shape: of the map.

    Example:
        >>> Strata("edges", (0.8,)).names
        ('edges, lowest 80 %', 'edges, top 20 %')
    """

    feature: str
    cuts: tuple[float, ...] = ()
    names: tuple[str, ...] = ()
    map: tuple[int, ...] = ()
    shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.feature not in FEATURES:
            raise InputError(f"strata expect one of {', '.join(FEATURES)}, got {self.feature!r}; choose one")
        for name in ("cuts", "names", "map", "shape"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.feature == "map":
            self._check_map()
            return
        edges = (0.0, *self.cuts, 1.0)
        if not self.cuts or not all(a < b for a, b in itertools.pairwise(edges)):
            raise InputError(
                f"strata by {self.feature} expect ascending cuts between 0 and 1, got {self.cuts}; (0.5,) makes halves"
            )
        names = self.names or tuple(self._name(a, b) for a, b in itertools.pairwise(edges))
        if len(names) != len(self.cuts) + 1:
            raise InputError(f"strata expect {len(self.cuts) + 1} names, got {len(names)}; one more than cuts")
        object.__setattr__(self, "names", names)

    def _check_map(self) -> None:
        used = sorted(set(self.map))
        if len(self.map) != torch.Size(self.shape).numel() or used[:1] != [0] or used[-1] >= len(self.names):
            raise InputError(
                f"strata from a map expect a name for each of the labels 0, 1, …, got labels {used} and names "
                f"{self.names}; use Strata.from_labels"
            )

    def _name(self, low: float, high: float) -> str:
        if low == 0:
            return f"{self.feature}, lowest {100 * high:g} %"
        if high == 1:
            return f"{self.feature}, top {round(100 * (1 - low), 6):g} %"
        return f"{self.feature}, {100 * low:g} to {100 * high:g} %"

    @classmethod
    def from_labels(cls, labels: Tensor, names: Sequence[str] = ()) -> "Strata":
        """Strata of a label map, the same for every image.

        Args:
            labels: integers 0, 1, …, of the image's shape, or of a functional's `(*batch,)`.
            names: one for each label.
        """
        if labels.is_floating_point() or labels.is_complex() or labels.numel() == 0 or int(labels.min()) < 0:
            raise InputError(f"labels expect integers ≥ 0, got {labels.dtype} {tuple(labels.shape)}; number the groups")
        given = tuple(names) or tuple(f"label {i}" for i in range(int(labels.max()) + 1))
        return cls("map", names=given, map=tuple(labels.flatten().tolist()), shape=tuple(labels.shape))

    @classmethod
    def seen_by(cls, operator: LinearOperator, cuts: Sequence[float] = (0.1, 0.9)) -> "Strata":
        """Strata by the share of a pixel that a linear operator sees, cut at these shares, not at quantiles.

        A stratum without a pixel is left out.
        """
        edges = torch.tensor(tuple(cuts), dtype=torch.float64)
        ends = [0.0, *cuts, 1.0]
        names = [f"seen to {100 * a:g}–{100 * b:g} %" for a, b in itertools.pairwise(ends)]
        labels = torch.bucketize(seen_share(operator).double(), edges, right=True)
        # Labels start at 0 whatever strata are empty.
        used = sorted(set(labels.flatten().tolist()))
        return cls.from_labels(torch.searchsorted(torch.tensor(used), labels), [names[i] for i in used])

    def labels(self, posterior: Posterior) -> Tensor:
        """The stratum of every pixel, `image_shape`, int64.

        Raises:
            InputError: a map of another shape.
        """
        if self.feature == "map":
            return torch.tensor(self.map).reshape(self.shape)
        values = self._feature(posterior).detach().double().cpu().contiguous()
        ordered = values.flatten().sort().values
        # The value below which a share of the pixels lies: a cut in a plateau leaves the plateau in one stratum.
        at = [min(round(cut * len(ordered)), len(ordered) - 1) for cut in self.cuts]
        return torch.bucketize(values, ordered[at], right=True)

    def split(self, values: Tensor, posterior: Posterior) -> list[Tensor]:
        """Values of every pixel, `image_shape`, by stratum; empty where an image has no pixel of one."""
        labels = self.labels(posterior)
        if labels.shape != values.shape:
            raise InputError(
                f"strata from a map of shape {tuple(labels.shape)} expect values of that shape, got "
                f"{tuple(values.shape)}; make the map of the image's, or of the functionals', shape"
            )
        return [values[labels == k] for k in range(len(self.names))]

    def _feature(self, posterior: Posterior) -> Tensor:
        if self.feature == "uncertainty":
            return posterior.std
        return posterior.mean if self.feature == "intensity" else _steepness(posterior.mean)

    def facts(self) -> dict[str, Any]:
        """All of it, as plain JSON can hold it."""
        facts: dict[str, Any] = {"feature": self.feature, "cuts": self.cuts, "names": self.names}
        return facts | ({"map": self.map, "shape": self.shape} if self.feature == "map" else {})

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> "Strata":
        """The strata whose `facts` these were."""
        parts: dict[str, Any] = {n: tuple(part) if isinstance(part, list) else part for n, part in facts.items()}
        return cls(**parts)


def seen_share(operator: LinearOperator, weights: Tensor | None = None, damping: float = 1e-4) -> Tensor:
    """How much of a pixel, or of a functional, lies in the range of Aᴴ: the rest is known from the prior alone.

        (A⁺A)ᵢᵢ,  or  wᵀA⁺A w / wᵀw,       A⁺A = lim (AᴴA + εI)⁻¹ AᴴA for ε → 0

    Args:
        operator: A, linear, on real images.
        weights: `(*batch, *image_shape)`; None for every pixel, exactly up to 1024 of them and by probing beyond.
        damping: ε over ‖A‖²: directions that A passes with less than 1 % of its norm count as mostly unseen.

    Returns:
        Shares between 0 and 1, `image_shape` or `(*batch,)`.

    Example:
        >>> from obverse.operators import Mask
        >>> seen_share(Mask(torch.tensor([[[1.0, 0.0]]]), (1, 1, 2))).flatten().round().tolist()
        [1.0, 0.0]
    """
    if operator.dtype.is_complex:
        raise InputError("seen_share expects an operator on real images, got a complex one; split it into two channels")
    epsilon = damping * float(operator.norm()) ** 2

    def projection(images: Tensor) -> Tensor:
        return operator.solve(operator.gram(images.to(operator.dtype)), epsilon)

    if weights is None:
        diagonal = ProductCovariance(projection, operator.image_shape, probes=1024, dtype=operator.dtype).diagonal()
        return diagonal.clamp(0, 1)
    axes = tuple(range(-len(operator.image_shape), 0))
    w = weights.to(operator.dtype)
    return ((w * projection(w)).sum(axes) / w.square().sum(axes)).clamp(0, 1)


def _steepness(image: Tensor) -> Tensor:
    """|∇ x| over all spatial axes and channels, the same in every channel."""
    total = torch.zeros_like(image[:1])
    for axis in range(1, image.ndim):
        if image.shape[axis] > 1:
            (along,) = torch.gradient(image, dim=axis)
            total = total + along.square().sum(0, keepdim=True)
    return total.sqrt().expand(image.shape)
