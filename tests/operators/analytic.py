"""Exact line integrals of discs and ellipses, and their rasters with many samples a pixel."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Ellipse:
    """A constant inside an ellipse; x and y from the image's centre, y upwards; `angle` turns it anticlockwise."""

    value: float
    semi_axes: tuple[float, float]
    centre: tuple[float, float] = (0.0, 0.0)
    angle: float = 0.0

    def _own(self, vectors: Tensor) -> Tensor:
        """Vectors in the frame where the ellipse is the unit circle's, without the shift."""
        turn = torch.tensor(self.angle, dtype=torch.float64)
        x = (vectors[..., 0] * turn.cos() + vectors[..., 1] * turn.sin()) / self.semi_axes[0]
        y = (vectors[..., 1] * turn.cos() - vectors[..., 0] * turn.sin()) / self.semi_axes[1]
        return torch.stack((x, y), -1)

    def line_integrals(self, point: Tensor, direction: Tensor) -> Tensor:
        """Integrals along whole lines through `point` (*, 2) along `direction` (*, 2): value times chord."""
        p = self._own(point - torch.tensor(self.centre, dtype=torch.float64))
        d = self._own(direction)
        a, b, c = (d * d).sum(-1), (p * d).sum(-1), (p * p).sum(-1) - 1
        chord = 2 * (b * b - a * c).clamp(min=0).sqrt() / a
        return self.value * chord * direction.norm(dim=-1)

    def inside(self, point: Tensor) -> Tensor:
        return self._own(point - torch.tensor(self.centre, dtype=torch.float64)).square().sum(-1) <= 1


def raster(ellipses: Sequence[Ellipse], shape: tuple[int, int], spacing: float = 1.0, samples: int = 8) -> Tensor:
    """The mean of each pixel from `samples`² points, `(1, H, W)` in float64."""
    height, width = shape
    part = (torch.arange(samples, dtype=torch.float64) + 0.5) / samples - 0.5
    x = ((torch.arange(width)[:, None] + part).flatten() - (width - 1) / 2) * spacing
    y = ((height - 1) / 2 - (torch.arange(height)[:, None] + part).flatten()) * spacing
    total = torch.zeros(height, width, dtype=torch.float64)
    for row in range(height):  # one row of pixels at a time, for the memory
        lines = y[row * samples : (row + 1) * samples]
        points = torch.stack(torch.meshgrid(x, lines, indexing="xy"), -1)
        for ellipse in ellipses:
            fine = ellipse.inside(points).double().reshape(samples, width, samples)
            total[row] += ellipse.value * fine.mean((0, 2))
    return total[None]


def shepp_logan(radius: float) -> list[Ellipse]:
    """The phantom of Shepp and Logan with Toft's contrasts, in a square of half-width `radius`."""
    table = [
        (1.0, 0.69, 0.92, 0.0, 0.0, 0.0),
        (-0.8, 0.6624, 0.874, 0.0, -0.0184, 0.0),
        (-0.2, 0.11, 0.31, 0.22, 0.0, -18.0),
        (-0.2, 0.16, 0.41, -0.22, 0.0, 18.0),
        (0.1, 0.21, 0.25, 0.0, 0.35, 0.0),
        (0.1, 0.046, 0.046, 0.0, 0.1, 0.0),
        (0.1, 0.046, 0.046, 0.0, -0.1, 0.0),
        (0.1, 0.046, 0.023, -0.08, -0.605, 0.0),
        (0.1, 0.023, 0.023, 0.0, -0.606, 0.0),
        (0.1, 0.023, 0.046, 0.06, -0.605, 0.0),
    ]
    return [
        Ellipse(value, (a * radius, b * radius), (x * radius, y * radius), angle * torch.pi / 180)
        for value, a, b, x, y, angle in table
    ]


def parallel_lines(angles: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Points and directions of the lines s = x cos θ + y sin θ, each `(views, detectors, 2)`."""
    along = torch.stack((angles.cos(), angles.sin()), -1)[:, None]
    ahead = torch.stack((-angles.sin(), angles.cos()), -1)[:, None]
    point = positions[:, None] * along
    return point, ahead.expand_as(point)


def fan_lines(angles: Tensor, positions: Tensor, source: float, detector: float, arc: bool = False):
    """Points and directions of the lines from the source at −R (−sin θ, cos θ) to each detector position."""
    along = torch.stack((angles.cos(), angles.sin()), -1)[:, None]
    ahead = torch.stack((-angles.sin(), angles.cos()), -1)[:, None]
    if arc:
        gamma = (positions / (source + detector))[:, None]
        cell = -source * ahead + (source + detector) * (gamma.cos() * ahead + gamma.sin() * along)
    else:
        cell = detector * ahead + positions[:, None] * along
    start = (-source * ahead).expand_as(cell)
    return start, cell - start


def averaged(ellipses: Sequence[Ellipse], lines, positions: Tensor, cell: float, samples: int = 16) -> Tensor:
    """Exact projections averaged over each cell of the detector; `lines` maps positions to points and directions."""
    part = ((torch.arange(samples, dtype=torch.float64) + 0.5) / samples - 0.5) * cell
    point, direction = lines((positions[:, None] + part).flatten())
    total = sum(ellipse.line_integrals(point, direction) for ellipse in ellipses)
    assert isinstance(total, Tensor)
    return total.unflatten(1, (-1, samples)).mean(-1)
