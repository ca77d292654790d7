"""What every instrument hands to the run: data scaled to a working range, the problem they pose, and the way back.

    y = A x + n  in working units,        counts = offset + scale · (working units)

The scale and offset are recorded, so that the image, its standard deviation and its covariance return to counts.
"""

__all__ = ["Footprint", "Measurement"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from ..noise import Noise
from ..problem import Problem
from ..volume import Volume


@dataclass(frozen=True, eq=False)
class Measurement:
    """One measurement, ready for a method: `result = method(m.y, m.problem)`.

    Args:
        volume: the data as read.
        y: data in working units, padded to the image grid: `(C, H, W)` or `(C, D, H, W)`.
        problem: operator and noise law, in working units.
        offset: counts that stand for no light.
        scale: counts per working unit.
        crop: where the data's own pixels lie on the image grid, channel axis included.
        warnings: sentences for the user.
        facts: what was found or assumed, in JSON-like values: background, gain, read noise, origin of the PSF, voxel
            size, scale. Given back as `shared`, they make every tile of one volume be treated alike.
        noise: the law that the data are believed to follow, in working units, where a method knows only a stand-in for
            it and `problem` therefore holds that one; None where the problem's is the law.
    """

    volume: Volume
    y: Tensor
    problem: Problem
    offset: float
    scale: float
    crop: tuple[slice, ...]
    warnings: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    noise: Noise | None = None

    def narrowed(self, part: Sequence[slice]) -> "Measurement":
        """The same measurement, of which only a part leads back to counts.

        Args:
            part: one slice with both ends per axis of the data's own pixels, channel axis included.
        """
        volume = self.volume.cropped(part)
        spans = (p.indices(c.stop - c.start) for c, p in zip(self.crop, part, strict=True))
        starts = [(c.start, a, b) for c, (a, b, _) in zip(self.crop, spans, strict=True)]
        return replace(self, volume=volume, crop=tuple(slice(s + a, s + b) for s, a, b in starts))


@dataclass(frozen=True)
class Footprint:
    """What a reconstruction of one piece of the data takes; a run plans its tiles by it.

    Args:
        halo: pixels around a tile, per spatial axis, that influence it through the physics.
        bytes_per_voxel: peak bytes for each voxel that a tile reads, its padding included.
        fixed_bytes: peak bytes that do not depend on the tile.
    """

    halo: tuple[int, ...]
    bytes_per_voxel: float
    fixed_bytes: int
