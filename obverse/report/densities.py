"""The density along each component, as a small curve: mean, ±1, ±2 and ±3 standard deviations, and what it is from.

The curve is `Posterior.marginal` of the stored posterior along the component, over the range of its slider. Where it is
not the normal one, the normal density of the same variance is drawn beside it.
"""

__all__ = ["KINDS", "density_plot", "marginals"]

from html import escape

import numpy as np
import torch

from ..errors import InputError
from ..posterior import Density, Posterior

KINDS = {
    "gaussian": "normal density",
    "kernel": "kernel density of kept draws",
    "maximum-entropy": "maximum-entropy density",
}
_WIDTH, _HEIGHT, _MARGIN, _FOOT = 300, 74, 8, 16
_REACH = 3.0  # standard deviations, as the sliders have it


def marginals(posterior: Posterior, directions: np.ndarray) -> list[Density | None]:
    """The density of the coordinate ⟨u, x⟩/|u|² along each component (k, C, …); None where there is no variance."""
    found: list[Density | None] = []
    for direction in directions:
        try:
            found.append(posterior.marginal(torch.from_numpy(_coordinate(direction)).to(posterior.mean.dtype)))
        except InputError:
            found.append(None)
    return found


def density_plot(density: Density, mean: np.ndarray, direction: np.ndarray, std: float, number: int) -> str:
    """The curve as inline SVG, over ±3 standard deviations of the component about the posterior mean.

    Args:
        density: as `marginals` gives it.
        mean: of the posterior.
        direction: u.
        std: √λ of the component, the unit of its slider.
        number: of the component, from 1.
    """
    centre = float(np.vdot(_coordinate(direction), mean.astype(np.float64)))
    z = np.linspace(-_REACH, _REACH, 121)
    curve = np.exp(density.log_prob(torch.from_numpy(centre + std * z)).numpy()) * std
    normal = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    plain = density.kind == "gaussian"
    top = 1.08 * max(float(curve.max()), float(normal.max()), 1e-30)

    def points(values: np.ndarray) -> str:
        across = _MARGIN + (z + _REACH) / (2 * _REACH) * (_WIDTH - 2 * _MARGIN)
        up = (_HEIGHT - _FOOT) * (1 - values / top)
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across, up))

    label = f"Density along component {number}: {KINDS[density.kind]}, {density.reason}"
    base = _HEIGHT - _FOOT
    parts = [f'<svg class="plot density" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(label)}">']
    for s in range(-3, 4):
        x = _MARGIN + (s + _REACH) / (2 * _REACH) * (_WIDTH - 2 * _MARGIN)
        name = "mean" if s == 0 else f"{s:+d}".replace("-", "−")
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{base}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{_HEIGHT - 3}" text-anchor="middle">{name}</text>')
    ends = f"{_MARGIN},{base}", f"{_WIDTH - _MARGIN},{base}"
    parts.append(f'<polygon class="first" points="{ends[0]} {points(curve)} {ends[1]}"/>')
    if not plain:
        parts.append(f'<polyline class="second" points="{points(normal)}"/>')
    return "".join(parts) + "</svg>"


def _coordinate(direction: np.ndarray) -> np.ndarray:
    """u/|u|²: after a crop or a change of scale, stored components need not have length one."""
    wide = np.asarray(direction, np.float64)
    return wide / max(float(np.square(wide).sum()), 1e-300)
