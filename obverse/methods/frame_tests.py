"""The patches of a cube tested frame by frame, and tested anew only where sources were put in.

The patch about pixel n has in frame t two tests, each by the law that the other frames teach (`patch_statistics`):

    z = b_t/√a                                              the source at n against its background
    u = (d_n − E[d_n | d_i, i before n]) / deviation        the pixel, whitened

u is the element at n of F⁻¹ d with C = F Fᵀ and the pixels in the order of rows: what the pixels before it do not tell
of it, white from pixel to pixel. (It is the b_t/√a of a template of one pixel, with the patch cut off behind it.) Both
are divided by their dispersion, the root of their mean square over the frames and a window as wide as a patch, and are
then of variance 1 where there is no source.

Neither law knows the order of the frames. A cube whose frames change places has the same tests, in other places; and a
source changes only those of the patches that it crosses, which `with_sources` learns again.

References: as in `patch_statistics`. Flasseur, Bodrito, Mairal, Ponce, Langlois, Lagrange, "deep PACO: combining
statistical models with deep learning for exoplanet detection and characterization in direct imaging at high contrast",
MNRAS 2024.
"""

__all__ = ["FrameTests", "TestedCube"]

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .paco_detection import sampled, windowed
from .patch_statistics import Patches, PatchStatistics, disc, seen_pixels

_BAND = 1000  # patches at once: some tens of megabytes
_TRACE = 0.1  # of a source's highest value: less does not change a law


@dataclass(frozen=True, eq=False)
class FrameTests:
    """Tests of a cube in the frames' own orientation.

    Args:
        precision: a over the dispersion, `(H, W)`, in units of the cube; zero where no source can be seen.
        matched: z, `(T, H, W)`.
        white: u, `(T, H, W)`.
    """

    precision: Tensor
    matched: Tensor
    white: Tensor

    def ordered(self, order: Tensor) -> "FrameTests":
        """Those of the cube whose frame t is frame `order[t]` of this one."""
        return FrameTests(self.precision, self.matched[order], self.white[order])


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
        """a `(N,)`, b `(N, T)` and u `(N, T)` of the patches about N pixels."""
        patches = Patches(cube, self._seen, self._radius)
        template = sampled(self._psf, patches.offsets)
        width, middle, found = cube.shape[2], len(template) // 2, []
        for part in index.split(_BAND):
            values, seen = patches.at(part // width, part % width)
            a, b = _left_out(values, seen, (template * seen)[..., None])
            pixel = torch.zeros_like(seen[:, : middle + 1], dtype=values.dtype)
            pixel[:, middle] = seen[:, middle].to(pixel)
            c, d = _left_out(values[:, : middle + 1], seen[:, : middle + 1], pixel[..., None])
            found.append((a, b, _over_root(d, c[:, None])))
        return [torch.cat(each) for each in zip(*found)]

    def _maps(self, raw: Sequence[Tensor]) -> FrameTests:
        (height, width), radius = self._seen.shape, self._radius
        precision = raw[0].reshape(height, width)
        known = (precision > 0).to(precision)
        z, u = (v.T.reshape(-1, height, width) for v in (_over_root(raw[1], raw[0][:, None]), raw[2]))
        kappa = windowed(z.square().mean(0), known, radius)
        spread = windowed(u.square().mean(0), known, radius)
        return FrameTests(precision / kappa / self._unit**2, z / kappa.sqrt(), u / spread.sqrt())


def _left_out(values: Tensor, seen: Tensor, template: Tensor) -> tuple[Tensor, Tensor]:
    """a, the mean over the frames left out, and b of one template: `(N,)` and `(N, T)`."""
    try:
        law = PatchStatistics.learned(values, seen)
    except torch.linalg.LinAlgError:  # variances of one patch that differ by more than single precision holds
        law = PatchStatistics.learned(values.double(), seen)
    b, a = law.left_out(template.to(law.factor))
    return a[:, 0, 0].mean(-1).to(values), b[:, 0].to(values)


def _over_root(score: Tensor, precision: Tensor) -> Tensor:
    known = precision > 0
    return torch.where(known, score / torch.where(known, precision, 1.0).sqrt(), 0.0)
