"""What every noise law can do.

A law p(y | m) of data y given their ideal value m, independent from datum to datum (but for `ColouredGaussian`). It is
an immutable value: drawing from it, or evaluating it, never changes it, and its constants are checked when it is made.

    score(y, m)       = ∂ log p(y | m) / ∂m
    expectation(m)    = E y                                          (m itself, unless a law says otherwise)
    variance(m)       = E |y − E y|²
    residual(y, m)    = (y − E y) / √variance(m)
    weight(m)         = 1 / variance(m)                              (W in (AᴴWA + λI)⁻¹)
    information(m)    = E score² per real coordinate of m            (twice the weight for a circular complex law)
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from numbers import Real
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError

__all__ = ["Noise", "stream"]

_BLOCK = 1 << 13  # elements at once where each is summed or integrated over a few hundred nodes: some 20 MB


@dataclasses.dataclass(frozen=True, eq=False)
class Noise:
    """Base of the noise laws; a subclass writes `sample`, `log_prob`, `variance` and `scaled`."""

    gaussian: ClassVar[bool] = False
    """Whether the law is Gaussian with a variance that does not depend on the mean."""
    complex: ClassVar[bool] = False
    """Whether data are complex."""
    signed: ClassVar[bool] = True
    """Whether data may be negative."""
    log_concave: ClassVar[bool] = True
    """Whether −log p(y | m) is convex in m for every y."""
    independent: ClassVar[bool] = True
    """Whether data are independent of each other, so that one weight per datum says all."""

    def sample(self, mean: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Data drawn around `mean`, with its shape, dtype and device.

        The random numbers are drawn on the generator's device, so a CPU generator gives the same data for a mean on
        any device.
        """
        raise NotImplementedError(f"{type(self).__name__} must define sample")

    def log_prob(self, y: Tensor, mean: Tensor) -> Tensor:
        """log p(y | mean), elementwise and real."""
        raise NotImplementedError(f"{type(self).__name__} must define log_prob")

    def variance(self, mean: Tensor) -> Tensor:
        """E |y − E y|², elementwise and real."""
        raise NotImplementedError(f"{type(self).__name__} must define variance")

    def scaled(self, factor: float) -> "Noise":
        """The law of `factor · y` when y follows this law, in terms of the mean `factor · m`."""
        raise NotImplementedError(f"{type(self).__name__} must define scaled")

    def expectation(self, mean: Tensor) -> Tensor:
        """E y, elementwise."""
        return mean

    def residual(self, y: Tensor, mean: Tensor) -> Tensor:
        """The data less their expectation, in standard deviations: of mean 0 and mean square 1, and white."""
        return (y - self.expectation(mean)) * self.weight(mean).sqrt()

    def score(self, y: Tensor, mean: Tensor) -> Tensor:
        """∂ log p(y | mean) / ∂mean, elementwise; for complex means ∂/∂Re + i ∂/∂Im."""
        with torch.enable_grad():
            point = mean.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(self.log_prob(y, point).sum(), point)
        return gradient

    def weight(self, mean: Tensor) -> Tensor:
        """1 / variance, elementwise, real and finite."""
        return 1.0 / self.variance(mean)

    def information(self, mean: Tensor) -> Tensor:
        """Fisher information about each real coordinate of the mean, elementwise.

        Where the law has no closed form this is 1/variance, which never exceeds it (Cramér–Rao)."""
        return (2.0 if self.complex else 1.0) * self.weight(mean)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """The constants that are tensors, by name, those of a wrapped law among them."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                yield field.name, value
            elif isinstance(value, Noise):
                yield from value.tensors()

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(_same(getattr(self, f.name), getattr(other, f.name)) for f in dataclasses.fields(self))

    def __hash__(self) -> int:
        constants = (getattr(self, f.name) for f in dataclasses.fields(self))
        return hash((type(self), *(tuple(c.shape) if isinstance(c, Tensor) else c for c in constants)))


def stream(seed: int, index: int) -> torch.Generator:
    """The random stream of item `index` of a batch: the same however the batch is split."""
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise InputError(f"expected a seed of at least zero, got {seed!r}; pass a non-negative integer")
    state = np.random.SeedSequence((seed, index)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def positive(value: float | Tensor, owner: str, name: str) -> float | Tensor:
    """`value` as a positive finite float, or a detached copy of a tensor of such numbers."""
    if isinstance(value, Tensor):
        if value.is_complex() or not value.is_floating_point() or not bool(((value > 0) & value.isfinite()).all()):
            raise InputError(
                f"{owner} expects a {name} of positive finite real numbers, got another {value.dtype} tensor; "
                "mask bad pixels with operators.Mask instead"
            )
        return value.detach().clone()
    if isinstance(value, bool) or not isinstance(value, Real) or not (math.isfinite(value) and value > 0):
        raise InputError(f"{owner} expects a positive finite {name}, got {value!r}; pass a number above zero")
    return float(value)


def in_blocks(function: Callable[[Tensor], Tensor], value: Tensor) -> Tensor:
    """An elementwise function that needs much memory per element, on `value` a block at a time."""
    flat = value.reshape(-1)
    return torch.cat([function(block) for block in flat.split(_BLOCK)]).reshape(value.shape) if len(flat) else value


def like(value: float | Tensor, other: Tensor) -> float | Tensor:
    """A constant in the real precision and on the device of `other`."""
    if not isinstance(value, Tensor):
        return value
    return value.to(dtype=other.real.dtype if other.is_complex() else other.dtype, device=other.device)


def real_only(value: Tensor, owner: str) -> Tensor:
    """`value`, refused when it is complex or not floating."""
    if not isinstance(value, Tensor):
        raise InputError(f"{owner} expects a torch tensor, got {type(value).__name__}; convert it with torch.as_tensor")
    if not value.is_floating_point():
        kind = "complex" if value.is_complex() else str(value.dtype)
        hint = "use ComplexGaussian for complex data" if value.is_complex() else "convert with .float() or .double()"
        raise InputError(f"{owner} expects real floating-point data, got {kind}; {hint}")
    return value


def source_device(mean: Tensor, generator: torch.Generator | None) -> torch.device:
    """Where random numbers are drawn."""
    return mean.device if generator is None else generator.device


def _same(a: object, b: object) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    return not isinstance(a, Tensor) and not isinstance(b, Tensor) and a == b
