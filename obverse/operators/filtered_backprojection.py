"""Filtered back-projection: the inverse of tomography for many views without noise, in closed form.

    parallel:      x(r) = Σ_θ Δθ (h ∗ y_θ)(r·u_θ)
    flat fan:      x(r) = Σ_β Δβ U⁻² (h ∗ y_β cos γ)(t),      U = 1 + r·d_β/R,  t = r·u_β/U
    arc fan:       x(r) = Σ_β Δβ (R/L)² (h′ ∗ y_β cos γ)(γ)/R,    h′ = (γ/sin γ)² h,  L the distance from the source

u_θ runs along the detector, d_β along the central ray, R is the distance of the source from the centre and γ a ray's
angle from the central one. h is the ramp, sampled in space and not in frequency, so that its mean is right:
h(0) = 1/(4Δ²), h(n) = −1/(π n Δ)² for odd n and 0 for even n; the convolution is linear, on at least twice the length.
A window tempers the ramp's gain at high frequencies: "shepp-logan" sinc(f/2), "cosine" cos(πf/2),
"hann" (1 + cos πf)/2 and "hamming" 0.54 + 0.46 cos πf, with f = 1 at Nyquist's frequency.

Views count by the angle between them and their neighbours, over π for parallel beams and 2π for fans. A missing wedge
is left missing. A fan that turns by less than a full circle sees some rays twice; only the mean is corrected for that.

Reference: Kak, Slaney, "Principles of computerized tomographic imaging", 1988, chapter 3.
"""

import math

import torch
from torch import Tensor

from ..errors import InputError
from .twin import by_kernel

__all__ = ["FILTERS", "filtered", "ramp", "smear", "view_weights"]

FILTERS = ("ram-lak", "shepp-logan", "cosine", "hann", "hamming")


def ramp(detectors: int, spacing: float, filter: str, arc: bool = False) -> Tensor:
    """The filter's transfer function on at least twice the detector's length, in `rfft` layout; float64.

    Args:
        spacing: of the cells; with `arc` their angle in radians.
        filter: one of `FILTERS`.
    """
    if filter not in FILTERS:
        raise InputError(f"filtered_backprojection expects filter {', '.join(map(repr, FILTERS))}, got {filter!r}")
    size = 1 << (2 * detectors - 1).bit_length()
    n = torch.arange(size, dtype=torch.float64)
    n = torch.minimum(n, size - n)
    kernel = torch.where(n % 2 == 1, -1 / (math.pi * n.clamp(min=1) * spacing).square(), 0.0)
    kernel[0] = 1 / (4 * spacing**2)
    if arc:
        angle = n * spacing
        within = (n > 0) & (n < detectors)
        kernel = torch.where(within, kernel * (angle / torch.where(within, angle.sin(), 1.0)).square(), kernel)
    f = torch.linspace(0, 1, size // 2 + 1, dtype=torch.float64)
    window = {
        "ram-lak": torch.ones_like(f),
        "shepp-logan": torch.sinc(f / 2),
        "cosine": torch.cos(math.pi * f / 2),
        "hann": 0.5 + 0.5 * torch.cos(math.pi * f),
        "hamming": 0.54 + 0.46 * torch.cos(math.pi * f),
    }[filter]
    return torch.fft.rfft(kernel).real * spacing * window


def filtered(y: Tensor, transfer: Tensor) -> Tensor:
    """Every view `(*batch, views, detectors)` convolved with the filter."""
    size = 2 * (len(transfer) - 1)
    return torch.fft.irfft(torch.fft.rfft(y, n=size) * transfer.to(y), n=size)[..., : y.shape[-1]]


def view_weights(angles: Tensor, period: float) -> Tensor:
    """Half the angle between each view's two neighbours, on a circle of `period`; a missing wedge is not counted."""
    inside, order = (angles % period).sort()
    gaps = torch.cat((inside.diff(), inside[:1] + period - inside[-1:]))
    if len(gaps) > 2:
        widest, second = gaps.topk(2).values
        # golden-angle views have gaps of up to 2.6 times another; what is wider than three was not measured
        if widest > 3 * second:
            gaps = gaps.clamp(max=float(second))
    weights = torch.empty_like(gaps)
    weights[order] = (gaps + gaps.roll(1)) / 2
    return weights


def smear(
    views: Tensor,
    grid: tuple[int, int],
    pixel: float,
    axes: tuple[Tensor, Tensor],
    *,
    cell: float,
    offset: float,
    radius: float = math.inf,
    arc: bool = False,
    engine: str = "auto",
) -> Tensor:
    """Σ over views of their values at the projection of every pixel, interpolated linearly, zero off the detector.

    Args:
        views: `(*batch, views, detectors)`.
        grid: `(H, W)` of the image.
        pixel: its size.
        axes: the unit vectors along the detector and along the central ray, each `(views, 2)`.
        cell: spacing of the cells, scaled to the centre of rotation; with `arc` in radians.
        offset: of the detector, likewise.
        radius: R, for fans.
        arc: whether cells are equal in angle.
        engine: "auto", "numba" or "torch".
    """
    y, x = ((torch.arange(n, dtype=torch.float64) - (n - 1) / 2) * step for n, step in zip(grid, (-pixel, pixel)))

    def compiled(views: Tensor) -> Tensor:
        from .smear_kernels import smear_lines

        flat = views.reshape(-1, *views.shape[-2:]).numpy()
        geometry = [axis.numpy() for axis in axes], (y.numpy(), x.numpy()), cell, offset, radius, arc
        return torch.from_numpy(smear_lines(flat, *geometry, torch.get_num_threads())).reshape(*views.shape[:-2], *grid)

    def plain(views: Tensor) -> Tensor:
        return _smeared(views, axes, y[:, None].to(views), x.to(views), cell, offset, radius, arc)

    return by_kernel(views, compiled, plain, engine)


def _smeared(
    views: Tensor,
    axes: tuple[Tensor, Tensor],
    y: Tensor,
    x: Tensor,
    cell: float,
    offset: float,
    radius: float,
    arc: bool,
) -> Tensor:
    flat = torch.nn.functional.pad(views.reshape(-1, *views.shape[-2:]), (1, 2))
    detectors = views.shape[-1]
    total = views.new_zeros(len(flat), len(y), len(x))
    for view, (along, ahead) in enumerate(zip(*(axis.tolist() for axis in axes), strict=True)):
        position, gain = along[0] * x + along[1] * y, None
        if math.isfinite(radius):
            depth = 1 + (ahead[0] * x + ahead[1] * y) / radius
            gain = 1 / ((position / radius).square() + depth.square() if arc else depth.square())
            position = torch.atan2(position / radius, depth) if arc else position / depth
        place = ((position - offset) / cell + (detectors + 1) / 2).clamp(0, detectors + 1)
        near = place.long()
        line = flat[:, view]
        value = torch.lerp(line[:, near], line[:, near + 1], place - near)
        total = total + (value if gain is None else gain * value)
    return total.reshape(*views.shape[:-2], len(y), len(x))
