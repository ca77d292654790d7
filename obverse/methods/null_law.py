"""From a score of unknown law to the normal deviate that is as rare, by values of the score where nothing is.

    deviate = −Φ⁻¹(p),    p(s) = the fraction of the null values of at least s

up to p = 10⁻³; beyond, where too few values are left to be counted, an exponential tail with their mean excess β over
the score s* there,

    p(s) = 10⁻³ exp(−(s − s*)/β)

This is the limit of tails of normal, exponential and like laws. A normal score falls faster than that, so that its
deviate is understated: 4.7 where 5 is the truth.

References: Pickands, "Statistical inference using extreme order statistics", Annals of Statistics 1975.
"""

__all__ = ["FEWEST", "NullLaw"]

from dataclasses import dataclass

import torch
from scipy.stats import norm
from torch import Tensor

from ..errors import InputError

_TAIL = 1e-3  # probability beyond which the tail is extrapolated
FEWEST = 20_000  # values to learn a law from: 20 in the tail
_STEP = 0.05  # of the table's deviates


@dataclass(frozen=True, eq=False)
class NullLaw:
    """The law of a score where nothing is: see `learned`.

    Args:
        scores: of the table, rising, `(n,)`.
        deviates: as rare, `(n,)`; the last is that of the tail.
        excess: β.
    """

    scores: Tensor
    deviates: Tensor
    excess: float

    @staticmethod
    def learned(values: Tensor) -> "NullLaw":
        """The law of null values of any shape.

        Raises:
            InputError: there are too few values, or they do not vary.

        Example:
            >>> law = NullLaw.learned(3 * torch.randn(100_000, generator=torch.Generator().manual_seed(0)))
            >>> [round(v, 1) for v in law.deviate(torch.tensor([-3.0, 0.0, 3.0, 9.0])).tolist()]
            [-1.0, 0.0, 1.0, 3.0]
        """
        flat = values.detach().double().flatten().sort().values
        if len(flat) < FEWEST:
            raise InputError(f"NullLaw expects at least {FEWEST} values, got {len(flat)}; take more permutations")
        top = float(-torch.special.ndtri(torch.tensor(_TAIL, dtype=torch.float64)))
        deviates = torch.cat([torch.arange(-top, top, _STEP, dtype=torch.float64), torch.tensor([top]).double()])
        place = torch.special.ndtr(deviates) * (len(flat) - 1)
        below = place.long().clamp(max=len(flat) - 2)
        scores = torch.lerp(flat[below], flat[below + 1], place - below)
        excess = float((flat[flat > scores[-1]] - scores[-1]).mean())
        if not (excess > 0 and float(scores[-1] - scores[0]) > 0):
            raise InputError("NullLaw expects values that vary, got the same one throughout; check the score")
        return NullLaw(scores, deviates, excess)

    def deviate(self, score: Tensor) -> Tensor:
        """The normal deviate of each score, of the score's shape and type; NaN stays NaN."""
        s = score.detach().double().contiguous()
        right = torch.searchsorted(self.scores, s).clamp(1, len(self.scores) - 1)
        left = right - 1
        width = (self.scores[right] - self.scores[left]).clamp_min(torch.finfo(torch.float64).tiny)
        part = (s - self.scores[left]) / width  # beyond the lower end the first line goes on
        inner = torch.lerp(self.deviates[left], self.deviates[right], part.clamp(max=1))
        rarity = _TAIL * torch.exp(-((s - self.scores[-1]) / self.excess).clamp(0, 600))
        outer = torch.as_tensor(norm.isf(rarity.numpy()), dtype=torch.float64)
        return torch.where(s > self.scores[-1], outer, inner).to(score)
