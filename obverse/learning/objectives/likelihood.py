"""A low-rank-plus-diagonal covariance by its likelihood.

    Σ = F Fᵀ + diag v,      e = x − m(y)
    L = ‖e‖²/(n c²) + ½ [eᵀ Σ⁻¹ e + log det Σ]/n        with e held constant in the second term

    Σ⁻¹ = D⁻¹ − D⁻¹F C⁻¹ FᵀD⁻¹,    log det Σ = log det C + Σ log v_i,    C = I + FᵀD⁻¹F        (O(n K²))

Its optimum is the Σ of this form nearest to the posterior in Kullback–Leibler divergence: a factor analysis of it,
whose factors are what pixels share rather than where most variance lies. The mean is learnt by least squares alone: in
a joint likelihood it would learn least where the network is least sure, and a large v would excuse it. The second term
counts more and more while the first items pass, since the early mean's errors are no uncertainty.

References: Dorta, Vicente, Agapito, Campbell, Simpson, "Structured uncertainty prediction networks", CVPR 2018.
Stirn et al., "Faithful heteroscedastic regression with neural networks", AISTATS 2023.
"""

from torch import Tensor

from ...networks.components import Prediction
from .components import Amortised, log_score

__all__ = ["LowRankLikelihood"]


class LowRankLikelihood(Amortised):
    """Train `networks.ComponentPredictor` of form "likelihood"; arguments as for `Amortised`."""

    form = "likelihood"

    def terms(self, found: Prediction, x: Tensor, scale: float, share: Tensor) -> Tensor:
        return -share * log_score(found.mean.detach(), found.factors, found.remainder, x)
