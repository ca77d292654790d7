"""What is understood of an input before anything is computed: its data, their facts, and the tiles of a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ..volume import Volume
from .plan import Plan, plan

__all__ = ["Prepared", "prepare"]


@dataclass(frozen=True)
class Prepared:
    """One input, ready to be reconstructed.

    Args:
        path: the file.
        volume: the data as read.
        shape: of the image to be made, channels first.
        facts: what the instrument found in them.
        summary: the facts that a user should check, in words.
        plan: of the run.
    """

    path: Path
    volume: Volume
    shape: tuple[int, ...]
    facts: dict[str, Any]
    summary: dict[str, str]
    plan: Plan

    def understood(self) -> dict[str, Any]:
        """All of it as JSON-like values."""
        return {
            "input": str(self.path),
            "axes": self.volume.axes,
            "shape": list(self.shape),
            "spacing": list(self.volume.spacing or ()),
            "units": list(self.volume.units or ()),
            "summary": self.summary,
            "tiles": len(self.plan.tiles),
            "expected memory": self.plan.bytes_needed,
            "facts": self.facts,
            "warnings": list(self.facts.get("warnings", ())),
        }


def prepare(path: Path, volume: Volume, module: Any, settings: BaseModel, memory: int) -> Prepared:
    """Find out what can be of a file that was read, and plan its tiles for a `memory` in bytes.

    Raises:
        InputError: the values, the settings or the budget are not usable.
    """
    facts = module.characterise(volume, settings)
    footprint = module.footprint(volume, settings, facts)
    shape = module.picture(volume).shape
    tiles = plan(
        shape[1:],
        footprint.halo,
        bytes_per_voxel=footprint.bytes_per_voxel,
        fixed_bytes=footprint.fixed_bytes,
        memory=memory,
        channels=shape[0],
    )
    return Prepared(path, volume, shape, facts, module.summary(facts), tiles)
