"""How far an image depends on the choice of its regulariser: most probable images under regularisers drawn at random.

    i ~ uniform over the priors,   log w ~ U(log w_low, log w_high),      x̂ = argmin −log p(y | A x) + w·E_i(x)

An empirical survey of what reasonable people might have chosen, as imaging teams do it by hand. Its spread is a
statement about the choice ("epistemic"), and no posterior: every member is a mode, the data's noise is in all of them
alike, what no regulariser puts into the image none of them varies, and the draws follow no law but the ranges given
here. Members that do not fit the data can be left out by their χ², the criterion of the top sets of EHT's surveys.

Reference: The Event Horizon Telescope Collaboration, "First M87 Event Horizon Telescope results. IV. Imaging the
central supermassive black hole", ApJL 2019.
"""

__all__ = ["RegulariserSampling"]

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from ..errors import InputError
from ..noise.base import stream
from ..posterior import Estimate, Posterior
from ..priors.base import Prior
from ..problem import Problem
from .base import Callback, check_item, silent
from .ensemble import epistemic
from .map import MAP


@dataclass(frozen=True, eq=False)
class RegulariserSampling:
    """Spread of the most probable image over draws of its prior's type and weight.

    Args:
        regularisers: (prior, lowest weight, highest weight) of each type, weights as for `methods.MAP`.
        draws: images made.
        largest_chi2: images whose data's χ² is above are left out; infinite to keep all.
        tolerance: of each minimisation, as for `methods.MAP`.
        max_iterations: of each.
        seed: of the draws.

    Example:
        >>> import torch, obverse as ob
        >>> problem, y = ob.Problem(ob.operators.Identity((1, 1, 2)), ob.noise.Gaussian(1.0)), torch.ones(1, 1, 2)
        >>> found = RegulariserSampling([(ob.priors.Tikhonov(), 0.1, 1.0), (ob.priors.L1(), 0.1, 0.5)])(y, problem)
        >>> found.target, bool(0.5 < found.mean.min() < 0.9)
        ('epistemic', True)
    """

    regularisers: Sequence[tuple[Prior, float, float]]
    _: KW_ONLY
    draws: int = 20
    largest_chi2: float = math.inf
    tolerance: float = 1e-3
    max_iterations: int = 1000
    seed: int = 0

    def __post_init__(self):
        object.__setattr__(self, "regularisers", tuple(tuple(one) for one in self.regularisers))
        for one in self.regularisers:
            if len(one) != 3 or not isinstance(one[0], Prior) or not 0 < one[1] <= one[2] < math.inf:
                raise InputError(
                    f"RegulariserSampling expects (prior, lowest, highest weight) with 0 < lowest ≤ highest, got {one}"
                )
        if not self.regularisers or self.draws < 2 or not self.largest_chi2 > 0:
            raise InputError(
                "RegulariserSampling expects a regulariser, two draws or more and a positive largest_chi2, got "
                f"{len(self.regularisers)}, {self.draws} and {self.largest_chi2}"
            )

    def __call__(self, y: Tensor, problem: Problem, callback: Callback | None = None) -> Posterior:
        """The images of one measurement under every draw.

        Args:
            y: of exactly the operator's `data_shape`.
            problem: as for `methods.MAP`.
            callback: told (draw, draws, its χ²).

        Returns:
            A posterior of target "epistemic"; `diagnostics` has each draw's prior, weight and χ², and which were kept.

        Raises:
            InputError: the data do not fit, or fewer than two images explain them.
        """
        begun = time.perf_counter()
        check_item(y, problem, "RegulariserSampling")
        record: list[dict] = []
        answers = list(self._answers(y, problem, callback or silent, record))
        if len(answers) < 2:
            raise InputError(
                f"RegulariserSampling expects two images with χ² of at most {self.largest_chi2:g}, got {len(answers)} "
                f"of {self.draws}, the least {min(one['chi2'] for one in record):.3g}; allow more or widen the weights"
            )
        # Of all images, those that were left out too.
        facts = {"drawn": record, "evaluations": self.draws, "seconds": time.perf_counter() - begun}
        return epistemic(self, answers, len(answers), y, problem, None, what="regularisers' images", facts=facts)

    def _answers(self, y: Tensor, problem: Problem, tell: Callback, record: list[dict]) -> Iterator[Estimate]:
        for number in range(self.draws):
            generator = stream(self.seed, number)
            which = int(torch.randint(len(self.regularisers), (), generator=generator))
            prior, low, high = self.regularisers[which]
            weight = low * (high / low) ** float(torch.rand((), generator=generator))
            method = MAP(prior, weight, tolerance=self.tolerance, max_iterations=self.max_iterations)
            answer = method(y, problem)
            chi2 = float(answer.diagnostics["chi2"])
            tell(number + 1, self.draws, chi2)
            record.append(
                {"prior": type(prior).__name__, "weight": weight, "chi2": chi2, "kept": chi2 <= self.largest_chi2}
            )
            if chi2 <= self.largest_chi2:
                yield answer
