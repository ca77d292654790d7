"""Sentences: what an uncertainty claims, what a status means, and what chi² and the residual say about the model."""

__all__ = ["alarms", "chi2_words", "claims", "coverage_words", "doubts", "status_words", "whiteness_words"]

from collections.abc import Mapping
from typing import Any

from .figures import Whiteness

_NOT_COVERED = (
    "It does not cover a wrong point-spread function, a wrong noise law or a prior that does not fit this specimen; "
    "the residual below is where such errors would show."
)

_TARGETS = {
    "posterior": (
        "Posterior uncertainty",
        "Given these data, the instrument's model, its noise law and the prior named in the settings, the true value "
        "lies in a 90 % interval with a probability of 90 %. " + _NOT_COVERED,
    ),
    "tempered": (
        "Tempered spread, not a probability",
        "The spread comes from a law that was sharpened or flattened by a temperature or a tuned weight. It shows "
        "where the picture is more or less certain and how errors hang together; its size is not a probability, and "
        "a 90 % interval need not hold the truth in 90 % of the cases. " + _NOT_COVERED,
    ),
    "estimator-error": (
        "Error of the estimator under repeated measurement",
        "The spread says how far this estimator would scatter if the measurement were repeated with new noise. "
        "It does not include the estimator's bias, such as detail that is never recovered because the instrument "
        "does not pass it. " + _NOT_COVERED,
    ),
    "epistemic": (
        "Uncertainty of the model's weights",
        "The spread says how much the answer depends on the training of the model. It leaves out the noise of the "
        "measurement and what the instrument does not pass, so the total uncertainty is larger than shown.",
    ),
}

_FEW, _ROUGH = 0.1, 0.3
"""Share of products that ended early, and relative standard error of a pixel's variance, from which a page says so."""

_LEARNED = (
    "What the data leave open was filled in by a network that has learnt from other pictures ({}). Detail of that kind "
    "looks as real as measured detail; it is a hypothesis until a method without the network shows it too."
)


def claims(target: str | None, learned: str | None = None) -> tuple[str, str]:
    """Return a heading and a paragraph on what the uncertainty claims and what not.

    Args:
        target: what the spread is a spread of; None without one.
        learned: what is known of the network that stood for the prior; None if none did.
    """
    heading, claim = _claims(target)
    return heading, claim if learned is None else f"{_LEARNED.format(learned)} {claim}"


def _claims(target: str | None) -> tuple[str, str]:
    if target is None:
        return (
            "No uncertainty was computed",
            "The method used gives one picture and no statement of how far to trust it. Nothing here says which "
            "detail is certain; structure near the resolution limit may be noise or an artefact. For an uncertainty, "
            "rerun with a method that computes one, such as laplace, gaussian or local-gaussian.",
        )
    if target not in _TARGETS:
        return ("Uncertainty of an unknown kind", f"The stored target is {target!r}, which this version does not know.")
    return _TARGETS[target]


def status_words(status: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return a class ("good", "bad", "unknown"), a badge and a sentence for a stored status.

    Example:
        >>> status_words({"converged": False, "reason": "iterations", "message": "Stopped after 100."})
        ('bad', 'Did not converge', 'Stopped after 100.')
    """
    message = str(status.get("message") or status.get("reason") or "")
    if status.get("converged") is True:
        return "good", "Converged", message
    if status.get("converged") is False:
        return "bad", "Did not converge", message or "The run stores no message on why."
    return "unknown", "Status unknown", "run.json does not say whether the computation converged. " + message


def chi2_words(chi2: float) -> str:
    """Say what a chi² per data value means for the model and the noise level."""
    if chi2 > 2.0:
        verdict = (
            "far above 1: the model, the point-spread function or the noise level does not explain these data, "
            "and the stated uncertainty cannot be trusted"
        )
    elif chi2 > 1.2:
        verdict = (
            "above 1: the data scatter more than the noise law allows, so either the noise is underestimated or the "
            "model is not quite right; take the uncertainty as a lower bound"
        )
    elif chi2 >= 0.8:
        verdict = "close to 1, as it must be when model and noise level are right"
    elif chi2 >= 0.5:
        verdict = "a little below 1: the reconstruction follows part of the noise, or the noise is overestimated"
    else:
        verdict = "far below 1: the noise level is overestimated, or the reconstruction copies the noise"
    return f"χ² per data value is {chi2:.3f}, {verdict}."


def whiteness_words(white: Whiteness, chi2: float = 1.0) -> str:
    """Say whether the residual looks like noise; negative correlation and a χ² below 1: noise was followed."""
    size = abs(white.largest)
    if size < max(0.05, 2.5 * white.band):
        verdict = "The residual is practically white: no structure of the specimen is left in it."
    elif white.largest < 0 and chi2 <= 1.0:
        verdict = (
            "Neighbouring residuals have opposite signs more often than noise has: the reconstruction follows part of "
            "the noise. This is usual where the prior is weak and by itself no sign of structure that the model missed."
        )
    elif size < 0.15:
        verdict = "Some structure is left in the residual: the model is close to the data but does not explain all."
    else:
        verdict = "Clear structure is left in the residual: the model does not explain all of the data."
    largest = f"{white.largest:+.3f}".replace("-", "−")
    return (
        f"{verdict} The largest correlation between residuals up to 3 pixels apart is {largest}; "
        f"{100 * white.inside:.0f} % of the lags lie within the limits of white noise (expected: 95 %)."
    )


def alarms(values: Mapping[str, float], white: Whiteness | None) -> list[str]:
    """Sentences on data and model that a reader must meet at the top of the page, not only beside the residual."""
    chi2 = values.get("chi2", 1.0)
    found = [] if 0.5 <= chi2 <= 1.2 else [chi2_words(chi2)]
    if white is not None and "Clear structure" in (sentence := whiteness_words(white, chi2)):
        found.append(sentence)
    return found


def doubts(diagnostics: Mapping[str, Any]) -> list[str]:
    """Sentences on a covariance that its own method found in doubt.

    Example:
        >>> doubts({"truncated": 0.0, "marginals_standard_error": 0.1})
        []
    """

    def figure(name: str) -> float:
        value = diagnostics.get(name)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0

    found = []
    if (share := figure("truncated")) > _FEW:
        found.append(
            f"{100 * share:.0f} % of the products with the covariance met a direction along which the denoiser stands "
            "for no prior at all (negative curvature), and ended there: standard deviations and components are rough."
        )
    if (error := figure("marginals_standard_error")) > _ROUGH:
        found.append(
            f"The variances of single pixels are estimates with a standard error of {100 * error:.0f} %: trust their "
            "average over a neighbourhood, and raise probes for more."
        )
    return found


def coverage_words(coverage: float) -> str:
    """Compare the share of pixels inside their 90 % interval with 90 %."""
    if coverage < 0.85:
        verdict = "fewer than stated: the uncertainty is too small"
    elif coverage > 0.95:
        verdict = "more than stated: the uncertainty is larger than it need be"
    else:
        verdict = "as stated"
    return f"{100 * coverage:.1f} % of the pixels of the stored reference lie in their 90 % interval, {verdict}."
