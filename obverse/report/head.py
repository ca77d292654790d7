"""The top of the page: what was reconstructed, whether it worked, its headline figures, what is claimed, warnings."""

__all__ = ["header", "title", "warnings_section"]

from html import escape
from typing import Any

from .checks import nanometres
from .details import cell, number
from .detection_claims import detection_claims, detection_facts
from .parts import Page
from .words import claims, status_words


def title(page: Page) -> str:
    """Title of the browser's window; a run that failed says so in it."""
    kind = status_words(page.contents.run["status"])[0]
    prefix = {"good": "", "bad": "NOT CONVERGED: ", "unknown": "STATUS UNKNOWN: "}[kind]
    return f"{prefix}{_names(page)} · Obverse report"


def header(page: Page) -> str:
    """Name of the data, status, headline figures, and what the uncertainty claims."""
    run = page.contents.run
    kind, badge, message = status_words(run["status"])
    learned = run["method"].get("denoiser")
    heading, claim = claims(page.contents.target, None if learned is None else str(learned)[:300])
    if page.contents.searched:
        heading, claim = detection_claims(page.contents)
    method = cell(str(run["method"].get("name", "unknown method")))
    instrument = cell(str(run.get("instrument", "unknown instrument")))
    started = escape(str(run.get("started", "")).replace("T", " ")[:16])
    date = f" · {started} UTC" if started else ""
    role = "status" if kind == "good" else "alert"
    unfinished = " What follows describes an unfinished computation." if kind == "bad" else ""
    cards = "".join(
        f"<div><dt>{name}</dt><dd>{value}</dd><dd class='aside'>{aside}</dd></div>"
        for name, value, aside in _facts(page)
    )
    return (
        f"<header><p class='kicker'>Obverse report · {instrument} · {method}{date}</p>"
        f"<h1>{escape(_names(page))}</h1>"
        f"<div class='status {kind}' role='{role}'><strong>{badge}</strong> {cell(message)}{unfinished}</div>"
        f"{f'<dl class=facts>{cards}</dl>' if cards else ''}"
        f"<div class='claim'><h2>{escape(heading)}</h2><p>{escape(claim)}</p></div></header>"
    )


def warnings_section(page: Page) -> str:
    """Disagreements first, then what this report has found, then what the run has said."""
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


def _names(page: Page) -> str:
    """The data files; other inputs (a point-spread function, a reference) are in the table of inputs."""
    items = [item for item in page.contents.run["inputs"] if isinstance(item, dict)]
    data = [item for item in items if item.get("role", "data") == "data"] or items
    names = [str(item.get("name", "?"))[:300] for item in data]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") or "an unnamed input"


def _facts(page: Page) -> list[tuple[str, str, str]]:
    """(name, value, aside) of each headline figure."""
    values, stated, unit = page.figures.values, page.contents.run["figures"], page.unit
    facts = detection_facts(page) if page.contents.searched else []
    if "chi2" in values:
        facts.append(("χ² per data value", number(values["chi2"], 4), "1 when model and noise level are right"))
    if "mean_std" in values:
        facts.append(("mean standard deviation", f"{number(values['mean_std'])} {unit}", "over all pixels"))
        facts.append(("largest standard deviation", f"{number(values['max_std'])} {unit}", "of any pixel"))
    for key, name, suffix, digits in (("psnr", "PSNR", " dB", 4), ("correlation", "correlation", "", 3)):
        after, mark = _stated(key, values, stated)
        if after is None:
            continue
        before, _ = _stated(f"{key}_before", values, stated)
        data = "" if before is None else f"; data {number(before, digits)}{suffix}"
        facts.append((name, f"{number(after, digits)}{suffix}", f"with the reference{data}{mark}"))
    if finest := nanometres(stated.get("frc_after")):
        before = nanometres(stated.get("frc_before"))
        facts.append(
            ("resolution", finest, f"by Fourier ring correlation{f'; data {before}' if before else ''}; stated")
        )
    if "coverage" in values:
        facts.append(("coverage", f"{100 * values['coverage']:.1f} %", "of reference pixels in their 90 % interval"))
    return facts


def _stated(key: str, values: dict[str, float], stated: dict[str, Any]) -> tuple[float | None, str]:
    """A figure that the run has stored: as derived here where the arrays allow, else as stated and marked so."""
    claim = stated.get(key)
    if key in stated and key in values:
        return values[key], ""
    if isinstance(claim, int | float) and not isinstance(claim, bool):
        return float(claim), "; stated"
    return None, ""
