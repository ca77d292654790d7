"""The proximal operator of total variation, by accelerated projected gradients on the dual.

    min_u ½‖u − x‖² + Σ_i τ_i |(∇u)_i|   =   max_{|p_i| ≤ τ_i}  ½‖x‖² − ½‖x − ∇ᴴp‖²,       u = x − ∇ᴴp

|·| is the Euclidean norm over the axes (isotropic) or the sum of magnitudes (anisotropic). A step is
p⁺ = Π(q + ∇(x − ∇ᴴq)/L) with L = ‖∇‖², and Nesterov's extrapolation that starts again whenever it points uphill. At any
feasible p the duality gap is

    gap(p) = Σ_i τ_i |(∇u)_i| − ⟨(∇u)_i, p_i⟩ ≥ ½‖u − u*‖²

a sum of terms that are not negative, so that it can be trusted to rounding. We stop when gap ≤ tolerance × primal
value. Nothing is remembered between calls: a warm start is an argument. Fused numba kernels (`tv_kernels`) do the same
steps on CPU where numba is installed; otherwise, for complex images, on other devices and under autograd, plain torch
does.

References: Chambolle, "An algorithm for total variation minimization and applications", JMIV 2004. Beck, Teboulle,
"Fast gradient-based algorithms for constrained total variation image denoising and deblurring problems", IEEE TIP 2009.
O'Donoghue, Candès, "Adaptive restart for accelerated gradient schemes", FoCM 2015.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from ..solvers.result import Status
from .differences import checked_spacing, gradient, gradient_adjoint, squared_norm_bound

__all__ = ["TotalVariationProx", "total_variation_prox"]

_CHECK_EVERY = 10


@dataclass(frozen=True)
class TotalVariationProx:
    """What the iteration reached.

    Args:
        x: the image u, shape of the input.
        dual: the dual point p, `(*batch, axes, C, *grid)`: pass it as `dual=` to start a similar problem from it.
        gap: largest duality gap over the planes, relative to the primal value, computed at `x` and `dual`.
        iterations: of the plane that took longest.
        status: whether the gap was reached.
    """

    x: Tensor
    dual: Tensor
    gap: float
    iterations: int
    status: Status


def total_variation_prox(
    x: Tensor,
    bound: float | Tensor,
    *,
    dimensions: int = 2,
    isotropic: bool = True,
    spacing: Sequence[float] | None = None,
    tolerance: float | None = None,
    max_iterations: int = 10_000,
    dual: Tensor | None = None,
    backend: str = "auto",
) -> TotalVariationProx:
    """argmin_u ½‖u − x‖² + Σ_i bound_i |(∇u)_i|, each plane (or volume) of the batch on its own.

    Args:
        x: images `(*batch, C, H, W)`, or `(*batch, C, D, H, W)` with `dimensions=3`; real or complex.
        bound: τ, in units of the image times length: a number or a map that broadcasts to `x`, not negative.
        isotropic: Euclidean norm over the axes; otherwise the sum of magnitudes.
        spacing: pixel size along each spatial axis; 1 by default.
        tolerance: relative duality gap to reach; by default 1e-5 in float32 and 1e-6 in float64.
        dual: where to start, as returned by an earlier call; projected onto the constraint first.
        backend: "auto", "numba" or "torch".
    """
    spacing = checked_spacing(spacing, dimensions, "total_variation_prox")
    if x.ndim < dimensions + 1 or not (x.is_floating_point() or x.is_complex()):
        raise InputError(f"expected images (*batch, C, *grid) of a floating type, got {tuple(x.shape)} {x.dtype}")
    if not bool(x.isfinite().all()):
        raise InputError("total_variation_prox expects finite images, got NaN or Inf; check the step size")
    real = x.real.dtype if x.is_complex() else x.dtype
    tau = torch.as_tensor(bound, dtype=real, device=x.device)
    if not bool(((tau >= 0) & tau.isfinite()).all()):
        raise InputError("total_variation_prox expects finite bounds of at least zero; check weight and step")
    tolerance = tolerance if tolerance is not None else (1e-5 if real == torch.float32 else 1e-6)
    shape, grid = tuple(x.shape), tuple(x.shape[-dimensions:])
    flat = x.reshape(-1, *grid)
    planes = tau.expand(shape).reshape(-1, *grid) if tau.ndim else tau.expand(flat.shape)
    start = None if dual is None else _planar(dual, shape, dimensions)
    # total variation ignores the mean of a plane, and rounding is smaller without it
    mean = flat.mean(dim=tuple(range(1, flat.ndim)), keepdim=True)
    run = _torch_planes if _backend(x, tau, backend) == "torch" else _numba_planes
    u, p, gaps, counts = run(flat - mean, planes, start, spacing, isotropic, tolerance, max_iterations)
    u, gap, iterations = u + mean, max(gaps, default=0.0), max(counts, default=0)
    stacked = p.reshape(*shape[:-dimensions], dimensions, *grid).movedim(-dimensions - 1, -dimensions - 2)
    return TotalVariationProx(u.reshape(shape), stacked, gap, iterations, _status(gap, tolerance, iterations))


def _backend(x: Tensor, tau: Tensor, backend: str) -> str:
    if backend not in ("auto", "numba", "torch"):
        raise InputError(f'backend expects "auto", "numba" or "torch", got {backend!r}')
    differentiated = torch.is_grad_enabled() and (x.requires_grad or tau.requires_grad)
    fits = x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64) and not differentiated
    if backend == "numba" and not fits:
        raise InputError("the numba kernels expect real CPU images outside autograd; use backend='auto'")
    if backend == "torch" or not fits:
        return "torch"
    try:
        import numba  # noqa: F401
    except ImportError:
        if backend == "numba":
            raise InputError("numba is not installed; pip install 'obverse[fast]', or use backend='torch'") from None
        return "torch"
    return "numba"


def _planar(dual: Tensor, shape: tuple[int, ...], dimensions: int) -> Tensor:
    """The dual with its axes behind the channel: (planes, axes, *grid)."""
    expected = (*shape[: -dimensions - 1], dimensions, *shape[-dimensions - 1 :])
    if tuple(dual.shape) != expected:
        raise InputError(f"dual expects shape {expected}, got {tuple(dual.shape)}; pass what an earlier call returned")
    return dual.movedim(-dimensions - 2, -dimensions - 1).reshape(-1, dimensions, *shape[-dimensions:])


def _status(gap: float, tolerance: float, iterations: int) -> Status:
    if gap <= tolerance:
        return Status(True, "converged", f"relative duality gap {gap:.1e} after {iterations} iterations")
    return Status(
        False,
        "max-iterations",
        f"relative duality gap {gap:.1e} after {iterations} iterations, above the tolerance {tolerance:.1e}; "
        "allow more iterations, use float64, or a larger tolerance",
    )


def _numba_planes(x, tau, start, spacing, isotropic, tolerance, max_iterations):
    from .tv_kernels import solve

    p = (
        torch.zeros(x.shape[0], len(spacing), *x.shape[1:], dtype=x.dtype)
        if start is None
        else start.to(x.dtype).clone(memory_format=torch.contiguous_format)
    )
    x, tau, u = (
        x.detach().contiguous(),
        tau.detach().contiguous(),
        torch.empty_like(x, memory_format=torch.contiguous_format),
    )
    gaps, counts = [], []
    for i in range(x.shape[0]):
        arrays = (x[i].numpy(), tau[i].numpy(), p[i].numpy(), u[i].numpy())
        gap, count = solve(
            *arrays, spacing, isotropic, tolerance, max_iterations, _CHECK_EVERY, torch.get_num_threads()
        )
        gaps.append(gap)
        counts.append(count)
    return u, p, gaps, counts


def _torch_planes(x, tau, start, spacing, isotropic, tolerance, max_iterations):
    """All planes at once; a plane that has converged is left alone, so that results do not depend on its company."""
    axes = len(spacing)
    x, tau = x[:, None], tau[:, None, None]
    step = 1.0 / squared_norm_bound(spacing)
    column = (-1,) + (1,) * (axes + 2)

    def project(q: Tensor) -> Tensor:
        size = _magnitude(q, axes, isotropic)
        return q * torch.where(size > tau, tau / size.clamp_min(torch.finfo(tau.dtype).tiny), 1.0)

    def gaps(p: Tensor) -> Tensor:
        """Relative gap of each plane."""
        u = x - gradient_adjoint(p, spacing)
        g = gradient(u, spacing)
        size = _magnitude(g, axes, isotropic).expand(g.shape if not isotropic else (-1,) * g.ndim)
        product = (g.conj() * p).real if p.is_complex() else g * p
        total = (tau * size).double().flatten(1).sum(1)
        gap = total - product.double().flatten(1).sum(1)
        primal = total + 0.5 * (u - x).abs().double().square().flatten(1).sum(1)
        return gap.clamp_min(0.0) / primal.clamp_min(torch.finfo(torch.float64).tiny)

    if start is None:
        p = torch.zeros(x.shape[0], axes, *x.shape[1:], dtype=x.dtype, device=x.device)
    else:
        p = project(_without_edges(start.to(dtype=x.dtype, device=x.device))[:, :, None])
    q, t = p, torch.ones(x.shape[0], dtype=tau.dtype, device=x.device)
    active = torch.ones_like(t, dtype=torch.bool)
    count = torch.zeros_like(t, dtype=torch.long)
    iteration = 0
    while True:
        if iteration % _CHECK_EVERY == 0 or iteration == max_iterations:
            with torch.no_grad():
                active = active & (gaps(p) > tolerance)
            if iteration >= max_iterations or not bool(active.any()):
                break
        new = project(q + step * gradient(x - gradient_adjoint(q, spacing), spacing))
        new = torch.where(active.reshape(column), new, p)
        moved = new - p
        uphill = ((q - new).conj() * moved).real if p.is_complex() else (q - new) * moved
        t = torch.where(uphill.detach().flatten(1).sum(1) > 0, 1.0, t)
        following = 0.5 * (1.0 + (1.0 + 4.0 * t.square()).sqrt())
        q = new + ((t - 1.0) / following).reshape(column) * moved
        p, t = new, following
        iteration += 1
        count = count + active.long()
    with torch.no_grad():
        final = gaps(p)
    u = (x - gradient_adjoint(p, spacing))[:, 0]
    return u, p[:, :, 0], [float(g) for g in final], [int(c) for c in count]


def _without_edges(p: Tensor) -> Tensor:
    """No difference crosses the far edge, so its dual is zero."""
    parts = []
    for axis, part in enumerate(p.unbind(1)):
        inner = torch.ones(part.shape[axis + 1], dtype=torch.bool, device=p.device)
        inner[-1] = False
        parts.append(part * inner.reshape(-1, *(1,) * (part.ndim - axis - 2)))
    return torch.stack(parts, dim=1)


def _magnitude(g: Tensor, axes: int, isotropic: bool) -> Tensor:
    if not isotropic:
        return g.abs()
    energy = g.abs().square() if g.is_complex() else g.square()
    # under autograd √ would have an infinite slope at 0, where the projection ignores the magnitude anyway
    return energy.sum(-axes - 2, keepdim=True).clamp_min(torch.finfo(energy.dtype).tiny).sqrt()
