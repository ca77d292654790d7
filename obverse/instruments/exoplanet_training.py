"""Deep PACO for a sequence of frames: trained on them when it is asked, and then a search like any other."""

__all__ = ["SelfTrainedDeepPACO"]

from dataclasses import dataclass

from torch import Tensor

from ..learning import train_deep_paco
from ..methods.base import Callback, silent
from ..methods.detection import Detection
from ..problem import Problem


@dataclass(frozen=True)
class SelfTrainedDeepPACO:
    """A search with a network that the frames themselves have taught.

    Args:
        steps: of the U-Net's training, after 112 samples.
        threshold: score of a candidate.
        seed: of training and calibration.
    """

    steps: int
    threshold: float
    seed: int

    @property
    def name(self) -> str:
        """Of the search, for the record."""
        return "DeepPACO"

    def __call__(self, y: Tensor, problem: Problem, callback: Callback | None = None) -> Detection:
        """Maps and candidates; the callback is told of the training's samples and steps.

        Raises:
            InputError: the operator is no FieldRotation, there are several channels, or too few frames.
        """
        search = train_deep_paco(
            y, problem, seed=self.seed, steps=self.steps, threshold=self.threshold, callback=callback or silent
        )
        return search(y, problem)
