"""Several posteriors of one image as a mixture: what is known when one of them holds, and it is not known which.

    mean = Σᵢ wᵢ mᵢ,        Σ = Σᵢ wᵢ (Σᵢ + (mᵢ − mean)(mᵢ − mean)ᵀ)

The second term is the disagreement of the members. Only posteriors of the same target mix: a spread of weights added
to a spread of images, or a tempered spread to an exact one, is a spread of nothing.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InputError
from ..solvers.result import Status
from .covariance import Covariance, streams
from .posterior import Posterior

__all__ = ["MixtureCovariance", "combine"]


def combine(posteriors: Sequence[Posterior], weights: Sequence[float] | None = None) -> Posterior:
    """The mixture of posteriors of the same image and target.

    Args:
        posteriors: at least one.
        weights: probabilities, rescaled to sum to one; equal by default.

    Returns:
        A posterior with exact mixture moments; draws are kept if all members kept equally many and weigh the same.

    Raises:
        InputError: targets or shapes differ, or the weights are not probabilities.
    """
    members = list(posteriors)
    if not members:
        raise InputError("combine expects at least one posterior, got none; pass a list of them")
    targets = sorted({member.target for member in members})
    if len(targets) > 1:
        raise InputError(
            f"combine expects posteriors of one target, got {' and '.join(targets)}: their spreads are of different "
            "things; combine those of each target apart"
        )
    shapes = sorted({tuple(member.mean.shape) for member in members})
    if len(shapes) > 1:
        raise InputError(f"combine expects posteriors of one image, got shapes {shapes}; crop them to the same grid")
    probabilities = _probabilities(len(members), weights)
    means = torch.stack([member.mean for member in members])
    mean = torch.tensordot(torch.tensor(probabilities, dtype=torch.float64).to(means), means, 1)
    failed = [f"member {i}: {member.status.message}" for i, member in enumerate(members) if not member.status.converged]
    message = f"Mixture of {len(members)} posteriors." if not failed else "Some members did not converge: "
    return Posterior(
        mean,
        Status(not failed, "converged" if not failed else "member", message + " ".join(failed)),
        diagnostics={"members": [dict(member.diagnostics) for member in members], "weights": probabilities},
        covariance=MixtureCovariance([member.covariance for member in members], probabilities, means - mean),
        target=targets[0],
        provenance={"combined": [dict(member.provenance) for member in members]},
        draws=_joined(members, probabilities),
    )


class MixtureCovariance(Covariance):
    """Σᵢ wᵢ (Σᵢ + oᵢ oᵢᵀ), the covariance of a mixture.

    Args:
        members: Σᵢ.
        weights: wᵢ, summing to one.
        offsets: oᵢ = mᵢ − mean, `(members, *image_shape)`.
    """

    def __init__(self, members: Sequence[Covariance], weights: Sequence[float], offsets: Tensor):
        super().__init__(members[0].image_shape, members[0].dtype, members[0].device)
        self.members = tuple(members)
        self.weights = tuple(weights)
        self.offsets = offsets.to(dtype=self.dtype, device=self.device)

    def _matvec(self, images: Tensor) -> Tensor:
        flat, offsets = images.reshape(len(images), -1), self.offsets.reshape(len(self.members), -1).to(images.dtype)
        weights = torch.tensor(self.weights, dtype=torch.float64).to(flat)
        between = ((flat @ offsets.mT * weights) @ offsets).reshape(images.shape)
        return between + torch.stack([w * own.matvec(images) for w, own in zip(self.weights, self.members)]).sum(0)

    def diagonal(self) -> Tensor:
        parts = [w * (own.diagonal() + o.square()) for w, own, o in zip(self.weights, self.members, self.offsets)]
        return torch.stack(parts).sum(0)

    def sample(self, n: int, generator: torch.Generator) -> Tensor | None:
        choice = torch.Generator().manual_seed(int(streams(1, generator)[0].initial_seed() % 2**63))
        probabilities = torch.tensor(self.weights, dtype=torch.float64)
        chosen = [int(torch.multinomial(probabilities, 1, generator=choice)) for _ in range(n)]
        draws = torch.zeros(n, *self.image_shape, dtype=self.dtype, device=self.device)
        for i, (own, stream) in enumerate(zip(self.members, streams(len(self.members), generator))):
            where = [position for position, member in enumerate(chosen) if member == i]
            if where:
                part = own.sample(len(where), stream)
                if part is None:
                    return None
                draws[where] = part + self.offsets[i]
        return draws


def _probabilities(count: int, weights: Sequence[float] | None) -> list[float]:
    given = [1.0] * count if weights is None else [float(weight) for weight in weights]
    if len(given) != count or min(given) < 0 or not 0 < sum(given) < float("inf"):
        raise InputError(f"combine expects {count} weights ≥ 0 with a positive sum, got {given}; one per posterior")
    return [weight / sum(given) for weight in given]


def _joined(members: Sequence[Posterior], probabilities: Sequence[float]) -> Tensor | None:
    kept = [member.draws for member in members if member.draws is not None]
    alike = len({len(draws) for draws in kept}) == 1 and max(probabilities) - min(probabilities) < 1e-12
    return torch.cat(kept) if len(kept) == len(members) and alike else None
