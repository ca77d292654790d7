"""The posterior of each candidate as astronomers draw it: a corner of separation, angle and brightness.

On the diagonal is the histogram of the draws, with lines at the quantiles 16, 50 and 84 %; below it, for each pair, the
smallest sets of cells that hold 68 % (dark) and 95 % (light) of the draws.
"""

__all__ = ["corner_figures"]

from html import escape
from typing import Any

import numpy as np

from ..instruments.exoplanet_characterisation import posterior_columns
from .contents import Contents

_MOST = 6  # candidates that are drawn
_CELLS, _BINS = 24, 30  # of a pair along each axis, and of a histogram
_SIDE, _GAP = 150, 12  # of a panel in units of the picture
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 40, 34, 46  # around all; titles are wider than their panel
_SHARES = ((0.95, 0.22), (0.68, 0.5))  # of the draws, and how dark their cells are
_NAMES = {
    "separation_mas": "separation (mas)",
    "separation_pix": "separation (pixels)",
    "pa": "position angle (°)",
    "theta": "angle from +x (°)",
    "contrast": "contrast",
    "flux": "flux",
}


def corner_figures(contents: Contents, facts: dict[str, Any]) -> str:
    """One corner for each of the first candidates of which draws are stored; nothing where there are none."""
    draws = contents.array("candidate_draws")
    if draws is None or not len(draws):
        return ""
    figures = []
    for index in np.unique(draws[:, 0].astype(int))[:_MOST]:
        own = draws[draws[:, 0] == index, 1:].astype(np.float64)
        if len(own) >= _CELLS:
            name = chr(97 + index) if index < 26 else str(index + 1)
            figures.append(
                f"<figure><figcaption>Candidate {name}</figcaption>{_corner(_shown(own, facts), name)}</figure>"
            )
    if not figures:
        return ""
    return (
        f"<h3>Posterior</h3><div class='panels'>{''.join(figures)}</div><p class='fineprint'>Draws of flux and place "
        "together. Lines: quantiles of 16, 50 and 84 %; dark and light cells hold 68 and 95 % of the draws. All draws "
        "are in candidate_posterior.ecsv.</p>"
    )


def _shown(draws: np.ndarray, facts: dict[str, Any]) -> dict[str, np.ndarray]:
    """Separation, angle and brightness, by their labels, in the best units that are known."""
    columns = posterior_columns(draws, facts)
    chosen = [next(n for n in names if n in columns) for names in (
        ("separation_mas", "separation_pix"), ("pa", "theta"), ("contrast", "flux")
    )]  # fmt: skip
    return {_NAMES[name]: columns[name] for name in chosen}


def _corner(columns: dict[str, np.ndarray], name: str) -> str:
    names, values = list(columns), list(columns.values())
    limits = [_limits(v) for v in values]
    count = len(names)
    width = _LEFT + count * (_SIDE + _GAP) + _RIGHT
    height = _TOP + count * (_SIDE + _GAP) + _BOTTOM
    title = escape(f"Posterior of candidate {name}: {', '.join(names)}")
    parts = [f'<svg class="plot" viewBox="0 0 {width} {height}" role="img" aria-label="{title}"><title>{title}</title>']
    for row in range(count):
        for column in range(row + 1):
            x0, y0 = _LEFT + column * (_SIDE + _GAP), _TOP + row * (_SIDE + _GAP)
            if row == column:
                parts.append(_histogram(values[row], limits[row], x0, y0))
            else:
                parts.append(_cells(values[column], values[row], limits[column], limits[row], x0, y0))
            parts.append(f'<path class="axis" fill="none" d="M{x0},{y0} v{_SIDE} h{_SIDE}"/>')
            if row == count - 1:
                parts.append(_ends(limits[column], x0, y0 + _SIDE + 15, across=True))
                parts.append(_text(escape(names[column]), x0 + _SIDE / 2, y0 + _SIDE + 36, "middle"))
            if column == 0 and row:
                parts.append(_ends(limits[row], x0 - 5, y0, across=False))
                parts.append(
                    f'<text class="label" transform="translate(12 {y0 + _SIDE / 2:.0f}) rotate(-90)" '
                    f'text-anchor="middle">{escape(names[row])}</text>'
                )
    return "".join(parts) + "</svg>"


def _histogram(values: np.ndarray, limits: tuple[float, float], x0: float, y0: float) -> str:
    counts, edges = np.histogram(values, bins=_BINS, range=limits)
    heights = counts / max(counts.max(), 1) * 0.92 * _SIDE
    step = _SIDE / _BINS
    points = [(x0 + (i + side) * step, y0 + _SIDE - h) for i, h in enumerate(heights) for side in (0, 1)]
    outline = [(x0, y0 + _SIDE), *points, (x0 + _SIDE, y0 + _SIDE)]
    low, middle, high = np.quantile(values, (0.16, 0.5, 0.84))
    lines = [
        f'<line class="second" x1="{x:.1f}" x2="{x:.1f}" y1="{y0}" y2="{y0 + _SIDE}"/>'
        for x in (_along(v, limits, x0) for v in (low, middle, high))
    ]
    text = _interval(low, middle, high)
    return (
        f'<polygon class="first" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in outline)}"/>{"".join(lines)}'
        + _text(text, x0 + _SIDE / 2, y0 - 8, "middle")
    )


def _cells(
    x: np.ndarray, y: np.ndarray, across: tuple[float, float], up: tuple[float, float], x0: float, y0: float
) -> str:
    counts, _, _ = np.histogram2d(y, x, bins=_CELLS, range=(up, across))
    ordered = np.sort(counts, axis=None)[::-1]
    total = np.cumsum(ordered)
    size, parts = _SIDE / _CELLS, []
    for share, shade in _SHARES:
        level = max(ordered[np.searchsorted(total, share * len(x)).clip(max=len(ordered) - 1)], 1)
        for i, line in enumerate(counts >= level):
            edges = np.flatnonzero(np.diff(np.concatenate([[0], line.astype(int), [0]])))
            for first, past in zip(edges[::2], edges[1::2], strict=True):
                parts.append(
                    f'<rect x="{x0 + first * size:.1f}" y="{y0 + _SIDE - (i + 1) * size:.1f}" '
                    f'width="{(past - first) * size:.1f}" height="{size:.1f}"/>'
                )
        parts = [f'<g fill="var(--first)" fill-opacity="{shade}">{"".join(parts)}</g>'] if share > 0.9 else [
            parts[0], f'<g fill="var(--first)" fill-opacity="{shade}">{"".join(parts[1:])}</g>'
        ]  # fmt: skip
    return "".join(parts)


def _limits(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, (0.002, 0.998))
    margin = 0.08 * (high - low) or 1e-6 * max(abs(high), 1e-12)
    return float(low - margin), float(high + margin)


def _along(value: float, limits: tuple[float, float], x0: float) -> float:
    return x0 + (value - limits[0]) / (limits[1] - limits[0]) * _SIDE


def _ends(limits: tuple[float, float], x: float, y: float, across: bool) -> str:
    """Two ticks at a fifth and four fifths of an axis."""
    parts, reach = [], limits[1] - limits[0]
    for part in (0.2, 0.8):
        label = _number(limits[0] + part * reach, reach)
        parts.append(
            _text(label, x + part * _SIDE, y, "middle", "tick")
            if across
            else _text(label, x, y + (1 - part) * _SIDE + 4, "end", "tick")
        )
    return "".join(parts)


def _number(value: float, spread: float) -> str:
    """A value to two digits of its spread, as a multiple of a power of ten where it is small."""
    power = _power(value)
    raised = f"e{power}" if power else ""
    return f"{value / 10.0**power:.{_places(spread / 10.0**power)}f}{raised}".replace("-", "−")


def _interval(low: float, middle: float, high: float) -> str:
    """A median and how far it is to the ends of an interval, to two digits of its length.

    >>> _interval(8.96e-4, 9.27e-4, 9.59e-4), _interval(451.6, 453.1, 454.6)
    ('(9.27 +0.32 −0.31) e−4', '453.1 +1.5 −1.5')
    """
    power = _power(max(abs(middle), high - low))
    scale = 10.0**power
    digits = _places((high - low) / scale)
    parts = (middle / scale, (high - middle) / scale, (middle - low) / scale)
    text = "{:.{n}f} +{:.{n}f} −{:.{n}f}".format(*parts, n=digits)
    return (f"({text}) e{power}" if power else text).replace("-", "−")


def _power(value: float) -> int:
    rounded = float(f"{abs(value):.2e}")
    return int(np.floor(np.log10(rounded))) if 0 < rounded < 1e-2 else 0


def _places(spread: float) -> int:
    return int(np.clip(1 - np.floor(np.log10(spread)), 0, 6)) if spread > 0 else 6


def _text(text: str, x: float, y: float, anchor: str, style: str = "label") -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'
