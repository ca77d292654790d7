"""How often intervals have held the truth, where it was known: nominal against observed coverage, with error bars.

The posterior's diagnostics may carry `coverage`: for each name (all pixels, a stratum, a component) the levels, the
observed fractions, their standard errors and the number of images, as `posterior.coverage` finds them; `report.make`
stores them so. Its provenance may carry `calibration`: what was done to the intervals. Both come from a file, so every
number is checked before it is drawn, and every text is escaped.
"""

__all__ = ["calibration_section"]

import math
from html import escape
from typing import Any

from .contents import Contents
from .details import cell, number
from .plots import Group, coverage_plot

_MOST = 12  # groups that are drawn; a table lists all


def calibration_section(contents: Contents) -> str:
    """Coverage by strata as a plot and a table, and what a calibration has done; empty where nothing is stored."""
    groups = _groups((contents.diagnostics or {}).get("coverage"))
    applied = _applied(contents)
    if not groups and not applied:
        return ""
    parts = ["<section id='calibration'><h2>How often such intervals held the truth</h2>"]
    if groups:
        rows = "".join(f"<tr><th scope='row'>{escape(g.name)}</th><td>{g.count}</td>{_cells(g)}</tr>" for g in groups)
        levels = "".join(f"<th scope='col'>{100 * level:g} %</th>" for level in groups[0].levels)
        parts.append(
            "<p>On images whose truth is known: the share of intervals that held it, against the share that they "
            "promise. On the diagonal they keep their promise; below it they are too narrow, above it wider than they "
            "need be. Error bars are ±2 standard errors, counting images; a group whose bars miss the diagonal is not "
            f"calibrated.</p><div class='split'><figure>{coverage_plot(groups[:_MOST])}</figure>"
            "<div class='wide'><table><thead><tr><th scope='col'>intervals of</th><th scope='col'>images</th>"
            f"{levels}</tr></thead><tbody>{rows}</tbody></table>"
            f"<p class='fineprint'>{_verdict(groups)} As stated by whoever measured it; not derived again here.</p>"
            "</div></div>"
        )
    return "".join([*parts, applied, "</section>"])


def _applied(contents: Contents) -> str:
    """What a calibration has done to these intervals."""
    facts: Any = dict(getattr(contents.posterior, "provenance", {})).get("calibration")
    if not isinstance(facts, dict):
        return ""
    method, count = cell(facts.get("method", "a calibration")), cell(facts.get("count"))
    factors = facts.get("factors")
    listed = list(factors) if isinstance(factors, list | tuple) else []
    values = [number(float(f)) for f in listed if _is_number(f)]
    told = f" The standard deviations were multiplied by {', '.join(values[:20])}." if values else ""
    guarantee = f" {cell(facts['guarantee'])}" if isinstance(facts.get("guarantee"), str) else ""
    return f"<p>Intervals were calibrated by {method} on {count} images.{told}{guarantee}</p>"


def _groups(stored: Any) -> list[Group]:
    """The groups whose numbers can be drawn."""
    found = []
    for name, facts in stored.items() if isinstance(stored, dict) else ():
        if not isinstance(facts, dict):
            continue
        columns: list[Any] = [facts.get(key) for key in ("levels", "observed", "standard_errors")]
        if not all(isinstance(column, list | tuple) and len(column) for column in columns):
            continue
        levels, observed, errors = ([float(v) if _is_number(v) else math.nan for v in column] for column in columns)
        same = len(levels) == len(observed) == len(errors)
        legal = all(0 < a < 1 and 0 <= b <= 1 and c >= 0 for a, b, c in zip(levels, observed, errors))
        count = facts.get("count")
        if same and legal and isinstance(count, int) and (not found or levels == found[0].levels):
            found.append(Group(str(name)[:80], levels, observed, errors, count))
    return found


def _cells(group: Group) -> str:
    return "".join(
        f"<td>{100 * seen:.1f} ± {100 * error:.1f}</td>" for seen, error in zip(group.observed, group.errors)
    )


def _verdict(groups: list[Group]) -> str:
    off = [
        f"{escape(g.name)} at {100 * level:g} %"
        for g in groups
        for level, seen, error in zip(g.levels, g.observed, g.errors)
        if abs(seen - level) > 3 * max(error, 1e-9)
    ]
    if not off:
        return "No group is off by more than three standard errors."
    return f"Off by more than three standard errors: {'; '.join(off[:20])}."


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
