"""Tests of frames turned to the sky and gathered in a fixed number of images: what a network sees of a cube.

    S/N        of the whole cube, as PACO has it
    log(1 + r/FWHM)      r the distance from the star
    z_k = Σ_t √a_t(φ_t) z_t(φ_t) / √(Σ_t a_t(φ_t)),    u_k = Σ_t u_t(φ_t) / √n,     t in bin k

φ_t is where a place of the sky is in frame t, and the bins are runs of frames in the order of time. So a source is in
all the bins at one place, where speckles come and go, and each channel has variance 1 where there is none. z and u are
turned by cubic and a by bilinear weights: of z, as wide as the PSF, cubic weights keep the variance to a percent.
"""

__all__ = ["BINS", "SkyChannels", "turned"]

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from ..operators.field_rotation import FieldRotation
from .frame_tests import FrameTests
from .paco_detection import lost_to_mean, noise_correlation

BINS = 8
_COVERED = 0.5  # of the frames have to see a place


class SkyChannels:
    """Turns the tests of a cube by the angles of a sequence.

    Args:
        operator: of the sequence.
        tests: of its cube, for the correlation of its noise.
        degrees: pa_t, if they are not the operator's own.

    Attributes:
        covered: where at least half of the frames see a place, `(H, W)`.
    """

    def __init__(self, operator: FieldRotation, tests: FrameTests, degrees: Sequence[float] | None = None):
        frames, height, width = tests.matched.shape
        angles = torch.tensor(operator.degrees if degrees is None else degrees, dtype=torch.float64).deg2rad()
        row, column = operator.centre
        up, right = torch.meshgrid(
            torch.arange(height, dtype=torch.float64) - row,
            torch.arange(width, dtype=torch.float64) - column,
            indexing="ij",
        )
        cos, sin = angles.cos()[:, None, None], angles.sin()[:, None, None]
        rows, columns = row + up * cos - right * sin, column + right * cos + up * sin
        self._grid = torch.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], -1).float()
        distance = up.hypot(right)
        known = (tests.precision > 0).double()
        psi = noise_correlation(tests.matched.double(), known > 0)
        lost = torch.stack([lost_to_mean(psi, distance, angles - angle) for angle in angles])
        self._kept = ((1 - lost) * (frames / (frames - 1))).float()
        self._distance = (distance / operator.fwhm).log1p().float()
        self._bins = torch.arange(frames).tensor_split(BINS)
        self.covered = self._turned(known.float().expand(frames, -1, -1), "bilinear").mean(0) >= _COVERED

    def __call__(self, tests: FrameTests) -> Tensor:
        """S/N, distance, z and u of the bins, zero where not covered: `(2 + 2 · 8, H, W)`."""
        precision = self._turned(tests.precision.expand(len(tests.matched), -1, -1), "bilinear")
        score = precision.sqrt() * self._turned(tests.matched, "bicubic")
        white = self._turned(tests.white, "bicubic")
        channels = [_ratio(score.sum(0), (precision * self._kept).sum(0)), self._distance]
        channels += [_ratio(score[part].sum(0), precision[part].sum(0)) for part in self._bins]
        channels += [white[part].sum(0) / math.sqrt(len(part)) for part in self._bins]
        return torch.where(self.covered, torch.stack(channels), 0.0)

    @property
    def channels(self) -> int:
        """Of what a call gives."""
        return 2 + 2 * BINS

    def _turned(self, maps: Tensor, weights: str) -> Tensor:
        return grid_sample(maps[:, None], self._grid, mode=weights, align_corners=False)[:, 0]


def _ratio(score: Tensor, variance: Tensor) -> Tensor:
    known = variance > 0
    return torch.where(known, score / torch.where(known, variance, 1.0).sqrt(), 0.0)


def turned(maps: Tensor, symmetry: int, back: bool = False) -> Tensor:
    """Maps `(*, C, H, W)` turned by quarters and, from symmetry 4 on, mirrored; `back` undoes it.

    Seen in a mirror the field turns the other way, as if time ran backwards: of channels of bins the order is reversed.

    Example:
        >>> maps = torch.rand(18, 4, 5)
        >>> all(torch.equal(turned(turned(maps, k), k, back=True), maps) for k in range(8))
        True
    """
    quarters, mirror = symmetry % 4, symmetry >= 4
    if not back:
        maps = torch.rot90(maps, quarters, (-2, -1))
    if mirror:
        maps = maps.flip(-1)
        if maps.shape[-3] == 2 + 2 * BINS:
            first, z, u = maps.split([2, BINS, BINS], -3)
            maps = torch.cat([first, z.flip(-3), u.flip(-3)], -3)
    return torch.rot90(maps, -quarters, (-2, -1)) if back else maps
