"""What is said of a search for point sources: headline figures, alarms, and what its maps claim."""

__all__ = ["detection_alarms", "detection_claims", "detection_facts"]

from .contents import Contents
from .details import number
from .detection import candidates, is_number
from .parts import Page

_SCATTER = 0.15  # from 1 of the standard deviation of S/N, from which the reader is warned


def detection_facts(page: Page) -> list[tuple[str, str, str]]:
    """(name, value, aside) of each headline figure."""
    figures, rows = page.contents.run["figures"], candidates(page.contents)
    threshold = number(float(figures.get("threshold", 5)))
    facts = [("candidates", str(len(rows)), f"with S/N of {threshold} or more")]
    if rows:
        facts.append(("strongest", number(rows[0]["snr"], 3), f"S/N at x {rows[0]['x']:.2f}, y {rows[0]['y']:.2f}"))
    if is_number(figures.get("snr_std_off_sources")):
        facts.append(("scatter of S/N", number(figures["snr_std_off_sources"]), "off the candidates; 1 is right"))
    if is_number(figures.get("false_alarm")):
        facts.append(("false alarms", number(figures["false_alarm"], 2), "per independent place, by the normal law"))
    return facts


def detection_alarms(contents: Contents) -> list[str]:
    """Sentences where S/N off the candidates, or with the angles reversed, is not that of the law for the threshold."""
    figures = contents.run["figures"]
    spread, highest = figures.get("snr_std_off_sources"), contents.run["diagnostics"].get("reversed_maximum")
    alarms = []
    if is_number(highest) and highest >= figures.get("threshold", 5):
        alarms.append(
            f"With the angles reversed, where no source adds up, S/N reaches {number(highest, 3)}: candidates up to "
            "that may be speckles; check the angles and their unit, and the star's place."
        )
    if not is_number(spread) or abs(spread - 1) <= _SCATTER:
        return alarms
    many = "more" if spread > 1 else "fewer"
    return [
        *alarms,
        f"Off the candidates S/N scatters by {number(spread)} instead of 1: false alarms are {many} than stated, and a "
        f"threshold of {number(5 * spread)} here is what 5 is where S/N is N(0, 1).",
    ]


def detection_claims(contents: Contents) -> tuple[str, str]:
    """A heading and a paragraph on what the maps claim and what not."""
    corrected = contents.array("curve_throughput") is not None
    limits = "the map of limits, but not their curve," if corrected else "the limits,"
    flux = {
        "not corrected": "Fluxes are what the subtraction has left of a source, which is less than the source's own: "
        f"take them, and {limits} as they are for comparison only.",
        "corrected to first order": "Fluxes, and the limits, are corrected for what the subtraction takes of a faint "
        "source; of a bright one it takes more.",
    }.get(
        contents.run["diagnostics"].get("throughput"),
        "Fluxes of candidates are those that fit best; the maps, and limits that are not corrected, show what the test "
        "finds of a source, which is less where the method takes part of it for speckles.",
    )
    law = "Where their ratio is normal with standard deviation 1 off the sources"
    if contents.run["method"].get("name") == "DeepPACO":
        law = (
            "In place of their ratio S/N is the score of a network, the normal deviate that is as rare with the frames "
            "shuffled; flux, its deviation and limits are those of PACO. Where the score is normal off the sources"
        )
    return (
        "What the maps claim",
        "At each place: the flux of a point source there, and the standard deviation it has if there is none. "
        f"{law}, a peak above the threshold is a false alarm with the probability stated. {flux} What this does not "
        "cover: angles or a star's place that are wrong, a PSF that differs from the planet's, light that is no point "
        "source, such as a disc, and field stars, which look like planets.",
    )
