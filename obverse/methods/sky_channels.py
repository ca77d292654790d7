"""Tests of frames turned to the sky and summed in several ways: what a network sees of a cube.

With z_t(φ_t) the test of frame t where a place φ of the sky is in it, a_t its precision, and ψ(z) = z or clipped at ±c
and divided by the root of its mean square over all places and frames,

    Σ_t √a_t ψ(z_t) / √(Σ_t a_t (1 − f_t))       for patches of three radii, not clipped, and clipped at 2 and at 1
    the same, a_t/s_t for a_t, z_t/√s_t for z_t      not clipped, and clipped at 1; s_t = ½ + ½ power of z_t about φ
    of two of these, the mean at both sides          on the circle about the star at ⅔ and 4/3 FWHM, and across at ⅔
    log(1 + r/FWHM)                                  r the distance from the star

The first is the S/N of PACO (f_t: see `paco_detection`). z has heavier tails than a normal law (kurtosis 3.5 in the
NACO cube, 4.4 in simulated sequences), and then the sum of clipped values tells sources from noise better: a linear
combination of them is the score −p'/p of z's own density, roughly. Large patches tell more of the speckles, small ones
learn from few frames. What a source teaches the statistics takes from S/N beside it, along the circle.

z is turned by cubic and a by bilinear weights: of z, as wide as the PSF, cubic weights keep the variance to a percent.

Reference: Kassam, "Signal detection in non-Gaussian noise", Springer 1988 (the score as the locally optimum detector).
"""

__all__ = ["CHANNELS", "SkyChannels", "radii_of", "turned"]

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from ..operators.field_rotation import FieldRotation
from .frame_tests import FrameTests
from .paco_detection import lost_to_mean, noise_correlation, windowed

_CLIPS = (None, 2.0, 1.0)  # standard deviations
_FRAME_CLIPS = (None, 1.0)  # of tests with scales of frames
_SHARE, _WINDOW = 0.5, 3  # of the scale of a frame, the part that is its power, over squares of 7 pixels
_ALONG, _ACROSS = (2 / 3, 4 / 3), 2 / 3  # FWHM
_COVERED = 0.5  # of the frames have to see a place
_SIDES = 3
CHANNELS = 3 * len(_CLIPS) + len(_FRAME_CLIPS) + 2 * _SIDES + 1


def radii_of(radius: int) -> tuple[int, int, int]:
    """The radii of patches, the given one first.

    >>> radii_of(4), radii_of(1)
    ((4, 3, 5), (1, 2, 3))
    """
    return (radius, radius - 1, radius + 1) if radius > 1 else (1, 2, 3)


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
        self._sides = _beside(up, right, operator.centre, operator.fwhm)
        known = (tests.precision > 0).double()
        psi = noise_correlation(tests.matched.double(), known > 0)
        lost = torch.stack([lost_to_mean(psi, distance, angles - angle) for angle in angles])
        self._kept = ((1 - lost) * (frames / (frames - 1))).float()
        self._distance = (distance / operator.fwhm).log1p().float()
        self.covered = self._turned(known.float().expand(frames, -1, -1), "bilinear").mean(0) >= _COVERED

    def __call__(self, tests: Sequence[FrameTests]) -> Tensor:
        """The channels, in the order above, zero where not covered: `(CHANNELS, H, W)`; a test for each radius."""
        channels = []
        for index, each in enumerate(tests):
            precision = self._turned(each.precision.expand(len(each.matched), -1, -1), "bilinear")
            z = self._turned(each.matched, "bicubic")
            channels += [self._summed(precision, z, clip) for clip in _CLIPS]
            if index == 0:
                seen = (precision > 0).to(z)
                power = windowed(z.square(), seen, _WINDOW)
                scale = 1 - _SHARE + _SHARE * power / power.mean(0)
                scaled = [self._summed(precision / scale, z / scale.sqrt(), clip) for clip in _FRAME_CLIPS]
        sides = [part for image in (channels[0], channels[len(_CLIPS) - 1]) for part in self._beside(image)]
        return torch.where(self.covered, torch.stack([*channels, *scaled, *sides, self._distance]), 0.0)

    def _summed(self, precision: Tensor, z: Tensor, clip: float | None) -> Tensor:
        if clip is not None:
            z = z.clamp(-clip, clip)
            z = z / z[:, self.covered].square().mean().sqrt().clamp_min(torch.finfo(z.dtype).tiny)
        score, variance = (precision.sqrt() * z).sum(0), (precision * self._kept).sum(0)
        known = self.covered & (variance > 0)
        return torch.where(known, score / torch.where(known, variance, 1.0).sqrt(), 0.0)

    def _beside(self, image: Tensor) -> Tensor:
        """The mean at both sides of each place, `(3, H, W)`."""
        at = grid_sample(image.expand(len(self._sides), 1, -1, -1), self._sides, align_corners=False)[:, 0]
        return at.unflatten(0, (_SIDES, 2)).mean(1)

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


def turned(maps: Tensor, symmetry: int, back: bool = False) -> Tensor:
    """Maps `(*, H, W)` turned by quarters and, from symmetry 4 on, mirrored; `back` undoes it.

    Example:
        >>> maps = torch.rand(3, 4, 5)
        >>> all(torch.equal(turned(turned(maps, k), k, back=True), maps) for k in range(8))
        True
    """
    quarters, mirror = symmetry % 4, symmetry >= 4
    if not back:
        maps = torch.rot90(maps, quarters, (-2, -1))
    if mirror:
        maps = maps.flip(-1)
    return torch.rot90(maps, -quarters, (-2, -1)) if back else maps
