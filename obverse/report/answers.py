"""The sections that answer questions: other pictures the data allow, correlations of a pixel, interval of a region."""

__all__ = ["components_section", "questions_section"]

from html import escape

from .densities import KINDS, density_plot
from .details import number
from .parts import Page, panel
from .uncertainty import RECTANGLES, SLIDERS, reach


def components_section(page: Page) -> str:
    """Draws from the posterior, and sliders along its components."""
    if page.contents.variances is None:
        return ""
    return (
        "<section id='components'><h2>What else the picture could be</h2>"
        f"{_draws(page)}{_sliders(page) if page.plan.components else _no_components(page)}</section>"
    )


def _draws(page: Page) -> str:
    count = len(page.payload["draws"])
    strip = "".join(panel(f"draw{k}", f"Draw {k}" if k else "Mean", "") for k in range(count + 1))
    frames = "".join(
        f"<button type='button' data-frame='{k}'>{f'Draw {k}' if k else 'Mean'}</button>" for k in range(count + 1)
    )
    local = (
        " Errors of neighbours hang together in them as the stored kernel says."
        if page.contents.kernel is not None
        else ""
    )
    kept = page.contents.posterior.draws is not None
    origin = "draws that the method has kept" if kept else "draws from the stored posterior, taken as normal"
    return (
        f"<p>Each draw is one picture out of those that this uncertainty calls likely.{local} What stays from draw to "
        "draw is well determined; what changes is not. Let them flicker and watch what stays.</p>"
        f"<div class='flip'><div class='panels'>{panel('draw', 'Draw 1', page.unit, identity='draw-name')}</div>"
        f"<div><div class='buttons' id='frames'>{frames}<button type='button' id='flicker' aria-pressed='false'>"
        f"Flicker (key F)</button></div><div class='strip'>{strip}</div>"
        f"<p class='aside'>{count} {origin}: Posterior.sample({count}, seed=0), right to ±"
        f"{number(page.payload['draws'][0]['step'] / 2, 1)} standard deviations.</p></div></div>"
    )


def _no_components(page: Page) -> str:
    rest = (
        "errors are described by their local correlation alone"
        if page.contents.kernel is not None
        else "errors of different pixels are described as independent"
    )
    return f"<p class='absent'>No components are stored: {rest}.</p>"


def _sliders(page: Page) -> str:
    kept, payload, unit = page.plan.components, page.payload, page.unit
    shares = 100 * page.contents.shares()
    stored = len(shares)
    rows = "".join(
        f"<li class='component'><button type='button' aria-label='Show component {k + 1}'>{k + 1}</button>"
        f"<input type='range' min='-3' max='3' step='0.1' value='0' "
        f"aria-label='Component {k + 1}, in standard deviations'>"
        f"<output>+0.0 std</output>{_density(page, k)}<span class='aside'>{number(shares[k], 2)} % of the variance; "
        f"1 std is up to {number(payload['peaks'][k])} {unit}{_kind(page, k)}</span></li>"
        for k in range(min(SLIDERS, kept))
    )
    more = f" The {kept} components in this page hold {number(shares[:kept].sum())} % of the total variance."
    more += f" {_rest(page)}"
    if kept < stored:
        more += f" The posterior file holds {stored}; their variance is kept here pixel by pixel."
    return (
        "<h3>One component at a time</h3>"
        "<p>Each slider moves the picture along one principal component of the uncertainty: "
        "all pixels change together, by mean + t · √λ · direction. Pictures within about "
        f"±2 std are those that this uncertainty calls likely.{more}</p>"
        "<div class='split'><div class='panels two'>"
        f"{panel('moved', 'Reconstruction, moved', unit)}"
        f"{panel('component', 'Component 1: change for +1 std', unit, identity='component-name')}</div>"
        f"<div class='sliders'><ol>{rows}</ol><div class='buttons'>"
        "<button type='button' id='components-reset'>Back to the mean</button>"
        "<button type='button' id='components-draw'>Set at random</button></div>"
        "<p class='aside'>“Set at random” gives the shown components normal random numbers; "
        "the draws above hold all of the uncertainty.</p></div></div>"
        f"{_films(page)}"
    )


def _density(page: Page, k: int) -> str:
    """The curve above a slider, over the same range."""
    density, contents = page.densities[k], page.contents
    assert contents.directions is not None and contents.variances is not None
    if density is None or contents.variances[k] <= 0:
        return ""
    return density_plot(density, contents.mean, contents.directions[k], float(contents.variances[k] ** 0.5), k + 1)


def _kind(page: Page, k: int) -> str:
    density = page.densities[k]
    return "" if density is None else f"; {KINDS[density.kind]}, {escape(density.reason)}"


def _films(page: Page) -> str:
    """The path through the mean along the first components, each shown where it lies."""
    steps = ["−3 std", "−2 std", "−1 std", "mean", "+1 std", "+2 std", "+3 std"]
    names = ["change for +1 std", *steps]
    rows = []
    for k, (text, window) in enumerate(zip(page.looks, page.payload["windows"])):
        pictures = "".join(
            f"<figure><canvas class='frame' role='img' aria-label='Component {k + 1}, {name}'></canvas>"
            f"<figcaption>{name}</figcaption></figure>"
            for name in names
        )
        rows.append(
            f"<div class='film' data-film='{k}'><p><strong>Component {k + 1}.</strong> {escape(text)} "
            f"<strong class='gain'></strong><span class='aside'>Shown: {_place(page, window)}. "
            "<span class='limits'></span></span></p>"
            f"<div class='frames'>{pictures}</div></div>"
        )
    if not rows:
        return ""
    return (
        "<h3>The path along the first components</h3><p>From −3 to +3 standard deviations through the mean, in the "
        "place where most of the component lies. Pictures between −2 and +2 are likely; the sentence says what the "
        f"component does there, as far as a test on its numbers can tell.</p>{''.join(rows)}"
    )


def _place(page: Page, window: dict[str, int]) -> str:
    """The window in pixels of the original picture."""
    f, full = page.payload["factors"], page.payload["full"]

    def ends(axis: str, size: str) -> str:
        first, last = window[axis] * f[axis], (window[axis] + window[size]) * f[axis] - 1
        return f"{axis} {first}–{min(last, full[axis] - 1)}"

    parts = [ends("x", "width"), ends("y", "height")]
    parts += [f"z {window['z'] * f['z']}"] if full["z"] > 1 else []
    parts += [f"channel {window['c']}"] if page.payload["shape"][0] > 1 else []
    return ", ".join(parts)


def _rest(page: Page) -> str:
    """What becomes of the variance outside the components, in a sentence or two."""
    if page.contents.kernel is None:
        return "The rest is treated as independent from pixel to pixel."
    far = reach(page.contents.kernel)
    reached = f"above 0.1 up to {far} pixel{'' if far == 1 else 's'} apart" if far else "below 0.1 everywhere"
    return (
        "The rest is local: every pixel has its own standard deviation, and errors of neighbours depend on each other "
        f"by one law all over the picture (correlation {reached}). Small as it may be from pixel to pixel, it decides "
        "how far errors cancel or add up in a region; draws, correlations and regions here take it into account."
    )


def questions_section(page: Page) -> str:
    """Correlation of a pixel with all others; mean and interval of a rectangle."""
    if page.contents.std is None:
        return ""
    unit, full, flat = page.unit, page.payload["full"], page.contents.mean.ndim == 3

    def field(name: str, axis: str) -> str:
        limits = f"min='0' max='{full[axis] - 1}' value='0'"
        return f"<label>{name} <input type='number' name='{name}' {limits} required></label>"

    pick = "".join(field(axis, axis) for axis in ("xy" if flat else "xyz"))
    box = "".join(field(name, name[0]) for name in ("x0", "x1", "y0", "y1"))
    counted = (
        "the correlation of errors within it counts."
        if page.contents.kernel is not None
        else "correlations count in it as far as the components hold them."
    )
    quality = (
        f"In {RECTANGLES} random rectangles the standard deviation computed here was within "
        f"{number(100 * (page.region_error or 0), 2)} % of the one that the stored posterior gives."
    )
    if (page.contents.diagnostics or {}).get("intervals") == "quantiles":
        quality += " The posterior keeps draws; Posterior.interval uses their quantiles instead of a normal law."
    return (
        "<section id='questions'><h2>Ask about a pixel or a region</h2><div class='split'><div class='panels'>"
        f"{panel('correlation', 'Correlation with the marked pixel', 'correlation')}</div><div class='answers'>"
        "<h3>A pixel</h3><p>Click into any picture: the map shows with which other pixels its error hangs together. "
        "Red: both too high or too low at once; blue: one too high when the other is too low.</p>"
        f"<form id='pick' class='fields'>{pick}<button>Show</button></form><p id='picked' aria-live='polite'></p>"
        "<div class='inset'><canvas id='neighbours' role='img' aria-label='Correlation with the nearest pixels'>"
        "</canvas><p class='note' id='neighbours-note'></p></div>"
        "<h3>A region</h3><p>Choose “draw a region” above (or hold Shift) and drag a rectangle in any picture. "
        f"Its mean gets an interval; {counted}</p>"
        f"<form id='region' class='fields'>{box}<button>Add</button></form>"
        "<div class='wide'><table id='regions' hidden><thead><tr><th scope='col'></th><th scope='col'>place</th>"
        f"<th scope='col'>mean ({unit})</th><th scope='col'>90 % interval ({unit})</th><th scope='col'>std</th>"
        "<th scope='col'><abbr title='as against errors independent from pixel to pixel'>width</abbr></th><th></th>"
        "</tr></thead><tbody aria-live='polite'></tbody></table></div>"
        f"<p class='fineprint'>Interval: w·mean ± 1.645 √(wᵀΣw), as for a normal law. “width” compares it with errors "
        f"independent from pixel to pixel. {quality}</p></div></div></section>"
    )
