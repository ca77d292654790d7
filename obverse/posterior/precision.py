"""A covariance known through its inverse: Σ = Q⁻¹ with Q = Aᴴ W A + P given as a product.

    Σ v = Q⁻¹ v by preconditioned conjugate gradients,     x = Q⁻¹ ε with ε ~ N(0, Q) is a draw from N(0, Σ)

The draw is perturb-and-optimise: if Q = AᴴWA + P, then ε = Aᴴ W^½ z₁ + P^½ z₂. Marginal variances are exact up to
4096 pixels (a dense Cholesky factor, which costs n products), and estimated above, with a standard error: by coloured
probing, or by draws where correlations reach too far for probing to be the more precise.

References: Papandreou, Yuille, "Gaussian sampling by local perturbations", NeurIPS 2010. Orieux, Féron, Giovannelli,
"Sampling high-dimensional Gaussian distributions for general linear inverse problems", IEEE SPL 2012.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..errors import InputError, NumericsError
from ..solvers.linear import cg
from ..solvers.result import Result
from .covariance import DENSE_LIMIT, Covariance, solved, streams
from .probing import Probed, drawn_diagonal, probe_diagonal

__all__ = ["PrecisionCovariance"]

# Images that go through one batched conjugate-gradient run: at most this many numbers per work array.
_BATCH_NUMBERS = 2**22


class PrecisionCovariance(Covariance):
    """Σ = Q⁻¹, matrix-free.

    Args:
        precision: Q, a symmetric positive definite product on images `(b, *image_shape)`.
        image_shape: `(C, H, W)` or `(C, D, H, W)`.
        preconditioner: approximate Q⁻¹: a callable on `(b, *image_shape)` or a `Covariance`, such as what
            `circulant_preconditioner` returns. A `Covariance` also serves as control variate of the probed diagonal.
        perturbation: `generator → image`, a draw from N(0, Q) of shape `image_shape`; without it there is no `sample`.
        diagonal: marginal variances `image_shape`, if known.
        tolerance: relative residual of the solves; by default 1e-5 in float32 and 1e-10 in float64.
        max_iterations: of one solve.
        probes: budget of solves for the diagonal of images above 4096 pixels.
        seed: of the probes.

    Example:
        >>> precision = PrecisionCovariance(lambda v: 4 * v, (1, 8, 8), dtype=torch.float64)
        >>> float(precision.matvec(torch.ones(64, dtype=torch.float64))[0])
        0.25
    """

    def __init__(
        self,
        precision: Callable[[Tensor], Tensor],
        image_shape: Sequence[int],
        *,
        preconditioner: Callable[[Tensor], Tensor] | Covariance | None = None,
        perturbation: Callable[[torch.Generator], Tensor] | None = None,
        diagonal: Tensor | None = None,
        tolerance: float | None = None,
        max_iterations: int = 1000,
        probes: int = 128,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        super().__init__(image_shape, dtype, device)
        self.precision = precision
        self.perturbation = perturbation
        self.tolerance = (1e-5 if dtype == torch.float32 else 1e-10) if tolerance is None else tolerance
        self.max_iterations, self.probes, self.seed = max_iterations, probes, seed
        self._control = preconditioner if isinstance(preconditioner, Covariance) else None
        self._preconditioner = preconditioner.matvec if isinstance(preconditioner, Covariance) else preconditioner
        self._inverse: tuple[Tensor, float] | None = None
        self._probed: Probed | None = None
        self._given = diagonal
        if diagonal is not None and tuple(diagonal.shape) != self.image_shape:
            raise InputError(f"diagonal expects shape {self.image_shape}, got {tuple(diagonal.shape)}; reshape it")

    def _matvec(self, images: Tensor) -> Tensor:
        chunk = max(1, _BATCH_NUMBERS // self.size)
        return torch.cat([self._conjugate_gradients(part) for part in images.split(chunk)])

    def _conjugate_gradients(self, images: Tensor) -> Tensor:
        result = self._cg(images, self._preconditioner)
        if result.status.reason == "stagnation" and images.dtype == torch.float32:
            # Rounding stopped it: the same operator in double precision gets there, at about twice the price.
            outer = self._preconditioner
            wide = None if outer is None else lambda v: outer(v.float()).double()
            result = self._cg(images.double(), wide)
        return solved(result, self.tolerance, "the product with a precision's inverse").to(images.dtype)

    def _cg(self, images: Tensor, preconditioner: Callable[[Tensor], Tensor] | None) -> Result:
        return cg(
            self.precision,
            images,
            preconditioner=preconditioner,
            tolerance=self.tolerance,
            max_iterations=self.max_iterations,
            batch_dims=1,
        )

    def _solve(self, images: Tensor) -> Tensor:
        return self.precision(images)

    def diagonal(self) -> Tensor:
        """Marginal variances: those given, exact up to 4096 pixels, else probed (see `diagonal_report`)."""
        if self._given is not None:
            return self._given
        if self.size <= DENSE_LIMIT:
            return self._factorised()[0].reshape(self.image_shape)
        return self._probe().diagonal

    def diagonal_report(self) -> dict[str, object]:
        """How the diagonal was found, for a posterior's diagnostics.

        Returns:
            `kind` ("given", "exact", "probing" or "draws") and, where it is estimated, the `products` with Σ it took,
            the relative `standard_error` (root mean square over pixels) and the count of pixels `clipped` to the floor.
        """
        if self._given is not None:
            return {"kind": "given"}
        if self.size <= DENSE_LIMIT:
            return {"kind": "exact", "standard_error": 0.0}
        found = self._probe()
        relative = float((found.standard_error / found.diagonal).square().mean().sqrt())
        return {"kind": found.kind, "products": found.products, "standard_error": relative, "clipped": found.clipped}

    def standard_error(self) -> Tensor:
        """Standard error of each entry of `diagonal()`; zero where it is exact."""
        if self._given is not None or self.size <= DENSE_LIMIT:
            return torch.zeros(self.image_shape, dtype=self.dtype, device=self.device)
        return self._probe().standard_error

    def logdet(self) -> float:
        return self._factorised()[1]

    def dense(self) -> Tensor:
        return torch.cholesky_inverse(self._cholesky())

    def sample(self, n: int, generator: torch.Generator) -> Tensor | None:
        if self.perturbation is None:
            return None
        noise = torch.stack([self.perturbation(own) for own in streams(n, generator)])
        if tuple(noise.shape[1:]) != self.image_shape:
            raise InputError(f"perturbation expects to draw {self.image_shape}, got {tuple(noise.shape[1:])}")
        return self._matvec(noise.to(dtype=self.dtype, device=self.device))

    def _cholesky(self) -> Tensor:
        factor, information = torch.linalg.cholesky_ex(self._dense(self.precision, "a dense precision"))
        if int(information) != 0:
            raise NumericsError(
                f"a precision is expected to be positive definite, got one whose minor {int(information)} is not; "
                "check the weights and the prior, or damp it"
            )
        return factor

    def _factorised(self) -> tuple[Tensor, float]:
        """Diagonal of Σ and log det Σ, kept; the factor itself is not."""
        if self._inverse is None:
            factor = self._cholesky()
            logdet = -2 * float(factor.diagonal().log().sum())
            self._inverse = (torch.cholesky_inverse(factor).diagonal().to(self.dtype).clone(), logdet)
        return self._inverse

    def _probe(self) -> Probed:
        if self._probed is None:
            generator = torch.Generator().manual_seed(self.seed)
            found = probe_diagonal(self._matvec, self, self.probes, generator, self._control)
            relative = (found.standard_error / found.diagonal).square().mean().sqrt()
            # Draws know every variance to the same relative error, whatever the correlations that disturb probes.
            if self.perturbation is not None and float(relative) > math.sqrt(2 / self.probes):
                found = drawn_diagonal(self.sample, self.probes, generator, found.products)
            self._probed = found
        return self._probed
