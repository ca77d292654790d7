"""The page: sections of HTML from what was read and derived.

Every text from a file goes through `escape`; the data block is JSON in which `<`, `>` and `&` are written as escapes,
so that no file name or setting can end the script element. Style and script are admitted by their SHA-256 alone.
"""

__all__ = ["Page", "RECTANGLES", "SLIDERS", "render"]

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from html import escape
from typing import Any

from .. import __version__
from .checks import panel, residual_section, resolution_section, share_section
from .contents import Contents
from .details import cell, details_section, number, reproduce_section
from .figures import Figures
from .packing import Plan
from .words import claims, status_words

RECTANGLES = 12

SLIDERS = 8
"""Components that get a slider; further ones still serve correlations and regions."""


@dataclass(frozen=True, eq=False)
class Page:
    """What the page is made from."""

    contents: Contents
    figures: Figures
    plan: Plan
    payload: dict[str, Any]
    disagreements: tuple[str, ...]
    warnings: tuple[str, ...]
    region_error: float | None
    share: float


def render(page: Page, template: str, style: str, script: str) -> str:
    """Fill the template; one pass, so that nothing that was filled in is filled again."""
    body = "\n".join(
        section
        for section in (
            _header(page),
            _warnings(page),
            _pictures(page),
            _components(page),
            _questions(page),
            share_section(page.contents),
            residual_section(page.figures),
            resolution_section(page.contents),
            details_section(page.contents),
            reproduce_section(page.contents),
        )
        if section
    )
    sources = {"style-src": style, "script-src": script}
    hashes = {name: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for name, text in sources.items()}
    policy = "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'" + "".join(
        f"; {name} 'sha256-{digest}'" for name, digest in hashes.items()
    )
    values = {
        "policy": policy,
        "version": escape(__version__),
        "title": escape(_title(page)),
        "style": style,
        "body": body,
        "data": _json(page.payload),
        "script": script,
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], template)


def _json(value: Any) -> str:
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _names(page: Page) -> str:
    names = [str(item.get("name", "?"))[:300] for item in page.contents.run["inputs"] if isinstance(item, dict)]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") or "an unnamed input"


def _title(page: Page) -> str:
    kind = status_words(page.contents.run["status"])[0]
    prefix = {"good": "", "bad": "NOT CONVERGED: ", "unknown": "STATUS UNKNOWN: "}[kind]
    return f"{prefix}{_names(page)} · Obverse report"


def _unit(page: Page) -> str:
    return escape(page.payload["intensity"])


def _header(page: Page) -> str:
    run, values = page.contents.run, page.figures.values
    kind, badge, message = status_words(run["status"])
    heading, claim = claims(page.contents.target)
    method = cell(str(run["method"].get("name", "unknown method")))
    instrument = cell(str(run.get("instrument", "unknown instrument")))
    started = escape(str(run.get("started", "")).replace("T", " ")[:16])
    date = f" · {started} UTC" if started else ""
    role = "status" if kind == "good" else "alert"
    unfinished = " What follows describes an unfinished computation." if kind == "bad" else ""
    facts = []
    if "chi2" in values:
        facts.append(("χ² per data value", number(values["chi2"], 4), "1 when model and noise level are right"))
    if "mean_std" in values:
        facts.append(("mean standard deviation", f"{number(values['mean_std'])} {_unit(page)}", "over all pixels"))
        facts.append(("largest standard deviation", f"{number(values['max_std'])} {_unit(page)}", "of any pixel"))
    if "psnr" in values:
        before = f"; data {number(values['psnr_before'], 4)} dB" if "psnr_before" in values else ""
        facts.append(
            ("PSNR", f"{number(values['psnr'], 4)} dB", f"of the reconstruction, fitted to the reference{before}")
        )
    if "coverage" in values:
        facts.append(("coverage", f"{100 * values['coverage']:.1f} %", "of reference pixels in their 90 % interval"))
    cards = "".join(
        f"<div><dt>{name}</dt><dd>{value}</dd><dd class='aside'>{aside}</dd></div>" for name, value, aside in facts
    )
    return (
        f"<header><p class='kicker'>Obverse report · {instrument} · {method}{date}</p>"
        f"<h1>{escape(_names(page))}</h1>"
        f"<div class='status {kind}' role='{role}'><strong>{badge}</strong> {cell(message)}{unfinished}</div>"
        f"{f'<dl class=facts>{cards}</dl>' if cards else ''}"
        f"<div class='claim'><h2>{escape(heading)}</h2><p>{escape(claim)}</p></div></header>"
    )


def _warnings(page: Page) -> str:
    stored = [str(warning) for warning in page.contents.run["warnings"]]
    shown = [("disagree", text) for text in page.disagreements]
    shown += [("", text) for text in (*page.warnings, *stored)]
    if not shown:
        return "<section class='quiet' id='warnings'><p>No warnings.</p></section>"
    limit = 100
    items = "".join(f"<li class='{kind}'>{escape(text[:2000])}</li>" for kind, text in shown[:limit])
    more = f"<p>{len(shown) - limit} further warnings are in run.json.</p>" if len(shown) > limit else ""
    word = "Warning" if len(shown) == 1 else f"{len(shown)} warnings"
    return f"<section class='warnings' id='warnings'><h2>{word}</h2><ul>{items}</ul>{more}</section>"


def _pictures(page: Page) -> str:
    contents, unit = page.contents, _unit(page)
    panels = []
    if contents.array("data") is not None:
        panels.append(panel("data", "Data", unit))
    panels.append(panel("mean", "Reconstruction" if contents.std is None else "Reconstruction (mean)", unit))
    if contents.std is not None:
        panels.append(panel("std", "Standard deviation", unit))
    if contents.array("reference") is not None:
        panels.append(panel("reference", "Reference", unit))
    missing = "" if contents.std is not None else "<p class='absent'>This run computed no uncertainty.</p>"
    heading = "Data and reconstruction" if contents.std is None else "Data, reconstruction, uncertainty"
    return (
        f"<section id='pictures'><h2>{heading}</h2>"
        f"{missing}{_toolbar(page)}<div class='panels'>{''.join(panels)}</div>{_fineprint(page)}"
        "<noscript><p class='absent'>The pictures need JavaScript; all numbers and words on this page do not.</p>"
        "</noscript></section>"
    )


def _toolbar(page: Page) -> str:
    _, depth, _, _ = page.payload["shape"]
    channels = page.payload["shape"][0]
    parts = []
    if depth > 1:
        parts.append(
            f"<label>Plane z <input type='range' id='plane' min='0' max='{depth - 1}' step='1'></label>"
            "<output id='plane-value' for='plane'></output>"
            "<label><input type='checkbox' id='projection'> maximum projection</label>"
        )
    if channels > 1:
        options = "".join(f"<option value='{c}'>{c}</option>" for c in range(channels))
        parts.append(f"<label>Channel <select id='channel'>{options}</select></label>")
    if page.contents.std is not None:
        parts.append(
            "<fieldset><legend>Drag to</legend>"
            "<label><input type='radio' name='mode' value='move' checked> move</label>"
            "<label><input type='radio' name='mode' value='region'> draw a region</label></fieldset>"
        )
    maps = "".join(f"<option>{name}</option>" for name in ("grey", "viridis", "magma"))
    parts.append(
        "<span class='buttons'><button type='button' id='zoom-out' aria-label='Zoom out'>−</button>"
        "<button type='button' id='zoom-in' aria-label='Zoom in'>+</button>"
        "<button type='button' id='zoom-reset'>Show all</button></span>"
        f"<label>Colours <select id='map'>{maps}</select></label>"
    )
    idle = "Point at a picture to read its values; click a picture, then use the wheel to zoom."
    return f"<div class='toolbar'>{''.join(parts)}<p id='readout' data-idle='{idle}'>{idle}</p></div>"


def _fineprint(page: Page) -> str:
    payload, plan, unit = page.payload, page.plan, _unit(page)
    arrays = payload["arrays"]

    def error(name: str) -> str:
        # Half a step; the browser computes in single precision, so no better than a part in 10⁷ of the offset.
        return number(max(arrays[name]["step"] / 2, 1e-7 * abs(arrays[name]["offset"])), 2)

    notes = [f"Values read from these pictures are right to ±{error('mean')} {unit} (reconstruction)"]
    if "std" in arrays:
        notes[0] += f" and ±{error('std')} {unit} (standard deviation)"
    notes[0] += "; colours clip the lowest and highest 0.1 % of the values."
    if plan.reduced:
        f = payload["factors"]
        block = " × ".join(str(f[axis]) for axis in "xyz"[: 3 if page.contents.mean.ndim == 4 else 2])
        notes.insert(
            0,
            f"<strong>Reduced to fit into this file:</strong> each pixel shown is the mean of {block} pixels (x, y"
            f"{', z' if page.contents.mean.ndim == 4 else ''}). The full picture is in the image file beside this "
            "report; the standard deviation shown is the root mean square over each block, that of one original pixel.",
        )
    return f"<p class='fineprint'>{' '.join(notes)}</p>"


def _components(page: Page) -> str:
    if page.contents.variances is None:
        return ""
    kept, stored = page.plan.components, len(page.contents.variances)
    if not kept:
        return (
            "<section id='components'><h2>Components of the uncertainty</h2><p class='absent'>No components are "
            "stored: errors of different pixels are described as independent.</p></section>"
        )
    payload, unit = page.payload, _unit(page)
    shares = 100 * page.contents.shares()
    rows = "".join(
        f"<li class='component'><button type='button' aria-label='Show component {k + 1}'>{k + 1}</button>"
        f"<input type='range' min='-3' max='3' step='0.1' value='0' "
        f"aria-label='Component {k + 1}, in standard deviations'>"
        f"<output>+0.0 std</output><span class='aside'>{number(shares[k], 2)} % of the variance; 1 std is up to "
        f"{number(payload['peaks'][k])} {unit}</span></li>"
        for k in range(min(SLIDERS, kept))
    )
    more = f" The {kept} components in this page hold {number(shares[:kept].sum())} % of the total variance."
    more += " The rest is treated as independent from pixel to pixel."
    if kept < stored:
        more += f" The posterior file holds {stored}; their variance is kept here pixel by pixel."
    return (
        "<section id='components'><h2>What else the picture could be</h2>"
        "<p>Each slider moves the picture along one principal component of the uncertainty, the directions in which it "
        "is least certain: all pixels change together, by mean + t · √λ · direction. Pictures within about "
        f"±2 std are those that this uncertainty calls likely.{more}</p>"
        "<div class='split'><div class='panels two'>"
        f"{panel('moved', 'Reconstruction, moved', unit)}"
        f"{panel('component', 'Component 1: change for +1 std', unit, identity='component-name')}</div>"
        f"<div class='sliders'><ol>{rows}</ol><div class='buttons'>"
        "<button type='button' id='components-reset'>Back to the mean</button>"
        "<button type='button' id='components-draw'>Draw at random</button></div>"
        "<p class='aside'>“Draw at random” sets the shown components to normal random numbers; the pixel-wise "
        "rest of the uncertainty is not drawn.</p></div></div></section>"
    )


def _questions(page: Page) -> str:
    if page.contents.std is None:
        return ""
    unit, full, flat = _unit(page), page.payload["full"], page.contents.mean.ndim == 3

    def field(name: str, axis: str) -> str:
        limits = f"min='0' max='{full[axis] - 1}' value='0'"
        return f"<label>{name} <input type='number' name='{name}' {limits} required></label>"

    pick = "".join(field(axis, axis) for axis in ("xy" if flat else "xyz"))
    box = "".join(field(name, name[0]) for name in ("x0", "x1", "y0", "y1"))
    quality = (
        f"In {RECTANGLES} random rectangles the standard deviation computed here was within "
        f"{number(100 * (page.region_error or 0), 2)} % of the one that the stored posterior gives."
    )
    if (page.contents.diagnostics or {}).get("intervals") == "quantiles":
        quality += " The posterior keeps draws; Posterior.interval uses their quantiles instead of a normal law."
    return (
        "<section id='questions'><h2>Ask about a pixel or a region</h2><div class='split'><div class='panels'>"
        f"{panel('correlation', 'Correlation with the marked pixel', 'correlation')}</div><div class='answers'>"
        "<h3>A pixel</h3><p>Click into any picture: the map shows with which other pixels its error hangs together. "
        "Red: both too high or too low at once; blue: one too high when the other is too low.</p>"
        f"<form id='pick' class='fields'>{pick}<button>Show</button></form><p id='picked' aria-live='polite'></p>"
        "<h3>A region</h3><p>Choose “draw a region” above (or hold Shift) and drag a rectangle in any picture. "
        "Its mean gets an interval; correlations count in it as far as the components hold them.</p>"
        f"<form id='region' class='fields'>{box}<button>Add</button></form>"
        "<div class='wide'><table id='regions' hidden><thead><tr><th scope='col'></th><th scope='col'>place</th>"
        f"<th scope='col'>mean ({unit})</th><th scope='col'>90 % interval ({unit})</th><th scope='col'>std</th>"
        "<th scope='col'><abbr title='as against errors independent from pixel to pixel'>width</abbr></th><th></th>"
        "</tr></thead><tbody aria-live='polite'></tbody></table></div>"
        f"<p class='fineprint'>Interval: w·mean ± 1.645 √(wᵀΣw), as for a normal law. “width” compares it with errors "
        f"independent from pixel to pixel. {quality}</p></div></div></section>"
    )
