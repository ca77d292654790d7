"""A measurement: an operator and a noise law.

    y ~ p(· | A(x)),       −log p(y | x) = −Σ_i log p(y_i | (A x)_i)

    gradient     ∇ₓ −log p(y | x) = −Jᴴ score(y, A x),     J the Jacobian of A
    residual     r = (y − E y)/√variance(A x),   E y = A x for most laws
    chi2         mean |r|², about 1 when operator, noise and image are right

Example:
    >>> import torch
    >>> from obverse import noise, operators, problem
    >>> p = problem.Problem(operators.Identity((1, 4, 4)), noise.Gaussian(0.5))
    >>> y = p.simulate(torch.zeros(1, 4, 4), seed=0)
    >>> bool(torch.equal(y, p.simulate(torch.zeros(1, 4, 4), seed=0)))
    True
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import InputError
from .noise.base import Noise, stream
from .operators.base import LinearOperator, Operator

__all__ = ["Problem"]


@dataclass(frozen=True)
class Problem:
    """An operator and a noise law: how likely data are, given an image.

    Args:
        operator: image `(*batch, *image_shape)` → ideal data `(*batch, *data_shape)`.
        noise: law of the data around the ideal data; a tensor among its constants must broadcast to `data_shape`.
    """

    operator: Operator
    noise: Noise

    def __post_init__(self):
        if not isinstance(self.operator, Operator):
            raise InputError(
                f"Problem expects an Operator first, got {type(self.operator).__name__}; see obverse.operators"
            )
        if not isinstance(self.noise, Noise):
            raise InputError(f"Problem expects a noise law second, got {type(self.noise).__name__}; see obverse.noise")
        for name, constant in self.noise.tensors():
            shape = self.operator.data_shape
            fits = constant.ndim <= len(shape) and all(
                s in (1, n) for s, n in zip(reversed(constant.shape), reversed(shape), strict=False)
            )
            if not fits:
                raise InputError(
                    f"Problem expects a {name} that broadcasts to data {shape}, got {tuple(constant.shape)}"
                )

    def simulate(self, x: Tensor, seed: int | torch.Generator = 0, *, first: int = 0) -> Tensor:
        """Data of the image `x`, `(*batch, *image_shape)` → `(*batch, *data_shape)`.

        Item i of the batch has its own random stream, made from `seed` and `first + i`, so that a batch drawn in pieces
        equals the batch drawn at once.

        Args:
            seed: a non-negative integer, or a generator from which one is drawn.
            first: index of the first item, for a batch drawn in pieces.
        """
        mean = self.operator(x)
        if not bool(mean.isfinite().all()):
            raise InputError("simulate expects an image whose ideal data are finite, got NaN or Inf; check the image")
        if isinstance(seed, torch.Generator):
            seed = int(torch.randint(2**62, (1,), generator=seed, device=seed.device))
        items = mean.reshape(-1, *self.operator.data_shape)
        draws = [self.noise.sample(item, stream(seed, first + i)) for i, item in enumerate(items)]
        return torch.stack(draws).reshape(mean.shape) if draws else mean

    def log_likelihood(self, x: Tensor, y: Tensor) -> Tensor:
        """log p(y | x), summed over the data of each item: batch shape."""
        self._check(y)
        values = self.noise.log_prob(y, self.operator(x))
        return values.sum(dim=tuple(range(-len(self.operator.data_shape), 0)))

    def residual(self, x: Tensor, y: Tensor) -> Tensor:
        """(y − A x)/√variance(A x): white, of unit variance, when the model is right.

        Where the data's expectation is not A x (magnitudes, logarithms of counts, clipped data), it takes its place.
        """
        self._check(y)
        return self.noise.residual(y, self.operator(x))

    def chi2(self, x: Tensor, y: Tensor) -> Tensor:
        """Mean |residual|² per datum, batch shape: about 1, to ±√(2/n), for Gaussian data at the true image."""
        r = self.residual(x, y)
        energy = r.real.square() + r.imag.square() if r.is_complex() else r.square()
        return energy.mean(dim=tuple(range(-len(self.operator.data_shape), 0)))

    def weight(self, x: Tensor | None = None, y: Tensor | None = None) -> Tensor:
        """W = 1/variance, shape `(*batch, *data_shape)`.

        The variance is that at the mean A x; without an image, at the data themselves as an estimate of their mean;
        with neither, possible only where the variance does not depend on the mean, `data_shape`.
        """
        return self.noise.weight(self._mean(x, y))

    def fisher_weight(self, x: Tensor | None = None, y: Tensor | None = None) -> Tensor:
        """Fisher information of the data about each real coordinate of their mean; arguments as in `weight`.

        JᴴFJ is the Gauss–Newton Hessian of −log p(y | x). F is W for real data and 2W for circular complex data.
        """
        if not self.noise.independent:
            raise InputError(
                f"a Fisher weight per datum expects independent noise, got {type(self.noise).__name__}; pass "
                "noise.whiten(y), an operator followed by noise.whiten, and Gaussian(1.0)"
            )
        return self.noise.information(self._mean(x, y))

    def gradient(self, x: Tensor, y: Tensor) -> Tensor:
        """∇ₓ −log p(y | x), shape of `x`; for complex images ∂/∂Re + i ∂/∂Im, as autograd has it."""
        self._check(y)
        if isinstance(self.operator, LinearOperator):
            return self.operator.adjoint(-self.noise.score(y, self.operator(x)))
        mean, pull = torch.func.vjp(self.operator, x)[:2]
        return pull(-self.noise.score(y, mean))[0]

    def _mean(self, x: Tensor | None, y: Tensor | None) -> Tensor:
        if x is not None:
            return self.operator(x)
        if y is not None:
            self._check(y)
            return y
        if not self.noise.gaussian:
            raise InputError(
                f"the variance of {type(self.noise).__name__} noise depends on the mean; pass an image x or data y"
            )
        sigma = getattr(self.noise, "sigma", None)
        device = sigma.device if isinstance(sigma, Tensor) else None
        real = torch.empty(0, dtype=self.operator.dtype).abs().dtype
        return torch.zeros((), dtype=real, device=device).expand(self.operator.data_shape)

    def _check(self, y: Tensor) -> None:
        law, shape = type(self.noise).__name__, self.operator.data_shape
        if not isinstance(y, Tensor):
            raise InputError(f"expected data as a tensor, got {type(y).__name__}; pass torch.as_tensor(y)")
        if tuple(y.shape[max(y.ndim - len(shape), 0) :]) != shape:
            raise InputError(f"expected data of shape (*batch, {', '.join(map(str, shape))}), got {tuple(y.shape)}")
        if y.is_complex() != self.noise.complex:
            kinds = ("real", "complex")
            raise InputError(
                f"{law} noise expects {kinds[self.noise.complex]} data, got {kinds[y.is_complex()]}; "
                "use ComplexGaussian for complex data and another law for real data"
            )
        if not (y.is_floating_point() or y.is_complex()):
            raise InputError(f"expected floating-point data, got {y.dtype}; convert with .float() or .double()")
        if not bool(y.isfinite().all()):
            raise InputError("expected finite data, got NaN or Inf; mask bad pixels with operators.Mask")
        if not self.noise.signed and bool((y < 0).any()):
            raise InputError(
                f"{law} noise expects data of at least zero, got {float(y.min()):g}; add back the offset that was "
                "subtracted, or use PoissonGaussian"
            )
