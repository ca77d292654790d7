"""Curves as inline SVG, drawn from numbers: histogram of the residual, its autocorrelation, Fourier ring correlation,
coverage against level.

Colours and fonts come from the page's style sheet (classes), so that the curves follow light, dark and print.
"""

__all__ = ["Curve", "Group", "autocorrelation_plot", "coverage_plot", "frc_plot", "histogram_plot", "plot"]

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from .figures import Whiteness

_WIDTH, _HEIGHT = 460, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 14, 14, 46


@dataclass(frozen=True)
class Curve:
    """A line (or a filled step histogram) with a name for the legend and a class for its colour."""

    x: np.ndarray
    y: np.ndarray
    name: str
    style: str
    filled: bool = False
    dots: bool = False
    errors: np.ndarray | None = None
    """Half-widths of error bars."""


@dataclass(frozen=True)
class Group:
    """How often the intervals of one group of pixels, or of one component, held the truth."""

    name: str
    levels: list[float]
    observed: list[float]
    errors: list[float]
    count: int


def plot(
    curves: Sequence[Curve],
    x_label: str,
    y_label: str,
    title: str,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    band: float | None = None,
) -> str:
    """Draw curves over two axes with round ticks; `band` shades |y| ≤ band."""
    (x0, x1), (y0, y1) = x_range, y_range

    def across(x: float) -> float:
        return _LEFT + (x - x0) / (x1 - x0) * (_WIDTH - _LEFT - _RIGHT)

    def up(y: float) -> float:
        return _HEIGHT - _BOTTOM - (y - y0) / (y1 - y0) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg class="plot" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">',
        f"<title>{escape(title)}</title>",
    ]
    for tick in _ticks(y0, y1):
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{up(tick):.1f}" y2="{up(tick):.1f}"/>'
        )
        parts.append(
            f'<text class="tick" x="{_LEFT - 7}" y="{up(tick) + 4:.1f}" text-anchor="end">{_label(tick)}</text>'
        )
    for tick in _ticks(x0, x1):
        parts.append(
            f'<text class="tick" x="{across(tick):.1f}" y="{_HEIGHT - _BOTTOM + 17}" text-anchor="middle">'
            f"{_label(tick)}</text>"
        )
    if band is not None:
        high, low = up(min(band, y1)), up(max(-band, y0))
        parts.append(
            f'<rect class="band" x="{_LEFT}" width="{_WIDTH - _LEFT - _RIGHT}" y="{high:.1f}" '
            f'height="{max(low - high, 1):.1f}"/>'
        )
    for curve in curves:
        pairs = zip(curve.x.tolist(), np.clip(curve.y, y0, y1).tolist())
        points = [f"{across(float(x)):.1f},{up(float(y)):.1f}" for x, y in pairs]
        if curve.filled:
            base = f"{up(max(0.0, y0)):.1f}"
            first, last = f"{across(float(curve.x[0])):.1f},{base}", f"{across(float(curve.x[-1])):.1f},{base}"
            parts.append(f'<polygon class="{curve.style}" points="{first} {" ".join(points)} {last}"/>')
        else:
            parts.append(f'<polyline class="{curve.style}" points="{" ".join(points)}"/>')
        if curve.errors is not None:
            parts += [
                f'<line class="{curve.style} bar" x1="{across(x):.1f}" x2="{across(x):.1f}" '
                f'y1="{up(max(y - e, y0)):.1f}" y2="{up(min(y + e, y1)):.1f}"/>'
                for x, y, e in zip(curve.x.tolist(), curve.y.tolist(), curve.errors.tolist())
            ]
        if curve.dots:
            dots = [point.split(",") for point in points]
            parts += [f'<circle class="{curve.style}" cx="{x}" cy="{y}" r="2.6"/>' for x, y in dots]
    parts.append(
        f'<path class="axis" d="M{_LEFT},{_TOP} V{_HEIGHT - _BOTTOM} H{_WIDTH - _RIGHT}"/>'
        f'<text class="label" x="{(_LEFT + _WIDTH - _RIGHT) / 2:.0f}" y="{_HEIGHT - 8}" text-anchor="middle">'
        f"{escape(x_label)}</text>"
        f'<text class="label" transform="translate(14 {(_TOP + _HEIGHT - _BOTTOM) / 2:.0f}) rotate(-90)" '
        f'text-anchor="middle">{escape(y_label)}</text>'
    )
    for row, curve in enumerate(curves):
        y = _TOP + 12 + 18 * row
        parts.append(
            f'<line class="{curve.style} key" x1="{_WIDTH - 150}" x2="{_WIDTH - 128}" y1="{y}" y2="{y}"/>'
            f'<text class="tick" x="{_WIDTH - 122}" y="{y + 4}">{escape(curve.name)}</text>'
        )
    return "".join(parts) + "</svg>"


def histogram_plot(edges: np.ndarray, density: np.ndarray) -> str:
    """Density of the whitened residual beside the standard normal law that it should follow."""
    x = np.linspace(edges[0], edges[-1], 121)
    normal = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    steps = Curve(np.repeat(edges, 2)[1:-1], np.repeat(density, 2), "residual", "first", filled=True)
    top = 1.15 * max(0.4, float(density.max()))
    return plot(
        [steps, Curve(x, normal, "N(0, 1)", "second")],
        "residual / noise standard deviation",
        "density",
        "Histogram of the whitened residual and the standard normal density",
        (float(edges[0]), float(edges[-1])),
        (0.0, top),
    )


def autocorrelation_plot(white: Whiteness) -> str:
    """Correlation of the residual against lag along each axis, with the limits of white noise."""
    curves = [
        Curve(np.arange(1, len(line)), line[1:], f"along {name}", style, dots=True)
        for (name, line), style in zip(reversed(white.profiles.items()), ("first", "second", "third"))
        if len(line) > 1
    ]
    reach = max((float(np.abs(curve.y).max()) for curve in curves), default=0.0)
    limit = max(0.05, 1.25 * reach, 1.6 * white.band)
    longest = max((len(curve.x) for curve in curves), default=1)
    return plot(
        curves,
        "lag (pixels)",
        "correlation",
        "Autocorrelation of the whitened residual; white noise stays within the shaded band in 95 % of the lags",
        (0.5, longest + 0.5),
        (-limit, limit),
        band=white.band,
    )


def frc_plot(frequency: np.ndarray, before: np.ndarray | None, after: np.ndarray | None) -> str:
    """Fourier ring correlation before and after, with the 1/7 line."""
    pairs = ((before, "data", "second"), (after, "reconstruction", "first"))
    curves = [Curve(frequency, values, name, style) for values, name, style in pairs if values is not None]
    curves.append(Curve(frequency[[0, -1]], np.full(2, 1 / 7), "1/7", "third"))
    return plot(
        curves,
        "spatial frequency (cycles per pixel)",
        "correlation",
        "Fourier ring correlation before and after",
        (float(frequency[0]), float(frequency[-1])),
        (-0.1, 1.05),
    )


def coverage_plot(groups: Sequence[Group]) -> str:
    """Observed coverage against the level promised, each group with error bars, and the diagonal."""
    styles = ("first", "second", "third")
    curves = [
        Curve(
            np.array(g.levels),
            np.array(g.observed),
            g.name[:20],
            styles[i % 3],
            dots=True,
            errors=2 * np.array(g.errors),
        )
        for i, g in enumerate(groups)
    ]
    diagonal = Curve(np.array([0.0, 1.0]), np.array([0.0, 1.0]), "as promised", "promise")
    low = min(min(g.levels) for g in groups)
    low = max(0.0, min(low, *(min(g.observed) for g in groups)) - 0.08)
    return plot(
        [*curves, diagonal],
        "probability promised",
        "share that held the truth",
        "Observed coverage of intervals against the probability that they promise, by groups",
        (low, 1.0),
        (low, 1.0),
    )


def _ticks(low: float, high: float) -> list[float]:
    rough = (high - low) / 5
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(round_ * power for round_ in (1, 2, 5, 10) if round_ * power >= rough)
    first = np.ceil(low / step - 1e-9)
    return [float(step * i) for i in np.arange(first, np.floor(high / step + 1e-9) + 1)]


def _label(value: float) -> str:
    return f"{value:.4g}".replace("-", "−") if abs(value) > 1e-12 else "0"
