"""Deep ensembles, and any other set of methods: how far their images disagree.

    mean = 1/M Σ_m x̂_m,     Cov = 1/(M − 1) Σ_m (x̂_m − mean)(x̂_m − mean)ᵀ                        target "epistemic"
    with `aleatoric=True`, of members that give posteriors:  + 1/M Σ_m Σ_m                        target "posterior"

Networks trained from different seeds answer alike where training pinned them down, and differ where it did not. That is
the uncertainty of the weights. It is not that of the image: what the data leave open when the weights are known, the
members leave open together and agree on (a mean), so their spread is most often far below their error. The covariance
has rank ≤ M − 1 and no variance outside; it is never filled up.

Reference: Lakshminarayanan, Pritzel, Blundell, "Simple and scalable predictive uncertainty estimation using deep
ensembles", NeurIPS 2017.
"""

__all__ = ["Ensemble", "epistemic"]

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..posterior import Estimate, Posterior
from ..posterior.aleatoric import total_covariance
from ..posterior.spread import spread_covariance
from ..problem import Problem
from ..solvers.result import Status
from .base import Callback, check_item, described, real_image, silent


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Several methods of the same kind, trained or set apart by chance.

    Args:
        members: at least two methods; of each the image counts, or the mean of its posterior.
        aleatoric: add the mean of the members' own covariances. They have to give posteriors of target "posterior".

    Example:
        >>> import torch, obverse as ob
        >>> fields = [ob.priors.GaussianField(s * torch.ones(4, 4), (1, 4, 4)) for s in (1.0, 3.0)]
        >>> problem, y = ob.Problem(ob.operators.Identity((1, 4, 4)), ob.noise.Gaussian(1.0)), torch.ones(1, 4, 4)
        >>> found = Ensemble([ob.methods.Gaussian(field) for field in fields])(y, problem)
        >>> found.target, round(float(found.mean.mean()), 3), found.covariance.rank
        ('epistemic', 0.625, 1)
    """

    members: Sequence[Callable[..., Estimate]]
    _: KW_ONLY
    aleatoric: bool = False

    def __post_init__(self):
        object.__setattr__(self, "members", tuple(self.members))
        if len(self.members) < 2 or not all(callable(member) for member in self.members):
            raise InputError(f"Ensemble expects at least two methods, got {len(self.members)}; train another")

    def __call__(self, y: Tensor, problem: Problem, callback: Callback | None = None) -> Posterior:
        """Every member's answer to one measurement, and what they disagree on.

        Args:
            y: of exactly the operator's `data_shape`.
            problem: whatever the members can do.
            callback: told (member, members, 0).

        Raises:
            InputError: the data do not fit, or a member has no covariance and `aleatoric` asks for one.
        """
        answers = (member(y, problem) for member in self.members)
        return epistemic(self, answers, len(self.members), y, problem, callback, aleatoric=self.aleatoric)


def epistemic(
    method: Any,
    answers: Iterable[Estimate],
    count: int,
    y: Tensor,
    problem: Problem,
    callback: Callback | None,
    *,
    aleatoric: bool = False,
    what: str = "members",
    facts: Mapping[str, Any] | None = None,
) -> Posterior:
    """The spread of answers that differ in a model's weights, asked for one at a time."""
    begun, name, tell = time.perf_counter(), type(method).__name__, callback or silent
    check_item(y, problem, name)
    real_image(problem.operator, y, name)
    found: list[Estimate] = []
    for number, answer in enumerate(answers):
        found.append(answer if aleatoric else Estimate(answer.image, answer.status, (), answer.diagnostics))
        tell(number + 1, count, 0.0)
    images = torch.stack([answer.image for answer in found])
    mean, spread = images.mean(0), spread_covariance(images)
    covariance = total_covariance(_own(found, name), images - mean) if aleatoric else spread
    failed = [f"{i}: {answer.status.message}" for i, answer in enumerate(found) if not answer.status.converged]
    message = f"the mean of {count} {what}"
    message += f"; {len(failed)} of them did not converge, number {failed[0]}" if failed else ""
    diagnostics = {
        "members": count,
        "rank": spread.rank,
        "epistemic_std": spread.trace() ** 0.5 / spread.size**0.5,
        "evaluations": sum(answer.diagnostics.get("evaluations", 1) for answer in found),
        "seconds": time.perf_counter() - begun,
        **(facts or {}),
    }
    status = Status(not failed, "member" if failed else "completed", message)
    if aleatoric:
        return described(method, mean, status, (), diagnostics, covariance)
    return described(method, mean, status, (), diagnostics, covariance, "epistemic", images)


def _own(answers: Sequence[Estimate], name: str) -> list:
    """The covariances of members whose posteriors may enter a posterior."""
    odd = [type(a).__name__ if not isinstance(a, Posterior) else f'a spread of target "{a.target}"' for a in answers]
    wrong = [
        text for a, text in zip(answers, odd, strict=True) if not (isinstance(a, Posterior) and a.target == "posterior")
    ]
    if wrong:
        raise InputError(
            f'{name} expects members that give posteriors of target "posterior" for an aleatoric term, got '
            f"{wrong[0]}; leave aleatoric=False, or add a term by posterior.with_aleatoric"
        )
    return [answer.covariance for answer in answers if isinstance(answer, Posterior)]
