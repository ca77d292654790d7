"""What the sections of the page share: the page itself, and the figure in which the script draws a picture."""

__all__ = ["Page", "panel"]

from dataclasses import dataclass
from html import escape
from typing import Any

from ..posterior import Density
from .contents import Contents
from .figures import Figures
from .packing import Plan


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
    """Share of the variance that the components in the page hold."""
    densities: tuple[Density | None, ...] = ()
    """Along the components that have a slider."""
    looks: tuple[str, ...] = ()
    """What the first components do, in a sentence each."""

    @property
    def unit(self) -> str:
        """Unit of intensity, escaped."""
        return escape(self.payload["intensity"])


def panel(name: str, caption: str, unit: str, note: str = "", identity: str = "") -> str:
    """A picture with its colour bar; the script fills it with the source of this name.

    Without a unit it is a small picture without a bar, for a strip of pictures that share one.
    """
    label = escape(f"{caption}. Arrow keys pan, plus and minus zoom, 0 shows all.")
    key = f" id='{identity}'" if identity else ""
    bar = (
        "<div class='scale'><span class='low'></span><canvas class='bar' aria-hidden='true'></canvas>"
        f"<span class='high'></span><span class='unit'>{unit}</span></div>"
        if unit
        else ""
    )
    return (
        f"<figure class='panel' data-panel='{name}'><figcaption{key}>{escape(caption)}</figcaption>"
        f"<canvas class='picture' tabindex='0' role='img' aria-label='{label}'></canvas>{bar}"
        f"{f'<p class=note>{note}</p>' if note else ''}</figure>"
    )
