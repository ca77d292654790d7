"""Objectives: what a network is trained for, one file each; a recipe names one by `kind` and gives its arguments."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ...errors import InputError
from ..data import Dataset, Place
from .components import PrincipalComponents
from .denoising import Denoising
from .evidence import ConditionalEvidence, Evidence
from .likelihood import LowRankLikelihood
from .paired import Paired
from .supervised import Supervised
from .variational import VariationalDenoising
from .weight_inference import WeightInference

__all__ = [
    "OBJECTIVES",
    "ConditionalEvidence",
    "Evidence",
    "Denoising",
    "LowRankLikelihood",
    "Objective",
    "Paired",
    "PrincipalComponents",
    "Supervised",
    "VariationalDenoising",
    "WeightInference",
    "make_objective",
]


@runtime_checkable
class Objective(Protocol):
    """What the loop needs of an objective.

    Everything random comes from the places' generators, or from `noise.base.stream(seed, item)` when validating: never
    from torch's global generator. Then training can be resumed exactly and shared among processes.
    """

    metric: str
    """The figure of `validate` that tells which weights are best; larger is better."""

    def loss(self, network: nn.Module, data: Dataset, batch: Sequence[Place], device: torch.device) -> Tensor:
        """Mean over the batch of each item's loss, so that the mean over equal shares of a batch is the batch's."""
        ...

    def validate(self, network: nn.Module, data: Dataset, device: torch.device) -> dict[str, float]:
        """Figures by name; called without gradients."""
        ...


OBJECTIVES: dict[str, type[Objective]] = {
    "ConditionalEvidence": ConditionalEvidence,
    "Denoising": Denoising,
    "Evidence": Evidence,
    "LowRankLikelihood": LowRankLikelihood,
    "Paired": Paired,
    "PrincipalComponents": PrincipalComponents,
    "Supervised": Supervised,
    "VariationalDenoising": VariationalDenoising,
    "WeightInference": WeightInference,
}


def make_objective(description: Mapping[str, Any], data: str = "images") -> Objective:
    """The objective that a recipe describes: `kind` and the arguments of that class.

    Args:
        description: from the recipe.
        data: kind of the recipe's data; an objective takes "images" unless its attribute `data` says otherwise.

    Raises:
        InputError: an unknown kind or argument, or one that learns from other data.

    Example:
        >>> make_objective({"kind": "Denoising", "sigma": [0.0, 0.2]}).metric
        'psnr_25'
    """
    settings = dict(description)
    kind = settings.pop("kind", None)
    if kind not in OBJECTIVES:
        raise InputError(f"expected an objective whose kind is one of {', '.join(OBJECTIVES)}, got {kind!r}")
    wanted = getattr(OBJECTIVES[kind], "data", "images")
    if wanted != data:
        raise InputError(f"{kind} expects data of kind {wanted}, got {data}; change the recipe's data or objective")
    known = inspect.signature(OBJECTIVES[kind]).parameters
    if not set(settings) <= set(known):
        unknown = ", ".join(sorted(set(settings) - set(known)))
        raise InputError(f"{kind} expects settings out of {', '.join(known)}, got {unknown}; correct the name")
    try:
        return OBJECTIVES[kind](**settings)
    except TypeError as error:
        raise InputError(f"{kind} cannot be built from {sorted(settings)}: {error}") from error
