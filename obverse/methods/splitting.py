"""Minimise a sum of simple functions of linear images, with a certificate of how far the answer is from optimal.

    J(x) = f(x) + Σ_i φ_i(K_i x),      f quadratic (possibly zero), φ_i with a proximal operator

ADMM keeps z_i ≈ K_i x and scaled multipliers u_i, and needs f and every K_iᴴK_i to be diagonal in Fourier; the
primal–dual method of Chambolle and Pock needs only K_i and K_iᴴ. Both leave multipliers p_i ∈ ∂φ_i(z_i), with which

    J(x) − min J ≤ Σ_i gap_i + ‖r‖·‖x − x*‖,        r = ∇f(x) + Σ_i K_iᴴp_i
    gap_i = φ_i(K_i x) − φ_i(z_i) − Re⟨p_i, K_i x − z_i⟩ ≥ 0

whatever the solver did before. The residual reported is the larger of Σ gap_i / |J(x)| and
‖r‖ / (‖∇f‖ + Σ ‖K_iᴴp_i‖).

References: Boyd et al., "Distributed optimization and statistical learning via the alternating direction method of
multipliers", 2011. Chambolle, Pock, "A first-order primal-dual algorithm for convex problems with applications to
imaging", JMIV 2011. Wohlberg, "ADMM penalty parameter selection by residual balancing", 2017.
"""

__all__ = ["Block", "Certificate", "Splitting", "admm", "primal_dual"]

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..solvers.result import Result, Status
from .fused import compiled_step, plain_step

_RELAXATION = 1.8  # of the ADMM step; 1.5 to 1.8 are usual (Boyd et al., §3.4.3)
_PENALTY_RANGE = 1e3  # a penalty may move by this factor from where it started
_CHECK_EVERY = 10
_BALANCE_UNTIL = 200  # penalties are held fixed afterwards, so that the convergence proof applies

Map = Callable[[Tensor], Tensor]


@dataclass
class Block:
    """One part φ(K x) of the objective.

    Args:
        forward: K.
        adjoint: Kᴴ.
        value: φ, a scalar tensor.
        prox: (v, step) ↦ argmin_z φ(z) + ‖z − v‖²/(2 step).
        gram: eigenvalues of KᴴK in `rfftn` layout, for ADMM.
        norm: ‖K‖, for the primal–dual method.
        penalty: ρ to start from.
        fused: the weight of an isotropic total variation that `fused.plain_step` may take, else None.
    """

    forward: Map
    adjoint: Map
    value: Map
    prox: Callable[[Tensor, float], Tensor]
    gram: Tensor | None = None
    norm: float = 1.0
    penalty: float = 1.0
    fused: float | None = None


@dataclass(frozen=True)
class Certificate:
    """The objective at a point, and bounds on what is missing there."""

    objective: float
    gap: float
    stationarity: float

    @property
    def relative_gap(self) -> float:
        """Σ gap_i / |J(x)|."""
        return self.gap / max(abs(self.objective), 1e-300)

    @property
    def residual(self) -> float:
        """The larger of the relative gap and the relative stationarity."""
        worst = max(self.relative_gap, self.stationarity)
        return worst if math.isfinite(worst) else math.inf


@dataclass
class Splitting:
    """A problem in split form.

    Args:
        shape: shape of the image.
        blocks: the φ_i(K_i x).
        quadratic: weight·|A|² in `rfftn` layout (ADMM), or None where f = 0.
        linear: −∇f(0) as an image.
        smooth: x ↦ (f(x), ∇f(x)).
        feasible: projection of a candidate onto hard constraints; the candidate is what is certified and returned.
    """

    shape: tuple[int, ...]
    blocks: list[Block]
    quadratic: Tensor | None = None
    linear: Tensor | None = None
    smooth: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None
    feasible: Map = field(default=lambda x: x)

    def certify(self, x: Tensor, images: list[Tensor], multipliers: list[Tensor]) -> Certificate:
        """How far `x` is from optimal, shown by z_i and p_i ∈ ∂φ_i(z_i)."""
        objective = gap = torch.zeros((), dtype=torch.float64)
        parts = []
        if self.smooth is not None:
            value, gradient = self.smooth(x)
            objective = objective + value.double()
            parts.append(gradient)
        for block, z, p in zip(self.blocks, images, multipliers, strict=True):
            image = block.forward(x)
            here = block.value(image).double()
            product = p.conj() * (image - z)
            gap = gap + (here - block.value(z).double() - product.real.sum(dtype=torch.float64)).clamp_min(0)
            objective = objective + here
            parts.append(block.adjoint(p))
        scale = sum(float(part.norm()) for part in parts)
        total: Tensor = sum(parts[1:], parts[0])
        stationarity = float(total.norm()) / scale if scale > 0 else 0.0
        return Certificate(float(objective), float(gap), stationarity)


class _State:
    """z and u of one block of ADMM, and its penalty."""

    def __init__(self, block: Block, x: Tensor):
        self.block, self.penalty = block, block.penalty
        self.z = block.forward(x).clone()
        self.u = torch.zeros_like(self.z)
        real = x.dtype in (torch.float32, torch.float64)
        self.step = None
        if block.fused is not None and real:
            flat = x.ndim == 3 and x.device.type == "cpu"
            self.step = (compiled_step() if flat else None) or plain_step

    def update(self, x: Tensor) -> Tensor:
        """Renew z and u; Kᴴ(z − u)."""
        if self.step is not None and self.block.fused is not None:
            return self.step(x, self.z, self.u, self.block.fused / self.penalty, _RELAXATION)
        q = _RELAXATION * self.block.forward(x) + (1 - _RELAXATION) * self.z + self.u
        self.z = self.block.prox(q, 1.0 / self.penalty)
        self.u = q - self.z
        return self.block.adjoint(self.z - self.u)

    def force(self) -> float:
        """‖Kᴴp‖."""
        return self.penalty * float(self.block.adjoint(self.u).norm())

    def balance(self, x: Tensor, before: Tensor, force: float) -> bool:
        """Move the penalty towards equal relative primal and dual residuals, the latter relative to the `force` of all
        blocks (a constraint that is not active has none of its own); whether it moved."""
        image = self.block.forward(x)
        primal = (image - self.z).norm() / torch.maximum(image.norm(), self.z.norm()).clamp_min(1e-30)
        dual = self.penalty * self.block.adjoint(self.z - before).norm() / max(force, 1e-30)
        ratio = float((primal / dual.clamp_min(1e-30)).sqrt())
        if not math.isfinite(ratio) or 0.5 < ratio < 2.0:
            return False
        lowest, highest = self.block.penalty / _PENALTY_RANGE, self.block.penalty * _PENALTY_RANGE
        factor = min(max(self.penalty * min(max(ratio, 0.2), 5.0), lowest), highest) / self.penalty
        if factor == 1.0:
            return False
        self.penalty *= factor
        self.u /= factor
        return True


def admm(
    problem: Splitting,
    x0: Tensor,
    *,
    tolerance: float,
    max_iterations: int,
    callback: Callable[[int, int | None, float], None],
) -> tuple[Result, Certificate]:
    """The alternating direction method of multipliers with a Fourier solve for x."""
    axes = tuple(range(-len(problem.shape) + 1, 0))
    grid = problem.shape[1:]

    def transform(v: Tensor) -> Tensor:
        return torch.fft.rfftn(v, dim=axes)

    states = [_State(block, x0) for block in problem.blocks]
    fixed = None if problem.linear is None else transform(problem.linear)

    def inverse() -> Tensor:
        total = torch.zeros_like(x0[..., :1]) if problem.quadratic is None else problem.quadratic
        for state in states:
            assert state.block.gram is not None
            total = total + state.penalty * state.block.gram
        return 1.0 / total.clamp_min(torch.finfo(total.dtype).tiny)

    x, filter_, history = x0.clone(), inverse(), []
    certificate = Certificate(math.inf, math.inf, math.inf)
    for iteration in range(1, max_iterations + 1):
        checking = iteration % _CHECK_EVERY == 0 or iteration == max_iterations
        balancing = checking and iteration <= _BALANCE_UNTIL
        before = [state.z.clone() for state in states] if balancing else []
        right = None
        for state in states:
            part = state.update(x)
            part = part * state.penalty if part.data_ptr() == x.data_ptr() else part.mul_(state.penalty)
            right = part if right is None else right.add_(part)
        if checking:
            candidate = problem.feasible(x)
            certificate = problem.certify(candidate, [s.z for s in states], [s.penalty * s.u for s in states])
            history.append(certificate.objective)
            callback(iteration, max_iterations, certificate.residual)
            if certificate.residual <= tolerance or not math.isfinite(float(x.sum().abs())):
                return _result(candidate, certificate, iteration, tolerance, history), certificate
            if iteration == max_iterations:
                break
            force = sum(state.force() for state in states) if balancing else 0.0
            moved = [state.balance(x, old, force) for state, old in zip(states, before)] if balancing else []
            if any(moved):
                filter_ = inverse()
                right = sum(s.penalty * s.block.adjoint(s.z - s.u) for s in states)
        assert isinstance(right, Tensor)
        spectrum = transform(right)
        if fixed is not None:
            spectrum += fixed
        x = torch.fft.irfftn(spectrum.mul_(filter_), s=grid, dim=axes)
    return _result(problem.feasible(x), certificate, max_iterations, tolerance, history), certificate


def primal_dual(
    problem: Splitting,
    x0: Tensor,
    *,
    tolerance: float,
    max_iterations: int,
    callback: Callable[[int, int | None, float], None],
) -> tuple[Result, Certificate]:
    """The primal–dual hybrid gradient method; f must be zero, so the data term is one of the blocks."""
    blocks = problem.blocks
    # σ_i = penalty_i and τ = 1/Σ σ_i‖K_i‖²: the metric of each block follows its own units
    scale = 1.0
    images = [block.forward(x0) for block in blocks]
    duals = [torch.zeros_like(image) for image in images]
    x = ahead = x0.clone()
    history: list[float] = []
    certificate = Certificate(math.inf, math.inf, math.inf)
    for iteration in range(1, max_iterations + 1):
        tau = 0.99 / (scale * sum(block.penalty * block.norm**2 for block in blocks))
        pulled = torch.zeros_like(x)
        for i, block in enumerate(blocks):
            sigma = scale * block.penalty
            v = duals[i] + sigma * block.forward(ahead)
            images[i] = block.prox(v / sigma, 1.0 / sigma)
            duals[i] = v - sigma * images[i]
            pulled = pulled + block.adjoint(duals[i])
        following = x - tau * pulled
        ahead, step, x = 2 * following - x, following - x, following
        if iteration % _CHECK_EVERY == 0 or iteration == max_iterations:
            candidate = problem.feasible(x)
            certificate = problem.certify(candidate, images, duals)
            history.append(certificate.objective)
            callback(iteration, max_iterations, certificate.residual)
            if certificate.residual <= tolerance or not math.isfinite(float(x.sum().abs())):
                return _result(candidate, certificate, iteration, tolerance, history), certificate
            if iteration <= 5 * _BALANCE_UNTIL and iteration % (2 * _CHECK_EVERY) == 0:
                moved = float(step.norm()) / max(float(x.norm()), 1e-30)
                scale *= _towards(certificate, moved)
    return _result(problem.feasible(x), certificate, max_iterations, tolerance, history), certificate


def _towards(certificate: Certificate, moved: float) -> float:
    """Larger dual steps when the gap lags behind the stationarity, smaller ones when it leads."""
    if certificate.relative_gap > 4 * certificate.stationarity:
        return 2.0
    return 0.5 if certificate.stationarity > 4 * certificate.relative_gap and moved > 0 else 1.0


def _result(x: Tensor, certificate: Certificate, iterations: int, tolerance: float, history: list[float]) -> Result:
    residual = certificate.residual
    if residual <= tolerance:
        message = (
            f"optimal to a relative gap of {certificate.relative_gap:.1e} and a relative gradient of "
            f"{certificate.stationarity:.1e} after {iterations} iterations"
        )
        status = Status(True, "converged", message)
    elif math.isfinite(residual):
        message = (
            f"{iterations} iterations left a residual of {residual:.1e}, above the tolerance {tolerance:.1e}; raise "
            "max_iterations, or tolerance if the image is good enough"
        )
        status = Status(False, "max-iterations", message)
    else:
        status = Status(
            False, "breakdown", "the objective is not finite; check the units of the data and the weight of the prior"
        )
    return Result(x, status, iterations, residual, tuple(history))
