"""A simulated sequence through several wavelengths: speckles of an aberrated pupil, which grow with the wavelength.

    E_lt(α) = Σ_u P(u) [exp(2πi δ_t(u)/λ_l) − m_lt] exp(−2πi α·u/λ_l),    m the pupil's mean of the exponential
    y_lt = F_l |E_lt|²/norm + PSF_l ∗ planets turned by −pa_t + noise,        PSF_l = |Σ_u P(u) exp(−2πi α·u/λ_l)|²/norm

P is a round pupil with a central obstruction, δ_t its path difference in frame t, the same for all wavelengths, and m
what an ideal coronagraph takes away. To first order E is δ's transform at u = α/λ: a speckle lies at a distance from
the star in proportion to λ, and its flux falls as λ⁻². δ has a power spectrum |k|⁻²; one part of it stands still, one
drifts slowly and one is new in every frame. The noise is that of photons and of the detector, as normal laws.

It stands in for data where none may be shared, and knows the truth. No atmosphere, no wind, no detector's flaws.

References: Perrin, Sivaramakrishnan, Makidon, Oppenheimer, Graham, "The structure of high Strehl ratio point-spread
functions", ApJ 2003. Soummer, Pueyo, Sivaramakrishnan, Vanderbei, "Fast computation of Lyot-style coronagraph
propagation", Optics Express 2007.
"""

__all__ = ["Planet", "SpectralSequence", "simulated_sequence"]

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from ..noise.base import stream
from ..operators import FieldRotation

_PUPIL = 48  # samples across the telescope's diameter
_OBSTRUCTION = 0.14  # of the diameter: VLT
_SAMPLING = 2.5  # pixels of λ/D at the shortest wavelength
_STILL, _SLOW, _FAST = 1.0, 0.4, 0.4  # root mean squares of the three parts of δ, relatively
_MEMORY = 0.8  # correlation of the slow part from frame to frame
_PSF_SIDE = 25  # pixels


@dataclass(frozen=True)
class Planet:
    """A source beside the star.

    Args:
        x: its column on the sky, in pixels.
        y: its row.
        contrast: its flux over the star's in each channel, `(L,)`.
    """

    x: float
    y: float
    contrast: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class SpectralSequence:
    """What a sequence's files would hold, and the truth.

    Args:
        cube: `(L, T, H, W)`, in counts.
        psf: of the star beside the coronagraph, `(L, h, w)`, in counts of one frame.
        degrees: pa_t, `(T,)`.
        wavelengths: `(L,)`, in µm.
        planets: those that are in it.
    """

    cube: Tensor
    psf: Tensor
    degrees: Tensor
    wavelengths: Tensor
    planets: tuple[Planet, ...]


def simulated_sequence(
    planets: Sequence[Planet] = (),
    *,
    wavelengths: Sequence[float] = (0.96, 1.05, 1.14, 1.23, 1.32, 1.41, 1.50, 1.59),
    frames: int = 20,
    arc: float = 50.0,
    size: int = 61,
    star: float = 1e8,
    aberration: float = 0.02,
    read_noise: float = 3.0,
    seed: int = 0,
) -> SpectralSequence:
    """Frames of a star behind an ideal coronagraph, with planets.

    Args:
        planets: sources; each has one contrast for each wavelength.
        wavelengths: in µm, rising.
        frames: T.
        arc: degrees by which the sky turns in all.
        size: of a frame, pixels a side.
        star: its counts in one frame and channel.
        aberration: root mean square of δ in µm.
        read_noise: of the detector, counts.
        seed: of δ and of the noise.

    Raises:
        InputError: an argument is out of range, or a planet has another number of contrasts.

    Example:
        >>> made = simulated_sequence([Planet(20.0, 14.0, (1e-4, 2e-4))], wavelengths=(1.0, 1.5), frames=4, size=25)
        >>> made.cube.shape, made.psf.shape
        (torch.Size([2, 4, 25, 25]), torch.Size([2, 25, 25]))
    """
    lengths = torch.as_tensor(wavelengths, dtype=torch.float64)
    if lengths.ndim != 1 or not bool((lengths > 0).all()) or not bool((lengths.diff() > 0).all()):
        raise InputError(f"simulated_sequence expects rising wavelengths in µm, got {tuple(wavelengths)}; sort them")
    if any(len(planet.contrast) != len(lengths) for planet in planets):
        raise InputError(
            f"simulated_sequence expects {len(lengths)} contrasts of each planet, one for each wavelength, got "
            f"{[len(planet.contrast) for planet in planets]}"
        )
    if frames < 2 or size < 3 or not (star > 0 and aberration >= 0 and read_noise >= 0):
        raise InputError(
            f"simulated_sequence expects frames and pixels, and figures of at least zero, got frames={frames}, "
            f"size={size}, star={star}, aberration={aberration}, read_noise={read_noise}"
        )
    generator = stream(seed, 0)
    pupil = _pupil()
    paths = _paths(pupil, frames, generator) * aberration
    degrees = torch.linspace(-arc / 2, arc / 2, frames, dtype=torch.float64)
    cubes, psfs = [], []
    for wavelength in lengths:
        scale = float(wavelength / lengths[0]) * _SAMPLING
        alone = _intensity(pupil.to(torch.complex128)[None], scale, _PSF_SIDE)[0]
        total = float(pupil.sum()) * (scale * (_PUPIL - 1)) ** 2  # Σ over a period of the sampled pupil's transform
        psfs.append(star * alone / total)
        field = torch.polar(pupil.expand_as(paths), 2 * math.pi * paths / wavelength)
        field = pupil * (field - field.sum((1, 2), keepdim=True) / pupil.sum())
        cubes.append(star * _intensity(field, scale, size) / total)
    cube, psf = torch.stack(cubes), torch.stack(psfs)
    sky = FieldRotation((len(lengths), size, size), degrees, psf, dtype=torch.float64)
    for planet in planets:
        cube = cube + sky.source((planet.y, planet.x), torch.tensor(planet.contrast, dtype=torch.float64))
    deviation = (cube.clamp(min=0) + read_noise**2).sqrt()
    cube = cube + deviation * torch.randn(cube.shape, generator=generator, dtype=cube.dtype)
    return SpectralSequence(cube, psf, degrees, lengths, tuple(planets))


def _pupil() -> Tensor:
    place = (torch.arange(_PUPIL, dtype=torch.float64) - (_PUPIL - 1) / 2) / (_PUPIL - 1)
    radius = (place[:, None].square() + place.square()).sqrt()
    return ((radius <= 0.5) & (radius >= _OBSTRUCTION / 2)).double()


def _paths(pupil: Tensor, frames: int, generator: torch.Generator) -> Tensor:
    """δ of each frame, `(T, u, u)`, with a root mean square of about 1 over the pupil."""
    side = 2 * _PUPIL  # so that its period is not the pupil
    frequency = torch.fft.fftfreq(side, 1 / side, dtype=torch.float64)
    amplitude = 1 / (frequency[:, None].square() + frequency.square()).sqrt().clamp(min=2.0)
    white = torch.randn(2 * frames + 2, side, side, generator=generator, dtype=torch.float64)
    screens = torch.fft.ifft2(torch.fft.fft2(white) * amplitude).real[:, :_PUPIL, :_PUPIL]
    inside = screens[:, pupil > 0]
    screens = (screens - inside.mean(1)[:, None, None]) / inside.std()
    still, drift, *new = screens
    frames_of = []
    for fresh, turned in zip(new[:frames], new[frames:]):
        drift = _MEMORY * drift + math.sqrt(1 - _MEMORY**2) * turned
        frames_of.append(_STILL * still + _SLOW * drift + _FAST * fresh)
    return torch.stack(frames_of) / math.hypot(_STILL, _SLOW, _FAST)


def _intensity(field: Tensor, scale: float, size: int) -> Tensor:
    """|Fourier sum of fields (T, u, u)|² at the pixels of a frame, `scale` pixels being λ/D."""
    u = (torch.arange(_PUPIL, dtype=torch.float64) - (_PUPIL - 1) / 2) / (_PUPIL - 1)
    x = (torch.arange(size, dtype=torch.float64) - (size - 1) / 2) / scale
    angle = -2 * math.pi * x[:, None] * u
    kernel = torch.complex(angle.cos(), angle.sin())
    return (kernel @ field @ kernel.mT).abs().square()
