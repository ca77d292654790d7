"""Bayesian linear regression with the precision of its prior and the size of its errors chosen by the evidence.

    t = J w + ε,   ε ~ N(0, e² I),   w ~ N(0, I/δ):        Λ = H/e² + δ I,   H = JᵀJ,   w̄ = Λ⁻¹ Jᵀt/e²
    log p(t | δ, e) = −½ [N log 2πe² + ‖t − Jw̄‖²/e² + δ‖w̄‖² + log det Λ − P log δ]
    at its maximum:   γ = Σ h_i/(h_i + δe²),   δ = γ/‖w̄‖²,   e² = ‖t − Jw̄‖²/(N − γ)

Everything is found from H, b = Jᵀt and c = ‖t‖², so that data are seen once; γ is the number of weights that the data
determine.

References: MacKay, "Bayesian interpolation", Neural Computation 1992. Antorán et al., "Adapting the linearised Laplace
model evidence for modern deep learning", ICML 2022.
"""

__all__ = ["Regression", "regress"]

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError, NumericsError

_ROUNDS, _CLOSE = 1000, 1e-12


@dataclass(frozen=True, eq=False)
class Regression:
    """The posterior of the weights, float64.

    Args:
        mean: w̄ `(P,)`.
        root: R `(P, P)` with Λ⁻¹ = R Rᵀ.
        precision: δ.
        error: e.
        log_evidence: log p(t | δ, e).
        determined: γ, between 0 and P.
    """

    mean: Tensor
    root: Tensor
    precision: float
    error: float
    log_evidence: float
    determined: float


def regress(
    H: Tensor, b: Tensor, c: float, count: int, precision: float | None = None, error: float | None = None
) -> Regression:
    """The regression, with δ and e by the evidence where they are not given.

    Args:
        H: JᵀJ `(P, P)`.
        b: Jᵀt `(P,)`.
        c: ‖t‖².
        count: N, numbers in t.
        precision: δ > 0.
        error: e > 0.

    Raises:
        InputError: a given value is not positive, or there are too few data to find e from.
        NumericsError: the maximum is at infinity: the data show no sign of the weights, or fit exactly.
    """
    if not all(value is None or 0 < value < math.inf for value in (precision, error)):
        raise InputError(f"expected positive precision and error, got {precision} and {error}; None to find them")
    h, V = torch.linalg.eigh(H.double())
    h, rotated = h.clamp_min(0), V.mT @ b.double()
    if error is None and count <= int((h > 1e-12 * h.amax()).sum()):
        raise InputError(f"expected more data than weights to find the error from, got {count} of {len(h)}; give error")
    e2 = c / count if error is None else error**2
    delta = 1.0 if precision is None else precision

    def weights() -> tuple[Tensor, float, float]:
        w = rotated / (h + delta * e2)
        return w, float((h / (h + delta * e2)).sum()), max(float(c - (2 * rotated - h * w) @ w), 0.0)

    for _ in range(_ROUNDS):
        w, gamma, misfit = weights()
        before = delta, e2
        if precision is None:
            delta = gamma / max(float(w @ w), 1e-300)
        if error is None:
            e2 = misfit / (count - gamma)
        if not (0 < delta < 1e200 and 1e-200 < e2 < 1e200):
            raise NumericsError(
                f"the evidence expects a maximum, it runs to a precision of {delta:.3g} and an error of {e2**0.5:.3g}; "
                "give both by hand"
            )
        if all(abs(now - then) <= _CLOSE * then for now, then in zip((delta, e2), before)):
            break
    w, gamma, misfit = weights()
    spread = h / e2 + delta
    evidence = -0.5 * (
        count * math.log(2 * math.pi * e2)
        + misfit / e2
        + delta * float(w @ w)
        + float(spread.log().sum())
        - len(h) * math.log(delta)
    )
    return Regression(V @ w, V * spread.rsqrt(), delta, e2**0.5, evidence, gamma)
