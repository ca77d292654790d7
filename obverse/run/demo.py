"""The bundled examples: real data that ship with the package, with what is known of their instrument."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Example", "example"]

_FOLDER = Path(__file__).parents[1] / "instruments" / "examples"


@dataclass(frozen=True)
class Example:
    """One bundled data set.

    Args:
        data: the measurement.
        instrument: name of the instrument.
        settings: settings that differ from the instrument's defaults.
        reference: image of the same field by a better instrument, if there is one.
    """

    data: Path
    instrument: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    reference: Path | None = None
