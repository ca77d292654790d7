"""An image whose uncertainty could not be computed: the error tells why, and keeps the image."""

__all__ = ["CovarianceError"]

from ..errors import NumericsError
from ..posterior.estimate import Estimate
from ..solvers.result import Status


class CovarianceError(NumericsError):
    """The most probable image was computed, its covariance was not.

    Args:
        cause: what failed.
        found: the image, how it was reached, and what is known of it.

    Attributes:
        estimate: the image as an `Estimate`; its status is not converged, for "no-covariance".

    Example:
        >>> import torch
        >>> found = Estimate(torch.zeros(1, 2, 2), Status(True, "converged", "done"))
        >>> error = CovarianceError(NumericsError("a solve did not converge; damp it"), found)
        >>> str(error), error.estimate.status.converged
        ('the image is there, its uncertainty could not be computed (a solve did not converge); damp it', False)
    """

    def __init__(self, cause: NumericsError, found: Estimate):
        why, _, advice = str(cause).rpartition("; ")
        image = "is there" if found.status.converged else f"did not converge ({found.status.message})"
        advised = advice if why else "strengthen the prior"
        message = f"the image {image}, its uncertainty could not be computed ({why or advice}); {advised}"
        super().__init__(message)
        self.estimate = Estimate(found.image, Status(False, "no-covariance", message), found.history, found.diagnostics)
