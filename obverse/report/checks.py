"""The sections in which the model is checked against the data: data share, residual, resolution."""

__all__ = ["nanometres", "residual_section", "resolution_section", "share_section"]

from html import escape

from .contents import Contents
from .details import cell, number
from .figures import Figures
from .parts import panel
from .plots import autocorrelation_plot, frc_plot, histogram_plot
from .words import chi2_words, coverage_words, whiteness_words

_RESOLUTIONS = {"frc_before": "data", "frc_after": "reconstruction"}


def share_section(contents: Contents) -> str:
    """Which parts of the picture the measurement has set, if the run has stored it."""
    if contents.array("data_share") is None:
        return ""
    return (
        "<section id='share'><h2>From the data or from the prior</h2><div class='split'><div class='panels'>"
        f"{panel('data_share', 'Share that comes from the data', 'share')}</div>"
        "<div><p>1 (yellow): the value is set by the measurement. 0 (dark): the measurement says nothing here and the "
        "value is the prior's guess, so detail in such places is not evidence.</p></div></div></section>"
    )


def residual_section(figures: Figures, shown: bool = True) -> str:
    """Whitened residual (`shown` if it has the image's grid), its histogram and autocorrelation, and words on them."""
    if figures.residual is None or figures.whiteness is None or figures.histogram is None:
        return (
            "<section id='residual'><h2>Does the model explain the data?</h2><p class='absent'>Data, prediction or "
            "noise level were not stored, so this cannot be checked.</p></section>"
        )
    values = figures.values
    words = [chi2_words(values["chi2"]), whiteness_words(figures.whiteness, values["chi2"])]
    if values["outliers"] > 1e-5:
        words.append(f"{100 * values['outliers']:.2g} % of the residuals are beyond 5 σ; noise alone gives 0.00006 %.")
    if "coverage" in values:
        words.append(coverage_words(values["coverage"]))
    text = "".join(f"<p>{escape(sentence)}</p>" for sentence in words)
    picture = panel("residual", "Whitened residual", "σ", "right to ±0.03 σ, clipped at ±8 σ") if shown else ""
    return (
        "<section id='residual'><h2>Does the model explain the data?</h2>"
        "<p>What is left when the picture is sent through the instrument's model and taken from the data, divided by "
        "the noise level. If the model is right, it looks like pure noise: no edges, no outline of the specimen.</p>"
        f"<div class='panels'>{picture}"
        f"<figure><figcaption>Histogram</figcaption>{histogram_plot(*figures.histogram)}</figure>"
        f"<figure><figcaption>Autocorrelation</figcaption>{autocorrelation_plot(figures.whiteness)}"
        "<div class='inset'><canvas id='autocorrelation' role='img' aria-label='Autocorrelation over x and y'></canvas>"
        "<p class='note'>Over lags in x and y, ±0.2; the centre is lag 0.</p></div></figure></div>"
        f"<div class='verdict'>{text}</div></section>"
    )


def resolution_section(contents: Contents) -> str:
    """Fourier ring correlation before and after, if the run has stored it."""
    frequency = contents.array("frc_frequency")
    before, after = contents.array("frc_before"), contents.array("frc_after")
    figures = contents.run["figures"]
    stated = {label: figures[key] for key, label in _RESOLUTIONS.items() if figures.get(key) is not None}
    if not stated and (frequency is None or (before is None and after is None)):
        return ""
    parts = [
        "<section id='resolution'><h2>Resolution by Fourier ring correlation</h2><p>How well two independent pictures "
        "agree at each spatial frequency. The resolution is the period at which their correlation first falls below "
        "1/7: smaller is finer. Artefacts that both pictures share make it look finer than it is.</p>"
    ]
    if frequency is not None and len(frequency) > 1 and (before is not None or after is not None):
        parts.append(f"<div class='panels'><figure>{frc_plot(frequency, before, after)}</figure></div>")
    if stated:
        rows = "".join(
            f"<tr><th scope='row'>{label}</th><td>{nanometres(value) or cell(value)}</td></tr>"
            for label, value in stated.items()
        )
        parts.append(f"<table>{rows}</table><p class='fineprint'>As stated by the run; not derived again here.</p>")
    return "".join(parts) + "</section>"


def nanometres(value: object) -> str:
    """A stated length in words; empty where it is none.

    Example:
        >>> nanometres(212.34), nanometres("wide")
        ('212 nm', '')
    """
    length = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")
    return f"{number(float(value))} nm" if length else ""  # type: ignore[arg-type]
