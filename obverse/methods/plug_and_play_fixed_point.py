"""Plug-and-play schemes at one noise level: maps z ↦ T(z) whose fixed point is the answer.

With the denoiser D at level σ, the data term f and the prior's weight λ (τ = σ²/λ throughout):

    scheme  map                                                         image   at the fixed point
    hqs     T(z) = D(prox_{τf}(z))                                      z       ∇f(x) + (λ/σ²)(x − D(x)) = 0,  z = D(x)
    red     T(x) = x − s (∇f(x) + (λ/σ²)(x − D(x)))                     x       the same x
    pgd     T(x) = D(x − τ ∇f(x))                                       x       x = D(x − τ ∇f(x))
    admm    T(z) = z + prox_{τf}(2v − z) − v,   v = D(z)                v       the same as pgd's

If D is the proximal operator of σ²g, pgd and admm minimise f + λg, and hqs and red the same with g's Moreau envelope
for g. For a denoiser in general there is no such energy: that of RED, ½ xᵀ(x − D(x)), has the gradient x − D(x)
only if D is homogeneous and its Jacobian symmetric, which networks are not (Reehorst, Schniter). What is checked is
therefore the fixed point itself, ‖T(z) − z‖ ≤ tolerance ‖T(z)‖; for red ‖x − D(x) + τ∇f(x)‖ ≤ tolerance ‖x‖, which does
not shrink with the step s. pgd's does shrink with τ: give it a smaller tolerance.

pgd needs τ < 2/L, L the Lipschitz constant of ∇f: it denoises no more than √(2λ/L), mild where the noise is weak.
red takes s = 1/(L + λ/σ²). L is taken at the data and, for a non-linear operator, at the start. Anderson acceleration
finds the same fixed points.

References: Venkatakrishnan, Bouman, Wohlberg, "Plug-and-play priors for model based reconstruction", GlobalSIP 2013.
Romano, Elad, Milanfar, "The little engine that could: regularization by denoising (RED)", SIAM J. Imaging Sci. 2017.
Reehorst, Schniter, "Regularization by denoising: clarifications and new interpretations", IEEE TCI 2019. Ryu et al.,
"Plug-and-play methods provably converge with properly trained denoisers", ICML 2019.
"""

__all__ = ["MAPS", "iterate"]

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from ..solvers.anderson import anderson
from ..solvers.result import Result
from .base import Callback
from .plug_and_play_data import DataTerm
from .plug_and_play_prior import CountedDenoiser

_Map = Callable[[Tensor], Tensor]
_Scheme = tuple[_Map, _Map, float]  # T, the image at its fixed point, and the length of its steps: s/τ for red


def iterate(
    scheme: str,
    data: DataTerm,
    denoiser: CountedDenoiser,
    start: Tensor,
    sigma: float,
    weight: float,
    memory: int,
    tolerance: float,
    iterations: int,
    callback: Callback,
) -> Result:
    """The fixed point of a scheme's map, by repetition (memory 0) or by Anderson acceleration."""
    step, image, length = MAPS[scheme](data, denoiser, sigma, weight)
    result = anderson(
        step, start, memory=memory, tolerance=tolerance * length, max_iterations=iterations, callback=callback
    )
    return replace(result, x=image(result.x))


def _hqs(data: DataTerm, denoiser: CountedDenoiser, sigma: float, weight: float) -> _Scheme:
    return lambda z: denoiser(data.prox(z, weight / sigma**2), sigma), _itself, 1.0


def _red(data: DataTerm, denoiser: CountedDenoiser, sigma: float, weight: float) -> _Scheme:
    pull = weight / sigma**2
    step = 1.0 / (data.lipschitz + pull)
    return lambda x: x - step * (data.gradient(x) + pull * (x - denoiser(x, sigma))), _itself, step * pull


def _pgd(data: DataTerm, denoiser: CountedDenoiser, sigma: float, weight: float) -> _Scheme:
    step = sigma**2 / weight
    return lambda x: denoiser(x - step * data.gradient(x), sigma), _itself, 1.0


def _admm(data: DataTerm, denoiser: CountedDenoiser, sigma: float, weight: float) -> _Scheme:
    def step(z: Tensor) -> Tensor:
        v = denoiser(z, sigma)
        return z + data.prox(2 * v - z, weight / sigma**2) - v

    return step, lambda z: denoiser(z, sigma), 1.0


def _itself(z: Tensor) -> Tensor:
    return z


MAPS = {"hqs": _hqs, "red": _red, "pgd": _pgd, "admm": _admm}
