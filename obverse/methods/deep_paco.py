"""Deep PACO: a network, trained on the very frames, looks for point sources in what PACO makes of them.

The frames' patches are tested (`frame_tests`), turned to the sky and summed in several ways (`sky_channels`); the
network answers with a logit at each place, the mean over the eight symmetries of a square and over the networks of an
ensemble. PACO takes frames to be independent and patches to be normal and of one size, and tests one place at a time.
The network has seen what else there is: noise with heavy tails, which size of patch tells most of it, the trace that a
source leaves beside itself in the statistics.

A logit has no scale of its own. It is calibrated on the same cube with its frames shuffled, in which no source adds up
in one place and noise lasts as it did: the score is the normal deviate that is as rare among the logits there
(`null_law`), pooled over the map. What PACO finds is taken out of the frames first, and is not null.

Flux and its standard deviation at each place, and the flux, place and covariance of each candidate, are those of PACO,
whose fit is free of bias: a network that is trained on some hundreds of sources has nothing to add to it.

Reference: Flasseur, Bodrito, Mairal, Ponce, Langlois, Lagrange, "deep PACO: combining statistical models with deep
learning for exoplanet detection and characterization in direct imaging at high contrast", MNRAS 2024.
"""

__all__ = ["DeepPACO"]

import math
import time
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..noise.base import stream
from ..operators.field_rotation import FieldRotation
from ..problem import Problem
from ..solvers.result import Status
from .base import Callback, silent
from .detection import Detection, candidates_of
from .frame_tests import FEWEST_FRAMES, TestedCube, shuffled
from .null_law import FEWEST, NullLaw
from .paco import PACO
from .sky_channels import SkyChannels, radii_of, turned

_SYMMETRIES = 8


@dataclass(frozen=True, eq=False)
class DeepPACO:
    """Search for point sources with networks trained on the cube itself: see `learning.train_deep_paco`.

    Args:
        networks: each from channels `(B, C, H, W)` to logits `(B, 1, H, W)`, such as `networks.SourceDetector`.
        patch_radius: of the patches, in pixels; by default that of `PACO`. Two more sizes beside it are used too.
        threshold: score from which a peak is a candidate; 5 is usual.
        permutations: orders of the frames that the score is calibrated with; of small frames more are taken, as the
            tail of the score's law needs.
        seed: of these orders.

    Raises:
        InputError: an argument is out of range.

    Example:
        >>> import obverse as ob
        >>> y, x = torch.meshgrid(torch.arange(-3.0, 4.0), torch.arange(-3.0, 4.0), indexing="ij")
        >>> A = ob.operators.FieldRotation((1, 25, 25), torch.linspace(0, 90, 20), torch.exp(-(x**2 + y**2) / 2))
        >>> noise = torch.randn(20, 25, 25, generator=torch.Generator().manual_seed(0))
        >>> fresh = ob.networks.SourceDetector(18, widths=(8, 16))  # not trained: it ranks as PACO does
        >>> search = DeepPACO([fresh])
        >>> found = search(noise + A.source((12.0, 20.0), 3.0), ob.Problem(A, ob.noise.Gaussian(1.0)))
        >>> [(round(c.x), round(c.y)) for c in found.candidates]
        [(20, 12)]
    """

    networks: Sequence[nn.Module]
    patch_radius: int | None = None
    threshold: float = 5.0
    _: KW_ONLY
    permutations: int = 32
    seed: int = 0

    def __post_init__(self):
        if isinstance(self.networks, nn.Module) or not len(self.networks):
            raise InputError(f"DeepPACO expects a list of networks, got {self.networks!r}; pass [network]")
        if self.permutations < 1:
            raise InputError(f"DeepPACO expects at least one permutation, got {self.permutations}; 32 is usual")
        object.__setattr__(self, "networks", tuple(self.networks))
        PACO(self.patch_radius, self.threshold)  # which checks them

    @torch.no_grad()
    def __call__(self, cube: Tensor, problem: Problem, *, callback: Callback = silent) -> Detection:
        """Maps of flux, its error and the score, and the candidates, each with its flux and place.

        Args:
            cube: `(T, H, W)`, `problem.operator.data_shape`; a pixel that is NaN in some frame is not used.
            callback: told of (permutations done, permutations, 0.0).

        Returns:
            Detection, whose S/N is the score. Diagnostics hold PACO's own S/N at each candidate, and the mean over the
                permutations of the largest score.

        Raises:
            InputError: the operator is no FieldRotation of one wavelength, or the cube does not fit it.
        """
        began = time.perf_counter()
        paco = PACO(self.patch_radius, self.threshold)
        operator, radius = single_wavelength(paco, cube, problem)
        flux, sigma, snr = paco.maps(cube, problem)
        tested = [TestedCube(cube, operator.psf, each) for each in radii_of(radius)]
        sky = SkyChannels(operator, tested[0].tests)
        known = sky.covered & snr[0].isfinite()
        if not bool(known.any()):
            raise InputError("DeepPACO expects places that half of the frames see, got none; check angles and centre")
        logit = self._logit(sky([each.tests for each in tested]))
        null, count = [], max(self.permutations, math.ceil(FEWEST / int(sky.covered.sum())))
        removed = taken_out(cube, operator, radius, (flux[0], sigma[0], snr[0]))
        empty = [each.with_sources(removed) for each in tested]
        for index in range(count):
            order = shuffled(len(cube), stream(self.seed, index))
            null.append(self._logit(sky([each.ordered(order) for each in empty]))[sky.covered])
            callback(index + 1, count, 0.0)
        law = NullLaw.learned(torch.stack(null))
        score = torch.where(known, law.deviate(logit), torch.nan)[None].to(cube.dtype)
        flux, sigma = (torch.where(known, v[0], torch.nan)[None] for v in (flux, sigma))
        peaks = candidates_of(score, self.threshold, operator.fwhm)
        found = [paco._candidate(peak, cube, operator, radius, flux[0], sigma[0])[0] for peak in peaks]
        highest = torch.stack([law.deviate(values.max()) for values in null])
        diagnostics = {
            "seconds": time.perf_counter() - began,
            "patch_radius": radius,
            "fwhm": operator.fwhm,
            "networks": len(self.networks),
            "permutations": count,
            "permuted_maximum": float(highest.mean()),
            "paco_snr": [float(snr[0, round(peak.y), round(peak.x)]) for peak in peaks],
        }
        message = (
            f"every place that at least half of the frames see was tested; candidates with a score of at least "
            f"{self.threshold:g}: {len(peaks)}; with the frames shuffled the largest score of a map is "
            f"{diagnostics['permuted_maximum']:.1f} on average"
        )
        status = Status(True, "closed-form", message)
        return Detection(flux, status, (), diagnostics, snr=score, sigma=sigma, candidates=tuple(found))

    def _logit(self, channels: Tensor) -> Tensor:
        """The mean over networks and symmetries: `(H, W)`."""
        total = channels.new_zeros(channels.shape[1:])
        for network in self.networks:
            for symmetry in range(_SYMMETRIES):
                logit = network(turned(channels, symmetry)[None])[0]
                total += turned(logit, symmetry, back=True)[0]
        return total / (len(self.networks) * _SYMMETRIES)


def single_wavelength(paco: PACO, cube: Tensor, problem: Problem) -> tuple[FieldRotation, int]:
    """The operator, in single precision, and the radius of patches of a cube fit for the network.

    Raises:
        InputError: as for a call of `DeepPACO`.
    """
    operator, radius = paco._prepared(cube, problem)
    if cube.ndim != 3:
        raise InputError(f"DeepPACO expects one wavelength, a cube (T, H, W), got {tuple(cube.shape)}; use PACO")
    if len(cube) < FEWEST_FRAMES:
        raise InputError(f"DeepPACO expects at least {FEWEST_FRAMES} frames, got {len(cube)}; use PACO")
    return operator, radius


def taken_out(cube: Tensor, operator: FieldRotation, radius: int, maps: tuple[Tensor, Tensor, Tensor]) -> list[Tensor]:
    """What PACO finds at its usual threshold, given its flux, σ and S/N, with the opposite sign: each `(T, H, W)`."""
    paco = PACO(radius)
    peaks = candidates_of(maps[2], paco.threshold, operator.fwhm)
    found = [paco._candidate(peak, cube, operator, radius, maps[0], maps[1])[0] for peak in peaks]
    return [operator.source((each.y, each.x), -each.flux) for each in found]
