"""The non-uniform Fourier sum and its adjoint as differentiable functions of the values and of the points.

    forward   y_m  = Σ_r x(r) exp(−2πi k_m·r)            adjoint   x(r) = Σ_m y_m exp(+2πi k_m·r),      r = n − N // 2

Each is the other's derivative in its values. In the points, dy_m = Σ_r (−2πi r·dk_m) x(r) exp(−2πi k_m·r), a forward
sum of the image times its coordinates; so that derivatives of every order are sums of the same two kinds.

Two engines compute them: finufft, on CPUs where it is installed, and `gridding` in plain torch. finufft's plans (sorted
points, Fourier workspace) are kept by a `Transform`, which operators keep outside themselves: plans cannot be pickled.

References: Barnett, Magland, af Klinteberg, "A parallel nonuniform fast Fourier transform library based on an
    'exponential of semicircle' kernel", SIAM J. Sci. Comput. 2019 (finufft).
"""

import functools
import math
import threading
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from .gridding import adjoint_by_gridding, forward_by_gridding

__all__ = ["ENGINES", "Transform", "adjoint_sum", "forward_sum", "require_engine"]

ENGINES = ("auto", "finufft", "torch")
_FINEST = {torch.complex64: 1e-6, torch.complex128: 1e-14}
"""Accuracies that rounding leaves within reach."""
_ROUNDING = 2e-7
"""finufft rounds points to the precision of the values: an error of some 5e-8 N in single precision. Accuracies finer
than _ROUNDING · N are therefore computed in double precision, which takes about as long."""


class Transform:
    """Both sums for one set of points, without gradients; safe to use from several threads.

    Args:
        points: `(M, axes)`, cycles per pixel.
        grid: the image's spatial shape.
        engine: one of `ENGINES`.
    """

    def __init__(self, points: Tensor, grid: Sequence[int], engine: str = "auto"):
        self.points = points.detach()
        self.grid = tuple(grid)
        self._engine = engine
        self._plans: dict[tuple[Any, ...], Any] = {}
        self._lock = threading.Lock()

    def forward(self, x: Tensor, accuracy: float) -> Tensor:
        """Images `(B, *grid)` → samples `(B, M)`."""
        if self._by_finufft(x):
            return self._executed(2, x, (len(self.points),), accuracy)
        return forward_by_gridding(x, self.points.to(x.device), _reachable(accuracy, x.dtype))

    def adjoint(self, y: Tensor, accuracy: float) -> Tensor:
        """Samples `(B, M)` → images `(B, *grid)`."""
        if self._by_finufft(y):
            return self._executed(1, y, self.grid, accuracy)
        return adjoint_by_gridding(y, self.points.to(y.device), self.grid, _reachable(accuracy, y.dtype))

    def _by_finufft(self, values: Tensor) -> bool:
        return self._engine != "torch" and values.device.type == "cpu" and finufft_is_installed()

    def _executed(self, kind: int, values: Tensor, shape: tuple[int, ...], accuracy: float) -> Tensor:
        """finufft's transform of type 2 (forward) or 1 (adjoint)."""
        accuracy = _reachable(accuracy, values.dtype)
        dtype = torch.complex128 if accuracy < _ROUNDING * max(self.grid) else values.dtype
        source = values.detach().resolve_conj().resolve_neg().to(dtype).contiguous()
        result = source.new_empty((len(values), *shape))
        with self._lock:  # a plan's workspace serves one transform at a time
            plan = self._plan(kind, dtype, accuracy)
            for one, out in zip(source.numpy(), result.numpy()):
                plan.execute(one, out=out)
        return result.to(values.dtype)

    def _plan(self, kind: int, dtype: torch.dtype, accuracy: float) -> Any:
        threads = torch.get_num_threads()
        key = (kind, dtype, accuracy, threads)
        if key not in self._plans:
            import finufft

            name = str(dtype).removeprefix("torch.")
            sign = -1 if kind == 2 else 1
            plan = finufft.Plan(kind, self.grid, 1, accuracy, sign, name, nthreads=threads)
            angles = 2 * math.pi * (self.points.double() - self.points.double().round())
            angles = angles.to(device="cpu", dtype=torch.empty((), dtype=dtype).real.dtype)
            plan.setpts(*(angle.contiguous().numpy() for angle in angles.unbind(1)))
            self._plans[key] = plan
        return self._plans[key]


def forward_sum(x: Tensor, points: Tensor, transform: Transform, accuracy: float) -> Tensor:
    """Images `(B, *grid)` → samples `(B, M)`, differentiable in `x` and `points`, which must be the transform's."""
    return _Forward.apply(x, points, transform, accuracy)  # type: ignore[return-value]


def adjoint_sum(y: Tensor, points: Tensor, transform: Transform, accuracy: float) -> Tensor:
    """Samples `(B, M)` → images `(B, *grid)`, differentiable in `y` and `points`."""
    return _Adjoint.apply(y, points, transform, accuracy)  # type: ignore[return-value]


@functools.cache
def finufft_is_installed() -> bool:
    return find_spec("finufft") is not None


def require_engine(engine: str, name: str):
    """An InputError unless `engine` is known and installed."""
    if engine not in ENGINES:
        raise InputError(f"{name} expects engine {', '.join(map(repr, ENGINES))}, got {engine!r}; choose one")
    if engine == "finufft" and not finufft_is_installed():
        raise InputError(f"{name} expects finufft for engine='finufft', which is missing; pip install obverse[nufft]")


class _Forward(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, points: Tensor, transform: Transform, accuracy: float) -> Tensor:
        return transform.forward(x, accuracy)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor):
        _remember(ctx, inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        if gradients[0] is None:
            return None, None, None, None
        x, points = ctx.saved_tensors
        (g,), fixed = gradients, (points, ctx.transform, ctx.accuracy)
        to_x = adjoint_sum(g, *fixed) if ctx.needs_input_grad[0] else None
        to_points = _to_points(g, x, *fixed) if ctx.needs_input_grad[1] else None
        return to_x, to_points, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        x, points = ctx.saved_tensors
        v, dk = tangents[:2]
        fixed = (points, ctx.transform, ctx.accuracy)
        total = forward_sum(v, *fixed) if v is not None else 0.0
        for axis, image in _along_axes(x, dk):
            total = total + dk[:, axis] * forward_sum(image, *fixed)
        return total  # type: ignore[return-value]


class _Adjoint(torch.autograd.Function):
    @staticmethod
    def forward(y: Tensor, points: Tensor, transform: Transform, accuracy: float) -> Tensor:
        return transform.adjoint(y, accuracy)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor):
        _remember(ctx, inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        if gradients[0] is None:
            return None, None, None, None
        y, points = ctx.saved_tensors
        (g,), fixed = gradients, (points, ctx.transform, ctx.accuracy)
        to_y = forward_sum(g, *fixed) if ctx.needs_input_grad[0] else None
        to_points = _to_points(y, g, *fixed) if ctx.needs_input_grad[1] else None
        return to_y, to_points, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        y, points = ctx.saved_tensors
        u, dk = tangents[:2]
        fixed = (points, ctx.transform, ctx.accuracy)
        total = adjoint_sum(u, *fixed) if u is not None else 0.0
        if dk is not None:
            for axis, place in enumerate(_coordinates(ctx.transform.grid, y)):
                total = total + 2j * math.pi * place * adjoint_sum(dk[:, axis] * y, *fixed)
        return total  # type: ignore[return-value]


def _remember(ctx: Any, inputs: tuple[Any, ...]):
    values, points, ctx.transform, ctx.accuracy = inputs
    ctx.save_for_backward(values, points)
    ctx.save_for_forward(values, points)
    ctx.set_materialize_grads(False)  # None says that a derivative is zero, and saves a sum


def _to_points(y: Tensor, x: Tensor, points: Tensor, transform: Transform, accuracy: float) -> Tensor:
    """Gradient of Re⟨y, F_k x⟩ with respect to the points."""
    columns = [
        (y.conj() * forward_sum(image, points, transform, accuracy)).real.sum(0) for _, image in _along_axes(x, points)
    ]
    return torch.stack(columns, 1).to(points.dtype)


def _along_axes(x: Tensor, wanted: Tensor | None) -> list[tuple[int, Tensor]]:
    """For each axis, −2πi r x(r); nothing if no derivative is wanted."""
    if wanted is None:
        return []
    return [(i, -2j * math.pi * place * x) for i, place in enumerate(_coordinates(x.shape[1:], x))]


def _coordinates(grid: Sequence[int], like: Tensor) -> list[Tensor]:
    """r along each axis, shaped to multiply images."""
    return [
        (torch.arange(n, device=like.device, dtype=like.real.dtype) - n // 2).reshape(-1, *(1,) * (len(grid) - 1 - i))
        for i, n in enumerate(grid)
    ]


def _reachable(accuracy: float, dtype: torch.dtype) -> float:
    return max(accuracy, _FINEST[dtype])
