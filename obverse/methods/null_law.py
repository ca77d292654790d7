"""From a score of unknown law to the normal deviate that is as rare, by values of the score where nothing is.

    q = −Φ⁻¹(p),    p(s) = the fraction of the null values of at least s

up to q* = 3.09, p = 10⁻³, where the score is s*; beyond, where too few values are left to be counted, with m the median
and s₁ the score at q₁ = 2,

    q(s) = q* ((s − m)/(s* − m))^κ,    κ = log(q*/q₁)/log((s* − m)/(s₁ − m)), between 0.4 and 1

A normal score has κ = 1, for which this is exact. Of an exponential one, with κ = 0.63, deviates of 5 are overstated by
0.2 and those of 6.7 by 0.6; an exponential tail, the limit of extreme-value theory, would understate a normal 5 by 0.3
and all stronger scores by more. Lighter tails than a normal one's are taken to be normal.

Reference: de Valk, "Approximation of high quantiles from intermediate quantiles", Extremes 2016 (tails whose log
probability varies as a power).
"""

__all__ = ["FEWEST", "NullLaw"]

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError

_TAIL = 1e-3  # probability beyond which the tail is extrapolated
FEWEST = 20_000  # values to learn a law from: 20 in the tail
_STEP = 0.05  # of the table's deviates
_INNER = 2.0  # q₁
_SLOWEST = 0.4  # least κ


@dataclass(frozen=True, eq=False)
class NullLaw:
    """The law of a score where nothing is: see `learned`.

    Args:
        scores: of the table, rising, `(n,)`.
        deviates: as rare, `(n,)`; the last is that of the tail.
        middle: m.
        power: κ.
    """

    scores: Tensor
    deviates: Tensor
    middle: float
    power: float

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
        scores, near = _quantiles(flat, deviates), float(_quantiles(flat, deviates.new_tensor([_INNER])))
        if not float(scores[-1] - scores[0]) > 0:
            raise InputError("NullLaw expects values that vary, got the same one throughout; check the score")
        middle = float(flat[len(flat) // 2])
        inner, outer = near - middle, float(scores[-1]) - middle
        power = math.log(top / _INNER) / math.log(outer / inner) if outer > inner > 0 else _SLOWEST
        return NullLaw(scores, deviates, middle, min(1.0, max(_SLOWEST, power)))

    def deviate(self, score: Tensor) -> Tensor:
        """The normal deviate of each score, of the score's shape and type; NaN stays NaN."""
        s = score.detach().double().contiguous()
        right = torch.searchsorted(self.scores, s).clamp(1, len(self.scores) - 1)
        left = right - 1
        width = (self.scores[right] - self.scores[left]).clamp_min(torch.finfo(torch.float64).tiny)
        part = (s - self.scores[left]) / width  # beyond the lower end the first line goes on
        inner = torch.lerp(self.deviates[left], self.deviates[right], part.clamp(max=1))
        ratio = (s - self.middle) / (self.scores[-1] - self.middle).clamp_min(torch.finfo(torch.float64).tiny)
        outer = self.deviates[-1] * ratio.clamp_min(1.0) ** self.power
        return torch.where(s > self.scores[-1], outer, inner).to(score)


def _quantiles(rising: Tensor, deviates: Tensor) -> Tensor:
    place = torch.special.ndtr(deviates) * (len(rising) - 1)
    below = place.long().clamp(max=len(rising) - 2)
    return torch.lerp(rising[below], rising[below + 1], place - below)
