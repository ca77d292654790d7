"""The patches of a cube tested frame by frame, tested anew only where sources were put in, and frames shuffled.

The patch about pixel n is in frame t tested for a source at n by the law that the other frames teach
(`patch_statistics`): z_t(n) = b_t/√a, divided by its dispersion, the root of its mean square over the frames and a
window as wide as a patch, so that its variance is 1 where there is no source. b_t = hᵀ C⁻¹ (r_t − m) is the frame
whitened, and filtered for the PSF h as it would look whitened.

Deep PACO's own input is a pixel less what the other pixels of its patch tell of it. Of the NACO cube these values
stay correlated from frame to frame (0.16 between neighbours, 0.01 for z), as they keep what many pixels have in common
less well in check.

The law does not know the order of the frames. A cube whose frames change places has the same tests, in other places;
and a source changes only those of the patches that it crosses, which `with_sources` learns again. `shuffled` orders
leave noise as it is and no source in one place: frames backwards from a random one on, in blocks of up to eight that
change places. So noise lasts as long as it did, where in an order that is random throughout S/N of lasting speckles is
1.02 wide that is 1.24 wide in truth; and the field of a planet would have to turn the other way.

References: as in `patch_statistics`. Flasseur, Bodrito, Mairal, Ponce, Langlois, Lagrange, "deep PACO: combining
statistical models with deep learning for exoplanet detection and characterization in direct imaging at high contrast",
MNRAS 2024.
"""

__all__ = ["FEWEST_FRAMES", "FrameTests", "TestedCube", "shuffled"]

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .paco_detection import sampled, windowed
from .patch_statistics import Patches, PatchStatistics, disc, seen_pixels

_BAND = 1000  # patches at once: some tens of megabytes
_TRACE = 0.1  # of a source's highest value: less does not change a law
FEWEST_FRAMES = 8  # to shuffle
_BLOCK, _BLOCKS = 8, 4  # frames of a block, and blocks at least: fewer have few orders


def shuffled(frames: int, generator: torch.Generator) -> Tensor:
    """An order of the frames in which noise lasts as it did and no source adds up: `(frames,)`.

    Example:
        >>> order = shuffled(20, torch.Generator().manual_seed(0))
        >>> sorted(order.tolist()) == list(range(20)), order[:4].diff().tolist()
        (True, [-1, -1, -1])
    """
    first = int(torch.randint(frames, (), generator=generator))
    blocks = torch.arange(frames).flip(0).roll(first).split(max(2, min(_BLOCK, frames // _BLOCKS)))
    return torch.cat([blocks[i] for i in torch.randperm(len(blocks), generator=generator).tolist()])


@dataclass(frozen=True, eq=False)
class FrameTests:
    """Tests of a cube in the frames' own orientation.

    Args:
        precision: a over the dispersion, `(H, W)`, in units of the cube; zero where no source can be seen.
        matched: z, `(T, H, W)`.
    """

    precision: Tensor
    matched: Tensor

    def ordered(self, order: Tensor) -> "FrameTests":
        """Those of the cube whose frame t is frame `order[t]` of this one."""
        return FrameTests(self.precision, self.matched[order])


class TestedCube:
    """A cube whose patches are tested, in single precision.

    Args:
        cube: `(T, H, W)`; a pixel that is NaN in some frame is not used.
        psf: `(h, w)`.
        radius: of the patches, in pixels.

    Attributes:
        tests: of the cube as it is.
    """

    __test__ = False  # no class of tests, whatever its name begins with

    def __init__(self, cube: Tensor, psf: Tensor, radius: int):
        self._seen = seen_pixels(cube)
        double = torch.where(self._seen, cube.detach().double(), 0.0)
        residual = double - double.mean(0)  # no law knows the mean, and single precision would lose what is left of it
        self._unit = float(residual.square().mean().sqrt())
        self._cube, self._psf, self._radius = (residual / self._unit).float(), psf.float(), radius
        self._raw = self._tested(self._cube, torch.arange(self._seen.numel(), device=cube.device))
        self.tests = self._maps(self._raw)

    def touched(self, source: Tensor) -> Tensor:
        """Patches whose law a source `(T, H, W)` changes: `(H, W)`."""
        height = source.abs().amax(0)
        trace = (height > _TRACE * height.max()).float()
        offsets, side = disc(self._radius), 2 * self._radius + 1
        kernel = trace.new_zeros(side, side)
        kernel[tuple((offsets + self._radius).T)] = 1
        return torch.nn.functional.conv2d(trace[None, None], kernel[None, None], padding=self._radius)[0, 0] > 0.5

    def with_sources(self, sources: Sequence[Tensor]) -> FrameTests:
        """The tests of the cube with sources added, each `(T, H, W)`, in the order of its frames."""
        if not sources:
            return self.tests
        touched = torch.stack([self.touched(source) for source in sources]).any(0)
        index = touched.flatten().nonzero()[:, 0]
        added = torch.stack(list(sources)).sum(0).float() / self._unit
        renewed = self._tested(self._cube + added, index)
        return self._maps([old.index_copy(0, index, new) for old, new in zip(self._raw, renewed)])

    def _tested(self, cube: Tensor, index: Tensor) -> list[Tensor]:
        """a, the mean over the frames left out, `(N,)`, and b `(N, T)` of the patches about N pixels."""
        patches = Patches(cube, self._seen, self._radius)
        template, width, found = sampled(self._psf, patches.offsets), cube.shape[2], []
        for part in index.split(_BAND):
            values, seen = patches.at(part // width, part % width)
            try:
                law = PatchStatistics.learned(values, seen)
            except torch.linalg.LinAlgError:  # variances in a patch differ by more than single precision holds
                law = PatchStatistics.learned(values.double(), seen)
            b, a = law.left_out((template * seen)[..., None].to(law.factor))
            found.append((a[:, 0, 0].mean(-1).to(values), b[:, 0].to(values)))
        return [torch.cat(each) for each in zip(*found)]

    def _maps(self, raw: Sequence[Tensor]) -> FrameTests:
        height, width = self._seen.shape
        precision, score = raw
        known = precision > 0
        z = torch.where(known[:, None], score / torch.where(known, precision, 1.0).sqrt()[:, None], 0.0)
        z = z.T.reshape(-1, height, width)
        kappa = windowed(z.square().mean(0), known.to(z).reshape(height, width), self._radius)
        return FrameTests(precision.reshape(height, width) / kappa / self._unit**2, z / kappa.sqrt())
