"""Draws that walk down the same levels without knowing of each other: how many at once, and what they say together.

Their effective number is their number. Whether the levels are fine enough is not looked at: draws that all err alike
agree. What is looked at is the mean χ² of the draws, which is about one where they explain the data.
"""

__all__ = ["at_once", "common_facts", "completed"]

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..posterior import rhat
from ..solvers.result import Status

_PIXELS = 2**17  # of all draws of a batch together: with a network of some million parameters about 1 GB
_MISFIT = 2.0  # mean χ² of the draws beyond which they do not explain the data


def at_once(batch: int | None, pixels: int) -> int:
    """Draws in a batch: those asked for, or as many as some hundred thousand pixels."""
    return max(_PIXELS // pixels, 1) if batch is None else batch


def common_facts(traces: Tensor, levels: Sequence[float], chi2: float) -> dict[str, Any]:
    """Diagnostics of finished draws, from their projections `(draws, functionals)`; R-hat is of their two halves."""
    count = len(traces)
    return {
        "samples": count,
        "ess": float(count),
        **({"rhat": float(rhat(traces[None].double()).max())} if count >= 4 else {}),
        "levels": [levels[0], levels[-1]],
        "steps": len(levels),
        "chi2": chi2,
    }


def completed(count: int, steps: int, chi2: float, advice: str = "", narrow: str = "") -> Status:
    """Converged as far as draws that have walked to the end can tell.

    Args:
        count: number of draws.
        steps: levels that each walked.
        chi2: mean χ² of the draws.
        advice: what else may help where they do not explain the data.
        narrow: why the walk began too narrow, if it did.
    """
    told = f"{count} independent draws, each along all {steps} levels, with a mean chi2 of {chi2:.2f}"
    if not chi2 <= _MISFIT:
        return Status(False, "misfit", f"{told}: they do not explain the data; take more levels{advice}")
    if narrow:
        return Status(False, "start", f"{told}: {narrow}")
    return Status(True, "schedule-completed", f"{told}; whether the levels are fine enough was not looked at")
