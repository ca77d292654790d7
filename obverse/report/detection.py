"""The sections of a search for point sources: maps with the candidates marked, their table, limits, and calibration.

Maps are shown with y upward, as astronomers do: North up and East left where the run knows North. The table and the
figures are those that the run has stored; the curve and the histogram are drawn from the stored maps.
"""

__all__ = [
    "candidates_section",
    "detection_panels",
    "limits_section",
    "overlay",
]

import math
from typing import Any, TypeGuard

import numpy as np

from .contents import Contents
from .corner import corner_figures
from .details import cell, number
from .parts import Page, panel
from .plots import Curve, plot

_BINS = 40
_SPECTRA = 6  # candidates whose spectra are drawn
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_RANGE = (-6.0, 6.0)  # of S/N in the histogram


def detection_panels(page: Page) -> list[str]:
    """S/N first, then flux, standard deviation, limit and the mean frame."""
    unit = page.unit
    star = _facts(page.contents).get("star_flux")
    threshold = number(float(page.contents.run["figures"].get("threshold", 5)))
    panels = [
        panel(
            "snr", "Signal-to-noise ratio", "S/N", "Circles of two FWHM about the candidates; the cross is the star."
        ),
        panel("mean", "Flux of a point source at each place", unit),
        panel("sigma", "Standard deviation of that flux", f"log₁₀ {unit}"),
        panel("limit", f"{threshold}σ limit", "log₁₀ contrast" if star else f"log₁₀ {unit}"),
    ]
    return [*panels, panel("data", "Mean frame, as taken", unit)] if page.contents.array("data") is not None else panels


def overlay(contents: Contents, factors: dict[str, int]) -> dict[str, Any]:
    """What is drawn over every map: circles, the star, and whether North is up; in pixels shown, rows upward."""
    facts, height = _facts(contents), contents.mean.shape[-2]
    width = float(facts.get("fwhm") or 1.0)

    def place(x: float, y: float) -> dict[str, float]:
        return {"x": (x + 0.5) / factors["x"] - 0.5, "y": (height - y - 0.5) / factors["y"] - 0.5}

    rows = candidates(contents)
    circles = [
        {**place(row["x"], row["y"]), "radius": width / factors["x"], "name": _name(k)}
        for k, row in enumerate(rows[:26])
    ]
    centre = facts.get("centre")
    star = place(*centre) if isinstance(centre, list) and len(centre) == 2 else None
    return {"circles": circles, "star": star, "north": facts.get("north") is not None}


def candidates(contents: Contents) -> list[dict[str, Any]]:
    """The stored candidates that have numbers for what is drawn."""
    stored = contents.run["figures"].get("candidates")
    rows = [row for row in stored if isinstance(row, dict)] if isinstance(stored, list) else []
    return [row for row in rows if all(is_number(row.get(key)) for key in ("x", "y", "snr", "flux"))]


def candidates_section(page: Page) -> str:
    """The table of candidates."""
    rows, figures = candidates(page.contents), page.contents.run["figures"]
    threshold = number(float(figures.get("threshold", 5)))
    if not rows:
        return (
            f"<section id='candidates'><h2>Candidates</h2><p>No peak reaches a signal-to-noise ratio of {threshold}. "
            "The limits below say what would have been found.</p></section>"
        )
    known = {key for row in rows for key in row}
    heads, body = ["", "S/N", "x", "y"], []
    mas, sky, contrast = ("separation_mas" in known), ("pa" in known), ("contrast" in known)
    heads += ["separation (mas)" if mas else "separation (pixels)", "position angle" if sky else "angle from +x"]
    heads += ["contrast" if contrast else f"flux ({page.unit})", *(["magnitudes"] if contrast else []), "found again"]
    for k, row in enumerate(rows[:100]):
        values = [
            number(row["snr"], 3),
            _measured(row, "x"),
            _measured(row, "y"),
            _measured(row, "separation_mas" if mas else "separation_pix"),
            f"{_measured(row, 'pa' if sky else 'theta')}°",
            _measured(row, "contrast" if contrast else "flux"),
            *([number(row["magnitude"], 4) if is_number(row.get("magnitude")) else "–"] if contrast else []),
            f"{100 * float(row.get('detection_probability', math.nan)):.3g} %",
        ]
        body.append(f"<tr><th scope='row'>{_name(k)}</th>{''.join(f'<td>{value}</td>' for value in values)}</tr>")
    head = "".join(f"<th scope='col'>{name}</th>" for name in heads)
    angle = (
        "Position angles are East of North."
        if sky
        else "Angles are counted anticlockwise from +x with y upward: North is not known to this run."
    )
    return (
        f"<section id='candidates'><h2>Candidates</h2><div class='wide'><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table></div><p class='fineprint'>± is one standard deviation. {angle} “Found "
        "again” is the chance that such a source passes the threshold in other data alike. The full covariance of "
        "flux and place is in candidates.ecsv. A candidate is a point source in these frames; whether it belongs to "
        f"the star, a second epoch tells.</p>{_spectra(page, rows)}"
        f"{corner_figures(page.contents, _facts(page.contents))}</section>"
    )


def limits_section(page: Page) -> str:
    """Contrast curve, and the law of S/N off the candidates."""
    contents = page.contents
    names = ("separation", "limit", "limit_student", "limit_95")
    curves = [contents.array(f"curve_{name}") for name in names]
    snr = contents.array("snr")
    parts = []
    if all(curve is not None and len(curve) > 1 for curve in curves):
        parts.append(f"<figure><figcaption>Limits against separation</figcaption>{_curve(page, *curves)}</figure>")  # type: ignore[misc]
    if snr is not None:
        parts.append(f"<figure><figcaption>S/N off the candidates</figcaption>{_histogram(contents, snr)}</figure>")
    figures = contents.run["figures"]
    spread = figures.get("snr_std_off_sources")
    told = f" Off the candidates its standard deviation is {number(spread)} (1 is right)." if is_number(spread) else ""
    return (
        "<section id='limits'><h2>What would have been found</h2><p>A source of which the test finds the limit passes "
        "the threshold in half of the cases; “95 % found” is where it does in 95 of 100. Near the star few places are "
        "independent, and “few places” is what the same false-alarm rate then asks for.</p>"
        f"<div class='panels'>{''.join(parts)}</div>"
        f"<p>{_of_whom(contents)} These figures hold where S/N follows the normal law N(0, 1).{told}</p></section>"
    )


def _of_whom(contents: Contents) -> str:
    share = contents.array("curve_throughput")
    if share is None or not len(share):
        return "Limits are in the flux that the test finds, which is less than a source's own."
    least, most = (number(float(part), 2) for part in (share.min(), share.max()))
    return (
        f"Limits are fluxes of the source itself: sources put into the frames showed that {least} to {most} of a flux "
        "is found at the threshold."
    )


def _spectra(page: Page, rows: list[dict[str, Any]]) -> str:
    """What was measured of the first candidates in each channel."""
    figures = []
    for k, row in enumerate(rows[:_SPECTRA]):
        entries = row.get("spectrum")
        if not isinstance(entries, list) or len(entries) < 2:
            continue
        key = "contrast" if all(is_number(entry.get("contrast")) for entry in entries) else "flux"
        columns = [[entry.get(name) for entry in entries] for name in ("wavelength", key, f"{key}_std")]
        if not all(is_number(value) for column in columns for value in column):
            continue
        x, y, std = (np.array(column, float) for column in columns)
        power = math.floor(math.log10(max(float(np.abs(y).max()), 1e-300)))
        y, std = y / 10.0**power, std / 10.0**power
        low, high = min(0.0, float((y - std).min())), max(0.0, float((y + std).max()))
        margin, edge = 0.06 * (high - low), 0.06 * float(x[-1] - x[0])
        exponent = str(power).translate(_RAISED)
        drawn = plot(
            [Curve(x, y, "± one standard deviation", "first", dots=True, errors=std)],
            "wavelength (µm)",
            f"{key if key == 'contrast' else f'flux ({page.unit})'} / 10{exponent}",
            f"Spectrum of candidate {_name(k)}",
            (float(x[0]) - edge, float(x[-1]) + edge),
            (low - margin, high + margin),
        )
        figures.append(f"<figure><figcaption>Candidate {_name(k)}</figcaption>{drawn}</figure>")
    if not figures:
        return ""
    return (
        f"<h3>Spectra</h3><div class='panels'>{''.join(figures)}</div><p class='fineprint'>No spectrum was assumed "
        "for these fluxes at the candidate's place; the errors of different channels are correlated. Numbers are in "
        "spectra.ecsv.</p>"
    )


def _curve(page: Page, separation: np.ndarray, limit: np.ndarray, student: np.ndarray, deeper: np.ndarray) -> str:
    facts, contents = _facts(page.contents), page.contents
    scale, star = facts.get("pixel_scale_arcsec"), facts.get("star_flux")
    x = separation * (float(scale) if scale else 1.0)
    logs = [np.log10(np.maximum(values, 1e-30)) for values in (limit, student, deeper)]
    stated = np.isfinite(logs[1])  # for few places there may be no flux that would do
    shown = np.concatenate([logs[0], logs[2], logs[1][len(x) // 20 :][stated[len(x) // 20 :]]])
    low, high = float(shown.min()) - 0.2, float(np.quantile(shown, 0.99)) + 0.5
    threshold = number(float(contents.run["figures"].get("threshold", 5)))
    curves = [
        Curve(x, logs[0], f"{threshold}σ", "first"),
        Curve(x[stated], logs[1][stated], "few places", "second"),
        Curve(x, logs[2], "95 % found", "third"),
    ]
    inner = facts.get("inner_radius")
    if is_number(inner) and inner > 0:
        at = float(inner) * (float(scale) if scale else 1.0)
        curves.append(Curve(np.array([at, at]), np.array([low, high]), "not searched inside", "promise"))
    return plot(
        curves,
        "separation (arcsec)" if scale else "separation (pixels)",
        "log₁₀ contrast" if star else "log₁₀ flux",
        "Limits of detection against separation from the star",
        (0.0, float(x[-1])),
        (low, high),
    )


def _histogram(contents: Contents, snr: np.ndarray) -> str:
    values = snr[0].astype(np.float64)
    rows, columns = np.indices(values.shape)
    away = 2 * float(_facts(contents).get("fwhm") or 1.0)
    for row in candidates(contents):
        values = np.where(np.hypot(columns - row["x"], rows - row["y"]) < away, np.nan, values)
    values = values[np.isfinite(values)]
    density, edges = np.histogram(values, bins=_BINS, range=_RANGE)
    density = density / max(len(values), 1) / (edges[1] - edges[0])
    x = np.linspace(*_RANGE, 121)
    floor = -5.0
    logs = np.log10(np.maximum(np.repeat(density, 2), 10**floor))
    normal = np.log10(np.maximum(np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi), 10**floor))
    return plot(
        [Curve(np.repeat(edges, 2)[1:-1], logs, "S/N", "first"), Curve(x, normal, "N(0, 1)", "second")],
        "signal-to-noise ratio",
        "log₁₀ density",
        "Histogram of the signal-to-noise ratio off the candidates, and the normal density",
        _RANGE,
        (floor, 0.0),
    )


def _measured(row: dict[str, Any], key: str) -> str:
    """A value and its standard deviation, to two digits of the latter."""
    value, std = row.get(key), row.get(f"{key}_std")
    if not is_number(value):
        return cell(value)
    if not is_number(std) or not std > 0:
        return number(value, 4)
    power = math.floor(math.log10(abs(value))) if value and abs(value) < 1e-3 else 0
    digits = max(0, 1 - math.floor(math.log10(std / 10.0**power)))
    text = f"{value / 10.0**power:.{digits}f} ± {std / 10.0**power:.{digits}f}".replace("-", "−")
    if not power:
        return text
    exponent = str(power).translate(_RAISED)
    return f"({text}) × 10{exponent}"


def _name(index: int) -> str:
    return chr(97 + index) if index < 26 else str(index + 1)


def _facts(contents: Contents) -> dict[str, Any]:
    facts = contents.run.get("facts")
    return facts if isinstance(facts, dict) else {}


def is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
