"""Six ways of taking turns between the data and a denoiser D(·, λ).

For data v ≈ B x with ‖B‖ ≤ 1 and noise σ (see `whitened`); d = s σ²/λ²,  P_d(z) = argmin ‖B x − v‖² + d ‖x − z‖²:

    pgd        x ← D(x − s Bᴴ(B x − v), λ)
    hqs        x ← D(P_d(x), λ)
    modl       x ← P_d(D(x, λ))                                              the same, ending at the data
    admm       z ← P_d(x − w),   x ← D(z + w, λ),   w ← w + z − x
    pdhg       p ← (p + (B x̄ − v)/s)/(1 + 1/s),   x⁺ ← D(x − s Bᴴ p, λ),   x̄ ← 2x⁺ − x
    gradient   x ← x − s (Bᴴ(B x − v) + σ²/λ² (x − D(x, λ)))/(1 + σ²/λ²)     gradient flow of a variational energy

A stage maps a state (x, …) to the next. With the denoiser of a Gaussian prior N(0, S), which is its prox for λ²:
pgd and pdhg with λ² = s σ², and admm with s = 1 and any λ, have the posterior mean as their fixed point; hqs and modl
(s = 1) and gradient have that of the prior N(0, S + λ²), its Moreau envelope (for hqs, denoised once more).

References: Aggarwal, Mani, Jacob, "MoDL", TMI 2019. Adler, Öktem, "Learned primal-dual reconstruction", TMI 2018.
Hammernik et al., "Learning a variational network for reconstruction of accelerated MRI data", MRM 2018. Yang, Sun, Li,
Xu, "ADMM-CSNet", TPAMI 2020. Zhang, Ghanem, "ISTA-Net", CVPR 2018.
"""

__all__ = ["SCHEMES", "Denoise", "Scheme", "Stage", "start"]

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import InputError
from .whitened import Whitened

Denoise = Callable[[Tensor, Tensor], Tensor]
State = tuple[Tensor, ...]
Stage = Callable[[State, Whitened, Denoise, Tensor, Tensor], State]

_SPREAD = 0.5  # standard deviation about zero that the start allows the images, of their range


class Scheme(NamedTuple):
    """How a state grows out of a first image, and one stage."""

    begin: Callable[[Tensor, Whitened], State]
    stage: Stage


def start(data: Whitened, kind: str) -> Tensor:
    """The first image: "solve", ridge regression P_d(0) with d = (2σ)², or "adjoint", Bᴴ v."""
    if kind not in ("solve", "adjoint"):
        raise InputError(f'expected a start "solve" or "adjoint", got {kind!r}; "solve" is the default')
    return data.adjoint(data.v) if kind == "adjoint" else data.solve(None, (data.sigma / _SPREAD).square())


def _alone(x: Tensor, data: Whitened) -> State:
    return (x,)


def _pgd(state: State, data: Whitened, denoise: Denoise, step: Tensor, level: Tensor) -> State:
    (x,) = state
    return (denoise(x - step * data.gradient(x), level),)


def _hqs(state: State, data: Whitened, denoise: Denoise, step: Tensor, level: Tensor) -> State:
    return (denoise(data.solve(state[0], _damping(data, step, level)), level),)


def _modl(state: State, data: Whitened, denoise: Denoise, step: Tensor, level: Tensor) -> State:
    return (data.solve(denoise(state[0], level), _damping(data, step, level)),)


def _admm(state: State, data: Whitened, denoise: Denoise, step: Tensor, level: Tensor) -> State:
    x, w = state
    z = data.solve(x - w, _damping(data, step, level))
    x = denoise(z + w, level)
    return x, w + z - x


def _pdhg(state: State, data: Whitened, denoise: Denoise, step: Tensor, level: Tensor) -> State:
    x, ahead, p = state
    dual = 1.0 / step
    p = (p + dual * (data.forward(ahead) - data.v)) / (1.0 + dual)
    new = denoise(x - step * data.adjoint(p), level)
    return new, 2.0 * new - x, p


def _gradient(state: State, data: Whitened, denoise: Denoise, step: Tensor, level: Tensor) -> State:
    (x,) = state
    weight = (data.sigma / level).square().reshape(-1, *(1,) * (x.ndim - 1))
    return (x - step * (data.gradient(x) + weight * (x - denoise(x, level))) / (1.0 + weight),)


def _damping(data: Whitened, step: Tensor, level: Tensor) -> Tensor:
    return step * (data.sigma / level).square()


SCHEMES: dict[str, Scheme] = {
    "pgd": Scheme(_alone, _pgd),
    "hqs": Scheme(_alone, _hqs),
    "modl": Scheme(_alone, _modl),
    "admm": Scheme(lambda x, data: (x, torch.zeros_like(x)), _admm),
    "pdhg": Scheme(lambda x, data: (x, x, torch.zeros_like(data.v)), _pdhg),
    "gradient": Scheme(_alone, _gradient),
}
