"""The page: sections of HTML from what was read and derived.

Every text from a file goes through `escape`; the data block is JSON in which `<`, `>` and `&` are written as escapes,
so that no file name or setting can end the script element. Style and script are admitted by their SHA-256 alone.
"""

__all__ = ["render"]

import base64
import hashlib
import json
import re
from html import escape
from typing import Any

from .. import __version__
from .answers import components_section, questions_section
from .calibration import calibration_section
from .checks import residual_section, resolution_section, share_section
from .details import details_section, number, reproduce_section
from .detection import candidates_section, detection_panels, limits_section
from .head import header, title, warnings_section
from .parts import Page, panel


def render(page: Page, template: str, style: str, script: str) -> str:
    """Fill the template; one pass, so that nothing that was filled in is filled again."""
    begin, end = (header, warnings_section, _pictures), (details_section, reproduce_section)
    middle = _search(page) if page.contents.searched else _posterior(page)
    sections = [*(make(page) for make in begin), *middle, *(make(page.contents) for make in end)]
    body = "\n".join(filter(None, sections))
    sources = {"style-src": style, "script-src": script}
    hashes = {name: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for name, text in sources.items()}
    policy = "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'" + "".join(
        f"; {name} 'sha256-{digest}'" for name, digest in hashes.items()
    )
    values = {
        "policy": policy,
        "version": escape(__version__),
        "title": escape(title(page)),
        "style": style,
        "body": body,
        "data": _json(page.payload),
        "script": script,
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], template)


def _search(page: Page) -> list[str]:
    return [candidates_section(page), limits_section(page)]


def _posterior(page: Page) -> list[str]:
    return [
        components_section(page),
        calibration_section(page.contents),
        questions_section(page),
        share_section(page.contents),
        residual_section(page.figures, shown=not page.contents.elsewhere),
        resolution_section(page.contents),
    ]


def _json(value: Any) -> str:
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _pictures(page: Page) -> str:
    contents, unit = page.contents, page.unit
    panels = []
    if contents.array("data") is not None:
        panels.append(panel("data", "Data", unit))
    elif contents.array("backprojection") is not None:
        panels.append(panel("backprojection", "Data, carried back to the image (Aᴴy)", "arbitrary"))
    panels.append(panel("mean", "Reconstruction" if contents.std is None else "Reconstruction (mean)", unit))
    if contents.std is not None:
        panels.append(panel("std", "Standard deviation", unit))
    if contents.array("reference") is not None:
        panels.append(panel("reference", "Reference", unit))
    missing = "" if contents.std is not None else "<p class='absent'>This run computed no uncertainty.</p>"
    heading = "Data and reconstruction" if contents.std is None else "Data, reconstruction, uncertainty"
    if contents.searched:
        panels, missing, heading = detection_panels(page), "", "Maps of the search"
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
    payload, plan, unit = page.payload, page.plan, page.unit
    arrays = payload["arrays"]

    def error(name: str) -> str:
        # Half a step; the browser computes in single precision, so no better than a part in 10⁷ of the offset.
        return number(max(arrays[name]["step"] / 2, 1e-7 * abs(arrays[name]["offset"])), 2)

    what = "flux" if page.contents.searched else "reconstruction"
    notes = [f"Values read from these pictures are right to ±{error('mean')} {unit} ({what})"]
    if "std" in arrays:
        notes[0] += f" and ±{error('std')} {unit} (standard deviation)"
    notes[0] += f"; colours clip the lowest and highest {100 * payload['clip']:g} % of the values."
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
