"""Low-rank plus sparse decomposition of a sequence of frames (LLSG).

The pixels of each part of a ring about the star, M of `(T, P)`, are taken apart into what all frames share, what stands
out of few pixels at a time, and noise,

    M = L + S + G,     rank L ≤ k,     by turns  L ← the k leading singular components of M − S,
                                                S ← (|M − L| − τ)₊ sign(M − L),    τ = c · 1.48 median |M − L|

A planet is in S of the frames, and crosses the pixels that they share. S is turned back and the mean taken of it: where
a source stands out of a frame by less than τ, a median of it would be zero.

Reference: Gomez Gonzalez, Absil, Absil, Van Droogenbroeck, Mawet, Surdej, "Low-rank plus sparse decomposition for
exoplanet detection in direct-imaging ADI sequences. The LLSG algorithm", A&A 2016 (which takes the median).
"""

__all__ = ["LowRankSparseADI"]

import math
import time
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from ..errors import InputError
from ..operators.arguments import require_whole
from ..operators.field_rotation import FieldRotation
from ..operators.motion import pixel_grid
from ..operators.rotate import Rotate
from ..posterior.estimate import Estimate
from ..problem import Problem
from ..solvers.result import Status
from .differential_imaging import field_rotation_of
from .paco_detection import MAD

_WIDTH = 2.0  # FWHM of a ring
_ENOUGH = 1e-3  # relative change of S that ends the iteration


@dataclass(frozen=True)
class LowRankSparseADI:
    """What is sparse in the frames, turned back; the mean of that.

    Args:
        rank: of what the frames share, k; at least 1.
        threshold: c, in standard deviations of a frame's residual.
        sectors: parts of each ring of two FWHM that are treated by themselves.
        inner_radius: pixels nearer to the star than this stay zero, and take no part.
        iterations: rounds of L and S; fewer where S changes no more. (What is left over is no error: S is what stands
            out after as many rounds, ten in the paper.)

    Raises:
        InputError: an argument is out of range.

    Example:
        >>> import obverse as ob
        >>> A = ob.operators.FieldRotation((1, 15, 15), torch.linspace(0, 180, 12), torch.ones(1, 1))
        >>> still = torch.rand(15, 15) * torch.linspace(1, 2, 12)[:, None, None]
        >>> image = LowRankSparseADI(1)(still + A.source((7.0, 12.0), 3.0), ob.Problem(A, ob.noise.Gaussian(1.0))).image
        >>> divmod(int(image.argmax()), 15)
        (7, 12)
    """

    rank: int = 5
    threshold: float = 1.0
    _: KW_ONLY
    sectors: int = 4
    inner_radius: float = 0.0
    iterations: int = 10

    def __post_init__(self):
        for name in ("rank", "sectors", "iterations"):
            if require_whole(getattr(self, name), f"LowRankSparseADI expects for {name} a number") < 1:
                raise InputError(f"LowRankSparseADI expects {name} of at least one, got {getattr(self, name)}")
        for name in ("threshold", "inner_radius"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise InputError(f"LowRankSparseADI expects {name} of at least zero, got {getattr(self, name)}")

    @torch.no_grad()
    def __call__(self, y: Tensor, problem: Problem) -> Estimate:
        """The combined sparse part; arguments, result and errors are those of `MedianADI`."""
        began = time.perf_counter()
        operator = field_rotation_of(y, problem, "LowRankSparseADI")
        images, most = [], 0
        for cube in y if y.ndim == 4 else y[None]:
            sparse = torch.zeros_like(cube)
            for pixels in self._parts(operator, cube):
                sparse[:, pixels], taken = self._sparse(cube[:, pixels])
                most = max(most, taken)
            derotation = Rotate(sparse.shape, operator.degrees, centre=operator.centre, dtype=sparse.dtype)
            images.append(derotation(sparse).mean(0))
        message = f"frames were taken apart in {most} rounds, what is sparse turned back and combined"
        status = Status(True, "decomposition", message)
        return Estimate(torch.stack(images), status, (), {"seconds": time.perf_counter() - began, "rounds": most})

    def _sparse(self, frames: Tensor) -> tuple[Tensor, int]:
        """S of pixels through all frames, `(T, P)`, and how many rounds it took."""
        sparse = torch.zeros_like(frames)
        scale = float((frames - frames.mean(0)).norm())
        for taken in range(1, self.iterations + 1):
            left = frames - sparse
            _, vectors = torch.linalg.eigh((left @ left.mT).double())
            shared = vectors[:, -self.rank :].to(frames)
            rest = frames - shared @ (shared.mT @ left)
            tau = self.threshold * MAD * rest.abs().median()
            renewed = (rest.abs() - tau).clamp_min(0) * rest.sign()
            change, sparse = float((renewed - sparse).norm()), renewed
            if change <= _ENOUGH * scale:
                return sparse, taken
        return sparse, self.iterations

    def _parts(self, operator: FieldRotation, like: Tensor) -> Iterator[Tensor]:
        """Masks `(H, W)` of the pixels that are treated together."""
        grid = torch.empty(0, dtype=torch.float64, device=like.device)
        rows, columns = pixel_grid(operator.image_shape[1:], grid)
        up, right = rows - operator.centre[0], columns - operator.centre[1]
        distance, width = up.hypot(right), _WIDTH * operator.fwhm
        ring = ((distance - self.inner_radius) / width).floor()
        sector = ((torch.atan2(up, right) / (2 * math.pi)) % 1 * self.sectors).floor()
        for r in range(int(ring.max()) + 1):
            for s in range(self.sectors):
                pixels = (ring == r) & (sector == s)
                if bool(pixels.any()):
                    yield pixels
