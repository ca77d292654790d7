"""A mixture of Gaussians over small images: a prior with several modes whose every posterior is known exactly.

    p(x) = Σ_k w_k N(x; m_k, C_k)
    p_σ(x) = Σ_k w_k N(x; m_k, C_k + σ²)                                (the law of x + σε)
    denoise:  E[x | x + σε] = x + σ² ∇ log p_σ(x) = Σ_k r_k (m_k + C_k (C_k + σ²)⁻¹ (x − m_k))
    posterior of y = A x + n, n ~ N(0, R):  a mixture again,
        C_k' = C_k − G_k A C_k,   m_k' = m_k + G_k (y − A m_k),   G_k = C_k Aᵀ S_k⁻¹,   S_k = A C_k Aᵀ + R
        w_k' ∝ w_k N(y; A m_k, S_k)

r_k(x) ∝ w_k N(x; m_k, C_k + σ²) are the components' probabilities given x. Samplers and covariances are measured
against it. Covariances are dense, so images have some thousand pixels at most; they may be singular (points, planes).

References: Bishop, "Pattern recognition and machine learning", 2006, §2.3. Zoran, Weiss, "From learning models of
natural image patches to whole image restoration", ICCV 2011.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import InputError
from ..noise.base import stream
from ..operators.base import LinearOperator
from ..problem import Problem
from .base import Hessian, Prior

__all__ = ["GaussianMixture"]

_LARGEST = 8192  # pixels: one dense float64 covariance of 512 MiB


@dataclass(frozen=True, eq=False)
class GaussianMixture(Prior):
    """Σ_k w_k N(m_k, C_k) on images.

    Args:
        weights: w_k, `(K,)`, positive; rescaled to sum to one.
        means: m_k, `(K, C, H, W)` or `(K, C, D, H, W)`, in units of the image.
        covariances: C_k, `(K, n, n)` with n pixels over all channels, symmetric, without negative eigenvalues.

    Raises:
        InputError: shapes or values do not fit.

    Example:
        >>> two = torch.tensor([-1.0, 1.0], dtype=torch.float64).reshape(2, 1, 1, 1)
        >>> points = GaussianMixture(torch.ones(2), two, torch.zeros(2, 1, 1))
        >>> round(float(points.denoise(torch.full((1, 1, 1), 0.5, dtype=torch.float64), sigma=1.0)), 4)  # tanh(0.5)
        0.4621
    """

    weights: Tensor
    means: Tensor
    covariances: Tensor
    _variances: Tensor = field(init=False, repr=False)
    _axes: Tensor = field(init=False, repr=False)

    def __post_init__(self):
        shape, count = tuple(self.means.shape[1:]), len(self.means) if self.means.ndim else 0
        n = math.prod(shape)
        if self.means.ndim < 4 or not 0 < n <= _LARGEST or tuple(self.weights.shape) != (count,):
            raise InputError(
                f"GaussianMixture expects weights (K,) and means (K, C, H, W) of at most {_LARGEST} pixels, got "
                f"{tuple(self.weights.shape)} and {tuple(self.means.shape)}; give one mean per weight"
            )
        if tuple(self.covariances.shape) != (count, n, n):
            raise InputError(
                f"GaussianMixture expects covariances {(count, n, n)}, got {tuple(self.covariances.shape)}; "
                "flatten each image, channels first"
            )
        weights, means, covariances = (
            t.detach().to(dtype=torch.float64, device=self.means.device)
            for t in (self.weights, self.means, self.covariances)
        )
        if not all(bool(t.isfinite().all()) for t in (weights, means, covariances)) or not bool((weights > 0).all()):
            raise InputError("GaussianMixture expects finite numbers and positive weights; leave out empty components")
        scale = covariances.abs().amax().clamp_min(1e-300)
        if bool(((covariances - covariances.mT).abs() > 1e-6 * scale).any()):
            raise InputError("GaussianMixture expects symmetric covariances; take the mean with the transpose")
        covariances = 0.5 * (covariances + covariances.mT)
        variances, axes = torch.linalg.eigh(covariances)
        if bool((variances < -1e-6 * scale).any()):
            raise InputError(
                f"GaussianMixture expects covariances without negative eigenvalues, got {float(variances.min()):g}; "
                "add to their diagonals"
            )
        object.__setattr__(self, "weights", weights / weights.sum())
        object.__setattr__(self, "means", means)
        object.__setattr__(self, "covariances", covariances)
        object.__setattr__(self, "_variances", variances.clamp_min(0.0))
        object.__setattr__(self, "_axes", axes)
        object.__setattr__(self, "image_shape", shape)
        object.__setattr__(self, "dimensions", len(shape) - 1)

    @property
    def smooth(self) -> bool:
        """Whether there is a density: no covariance is singular."""
        return bool((self._variances > 0).all())

    @property
    def proximable(self) -> bool:
        return False

    @property
    def mean(self) -> Tensor:
        """E x, of the image's shape."""
        return torch.tensordot(self.weights, self.means, 1)

    @property
    def covariance(self) -> Tensor:
        """Cov x, `(n, n)`: Σ_k w_k (C_k + (m_k − mean)(m_k − mean)ᵀ)."""
        offsets = (self.means - self.mean).flatten(1)
        return torch.tensordot(self.weights, self.covariances, 1) + (offsets.mT * self.weights) @ offsets

    def log_prob(self, x: Tensor, sigma: float | Tensor = 0.0) -> Tensor:
        """log p_σ(x) of images `(*batch, *image_shape)`: batch shape; σ a number, or one per image."""
        return self._parts(x, sigma)[0].logsumexp(-1).to(x.dtype)

    def value(self, x: Tensor) -> Tensor:
        return -self.log_prob(x)

    def score(self, x: Tensor, sigma: float | Tensor = 0.0) -> Tensor:
        """∇ log p_σ(x), in units of 1/image."""
        joint, pulls, _ = self._parts(x, sigma)
        return -self._averaged(joint.softmax(-1), pulls, x)

    def gradient(self, x: Tensor) -> Tensor:
        return -self.score(x)

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """E[image | image + σε = x], exactly.

        Args:
            x: noisy images `(*batch, *image_shape)`.
            sigma: standard deviation of the noise, positive: a number, or one per image in the batch's shape.
        """
        level = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
        if not bool((level > 0).all()):
            raise InputError(f"denoise expects a positive sigma, got {sigma}; pass the noise's standard deviation")
        variance = level.reshape(*level.shape, *(1,) * len(self.image_shape or ())).square()
        return x + variance * self.score(x, sigma)

    def hessian(self, x: Tensor) -> Hessian:
        """∇²(−log p) = Σ_k r_k (P_k − q_k q_kᵀ) + q qᵀ,  q_k = P_k (x − m_k),  q = Σ_k r_k q_k; not always ≥ 0."""
        joint, pulls, precisions = self._parts(x, 0.0)
        shares, axes = joint.softmax(-1), self._axes.to(x.device)
        mean = (shares[:, None] * pulls).sum(0)

        def matvec(v: Tensor) -> Tensor:
            flat = v.reshape(-1, 1, len(mean)).double()
            own = torch.einsum("kij,bkj->bki", axes, torch.einsum("kji,blj->bki", axes, flat) * precisions)
            own = own - pulls * (flat * pulls).sum(-1, keepdim=True)
            return ((shares[:, None] * own).sum(1) + mean * (flat[:, 0] @ mean)[:, None]).reshape(v.shape).to(v.dtype)

        def perturbation(generator: torch.Generator) -> Tensor:
            raise InputError("the energy of a mixture is not convex, so its Hessian is no covariance; use posterior")

        return Hessian(matvec, perturbation)

    def sample(self, n: int, seed: int = 0) -> Tensor:
        """`n` images, `(n, *image_shape)`, float64; image i has its own random stream."""
        draws = []
        for i in range(n):
            generator = stream(seed, i)
            k = int(torch.multinomial(self.weights.cpu(), 1, generator=generator))
            white = torch.randn(len(self._variances[k]), generator=generator, dtype=torch.float64)
            spread = self._axes[k] @ (self._variances[k].sqrt() * white.to(self.means.device))
            draws.append(self.means[k] + spread.reshape(self.means[k].shape))
        return torch.stack(draws) if draws else self.means[:0]

    def posterior(self, y: Tensor, problem: Problem) -> "GaussianMixture":
        """The law of the image given data of a linear operator under Gaussian noise, exactly.

        Args:
            y: one measurement, of the operator's `data_shape`, real or complex.
            problem: the operator, linear, and Gaussian noise of known, independent variance.

        Raises:
            InputError: the operator is not linear, the noise not Gaussian, or shapes do not fit.
        """
        operator = problem.operator
        if not isinstance(operator, LinearOperator) or not problem.noise.gaussian:
            raise InputError(
                f"posterior expects a linear operator and Gaussian noise, got {type(operator).__name__} and "
                f"{type(problem.noise).__name__}; sample other posteriors"
            )
        self.bind(operator.image_shape)
        if tuple(y.shape) != tuple(operator.data_shape):
            raise InputError(f"posterior expects one measurement {operator.data_shape}, got {tuple(y.shape)}")
        n, double = self.means[0].numel(), operator.to(dtype=torch.float64)
        basis = torch.eye(n, dtype=double.dtype, device=self.means.device).reshape(n, *self.means.shape[1:])
        matrix, data = _real(double(basis), 1).mT, _real(y, 0).double()
        information = problem.fisher_weight().double().broadcast_to(y.shape)
        noise = _real(torch.complex(information, information) if y.is_complex() else information, 0).reciprocal()
        crossed = self.covariances @ matrix.mT
        evidence = torch.linalg.cholesky(matrix @ crossed + noise.diag())
        gain = torch.cholesky_solve(crossed.mT, evidence).mT
        missing = data - self.means.flatten(1) @ matrix.mT
        white = torch.linalg.solve_triangular(evidence, missing[..., None], upper=False)[..., 0]
        log = self.weights.log() - 0.5 * white.square().sum(-1) - evidence.diagonal(dim1=1, dim2=2).log().sum(-1)
        means = self.means + (gain @ missing[..., None]).reshape(self.means.shape)
        kept = log.softmax(0) > 0.0  # a component may be so unlikely that its weight underflows
        covariances = self.covariances - gain @ crossed.mT
        covariances = 0.5 * (covariances + covariances.mT)
        return GaussianMixture(log.softmax(0)[kept], means[kept], covariances[kept])

    def _parts(self, x: Tensor, sigma: float | Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log w_k N(x; …) `(*batch, K)`, (C_k + σ²)⁻¹ (x − m_k) `(*batch, K, n)` and eigenvalues of the inverse."""
        shape = self.means.shape[1:]
        if tuple(x.shape[x.ndim - len(shape) :]) != tuple(shape) or not x.is_floating_point():
            raise InputError(
                f"GaussianMixture expects real images (*batch, {', '.join(map(str, shape))}), got "
                f"{tuple(x.shape)} {x.dtype}; crop or pad them"
            )
        level = torch.as_tensor(sigma, dtype=torch.float64, device=x.device)
        variances = self._variances.to(x.device) + level.reshape(*level.shape, 1, 1).square()
        if not bool((variances > 0).all()):
            raise InputError("a mixture with singular covariances has no density; ask at a noise level sigma > 0")
        precisions, axes = variances.reciprocal(), self._axes.to(x.device)
        difference = (x.double().unsqueeze(-len(shape) - 1) - self.means.to(x.device)).flatten(-len(shape))
        pulls = torch.einsum("kji,...kj->...ki", axes, difference) * precisions
        pulls = torch.einsum("kij,...kj->...ki", axes, pulls)
        n = difference.shape[-1]
        log = self.weights.to(x.device).log() - 0.5 * (difference * pulls).sum(-1)
        return log - 0.5 * variances.log().sum(-1) - 0.5 * n * math.log(2 * math.pi), pulls, precisions

    @staticmethod
    def _averaged(shares: Tensor, pulls: Tensor, x: Tensor) -> Tensor:
        return (shares[..., None] * pulls).sum(-2).reshape(x.shape).to(x.dtype)


def _real(values: Tensor, batch: int) -> Tensor:
    """Values as real vectors, complex ones as pairs, after `batch` axes."""
    return (torch.view_as_real(values) if values.is_complex() else values).flatten(batch)
