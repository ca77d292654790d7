"""Forward-modelled matched filter: principal components off, and a template that knows what they take of a source.

With the T frames of a ring about the star in the rows of M, their mean off, and M Mᵀ = V Λ Vᵀ, the residual is

    R = (1 − Π) M,    Π = V_k V_kᵀ, the projector on the k leading components

A source of flux f adds f P to M, P its frames with unit flux, and turns the components, so that R changes by f δR with

    δR = (1 − Π) P − δΠ M,    δΠ = V_⊥ X V_kᵀ + V_k Xᵀ V_⊥ᵀ,    X_ji = v_jᵀ (M Pᵀ + P Mᵀ) v_i / (λ_i − λ_j)

to first order in f: the source less its projection (over-subtraction), and less what its own trace in the components
takes (self-subtraction). Matched with this template,

    b = ⟨δR, R⟩,    a = ‖δR‖²,    flux b/a,    and b/√a over its spread in a ring is the S/N

All of it follows from the T × T numbers ⟨z_j, p_t⟩, the component images z_j = (Vᵀ M)_j matched with the PSF where the
source is in frame t, and from the overlaps ⟨p_s, p_t⟩:

    E_ji = Σ_t ⟨z_j, p_t⟩ V_ti,    X_ji = (E_ji + E_ij)/(λ_i − λ_j),    b = Σ_{j>k} E_jj
    a = Σ_{j>k} v_jᵀ P Pᵀ v_j − 2 Σ X_ji E_ij + Σ X_ji² (λ_i + λ_j)          (i ≤ k < j)

⟨(1 − Π) P, R⟩ is all of b, since R has no part along V_k and its rows along V_⊥ are orthogonal to the leading ones. The
ring of a source is centred on its own distance, so that no source lies across the border of two.

References: Pueyo, "Detection and characterization of exoplanets using projections on Karhunen–Loève eigenimages:
forward modeling", ApJ 2016. Ruffio et al., "Improving and assessing planet sensitivity of the GPI Exoplanet Survey with
a forward model matched filter", ApJ 2017.
"""

__all__ = ["ForwardModelledFilter"]

import math
import time
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from ..errors import InputError
from ..operators.arguments import require_whole
from ..operators.field_rotation import FieldRotation
from ..operators.motion import pixel_grid
from ..problem import Problem
from ..solvers.result import Status
from .base import Callback, silent
from .detection import Candidate, Detection, candidates_of
from .differential_imaging import field_rotation_of
from .paco_detection import robust_deviation

_WIDTH = 3.0  # widths of the PSF: of a ring, by default
_SPREAD = 2.0  # widths of the PSF: of the rings in which the spread is measured
_AT_ONCE = 2**22  # numbers that are looked up together
_GAP = 1e-12  # of the largest eigenvalue: a smaller difference of two is rounding


@dataclass(frozen=True)
class ForwardModelledFilter:
    """Search for point sources in the residual of principal components, with the template that they leave.

    The problem's operator is a `FieldRotation` of one wavelength; its noise law is not used.

    Args:
        components: number of principal components, at least 1 and at most two fewer than frames.
        width: of the rings, in pixels; three widths of the PSF by default.
        threshold: S/N from which a peak is a candidate.
        inner_radius: pixels about the star that are not searched; half a ring by default.

    Raises:
        InputError: an argument is out of range.

    Example:
        >>> import obverse as ob
        >>> y, x = torch.meshgrid(torch.arange(-5.0, 6.0), torch.arange(-5.0, 6.0), indexing="ij")
        >>> A = ob.operators.FieldRotation((1, 33, 33), torch.linspace(0, 90, 20), torch.exp(-(x**2 + y**2) / 2))
        >>> noise = torch.randn(20, 33, 33, generator=torch.Generator().manual_seed(0))
        >>> found = ForwardModelledFilter(2)(noise + A.source((16.0, 25.0), 3.0), ob.Problem(A, ob.noise.Gaussian(1.0)))
        >>> [(round(c.x), round(c.y)) for c in found.candidates]
        [(25, 16)]
    """

    components: int
    _: KW_ONLY
    width: float | None = None
    threshold: float = 5.0
    inner_radius: float | None = None

    def __post_init__(self):
        if require_whole(self.components, "ForwardModelledFilter expects a number of components") < 1:
            raise InputError(f"ForwardModelledFilter expects at least one component, got {self.components}; 8 is usual")
        if self.width is not None and not (math.isfinite(self.width) and self.width >= 5):
            raise InputError(
                f"ForwardModelledFilter expects rings of at least 5 pixels, got {self.width}; 3 FWHM is usual"
            )
        if not math.isfinite(self.threshold):
            raise InputError(f"ForwardModelledFilter expects a finite threshold, got {self.threshold}; 5 is usual")
        if self.inner_radius is not None and not (math.isfinite(self.inner_radius) and self.inner_radius >= 0):
            raise InputError(
                f"ForwardModelledFilter expects an inner_radius of at least zero, got {self.inner_radius}; give pixels"
            )

    @torch.no_grad()
    def __call__(self, y: Tensor, problem: Problem, *, callback: Callback = silent) -> Detection:
        """Maps of flux, its deviation and S/N, and the candidates.

        Args:
            y: cube `(T, H, W)`, finite.
            problem: its operator is a FieldRotation.
            callback: told once, at the end, of (1, 1, 0.0).

        Raises:
            InputError: the cube does not fit, has several wavelengths or too few frames for the components, or no ring
                has room.
        """
        began = time.perf_counter()
        operator = field_rotation_of(y, problem, "ForwardModelledFilter").to(torch.float64)
        if y.ndim == 4:
            raise InputError(
                f"ForwardModelledFilter expects a cube (T, H, W) of one wavelength, got {tuple(y.shape)}; use PACO"
            )
        if len(y) < self.components + 2:
            raise InputError(
                f"ForwardModelledFilter expects {self.components + 2} frames or more for {self.components} components, "
                f"got {len(y)}; take fewer"
            )
        distance = _distance(operator)
        score, precision = self.tests(y.double(), operator, operator.psf, distance)
        known = precision > 0
        root = torch.where(known, precision, 1.0).sqrt()
        z = torch.where(known, score / root, torch.nan)
        spread = robust_deviation(z, distance, _SPREAD * operator.fwhm)
        snr, sigma = z / spread, torch.where(known, spread / root, torch.nan)
        if operator._throughput is not None:
            sigma = sigma / operator._throughput.to(sigma)
            known = sigma.isfinite() & snr.isfinite()
            snr, sigma = torch.where(known, snr, torch.nan), torch.where(known, sigma, torch.nan)
        flux = snr * sigma
        found = []
        for peak in candidates_of(snr, self.threshold, operator.fwhm):
            row, column = round(peak.y), round(peak.x)
            place = (operator.fwhm / 2.355 / peak.snr) ** 2  # of a peak as wide as a Gaussian PSF, in white noise
            covariance = ((float(sigma[row, column]) ** 2, 0.0, 0.0), (0.0, place, 0.0), (0.0, 0.0, place))
            found.append(Candidate(peak.x, peak.y, peak.snr, float(flux[row, column]), covariance))
        image, error, ratio = (v.to(y.dtype)[None] for v in (flux, sigma, snr))
        diagnostics = {
            "seconds": time.perf_counter() - began,
            "covered": float(snr.isfinite().double().mean()),
            "throughput": "corrected to first order",
        }
        callback(1, 1, 0.0)
        return Detection(image, _STATUS, (), diagnostics, snr=ratio, sigma=error, candidates=tuple(found))

    def tests(self, cube: Tensor, operator: FieldRotation, psf: Tensor, distance: Tensor) -> tuple[Tensor, Tensor]:
        """b and a of a source at each pixel, zero where none is searched for: two of `(H, W)`.

        Args:
            cube: `(T, H, W)` in float64.
            operator: for its angles and centre.
            psf: `(h, w)`.
            distance: from the star, `(H, W)`.
        """
        half = (_WIDTH * operator.fwhm if self.width is None else self.width) / 2
        reach = math.floor(half - 0.5)
        template = _disc_of(psf, reach)
        inner = half if self.inner_radius is None else self.inner_radius
        outer = min(min(c, n - 1 - c) for c, n in zip(operator.centre, cube.shape[1:])) - reach
        overlap = torch.nn.functional.conv2d(template[None, None], template[None, None], padding=2 * reach)[0, 0]
        ring = distance.round()
        radii = [float(r) for r in ring.unique() if inner <= r <= outer]
        if not radii:
            raise InputError(
                f"ForwardModelledFilter expects a ring between {inner:.3g} and {outer:.3g} pixels from the star, got "
                "none; give larger frames, or a smaller width"
            )
        b, a = torch.zeros_like(distance), torch.zeros_like(distance)
        for radius in radii:
            pixels = torch.nonzero(ring == radius)
            zone = (distance - radius).abs() <= half
            each = max(1, _AT_ONCE // len(cube) ** 2)
            found = [self._ring(cube, zone, template, overlap, operator, part) for part in pixels.split(each)]
            b[ring == radius], a[ring == radius] = (torch.cat(parts) for parts in zip(*found))
        return b, a

    def _ring(
        self, cube: Tensor, zone: Tensor, template: Tensor, overlap: Tensor, operator: FieldRotation, pixels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """b and a at N pixels, `(N,)` both."""
        count, k = len(cube), self.components
        frames = (cube - cube.mean(0)) * zone
        flat = frames.flatten(1)
        values, vectors = torch.linalg.eigh(flat @ flat.mT)
        # the last one is the mean, which is off
        values, vectors = values.flip(0)[: count - 1].clamp(min=0), vectors.flip(1)[:, : count - 1]
        images = (vectors.mT @ flat).reshape(-1, *cube.shape[1:])
        matched = torch.nn.functional.conv2d(images[:, None], template[None, None], padding=len(template) // 2)[:, 0]
        places = _places(pixels.to(cube), operator)  # (N, T, 2)
        seen = _between(matched, places).transpose(0, 1)  # (N, j, T)
        own = (seen @ vectors).diagonal(dim1=1, dim2=2)
        leading, others = vectors[:, :k], vectors[:, k:]
        upper = seen[:, k:] @ leading  # E_ji, (N, j, i)
        lower = (seen[:, :k] @ others).mT  # E_ij, laid out alike
        gap = (values[:k] - values[k:, None]).clamp(min=_GAP * float(values[0]) + torch.finfo(values.dtype).tiny)
        turn = (upper + lower) / gap
        middle = (len(overlap) - 1) / 2
        apart = places[:, :, None] - places[:, None] + middle
        pairs = _between(overlap[None], apart.flatten(1, 2))[0].unflatten(1, (count, count))
        power = torch.einsum("tj,nts,sj->n", others, pairs, others)
        a = power - 2 * (turn * lower).sum((1, 2)) + (turn.square() * (values[:k] + values[k:, None])).sum((1, 2))
        return own[:, k:].sum(1), a.clamp(min=0)


_STATUS = Status(True, "closed-form", "components subtracted, and matched with what they leave of a source")


def _distance(operator: FieldRotation) -> Tensor:
    rows, columns = pixel_grid(operator.image_shape[1:], operator.psf)
    return (rows - operator.centre[0]).hypot(columns - operator.centre[1])


def _disc_of(psf: Tensor, reach: int) -> Tensor:
    """The PSF within `reach` pixels of its middle one, zero beyond: odd sides."""
    padded = torch.nn.functional.pad(psf, (reach,) * 4)
    top, left = (n // 2 for n in psf.shape)
    cut = padded[top : top + 2 * reach + 1, left : left + 2 * reach + 1]
    side = torch.arange(-reach, reach + 1)
    return torch.where(side[:, None].square() + side.square() <= reach**2, cut, 0.0)


def _places(pixels: Tensor, operator: FieldRotation) -> Tensor:
    """Where sources at `pixels` `(N, 2)` are in each frame: `(N, T, 2)`."""
    centre = pixels.new_tensor(operator.centre)
    turn = torch.deg2rad(pixels.new_tensor(operator.degrees))
    up, right = (pixels - centre).unbind(1)
    rows = up[:, None] * turn.cos() - right[:, None] * turn.sin()
    columns = right[:, None] * turn.cos() + up[:, None] * turn.sin()
    return centre + torch.stack([rows, columns], -1)


def _between(maps: Tensor, places: Tensor) -> Tensor:
    """Maps `(J, H, W)` at places (row, column) `(N, T, 2)`, bicubic, zero beyond: `(J, N, T)`."""
    size = places.new_tensor(maps.shape[1:])
    grid = (2 * places / (size - 1) - 1).flip(-1)
    return torch.nn.functional.grid_sample(maps[None], grid[None], "bicubic", "zeros", align_corners=True)[0]
