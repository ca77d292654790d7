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
    """A line an entry, lists below their name.

    Example:
        >>> print(lines({"seconds": 4.92211, "candidates": [{"x": 62.2989, "snr": 13.36, "x_std": 0.15381}]}))
        seconds: 4.922
        candidates:
          - x 62.3 ± 0.15, snr 13.36
    """
    rows = []
    for key, value in mapping.items():
        if isinstance(value, dict):
            value = _row(value)
        elif isinstance(value, list):
            value = "".join(f"\n  - {_row(v) if isinstance(v, dict) else _short(v)}" for v in value) or "none"
        told = _short(value)
        rows.append(f"{key}:{told}" if told.startswith("\n") else f"{key}: {told}")
    return "\n".join(rows)


def _row(mapping: Mapping[str, Any]) -> str:
    """Entries side by side, each with its standard deviation, which is named after it; lists and quantiles are left to
    the files."""
    parts = []
    for key, value in mapping.items():
        name, _, last = key.rpartition("_")
        if isinstance(value, list) or name in mapping and (last == "std" or last[:1] == "q" and last[1:].isdigit()):
            continue
        deviation = mapping.get(f"{key}_std")
        parts.append(
            f"{key} {_short(value)}" + (f" ± {_two_digits(deviation)}" if isinstance(deviation, float) else "")
        )
    return ", ".join(parts)


def _two_digits(value: float) -> str:
    """Two digits, and no power of ten where a plain number does."""
    return f"{value:.2g}" if abs(value) < 100 else f"{value:.0f}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
