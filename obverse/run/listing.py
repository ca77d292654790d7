"""Answers as plain text: one figure a line, for a reader at a terminal."""

from collections.abc import Mapping
from typing import Any

__all__ = ["lines", "understood"]


def understood(finding: Mapping[str, Any]) -> str:
    """What was found out about an input, a figure a line."""
    if "summary" not in finding:
        return lines(finding)
    rows = finding["summary"] | {
        "tiles": str(finding["tiles"]),
        "memory": f"{finding['expected memory'] / 10**9:.2g} GB expected",
    }
    figures = [f"  {name:<12}{value}" for name, value in rows.items()]
    return "\n".join([finding["input"], *figures, *(f"  warning: {sentence}" for sentence in finding["warnings"])])


def lines(mapping: Mapping[str, Any]) -> str:
    """A line an entry, lists below their name."""
    rows = []
    for key, value in mapping.items():
        if isinstance(value, dict):
            value = ", ".join(f"{k} {_short(v)}" for k, v in value.items())
        elif isinstance(value, list):
            value = "".join(f"\n  - {_short(v)}" for v in value) or "none"
        rows.append(f"{key}: {_short(value)}")
    return "\n".join(rows)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
