"""Sequences of frames with sources that are known: for the study of detection beside it.

Point sources are put into the planet-free NACO sequence (61 frames of 101², with its own and with reversed angles) and
into simulated ones (61 frames of 81², arcs of 80° and 25°), five a sequence, at least three FWHM from each other,
uniform in distance from 1.5 FWHM to the last whole ring, log-uniform in flux from 2 to 12 times the deviation σ that
PACO states at that distance on sequences without sources. Simulated frames are

    env(r) |s + ε d_t|² + white noise,     d_t = ρ d_t₋₁ + √(1 − ρ²) n_t

with s and n_t complex Gaussian fields as wide as the telescope's amplitude: speckles as wide as the PSF, of which a
part stands still and amplifies what changes. Every simulated sequence has fields of its own; the real one has one
background only, so that its rows share their false alarms.
"""

import functools
import math
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import obverse as ob
from obverse.io.fits import load

FAMILIES = ("naco", "naco reversed", "simulated 80", "simulated 25")
SOURCES, APART, INNER = 5, 3.0, 1.5  # a sequence; FWHM between them, and from the star
FAINT, BRIGHT = 2.0, 12.0  # fluxes, in σ of PACO
FRAMES, SIZE, WIDTH = 61, 81, 4.0  # of simulated sequences; WIDTH is the FWHM in pixels
CHANGE, MEMORY, WHITE = 0.25, 0.5, 1.0  # ε, ρ, and the deviation of white noise
LEVEL, FALL, FLOOR = 60.0, 8.0, 0.3  # env(r) = LEVEL (exp(−r/FALL) + FLOOR exp(−r/(3 FALL))), r in pixels


@dataclass(frozen=True, eq=False)
class Sequence:
    """A sequence with sources: what a row of the study is."""

    cube: Tensor
    problem: ob.Problem
    places: list[tuple[float, float]]
    fluxes: list[float]


@functools.cache
def naco(name: str) -> Tensor:
    path = Path(os.environ["OBVERSE_DATA"]) / "astro/naco_betapic" / f"naco_betapic_{name}.fits"
    return torch.from_numpy(load(path)[0].astype(float))


@functools.cache
def problem_of(family: str) -> ob.Problem:
    if family.startswith("naco"):
        angles, psf = naco("empty_pa").flatten(), naco("psf")
        angles, psf, size = (-angles if "reversed" in family else angles), psf / psf.max(), 101
    else:
        angles, psf, size = (
            torch.linspace(0, float(family.split()[1]), FRAMES),
            torch.outer(profile(WIDTH), profile(WIDTH)),
            SIZE,
        )
    operator = ob.operators.FieldRotation((1, size, size), angles, psf, dtype=torch.float64)
    return ob.Problem(operator, ob.noise.Gaussian(1.0))


def profile(width: float) -> Tensor:
    """A Gaussian of peak one."""
    side = torch.arange(-2 * math.ceil(width), 2 * math.ceil(width) + 1, dtype=torch.float64)
    return torch.exp(-4 * math.log(2) * side.square() / width**2)


def background(family: str, index: int) -> Tensor:
    """Frames without a source; those with a negative index are never counted."""
    if family.startswith("naco"):
        return naco("empty_cube")
    generator = torch.Generator().manual_seed(1000 * int(family.split()[1]) + 500 + index)
    line = profile(math.sqrt(2) * WIDTH)
    line = line / line.norm()
    side = SIZE + len(line) - 1

    def field() -> Tensor:
        parts = torch.randn(2, 1, side, side, generator=generator, dtype=torch.float64) / math.sqrt(2)
        smooth = torch.nn.functional.conv2d(parts, line[None, None, :, None])
        real, imaginary = torch.nn.functional.conv2d(smooth, line[None, None, None])[:, 0]
        return torch.complex(real, imaginary)

    still, change, frames = field(), field(), []
    for _ in range(FRAMES):
        change = MEMORY * change + math.sqrt(1 - MEMORY**2) * field()
        frames.append((still + CHANGE * change).abs().square())
    r = distance_map(family)
    envelope = LEVEL * (torch.exp(-r / FALL) + FLOOR * torch.exp(-r / (3 * FALL)))
    noise = WHITE * torch.randn(FRAMES, SIZE, SIZE, generator=generator, dtype=torch.float64)
    return envelope * torch.stack(frames) + noise


def distance_map(family: str) -> Tensor:
    _, height, width = problem_of(family).operator.image_shape
    rows, columns = (torch.arange(n, dtype=torch.float64) - (n - 1) / 2 for n in (height, width))
    return torch.hypot(rows[:, None], columns)


def ring_of(family: str) -> tuple[float, float]:
    """Where is searched, in pixels from the star: where the maps of all methods are known."""
    operator = problem_of(family).operator
    return operator.fwhm, min(operator.image_shape[1:]) / 2 - operator.fwhm / 2


@functools.cache
def deviation(family: str) -> Tensor:
    """σ of PACO at whole distances from the star, without sources: the median over the ring."""
    r, maps = distance_map(family), []
    for index in (-1,) if family.startswith("naco") else (-1, -2, -3):
        maps.append(ob.methods.PACO().maps(background(family, index), problem_of(family))[1][0])
    sigma = torch.stack(maps).square().mean(0).sqrt()
    return torch.stack([sigma[(r - k).abs() < 1].nanmedian() for k in range(int(ring_of(family)[1]) + 2)])


def sequence(family: str, index: int) -> Sequence:
    problem = problem_of(family)
    operator, (_, outer) = problem.operator, ring_of(family)
    generator = torch.Generator().manual_seed(7919 * FAMILIES.index(family) + 104729 + index)
    sigma, centre = deviation(family), operator.centre
    places, fluxes = [], []
    while len(places) < SOURCES:
        a, b, c = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
        r = INNER * operator.fwhm + a * (outer - INNER * operator.fwhm)
        place = (centre[0] + r * math.sin(2 * math.pi * b), centre[1] + r * math.cos(2 * math.pi * b))
        if all(math.dist(place, other) > APART * operator.fwhm for other in places):
            places.append(place)
            fluxes.append(float(sigma[round(r)]) * FAINT * (BRIGHT / FAINT) ** c)
    cube = background(family, index)
    for place, flux in zip(places, fluxes):
        cube = cube + operator.source(place, flux)
    return Sequence(cube, problem, places, fluxes)
