"""Samples to train deep PACO with: the very cube, its frames shuffled, with sources put in.

    y'_t = y_{π(t)} + Σ_s f_s h(· − φ_t(p_s))

π is a shuffled order against the angles, which stay: noise lasts as it did, and a planet that is in the cube is smeared
(`frame_tests`); those that PACO finds are taken out before. The statistics of the patches are learned again with the
sources in, so that what they lose to them is part of the sample. Places are uniform in their distance from the star; of
a source's S/N, as PACO would have it, the logarithm is uniform. For that the part of a faint source's S/N that the
statistics leave is measured first, on a few sources at S/N of a few: half of it, with as many pixels in a patch as
there are frames.

What is to be found is the middle of each source, a disc of half a FWHM; what lies about it, within 1.5 FWHM, is neither
source nor background. A network that is to mark whole discs learns to look beside each place for the peak that it is
part of, which blurs the map, and then ranks peaks worse than S/N does.
"""

__all__ = ["PlanetSample", "PlanetSamples"]

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import InputError
from ..methods import PACO
from ..methods.deep_paco import single_wavelength, taken_out
from ..methods.frame_tests import TestedCube, shuffled
from ..methods.sky_channels import SkyChannels, radii_of
from ..noise.base import stream
from ..problem import Problem

_SNR = (1.5, 8.0)  # of PACO: from what nothing finds to what nothing misses
_ROOM = 100.0  # squares of a FWHM for one source
_MOST = 6  # sources at once
_APART = 3.0  # FWHM between them
_TRIES = 50
_MIDDLE, _ABOUT = 0.25, 1.5  # FWHM: radii of what is to be found, and of what is not background
_PROBES, _FAINT = 6, 5.0  # sources that measure what is left of their S/N, and what it would be


class PlanetSample(NamedTuple):
    """Channels `(C, H, W)`; the target `(H, W)`, 1 in the discs; and which pixels count, `(H, W)`, 1 or 0."""

    channels: Tensor
    target: Tensor
    counted: Tensor


class PlanetSamples:
    """An endless sequence of samples from one cube; item i is the same whenever it is asked for.

    Args:
        cube: `(T, H, W)`.
        problem: its operator is a `FieldRotation`.
        patch_radius: as for `PACO`.
        seed: of all that is random.

    Attributes:
        covered: where sources can be, `(H, W)`.
        kept: the part of a faint source's S/N that the statistics leave.

    Raises:
        InputError: as for a call of `DeepPACO`, or there is no place for a source.
    """

    def __init__(self, cube: Tensor, problem: Problem, *, patch_radius: int | None = None, seed: int = 0):
        paco = PACO(patch_radius)
        operator, radius = single_wavelength(paco, cube, problem)
        self.operator, self.seed = operator.to(torch.float32), seed
        self._fwhm = operator.fwhm
        flux, sigma, snr = (each[0] for each in paco.maps(cube, problem))
        found = taken_out(cube, operator, radius, (flux, sigma, snr))
        empty, sigma = sum(found, start=cube), sigma.float()
        self._tested = [TestedCube(empty, operator.psf, each) for each in radii_of(radius)]
        self._frames = len(cube)
        self._sky = SkyChannels(operator, self._tested[0].tests)
        height, width = sigma.shape
        rows, columns = torch.arange(height) - operator.centre[0], torch.arange(width) - operator.centre[1]
        self._distance = rows[:, None].hypot(columns)
        self.covered = self._sky.covered & sigma.isfinite()
        self._sigma = torch.where(self.covered, sigma, 0.0)
        self._weight = self.covered * (self._distance >= self._fwhm) / self._distance.clamp_min(1.0)
        if not bool(self._weight.any()):
            raise InputError(
                f"PlanetSamples expects places that half of the frames see, {self._fwhm:.1f} pixels or more from the "
                "star, got none; check the centre and the cube"
            )
        self.count = min(_MOST, max(1, round(float(self.covered.sum()) / (_ROOM * self._fwhm**2))))
        self.kept = self._kept()

    def item(self, index: int) -> PlanetSample:
        """Sample `index`."""
        generator = stream(self.seed, index)
        order = shuffled(self._frames, generator)
        places, fluxes = self._drawn(generator)
        about = self._discs(places, _ABOUT)
        target = self._discs(places, _MIDDLE) * self.covered
        counted = self.covered * torch.maximum(1 - about, target)
        return PlanetSample(self._seen(places, fluxes, order), target, counted)

    def _drawn(self, generator: torch.Generator) -> tuple[list[tuple[float, float]], list[float]]:
        """Places (row, column) and fluxes of sources."""
        places: list[tuple[float, float]] = []
        fluxes: list[float] = []
        for _ in range(_TRIES):
            if len(places) == self.count:
                break
            where = int(torch.multinomial(self._weight.flatten(), 1, generator=generator))
            row, column = divmod(where, self._weight.shape[1])
            part = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
            place = (row + part[0] - 0.5, column + part[1] - 0.5)
            snr = _SNR[0] * (_SNR[1] / _SNR[0]) ** part[2]
            if all(math.dist(place, other) >= _APART * self._fwhm for other in places):
                places.append(place)
                fluxes.append(snr / self.kept * float(self._sigma[row, column]))
        return places, fluxes

    def _seen(self, places: list[tuple[float, float]], fluxes: list[float], order: Tensor) -> Tensor:
        """Channels of the cube in an order of its frames, with sources."""
        back = torch.argsort(order)
        sources = [self.operator.source(place, flux)[back] for place, flux in zip(places, fluxes)]
        return self._sky([each.with_sources(sources).ordered(order) for each in self._tested])

    def _discs(self, places: list[tuple[float, float]], radius: float) -> Tensor:
        """1 within `radius` FWHM of each place, and at the pixel next to it: `(H, W)`."""
        discs = torch.zeros_like(self._sigma)
        rows, columns = torch.arange(len(discs)), torch.arange(discs.shape[1])
        for row, column in places:
            discs[(rows - row)[:, None].hypot(columns - column) <= max(radius * self._fwhm, 2**-0.5)] = 1.0
        return discs

    def _kept(self) -> float:
        """By how much S/N grows at a source of σ times `_FAINT`, over that, on average."""
        generator, self.kept = stream(self.seed + 1, 0), 1.0
        order = torch.arange(self._frames)
        before, grown = self._seen([], [], order)[0], []
        while len(grown) < _PROBES:
            places, _ = self._drawn(generator)
            pixels = [(round(row), round(column)) for row, column in places]
            pixels = [(r, c) for r, c in pixels if 0 <= r < before.shape[0] and 0 <= c < before.shape[1]]
            fluxes = [_FAINT * float(self._sigma[pixel]) for pixel in pixels]
            after = self._seen([(float(r), float(c)) for r, c in pixels], fluxes, order)[0]
            grown += [float(after[pixel] - before[pixel]) / _FAINT for pixel in pixels if float(self._sigma[pixel]) > 0]
        return max(sum(grown) / len(grown), 0.1)
