"""A point estimate: an image and the truth about how it was reached, with nothing said about its uncertainty."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..errors import InputError
from ..solvers.result import Status

__all__ = ["Estimate"]


@dataclass(frozen=True, eq=False, repr=False)
class Estimate:
    """What a method returns when it does not quantify uncertainty.

    Args:
        image: the estimate, `(*batch, C, H, W)` or `(*batch, C, D, H, W)`, in the units of the data.
        status: how the computation ended.
        history: the stopping criterion, or the objective, at each iteration.
        diagnostics: named figures such as evaluations, seconds, the weight that was chosen.

    Raises:
        InputError: the image contains NaN or infinite values.
    """

    image: Tensor
    status: Status
    history: tuple[float, ...] = ()
    diagnostics: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not bool(self.image.isfinite().all()):
            bad = int((~self.image.isfinite()).sum())
            raise InputError(
                f"an estimate expects finite values, got {bad} NaN or infinite pixels; "
                "check the data and the step size of the method that made it"
            )
        object.__setattr__(self, "history", tuple(self.history))
        object.__setattr__(self, "diagnostics", dict(self.diagnostics))

    def __repr__(self) -> str:
        ended = "converged" if self.status.converged else f"not converged ({self.status.reason})"
        return f"{type(self).__name__}(image {tuple(self.image.shape)}, {self.image.dtype}, {self._spread()}, {ended})"

    def _spread(self) -> str:
        return "no uncertainty"
