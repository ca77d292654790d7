"""Anderson acceleration: fixed points z = f(z) in fewer evaluations of f than repeating it takes.

With residuals r = f(z) − z and the differences of the last m steps as columns of ΔR and ΔF (type II, mixing β),

    γ = argmin ‖r − ΔR γ‖² + ridge,       z⁺ = (f(z) − ΔF γ) − (1 − β) (r − ΔR γ),      β = 1 unless it had to fall

For an affine f this is GMRES up to a shift, so that it also finds fixed points that repeating f runs away from. The
columns are brought to unit length before the ridge is added. Leading batch axes are independent problems, each with
coefficients of its own; one that is finished no longer moves.

Safeguard: where a step more than doubles the smallest residual seen, the memory is emptied and the iteration starts
again from the best point by z + β r, with β halved if that point is still the one of the last restart. With memory 0
the map is merely repeated, without safeguard. Criterion, of the very point returned:

    ‖f(z) − z‖ ≤ tolerance · max(‖f(z)‖, ‖f(z₀)‖)

References: Anderson, "Iterative procedures for nonlinear integral equations", J. ACM 1965. Walker, Ni, "Anderson
acceleration for fixed-point iterations", SIAM J. Numer. Anal. 2011.
"""

import torch
from torch import Tensor

from ..errors import InputError
from .algebra import Callback, Map, check_limits, check_vector, guard, resolution
from .result import Result, Status

__all__ = ["anderson"]

_GROWTH = 2.0  # a residual above this multiple of the best one restarts the iteration
_SHORTEST = 2.0**-6  # mixing below which a restart is given up
_RUNAWAY = 1e8  # growth of the residual of a repeated map that is called divergence

# How an item ended; the larger number is the one reported when the items of a batch ended differently.
_ACTIVE, _CONVERGED, _LIMIT, _STUCK, _DIVERGED, _NOT_FINITE = range(6)
_ENDINGS = {
    _LIMIT: ("max-iterations", "the iteration limit came first", "allow more iterations or more memory"),
    _STUCK: (
        "stagnation",
        "no step along f(z) − z lets the residual fall any more",
        "accept the residual reached, work in float64, or make f a contraction",
    ),
    _DIVERGED: ("diverged", "repeating f enlarges the residual", "use memory above 0, or average f with the identity"),
    _NOT_FINITE: ("not-finite", "f returned NaN or infinity at the start", "check f and the starting point"),
}


def anderson(
    f: Map,
    z0: Tensor,
    *,
    memory: int = 5,
    tolerance: float = 1e-6,
    max_iterations: int = 100,
    batch_dims: int = 0,
    ridge: float | None = None,
    callback: Callback | None = None,
) -> Result:
    """Find z with f(z) = z.

    Args:
        f: z ↦ f(z) on tensors of z0's shape; items of a batch must not influence each other.
        z0: starting point, real or complex; the first `batch_dims` axes are independent problems.
        memory: m, differences kept; 0 repeats the map.
        tolerance: largest relative residual accepted, for every item.
        max_iterations: limit on the evaluations of f.
        batch_dims: number of leading batch axes.
        ridge: added to the unit-length columns' Gram matrix; by default 1e-6 in float32 and 1e-12 in float64.
        callback: called as callback(iteration, limit, residual) with the largest relative residual.

    Returns:
        Result whose `x` is, for each item, the point of the smallest residual seen, and whose `residual` is the largest
        of those.

    Raises:
        InputError: z0 is not finite, or a shape, limit or constant is wrong.

    Example:
        >>> result = anderson(torch.cos, torch.zeros(1, dtype=torch.float64), tolerance=1e-12)
        >>> result.status.converged, result.iterations < 20, round(result.x.item(), 6)
        (True, True, 0.739085)
    """
    z = check_vector(z0, "z0", batch_dims)
    check_limits(tolerance, max_iterations)
    if isinstance(memory, bool) or not isinstance(memory, int) or memory < 0:
        raise InputError(f"anderson expects a memory of at least 0, got {memory!r}; 5 is a usual choice")
    if ridge is None:
        ridge = 1e-6 if resolution(z.dtype) > 1e-10 else 1e-12
    if not 0 < ridge < 1:
        raise InputError(f"anderson expects a ridge between 0 and 1, got {ridge}; leave it out for the default")
    state = _Items(guard(f, "f", z.shape), z, memory, tolerance, batch_dims, ridge)
    history: list[float] = []
    while state.running() and len(history) < max_iterations:
        history.append(state.advance())
        if callback is not None:
            callback(len(history), max_iterations, history[-1])
    return state.finish(history)


class _Items:
    """The batch as rows of real numbers: points, differences and how each one ended."""

    def __init__(self, f: Map, z0: Tensor, memory: int, tolerance: float, dims: int, ridge: float):
        self.f, self.like, self.memory, self.tolerance, self.ridge = f, z0, memory, tolerance, ridge
        self.count = z0.shape[:dims].numel()
        self.z = self.best_z = self.best_f = self._rows(z0)
        self.code = torch.full((self.count, 1), _ACTIVE, device=z0.device)
        self.best = self.z.new_full((self.count, 1), float("inf"))  # ‖f(z) − z‖ at the best point
        self.residual = self.best  # the same relative to f(z)
        self.mixing = torch.ones_like(self.best)
        self.failed = torch.zeros_like(self.code, dtype=torch.bool)  # restarted, and no better point since
        self.floor = torch.zeros_like(self.best)  # size of f(z₀)
        self.columns_r: list[Tensor] = []
        self.columns_f: list[Tensor] = []
        self.previous: tuple[Tensor, Tensor] | None = None

    def running(self) -> bool:
        return bool((self.code == _ACTIVE).any())

    def advance(self) -> float:
        """One evaluation of f; the largest relative residual after it."""
        image = self._rows(self.f(self._shaped(self.z)))
        r = image - self.z
        size, reach = (torch.linalg.vector_norm(v, dim=1, keepdim=True) for v in (r, image))
        first = self.previous is None
        if first:
            self.floor = reach
        size = size.nan_to_num(nan=float("inf"), posinf=float("inf"))
        relative = torch.where(size > 0, size / torch.maximum(reach, self.floor), 0.0).nan_to_num(nan=float("inf"))
        active, bad = self.code == _ACTIVE, ~(size <= _GROWTH * self.best)
        better = active & (size < self.best)
        self.best, self.residual = torch.where(better, size, self.best), torch.where(better, relative, self.residual)
        self.best_z, self.best_f = torch.where(better, self.z, self.best_z), torch.where(better, image, self.best_f)
        self.failed = self.failed & ~better
        self._end(better & (relative <= self.tolerance), _CONVERGED)
        if first:
            self._end(~size.isfinite(), _NOT_FINITE)
        if self.memory == 0:
            self._end(~(size <= _RUNAWAY * self.best), _DIVERGED)
            following, self.previous = image, (image, r)
        else:
            following = self._extrapolated(image, r, bad)
        self.z = torch.where(self.code == _ACTIVE, following, self.z)
        return float(torch.where(active, relative, self.residual).max()) if self.count else 0.0

    def finish(self, history: list[float]) -> Result:
        """The best point of each item and what became of it."""
        self._end(torch.ones_like(self.failed), _LIMIT)
        residual = float(self.residual.max()) if self.count else 0.0
        point = self._shaped(self.best_z)
        return Result(point, self._status(residual, len(history)), len(history), residual, tuple(history))

    def _extrapolated(self, image: Tensor, r: Tensor, bad: Tensor) -> Tensor:
        """The next point of every item; where the last step was `bad`, from the best point and without memory."""
        if self.previous is not None:
            self._remember(image - self.previous[0], r - self.previous[1], bad)
        self.mixing = torch.where(self.failed, torch.where(bad, 0.5 * self.mixing, self.mixing), 1.0)
        self._end(self.mixing < _SHORTEST, _STUCK)
        self.failed = self.failed | bad
        point = torch.where(bad, self.best_f, image)
        step = torch.where(bad, self.best_f - self.best_z, r)
        self.previous = (point, step)
        if self.columns_r:
            gamma = self._coefficients(step)
            point = torch.stack([point, *(-g * column for g, column in zip(gamma, self.columns_f))]).sum(0)
            step = torch.stack([step, *(-g * column for g, column in zip(gamma, self.columns_r))]).sum(0)
        return point - (1.0 - self.mixing) * step

    def _remember(self, image: Tensor, r: Tensor, forget: Tensor) -> None:
        """Keep the newest differences, and none where told to forget: columns of zeros get the coefficient zero."""
        for columns, newest in ((self.columns_f, image), (self.columns_r, r)):
            columns.append(newest)
            del columns[: -self.memory]
            if bool(forget.any()):
                columns[:] = [torch.where(forget, 0.0, column) for column in columns]

    def _coefficients(self, r: Tensor) -> list[Tensor]:
        """γ of the regularised least squares, item by item, one column `(items, 1)` for each difference."""
        stack = torch.stack(self.columns_r, dim=1)  # (items, m, n)
        gram, right = (stack @ stack.mT).double(), (stack @ r[..., None]).double()
        length = gram.diagonal(dim1=1, dim2=2).sqrt()[..., None]
        length = torch.where(length > 0, length, 1.0)
        eye = torch.eye(len(self.columns_r), dtype=gram.dtype, device=gram.device)
        solution, info = torch.linalg.solve_ex(gram / (length * length.mT) + self.ridge * eye, right / length)
        usable = (info == 0)[:, None, None] & solution.isfinite().all(1, keepdim=True)
        gamma = torch.where(usable, solution / length, 0.0).to(r.dtype)
        return list(gamma.unbind(1))

    def _end(self, where: Tensor, code: int) -> None:
        self.code = torch.where((self.code == _ACTIVE) & where, code, self.code)

    def _rows(self, v: Tensor) -> Tensor:
        real = torch.view_as_real(v.resolve_conj()) if v.is_complex() else v
        return real.reshape(self.count, real.numel() // max(self.count, 1))

    def _shaped(self, rows: Tensor) -> Tensor:
        if self.like.is_complex():
            return torch.view_as_complex(rows.reshape(*self.like.shape, 2))
        return rows.reshape(self.like.shape)

    def _status(self, residual: float, evaluations: int) -> Status:
        worst = int(self.code.max()) if self.count else _CONVERGED
        if worst == _CONVERGED:
            text = f"relative residual {residual:.2e} ≤ {self.tolerance:.2e} after {evaluations} evaluations"
            return Status(True, "converged", text)
        reason, why, remedy = _ENDINGS[worst]
        missed = int((self.code != _CONVERGED).sum())
        which = f"{missed} of {self.count} items" if self.count > 1 else "the fixed-point iteration"
        text = (
            f"{which} did not reach {self.tolerance:.2e}: after {evaluations} evaluations the largest residual "
            f"is {residual:.2e} of f(z) because {why}; {remedy}"
        )
        return Status(False, reason, text)
