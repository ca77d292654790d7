"""Where a component lies, and what it looks like there, in words that a test on its numbers supports.

The window of a component u is the smallest square of shown pixels, on its strongest plane, that holds 60 % of the
plane's u². In it u is compared with what an uncertain picture does most often, each explaining a share R² of u²:

    brightness    u of one sign:                     |Σu| / Σ|u|
    shift         u = a ∂m/∂x + b ∂m/∂y              the structures of the mean m move
    contrast      u = a (m − smooth m)               they get stronger and weaker
    ripple        u ≈ one spatial frequency          share of its power within a ring sector about the largest

The best of them is named with its share if it explains half or more; else fine grain is, where the mean frequency of u
is above 0.2 cycles a pixel; else the component is said to have no such name.
"""

__all__ = ["FILMED", "Window", "find_window", "looks"]

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy import ndimage

FILMED = 4  # components whose path is shown as a strip of pictures
_HELD, _LEAST = 0.6, 24  # share of u² in a window; its smallest side, in shown pixels
_NAMED = 0.5  # share of a component that a name must explain
_ONE_SIGN = 0.8
_FINE = 0.2  # cycles a pixel
_SMOOTH = 2.0  # pixels over which the mean is smoothed to tell structures from their ground


@dataclass(frozen=True)
class Window:
    """A square of shown pixels in one plane of one channel."""

    c: int
    z: int
    x: int
    y: int
    width: int
    height: int

    def cut(self, array: np.ndarray) -> np.ndarray:
        """The window of an array (C, D, H, W)."""
        return array[self.c, self.z, self.y : self.y + self.height, self.x : self.x + self.width]

    def facts(self) -> dict[str, int]:
        return asdict(self)


def find_window(direction: np.ndarray) -> Window:
    """The smallest square that holds most of a component (C, D, H, W).

    Example:
        >>> u = np.zeros((1, 2, 64, 80))
        >>> u[0, 1, 30:40, 50:60] = 1
        >>> find_window(u).z, find_window(u).width, 26 <= find_window(u).x <= 50
        (1, 24, True)
    """
    power = np.square(direction, dtype=np.float64)
    c, z = (int(at) for at in np.unravel_index(int(power.sum((2, 3)).argmax()), power.shape[:2]))
    plane = power[c, z]
    height, width = plane.shape
    total = np.pad(plane.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    side = _LEAST
    while side < 0.75 * max(height, width):
        h, w = min(side, height), min(side, width)
        held = total[h:, w:] - total[:-h, w:] - total[h:, :-w] + total[:-h, :-w]
        if held.max() >= _HELD * total[-1, -1]:
            # Of the squares that hold nearly as much, the middle one, so that the component does not touch its edge.
            good = np.argwhere(held >= 0.98 * held.max())
            y, x = good[np.abs(good - good.mean(0)).sum(1).argmin()]
            return Window(c, z, int(x), int(y), w, h)
        side = round(1.25 * side)
    return Window(c, z, 0, 0, width, height)


def looks(direction: np.ndarray, mean: np.ndarray) -> str:
    """What a component does in its window, in a sentence.

    Args:
        direction: u in the window, (h, w).
        mean: the reconstruction there.

    Example:
        >>> looks(np.ones((24, 24)), np.zeros((24, 24)))
        'The brightness of this place as a whole: 100 % of the change has one sign.'
    """
    u = np.asarray(direction, np.float64)
    m = np.where(np.isfinite(mean), mean, 0.0).astype(np.float64)
    power = float((u**2).sum())
    if power == 0:
        return "It does nothing here."
    one_sign = abs(float(u.sum())) / float(np.abs(u).sum())
    dy, dx = (np.asarray(np.gradient(m, axis=axis)) for axis in (0, 1))
    moved, (along_x, along_y) = _explained(u, [dx, dy])
    structure = m - ndimage.gaussian_filter(m, _SMOOTH)
    stronger, _ = _explained(u, [structure])
    period, angle, rippled, fine = _ripple(u)
    if one_sign >= _ONE_SIGN:
        return f"The brightness of this place as a whole: {100 * (1 + one_sign) / 2:.0f} % of the change has one sign."
    best = max(moved, stronger, rippled)
    if best < _NAMED and fine > _FINE:
        return (
            f"Fine grain: light and dark alternate every few pixels (typical period {1 / fine:.1f} pixels), and the "
            "data do not say which is which."
        )
    if best < _NAMED:
        shares = f"shift {100 * moved:.0f} %, contrast {100 * stronger:.0f} %, one ripple {100 * rippled:.0f} %"
        return (
            f"No simple name: neither a shift nor a change of contrast nor one ripple explains half of it ({shares})."
        )
    if best == moved:
        way = "left and right" if abs(along_x) > 2 * abs(along_y) else "up and down"
        way = "along a diagonal" if 0.5 <= abs(along_x) / max(abs(along_y), 1e-30) <= 2 else way
        return f"A shift: what is seen here moves {way}, which explains {100 * moved:.0f} % of the change."
    if best == stronger:
        share = f"{100 * stronger:.0f} % of the change"
        return f"Contrast: what is seen here gets stronger and weaker, which explains {share}."
    turn = round(angle / 45) % 4
    if period > 0.7 * min(u.shape):
        sides = ("left and right", "opposite corners", "top and bottom", "opposite corners")[turn]
        share = f"{100 * rippled:.0f} % of the change"
        return f"A slope: {sides} of this place get one brighter when the other gets darker, which is {share}."
    across = ("upright", "leaning", "level", "leaning")[turn]
    return (
        f"A ripple with a period of {period:.1f} pixels and {across} crests: {100 * rippled:.0f} % of the change; such "
        "stripes could be there or not."
    )


def _explained(u: np.ndarray, features: Sequence[np.ndarray]) -> tuple[float, list[float]]:
    """Share of u² that the best combination of features explains, and its coefficients."""
    matrix = np.stack([f.ravel() for f in features], 1)
    coefficients = np.linalg.lstsq(matrix, u.ravel(), rcond=None)[0]
    return float(1 - ((u.ravel() - matrix @ coefficients) ** 2).sum() / (u**2).sum()), [float(a) for a in coefficients]


def _ripple(u: np.ndarray) -> tuple[float, float, float, float]:
    """Period in pixels and direction in degrees of the strongest wave, the share of power within 1.5 bins of it, and
    the mean frequency of all power in cycles a pixel."""
    power = np.abs(np.fft.fft2(u)) ** 2
    fy, fx = np.meshgrid(*[np.fft.fftfreq(n) * n for n in u.shape], indexing="ij")
    power[0, 0] = 0
    at = np.unravel_index(int(power.argmax()), power.shape)
    near = [(fy - s * fy[at]) ** 2 + (fx - s * fx[at]) ** 2 <= 1.5**2 for s in (1, -1)]
    share = float(power[near[0] | near[1]].sum() / (u.size * (u**2).sum()))
    frequency = np.hypot(fy[at] / u.shape[0], fx[at] / u.shape[1])
    angle = float(np.degrees(np.arctan2(fy[at] / u.shape[0], fx[at] / u.shape[1]))) % 180
    mean = float((power * np.hypot(fy / u.shape[0], fx / u.shape[1])).sum() / max(float(power.sum()), 1e-300))
    return 1 / max(float(frequency), 1e-9), angle, share, mean
