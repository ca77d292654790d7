"""The sections that let a reader check and repeat a run: settings, versions, hashes, diagnostics, command line."""

__all__ = ["cell", "details_section", "number", "reproduce_section"]

import json
import math
import shlex
from html import escape
from typing import Any

from .contents import Contents

_LONGEST = 2000
_MOST_ROWS = 300
_REBUILD = (
    "Rebuild only this page from the stored files: <code>obverse report OUT</code>. In Python: "
    "<code>obverse.Posterior.load('OUT/posterior.safetensors')</code>."
)
_FOOTER = (
    "<footer>Every number on this page was derived again from the stored arrays unless it is marked as stated by the "
    "run. The page is complete in itself: it fetches nothing and sends nothing.</footer>"
)


def number(value: float, digits: int = 3) -> str:
    """Print a number with some significant digits, without a needless exponent.

    Example:
        >>> number(1234.5), number(0.012345), number(-2.0), number(3e9)
        ('1234', '0.0123', '−2', '3.00 × 10⁹')
    """
    if not math.isfinite(value):
        return "not a number"
    size = abs(value)
    if size and (size >= 1e7 or size < 1e-4):
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        power = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        text = f"{mantissa} × 10{power}"
    elif size >= 10 ** (digits - 1):
        text = f"{value:.0f}"
    else:
        text = f"{value:.{digits}g}"
    return text.replace("-", "−")


def details_section(contents: Contents) -> str:
    """Everything that run.json says about how the result was made, as tables."""
    run = contents.run
    inputs = [item for item in run["inputs"] if isinstance(item, dict)]
    rows = "".join(
        f"<tr><td>{cell(item.get('name'))}</td><td>{cell(item.get('role'))}</td><td>{cell(item.get('bytes'))}</td>"
        f"<td><code>{cell(item.get('sha256'))}</code></td></tr>"
        for item in inputs[:_MOST_ROWS]
    )
    files = (
        "<table><thead><tr><th scope='col'>input</th><th scope='col'>role</th><th scope='col'>bytes</th>"
        f"<th scope='col'>SHA-256</th></tr></thead><tbody>{rows}</tbody></table>"
        if rows
        else "<p class='absent'>run.json names no input files.</p>"
    )
    outputs = _table({name: digest for name, digest in run["outputs"].items()}, code=True)
    figures = {**run["figures"], "seed": run.get("seed"), "seconds": run.get("seconds"), "started": run.get("started")}
    facts = run["facts"] if isinstance(run.get("facts"), dict) else {}
    groups = (
        ("Inputs", files, True),
        ("Method", _table(run["method"]), True),
        ("Settings, as resolved", _table(run["settings"]), True),
        ("What was measured in the data", _table(facts), False),
        ("Figures stated by the run", _table(figures), False),
        ("Diagnostics", _table({**run["diagnostics"], **(contents.diagnostics or {})}), False),
        ("Versions", _table({"obverse": run.get("obverse"), **run["versions"]}), False),
        ("Outputs and their SHA-256", outputs, False),
    )
    body = "".join(
        f"<details{' open' if opened else ''}><summary>{title}</summary><div class='wide'>{table}</div></details>"
        for title, table, opened in groups
        if table
    )
    return f"<section id='details'><h2>How it was made</h2>{body}</section>"


def reproduce_section(contents: Contents) -> str:
    """The command line that made the result."""
    command = contents.run["command"]
    if not command:
        return (
            "<section id='rerun'><h2>Run it again</h2><p class='absent'>run.json stores no command line.</p>"
            f"<p>{_REBUILD}</p>{_FOOTER}</section>"
        )
    line = cell(shlex.join(str(word) for word in command))
    version = escape(str(contents.run.get("obverse", "")))
    return (
        f"<section id='rerun'><h2>Run it again</h2><p>With Obverse {version}, the inputs above and the same seed:</p>"
        f"<pre><code>{line}</code></pre><p>{_REBUILD}</p>{_FOOTER}</section>"
    )


def cell(value: Any) -> str:
    """Any value as escaped text; a long one is cut, and the cut is said."""
    if isinstance(value, float):
        text = repr(value)
    elif isinstance(value, str):
        text = value
    elif value is None:
        text = "–"
    else:
        text = json.dumps(value, ensure_ascii=False, default=str)
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]} … ({len(text) - _LONGEST} more characters in run.json)"
    return escape(text)


def _table(values: dict[str, Any], code: bool = False) -> str:
    rows = []
    for key, value in list(values.items())[:_MOST_ROWS]:
        shown = f"<code>{cell(value)}</code>" if code else cell(value)
        rows.append(f"<tr><th scope='row'>{cell(str(key))}</th><td>{shown}</td></tr>")
    if len(values) > _MOST_ROWS:
        rows.append(f"<tr><td colspan='2'>{len(values) - _MOST_ROWS} further entries are in run.json.</td></tr>")
    return f"<table>{''.join(rows)}</table>" if rows else ""
