"""Tests of frames turned to the sky and gathered in a fixed number of images: what a network sees of a cube.

    S/N                  of the whole cube, as PACO has it
    S/N along            the mean of it at both sides on the circle about the star, at ⅔ and at 4/3 FWHM
    S/N across           the same towards the star and away from it, at ⅔ FWHM
    log(1 + r/FWHM)      r the distance from the star
    z_k = Σ_t √a_t(φ_t) z_t(φ_t) / √(Σ_t a_t(φ_t)),     t in bin k

φ_t is where a place of the sky is in frame t, and the bins are runs of frames in the order of time. So a source is in
all the bins at one place, where speckles come and go, and their variance is 1 where there is none. What a source
teaches the statistics takes from S/N beside it, along the circle: in the NACO cube a fifth to a third of its peak at
⅔ FWHM, which noise does not do as much. z is turned by cubic and a by bilinear weights: of z, as wide as the PSF, cubic
weights keep the variance to a percent.
"""

__all__ = ["BINS", "CHANNELS", "SkyChannels", "turned"]

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from ..operators.field_rotation import FieldRotation
from .frame_tests import FrameTests
from .paco_detection import lost_to_mean, noise_correlation

BINS = 8
_BEFORE = 5  # channels before the bins
CHANNELS = _BEFORE + BINS
_ALONG, _ACROSS = (2 / 3, 4 / 3), 2 / 3  # FWHM
_COVERED = 0.5  # of the frames have to see a place


class SkyChannels:
    """Turns the tests of a cube by the angles of a sequence.

    Args:
        operator: of the sequence.
        tests: of its cube, for the correlation of its noise.

    Attributes:
        covered: where at least half of the frames see a place, `(H, W)`.
    """

    def __init__(self, operator: FieldRotation, tests: FrameTests):
        frames, height, width = tests.matched.shape
        angles = torch.tensor(operator.degrees, dtype=torch.float64).deg2rad()
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
        self._beside = _beside(up, right, operator.centre, operator.fwhm)
        known = (tests.precision > 0).double()
        psi = noise_correlation(tests.matched.double(), known > 0)
        lost = torch.stack([lost_to_mean(psi, distance, angles - angle) for angle in angles])
        self._kept = ((1 - lost) * (frames / (frames - 1))).float()
        self._distance = (distance / operator.fwhm).log1p().float()
        self._bins = torch.arange(frames).tensor_split(BINS)
        self.covered = self._turned(known.float().expand(frames, -1, -1), "bilinear").mean(0) >= _COVERED

    def __call__(self, tests: FrameTests) -> Tensor:
        """The channels, in the order above, zero where not covered: `(CHANNELS, H, W)`."""
        precision = self._turned(tests.precision.expand(len(tests.matched), -1, -1), "bilinear")
        score = precision.sqrt() * self._turned(tests.matched, "bicubic")
        snr = torch.where(self.covered, _ratio(score.sum(0), (precision * self._kept).sum(0)), 0.0)
        beside = grid_sample(snr.expand(len(self._beside), 1, -1, -1), self._beside, align_corners=False)[:, 0]
        bins = [_ratio(score[part].sum(0), precision[part].sum(0)) for part in self._bins]
        channels = torch.stack([snr, *beside.unflatten(0, (-1, 2)).mean(1), self._distance, *bins])
        return torch.where(self.covered, channels, 0.0)

    def _turned(self, maps: Tensor, weights: str) -> Tensor:
        return grid_sample(maps[:, None], self._grid, mode=weights, align_corners=False)[:, 0]


def _beside(up: Tensor, right: Tensor, centre: Sequence[float], fwhm: float) -> Tensor:
    """Places at both sides of each pixel along the circle, at two distances, and across it: `(6, H, W, 2)`."""
    height, width = up.shape
    distance, angle = up.hypot(right), torch.atan2(up, right)
    places = []
    for along, across in [(_ALONG[0], 0.0), (_ALONG[1], 0.0), (0.0, _ACROSS)]:
        for side in (-1, 1):
            turn = side * along * fwhm / distance.clamp_min(1.0)
            radius = distance + side * across * fwhm
            rows, columns = centre[0] + radius * (angle + turn).sin(), centre[1] + radius * (angle + turn).cos()
            places.append(torch.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], -1))
    return torch.stack(places).float()


def _ratio(score: Tensor, variance: Tensor) -> Tensor:
    known = variance > 0
    return torch.where(known, score / torch.where(known, variance, 1.0).sqrt(), 0.0)


def turned(maps: Tensor, symmetry: int, back: bool = False) -> Tensor:
    """Maps `(*, C, H, W)` turned by quarters and, from symmetry 4 on, mirrored; `back` undoes it.

    Seen in a mirror the field turns the other way, as if time ran backwards: of channels of bins the order is reversed.

    Example:
        >>> maps = torch.rand(13, 4, 5)
        >>> all(torch.equal(turned(turned(maps, k), k, back=True), maps) for k in range(8))
        True
    """
    quarters, mirror = symmetry % 4, symmetry >= 4
    if not back:
        maps = torch.rot90(maps, quarters, (-2, -1))
    if mirror:
        maps = maps.flip(-1)
        if maps.shape[-3] == CHANNELS:
            maps = torch.cat([maps[..., :_BEFORE, :, :], maps[..., _BEFORE:, :, :].flip(-3)], -3)
    return torch.rot90(maps, -quarters, (-2, -1)) if back else maps
